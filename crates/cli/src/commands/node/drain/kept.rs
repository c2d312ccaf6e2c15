//! Which tasks are still on a node that is being drained, and what keeps each. Pure, but for asking.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use skep_docker_api::client::{Client, Error};

use crate::{names::names, url::escape};

/// States in which a task has ended, or never began.
const ENDED: [&str; 6] = [
    "complete", "shutdown", "failed", "rejected", "remove", "orphaned",
];
/// Tasks that are named; with more the first ones tell enough.
const NAMED_MAX: usize = 10;

/// What is known of the tasks on a node.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Those that have not ended.
    tasks: Vec<Value>,
}

/// What is known of the cluster beside them.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    services: BTreeMap<String, String>,
    nodes: BTreeMap<String, String>,
    tasks: Vec<Value>,
}

/// Whether a task has not ended.
fn is_left(task: &Value) -> bool {
    !ENDED.contains(&text(&task["Status"]["State"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

// === impl Kept ===

impl Kept {
    /// Asks for the tasks of a node.
    pub(super) async fn of(client: &Client, node: &str) -> Result<Self, Error> {
        let filters = escape(&json!({ "node": { node: true } }).to_string());
        let tasks = client.get(&format!("/tasks?filters={filters}")).await?;
        let tasks = tasks.as_array().into_iter().flatten();
        Ok(Self {
            tasks: tasks.filter(|task| is_left(task)).cloned().collect(),
        })
    }

    pub(super) fn count(&self) -> usize {
        self.tasks.len()
    }

    /// How many are in which state.
    pub(super) fn states(&self) -> BTreeMap<&str, usize> {
        let mut states = BTreeMap::new();
        for task in &self.tasks {
            *states.entry(text(&task["Status"]["State"])).or_default() += 1;
        }
        states
    }

    /// Each with what keeps it, by name.
    pub(super) fn reasons(&self, around: &Surroundings) -> Vec<String> {
        let mut reasons: Vec<String> = self
            .tasks
            .iter()
            .map(|task| format!("{}: {}", around.name(task), around.reason(task)))
            .collect();
        reasons.sort();
        let left_out = reasons.len().saturating_sub(NAMED_MAX);
        reasons.truncate(NAMED_MAX);
        if left_out > 0 {
            reasons.push(format!("and {left_out} more"));
        }
        reasons
    }
}

// === impl Surroundings ===

impl Surroundings {
    /// Asks for what explains `kept`.
    pub(super) async fn of(client: &Client, kept: &Kept) -> Result<Self, Error> {
        let ids = kept.tasks.iter().map(|task| text(&task["ServiceID"]));
        let ids: BTreeMap<&str, bool> = ids.map(|id| (id, true)).collect();
        let filters = escape(&json!({ "service": ids }).to_string());
        let tasks = client.get(&format!("/tasks?filters={filters}")).await?;
        Ok(Self {
            services: names(&client.get("/services").await?, "/Spec/Name"),
            nodes: names(&client.get("/nodes").await?, "/Description/Hostname"),
            tasks: tasks.as_array().cloned().unwrap_or_default(),
        })
    }

    fn name(&self, task: &Value) -> String {
        let id = text(&task["ServiceID"]);
        let service = self.services.get(id).map_or(id, String::as_str);
        match task["Slot"].as_u64().unwrap_or(0) {
            0 => format!("{service} ({})", text(&task["ID"])),
            slot => format!("{service}.{slot}"),
        }
    }

    /// What keeps a task on its node.
    fn reason(&self, task: &Value) -> String {
        let error = text(&task["Status"]["Err"]);
        if ["shutdown", "remove"].contains(&text(&task["DesiredState"])) {
            return match error {
                "" => "it was told to stop".to_owned(),
                error => error.to_owned(),
            };
        }
        let Some(replacement) = self.replacement(task) else {
            return "it waits until other tasks of its service have moved".to_owned();
        };
        match text(&replacement["Status"]["Err"]) {
            "" => {
                let node = text(&replacement["NodeID"]);
                let node = self.nodes.get(node).map_or(node, String::as_str);
                let state = text(&replacement["Status"]["State"]);
                match node {
                    "" => format!("its replacement is {state}"),
                    node => format!("its replacement is {state} on {node}"),
                }
            }
            error => format!("its replacement has no place: {error}"),
        }
    }

    /// The newest task that is to take the place of another.
    fn replacement(&self, task: &Value) -> Option<&Value> {
        let created = |task: &Value| text(&task["CreatedAt"]).to_owned();
        let of_slot = self.tasks.iter().filter(|other| {
            other["ServiceID"] == task["ServiceID"]
                && other["Slot"] == task["Slot"]
                && other["ID"] != task["ID"]
                && is_left(other)
                && created(other) > created(task)
        });
        of_slot.max_by_key(|task| created(task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, [slot, created]: [u64; 2], [desired, state]: [&str; 2], err: &str) -> Value {
        json!({"ID": id, "ServiceID": "s1", "Slot": slot, "CreatedAt": created.to_string(),
            "NodeID": "n2", "DesiredState": desired, "Status": {"State": state, "Err": err}})
    }

    #[test]
    fn each_task_says_what_keeps_it() {
        let kept = Kept {
            tasks: vec![
                task("a", [1, 1], ["running", "running"], ""),
                task("b", [2, 1], ["running", "running"], ""),
                task("c", [3, 1], ["running", "running"], ""),
                task(
                    "d",
                    [4, 1],
                    ["shutdown", "running"],
                    "draining: at most 10s",
                ),
            ],
        };
        let around = Surroundings {
            services: [("s1".to_owned(), "web".to_owned())].into(),
            nodes: [("n2".to_owned(), "node2".to_owned())].into(),
            tasks: vec![
                task(
                    "a2",
                    [1, 2],
                    ["running", "pending"],
                    "no suitable node (1 node)",
                ),
                task("b2", [2, 2], ["running", "preparing"], ""),
                task("c0", [3, 0], ["shutdown", "failed"], "old"),
            ],
        };
        assert_eq!(
            kept.reasons(&around),
            [
                "web.1: its replacement has no place: no suitable node (1 node)",
                "web.2: its replacement is preparing on node2",
                "web.3: it waits until other tasks of its service have moved",
                "web.4: draining: at most 10s",
            ]
        );
    }
}
