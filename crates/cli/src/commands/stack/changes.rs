//! The server's answer to a plan, a deploy, a rollback or a removal.

use std::{collections::BTreeSet, io::Write};

use serde_json::Value;
use skep_compose::diff::{self, Action, Change, Kind};

/// What happens to one object, with what the server adds.
pub(super) struct Step<'a> {
    pub(super) change: Change,
    /// The name a changed secret or config is stored under, when that is another.
    stored_as: Option<&'a str>,
    placement: &'a Value,
}

/// The changes of an answer. What this program does not know is left out: the server may be newer.
pub(super) fn steps(answer: &Value) -> Vec<Step<'_>> {
    let changes = answer["Changes"].as_array().into_iter().flatten();
    let step = |json| {
        Some(Step {
            change: Change::from_json(json)?,
            stored_as: json["StoredAs"].as_str().filter(|name| !name.is_empty()),
            placement: &json["Placement"],
        })
    };
    changes.filter_map(step).collect()
}

/// Services that are made or become different.
pub(super) fn changed_services(steps: &[Step<'_>]) -> BTreeSet<String> {
    let is_changed = |change: &Change| {
        let is_service = change.kind == Kind::Service;
        is_service && [Action::Create, Action::Update].contains(&change.action)
    };
    let changes = steps.iter().map(|step| &step.change);
    let changed = changes.filter(|change| is_changed(change));
    changed.map(|change| change.name.clone()).collect()
}

/// Says what was done, as the docker command does.
pub(super) fn tell(steps: &[Step<'_>], out: &mut dyn Write) -> std::io::Result<()> {
    for step in steps {
        let verb = match step.change.action {
            Action::Create => "Creating",
            Action::Update => "Updating",
            Action::Remove => "Removing",
            Action::Unchanged => continue,
        };
        let (kind, name) = (step.change.kind.name(), &step.change.name);
        match step.stored_as {
            Some(stored) => writeln!(out, "{verb} {kind} {name} (as {stored})")?,
            None => writeln!(out, "{verb} {kind} {name}")?,
        }
    }
    Ok(())
}

/// Says what would be done, down to each field, and where tasks would run.
pub(super) fn explain(steps: &[Step<'_>], out: &mut dyn Write) -> std::io::Result<()> {
    for step in steps {
        let text = diff::render(std::slice::from_ref(&step.change));
        write!(out, "{text}")?;
        if text.is_empty() {
            continue;
        }
        if let Some(stored) = step.stored_as {
            writeln!(out, "    stored as {stored}")?;
        }
        if !step.placement.is_null() && step.change.action != Action::Remove {
            writeln!(out, "    {}", placement(step.placement))?;
        }
    }
    let count = |action| {
        let all = steps.iter().filter(|step| step.change.action == action);
        all.count()
    };
    writeln!(
        out,
        "{} to create, {} to update, {} to remove, {} unchanged",
        count(Action::Create),
        count(Action::Update),
        count(Action::Remove),
        count(Action::Unchanged)
    )
}

/// Where tasks would run: `runs on node1 (2), node2 (1); 1 waits: no suitable node`.
fn placement(placement: &Value) -> String {
    let nodes = placement["Nodes"].as_array().into_iter().flatten();
    let nodes = nodes.map(|node| {
        let name = node["Name"].as_str().unwrap_or_default();
        format!("{name} ({})", node["Count"])
    });
    let nodes: Vec<String> = nodes.collect();
    let pending = placement["Pending"].as_u64().unwrap_or(0);
    let mut parts = Vec::new();
    if !nodes.is_empty() {
        parts.push(format!("runs on {}", nodes.join(", ")));
    }
    if pending > 0 {
        let reason = placement["Reason"].as_str().unwrap_or_default();
        let verb = if pending == 1 { "waits" } else { "wait" };
        parts.push(match reason {
            "" => format!("{pending} {verb}"),
            reason => format!("{pending} {verb}: {reason}"),
        });
    }
    match parts.is_empty() {
        true => "runs nowhere".to_owned(),
        false => parts.join("; "),
    }
}

/// Prints warnings of an answer to standard error.
pub(super) fn warn(answer: &Value) {
    for warning in answer["Warnings"].as_array().into_iter().flatten() {
        if let Some(text) = warning.as_str() {
            let _ = writeln!(std::io::stderr(), "warning: {text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        json!({"Name": "app", "Revision": 3, "Changes": [
            {"Kind": "config", "Name": "app_conf", "StoredAs": "app_conf-0a1b2c3d", "Action": "update",
             "Fields": [{"Path": "Data", "Old": "3 bytes", "New": "4 bytes"}]},
            {"Kind": "service", "Name": "app_new", "Action": "create", "Fields": [],
             "Placement": {"Nodes": [{"Name": "n1", "Count": 2}, {"Name": "n2", "Count": 1}], "Pending": 0}},
            {"Kind": "service", "Name": "app_old", "Action": "remove", "Fields": []},
            {"Kind": "service", "Name": "app_same", "Action": "unchanged", "Fields": [],
             "Placement": {"Nodes": [{"Name": "n1", "Count": 1}]}},
            {"Kind": "service", "Name": "app_web", "Action": "update",
             "Fields": [{"Path": "TaskTemplate.ContainerSpec.Image", "Old": "a:1", "New": "a:2"}],
             "Placement": {"Nodes": [], "Pending": 2, "Reason": "no suitable node (1 node is down)"}},
            {"Kind": "of the future", "Name": "x", "Action": "create"},
        ]})
    }

    #[test]
    fn plans_show_fields_and_places() {
        let (answer, mut out) = (answer(), Vec::new());
        explain(&steps(&answer), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "~ config app_conf\n    ~ Data: \"3 bytes\" -> \"4 bytes\"\n    stored as app_conf-0a1b2c3d\n\
             + service app_new\n    runs on n1 (2), n2 (1)\n\
             - service app_old\n\
             ~ service app_web\n    ~ TaskTemplate.ContainerSpec.Image: \"a:1\" -> \"a:2\"\n    \
             2 wait: no suitable node (1 node is down)\n\
             1 to create, 2 to update, 1 to remove, 1 unchanged\n"
        );
    }

    #[test]
    fn deploys_say_what_they_did() {
        let (answer, mut out) = (answer(), Vec::new());
        let steps = steps(&answer);
        tell(&steps, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Updating config app_conf (as app_conf-0a1b2c3d)\nCreating service app_new\n\
             Removing service app_old\nUpdating service app_web\n"
        );
        let changed: Vec<String> = changed_services(&steps).into_iter().collect();
        assert_eq!(changed, ["app_new", "app_web"]);
    }
}
