//! Waiting until a stack's services are as they shall be: what is seen of a service, what that means, and the loop that looks.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;
use skep_docker_api::client::{Client, Error};
use skep_model::reserved::service::depends::DEPENDS_ON;

use super::{filters, path};

/// Between two looks.
const POLL: Duration = Duration::from_millis(250);
/// How long a new service has to stay as it shall be, if its update settings say nothing: Docker's default.
const MONITOR: Duration = Duration::from_secs(5);
/// How long a task that ended may be without a successor, until it is taken that there will be none. A leader decides at once.
const SUCCESSION: Duration = Duration::from_secs(2);
/// States of tasks that have ended.
const ENDED: [&str; 5] = ["complete", "shutdown", "failed", "rejected", "orphaned"];
/// How long looks may fail one after the other: a change of leader takes a second or two, and each look waits for it, too.
const BLIND_MAX: Duration = Duration::from_secs(60);
/// Characters of a reason beside the count.
const REASON_LENGTH: usize = 75;

/// How a service stands.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// It is on its way.
    Moving,
    /// It is as it shall be.
    There,
    /// It will not get there by itself.
    Failed(String),
    /// A task ended and has no successor, which may still come.
    Ended(String),
}

/// What is looked at of one service.
struct Look<'a> {
    service: &'a Value,
    /// Its tasks that are as it says now.
    tasks: Vec<&'a Value>,
    /// What the server finds wrong with it.
    conditions: Vec<&'a str>,
    /// Whether this deploy made it or changed it.
    is_changed: bool,
}

/// Waits until all services of `stack` are as they shall be; says how far they are whenever that changes. Those in `changed` are
/// watched as long as their update settings say.
///
/// # Errors
/// When one of them fails, after the others have settled, or `limit` is over.
pub(super) async fn wait(
    client: &Client,
    stack: &str,
    changed: &BTreeSet<String>,
    limit: Option<Duration>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    let mut there: BTreeMap<String, Instant> = BTreeMap::new();
    let mut ended: BTreeMap<String, Instant> = BTreeMap::new();
    let mut blind = None;
    loop {
        let state = match look(client, stack).await {
            Ok(state) => state,
            // A change of leader may come in between: the next look finds the new one.
            Err(error)
                if error
                    .status()
                    .is_some_and(|status| status.is_server_error()) =>
            {
                let since: &mut Instant = blind.get_or_insert_with(Instant::now);
                if since.elapsed() > BLIND_MAX || limit.is_some_and(|limit| start.elapsed() > limit)
                {
                    return Err(error).context("it is deployed, but how it does cannot be seen");
                }
                tokio::time::sleep(POLL).await;
                continue;
            }
            Err(error) => {
                return Err(error).context("it is deployed, but how it does cannot be seen");
            }
        };
        blind = None;
        let mut failed = BTreeMap::new();
        let mut moving = BTreeMap::new();
        let mut is_settled = true;
        for (name, look) in state.looks(changed) {
            let standing = look.standing();
            let text = look.text();
            if shown.get(&name) != Some(&text) {
                writeln!(out, "{name}: {text}")?;
                shown.insert(name.clone(), text);
            }
            match standing {
                Standing::Failed(reason) => drop(failed.insert(name, reason)),
                Standing::Ended(reason) => {
                    let since = ended.entry(name.clone()).or_insert_with(Instant::now);
                    is_settled &= since.elapsed() >= SUCCESSION;
                    if since.elapsed() >= SUCCESSION {
                        failed.insert(name, reason);
                    }
                }
                Standing::There => {
                    let since = there.entry(name).or_insert_with(Instant::now);
                    is_settled &= since.elapsed() >= look.watched();
                }
                Standing::Moving => {
                    there.remove(&name);
                    ended.remove(&name);
                    moving.insert(name, look.awaited());
                }
            }
        }
        out.flush()?;
        hold_back(&mut moving, &mut failed);
        if is_settled && moving.is_empty() {
            return finish(stack, failed, out);
        }
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            let time = limit.unwrap_or_default();
            bail!("stack {stack} is not as it shall be after {time:?}; it goes on by itself");
        }
        tokio::time::sleep(POLL).await;
    }
}

fn finish(
    stack: &str,
    failed: BTreeMap<String, String>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if failed.is_empty() {
        writeln!(out, "{stack}: converged")?;
        return Ok(());
    }
    let failed = failed
        .iter()
        .map(|(name, reason)| format!("{name}: {reason}"));
    bail!("{}", failed.collect::<Vec<_>>().join("; "))
}

/// Who waits for a service that failed does not get there either, nor who waits for that one.
fn hold_back(moving: &mut BTreeMap<String, Vec<String>>, failed: &mut BTreeMap<String, String>) {
    let mut has_changed = true;
    while has_changed {
        let culprit =
            |awaited: &[String]| awaited.iter().find(|on| failed.contains_key(*on)).cloned();
        let held = moving.extract_if(.., |_, awaited| culprit(awaited).is_some());
        let held: Vec<_> = held
            .filter_map(|(name, awaited)| Some((name, culprit(&awaited)?)))
            .collect();
        has_changed = !held.is_empty();
        let held = held.into_iter();
        failed.extend(held.map(|(name, on)| (name, format!("it waits for {on}"))));
    }
}

/// One look at the whole stack.
struct State {
    services: Value,
    tasks: Value,
    stack: Value,
}

async fn look(client: &Client, stack: &str) -> Result<State, Error> {
    let own = filters(stack, false);
    let current = filters(stack, true);
    Ok(State {
        services: client
            .get(&format!("/services?status=true&filters={own}"))
            .await?,
        tasks: client.get(&format!("/tasks?filters={current}")).await?,
        stack: client.get(&path(stack)).await?,
    })
}

// === impl State ===

impl State {
    /// The services by name.
    fn looks(&self, changed: &BTreeSet<String>) -> BTreeMap<String, Look<'_>> {
        let mut looks = BTreeMap::new();
        for service in self.services.as_array().into_iter().flatten() {
            let name = service["Spec"]["Name"].as_str().unwrap_or_default();
            let tasks = self.tasks.as_array().into_iter().flatten();
            let tasks = tasks.filter(|task| task["ServiceID"] == service["ID"]);
            let summaries = self.stack["Services"].as_array().into_iter().flatten();
            let summaries = summaries.filter(|summary| summary["Name"] == name);
            let conditions = summaries
                .flat_map(|summary| summary["Conditions"].as_array().into_iter().flatten())
                .filter_map(Value::as_str);
            let look = Look {
                service,
                tasks: tasks.collect(),
                conditions: conditions.collect(),
                is_changed: changed.contains(name),
            };
            looks.insert(name.to_owned(), look);
        }
        looks
    }
}

// === impl Look ===

impl Look<'_> {
    /// How long it has to stay as it shall be.
    fn watched(&self) -> Duration {
        let is_updated = self.update_state() == "completed";
        if !self.is_changed || is_updated || self.is_job() {
            return Duration::ZERO;
        }
        let monitor = self.service["Spec"]["UpdateConfig"]["Monitor"].as_u64();
        monitor
            .filter(|nanos| *nanos > 0)
            .map_or(MONITOR, Duration::from_nanos)
    }

    /// Services it waits for before its first task, if none of its tasks runs.
    fn awaited(&self) -> Vec<String> {
        let label = &self.service["Spec"]["Labels"][DEPENDS_ON];
        let waits = label.as_str().filter(|_| self.counts().0 == 0);
        let pairs = waits.into_iter().flat_map(|text| text.split(','));
        let names = pairs.map(|pair| pair.split('=').next().unwrap_or_default().trim());
        names.map(str::to_owned).collect()
    }

    fn is_job(&self) -> bool {
        ["ReplicatedJob", "GlobalJob"]
            .iter()
            .any(|mode| self.mode(mode).is_some())
    }

    fn mode(&self, name: &str) -> Option<&Value> {
        self.service["Spec"]["Mode"]
            .get(name)
            .filter(|mode| !mode.is_null())
    }

    fn update_state(&self) -> &str {
        self.service["UpdateStatus"]["State"]
            .as_str()
            .unwrap_or_default()
    }

    fn status(&self, key: &str) -> u64 {
        self.service["ServiceStatus"][key].as_u64().unwrap_or(0)
    }

    /// Tasks that are where they shall be, and how many shall be.
    fn counts(&self) -> (u64, u64) {
        if self.is_job() {
            let completed = self.status("CompletedTasks");
            let total = match self.mode("ReplicatedJob") {
                Some(mode) => mode["TotalCompletions"].as_u64().unwrap_or(1),
                None => completed + self.status("DesiredTasks"),
            };
            return (completed, total);
        }
        let running = self.tasks.iter().filter(|task| {
            let is_wanted =
                ["running", "ready"].contains(&task["DesiredState"].as_str().unwrap_or_default());
            is_wanted && task["Status"]["State"] == "running"
        });
        let wanted = match self.mode("Replicated") {
            Some(mode) => mode["Replicas"].as_u64().unwrap_or(1),
            None => self.status("DesiredTasks"),
        };
        let running = u64::try_from(running.count()).unwrap_or(u64::MAX);
        (running, wanted)
    }

    fn standing(&self) -> Standing {
        let message = self.service["UpdateStatus"]["Message"]
            .as_str()
            .unwrap_or_default();
        match self.update_state() {
            "paused" => return Standing::Failed(format!("the update is paused: {message}")),
            "rollback_paused" => {
                return Standing::Failed(format!("the rollback is paused: {message}"));
            }
            "rollback_completed" if self.is_changed => {
                let cause = message
                    .strip_prefix("rollback completed: ")
                    .unwrap_or(message);
                return Standing::Failed(format!("it was rolled back: {cause}"));
            }
            "updating" | "rollback_started" => return Standing::Moving,
            _ => {}
        }
        let (done, wanted) = self.counts();
        if done == wanted {
            return Standing::There;
        }
        let hopeless = ["crash-looping", "no restart attempts left"];
        let is_hopeless = |condition: &&&str| hopeless.iter().any(|word| condition.contains(word));
        // The server says the cause with it.
        if let Some(condition) = self.conditions.iter().find(is_hopeless) {
            return Standing::Failed((*condition).to_owned());
        }
        match (self.is_given_up(), self.error()) {
            (false, _) => Standing::Moving,
            (true, "") => Standing::Ended("a task ended and is not restarted".to_owned()),
            (true, error) => Standing::Ended(format!("a task ended and is not restarted: {error}")),
        }
    }

    /// Whether some place has only tasks that ended.
    fn is_given_up(&self) -> bool {
        let place = |task: &Value| match task["Slot"].as_u64() {
            Some(slot) => slot.to_string(),
            None => task["NodeID"].as_str().unwrap_or_default().to_owned(),
        };
        let has_ended = |task: &Value| {
            let state = |value: &Value| value.as_str().is_some_and(|state| ENDED.contains(&state));
            state(&task["Status"]["State"]) && state(&task["DesiredState"])
        };
        let mut places: BTreeMap<String, bool> = BTreeMap::new();
        for task in &self.tasks {
            *places.entry(place(task)).or_insert(true) &= has_ended(task);
        }
        places.into_values().any(|is_given_up| is_given_up)
    }

    /// How far it is, and what keeps it.
    fn text(&self) -> String {
        let (done, wanted) = self.counts();
        let noun = if self.is_job() {
            "tasks completed"
        } else {
            "tasks"
        };
        let verb = match self.update_state() {
            "rollback_started" => "rolling back update: ",
            _ => "",
        };
        let text = format!("{verb}{done} out of {wanted} {noun}");
        let reason = self.error();
        if done == wanted || reason.is_empty() {
            return text;
        }
        let short: String = reason.chars().take(REASON_LENGTH).collect();
        let end = if short.len() < reason.len() {
            "…"
        } else {
            ""
        };
        format!("{text} ({}{end})", short.replace(['\n', '\r'], " "))
    }

    /// Why the newest task that is not where it shall be is not.
    fn error(&self) -> &str {
        let created = |task: &&&Value| task["CreatedAt"].as_str().unwrap_or_default().to_owned();
        let kept = self
            .tasks
            .iter()
            .filter(|task| task["Status"]["State"] != "running");
        let with_error = kept.filter(|task| {
            task["Status"]["Err"]
                .as_str()
                .is_some_and(|e| !e.is_empty())
        });
        let newest = with_error.max_by_key(created);
        newest
            .and_then(|task| task["Status"]["Err"].as_str())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
