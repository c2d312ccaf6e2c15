//! How services stand, and waiting for them.

use serde_json::json;

use super::*;
use crate::fake_daemon::{FakeDaemon, Turn};

fn service(replicas: u64, update: &str) -> Value {
    let mut service = json!({
        "ID": "s", "Spec": {"Name": "app_web", "Mode": {"Replicated": {"Replicas": replicas}},
            "UpdateConfig": {"Monitor": 1}},
    });
    if !update.is_empty() {
        service["UpdateStatus"] = json!({"State": update, "Message": "of this task"});
    }
    service
}

fn task(state: &str, error: &str) -> Value {
    json!({"ServiceID": "s", "DesiredState": "running", "CreatedAt": "2020",
        "Status": {"State": state, "Err": error}})
}

#[track_caller]
fn check(service: &Value, tasks: &[Value], conditions: &[&str], expected: (Standing, &str)) {
    let look = Look {
        service,
        tasks: tasks.iter().collect(),
        conditions: conditions.to_vec(),
        is_changed: true,
    };
    assert_eq!((look.standing(), look.text().as_str()), expected);
}

#[test]
fn a_service_is_there_when_all_its_tasks_run() {
    let running = || task("running", "");
    check(
        &service(2, ""),
        &[running(), task("pending", "no suitable node\n(1 node)")],
        &[],
        (
            Standing::Moving,
            "1 out of 2 tasks (no suitable node (1 node))",
        ),
    );
    let two = [running(), running()];
    check(
        &service(2, ""),
        &two,
        &[],
        (Standing::There, "2 out of 2 tasks"),
    );
    check(
        &service(2, "updating"),
        &two,
        &[],
        (Standing::Moving, "2 out of 2 tasks"),
    );
    check(
        &service(0, ""),
        &[],
        &[],
        (Standing::There, "0 out of 0 tasks"),
    );
    let mut global = service(0, "");
    global["Spec"]["Mode"] = json!({"Global": {}});
    global["ServiceStatus"] = json!({"DesiredTasks": 2, "RunningTasks": 2});
    check(
        &global,
        &[running()],
        &[],
        (Standing::Moving, "1 out of 2 tasks"),
    );
}

#[test]
fn jobs_are_there_when_they_have_completed() {
    let mut job = service(0, "");
    job["Spec"]["Mode"] = json!({"ReplicatedJob": {"TotalCompletions": 3}});
    job["ServiceStatus"] = json!({"CompletedTasks": 2, "DesiredTasks": 1});
    check(
        &job,
        &[],
        &[],
        (Standing::Moving, "2 out of 3 tasks completed"),
    );
    job["ServiceStatus"]["CompletedTasks"] = json!(3);
    check(
        &job,
        &[],
        &[],
        (Standing::There, "3 out of 3 tasks completed"),
    );
}

#[test]
fn what_does_not_get_there_by_itself_has_failed() {
    let failed = |text: &str| Standing::Failed(text.to_owned());
    for (update, text) in [
        ("paused", "the update is paused: of this task"),
        ("rollback_paused", "the rollback is paused: of this task"),
        ("rollback_completed", "it was rolled back: of this task"),
    ] {
        let standing = failed(text);
        check(
            &service(1, update),
            &[task("running", "")],
            &[],
            (standing, "1 out of 1 tasks"),
        );
    }
    check(
        &service(1, ""),
        &[task("failed", "task: non-zero exit (3)")],
        &["slot 1 is crash-looping: exit 3 (7 failures)"],
        (
            failed("slot 1 is crash-looping: exit 3 (7 failures)"),
            "0 out of 1 tasks (task: non-zero exit (3))",
        ),
    );
    check(
        &service(1, ""),
        &[task("failed", "")],
        &["slot 1 has no restart attempts left"],
        (
            failed("slot 1 has no restart attempts left"),
            "0 out of 1 tasks",
        ),
    );
}

#[test]
fn a_task_that_is_not_followed_by_another_may_be_the_last() {
    let mut last = task("failed", "task: non-zero exit (3)");
    last["DesiredState"] = json!("shutdown");
    last["Slot"] = json!(1);
    let ended = "a task ended and is not restarted: task: non-zero exit (3)".to_owned();
    let text = "0 out of 1 tasks (task: non-zero exit (3))";
    check(
        &service(1, ""),
        std::slice::from_ref(&last),
        &[],
        (Standing::Ended(ended), text),
    );
    let mut next = task("preparing", "");
    next["Slot"] = json!(1);
    check(
        &service(1, ""),
        &[last, next],
        &[],
        (Standing::Moving, text),
    );
}

/// The answers to one look.
fn look_turns(service: &Value, tasks: &[Value], conditions: &[&str]) -> Vec<Turn> {
    let stack = json!({"Name": "app", "Services": [{"Name": "app_web", "Conditions": conditions}]});
    vec![
        (
            "GET /services?status=true&filters=",
            200,
            json!([service]).to_string(),
        ),
        ("GET /tasks?filters=", 200, json!(tasks).to_string()),
        ("GET /skep/v1/stacks/app ", 200, stack.to_string()),
    ]
}

#[tokio::test]
async fn waiting_tells_what_changes_and_outlives_a_change_of_leader() {
    let (one, starting) = (service(1, ""), [task("starting", "")]);
    let mut turns = look_turns(&one, &starting, &[]);
    turns.push((
        "GET /services",
        503,
        r#"{"message":"no leader"}"#.to_owned(),
    ));
    turns.extend(look_turns(&one, &starting, &[]));
    turns.extend(look_turns(&one, &[task("running", "")], &[]));
    let daemon = FakeDaemon::new(turns);
    let mut out = Vec::new();
    let unchanged = BTreeSet::new();
    wait(&daemon.client(), "app", &unchanged, None, &mut out)
        .await
        .unwrap();
    daemon.requests().await;
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "app_web: 0 out of 1 tasks\napp_web: 1 out of 1 tasks\napp: converged\n"
    );
}

#[tokio::test]
async fn waiting_ends_with_what_failed_or_with_its_limit() {
    let daemon = FakeDaemon::new(look_turns(&service(1, "paused"), &[], &[]));
    let changed = BTreeSet::new();
    let failed = wait(&daemon.client(), "app", &changed, None, &mut Vec::new()).await;
    let text = failed.unwrap_err().to_string();
    assert_eq!(text, "app_web: the update is paused: of this task");
    daemon.requests().await;
    let daemon = FakeDaemon::new(look_turns(&service(1, ""), &[], &[]));
    let limit = Some(Duration::from_nanos(1));
    let late = wait(&daemon.client(), "app", &changed, limit, &mut Vec::new()).await;
    let text = late.unwrap_err().to_string();
    assert!(
        text.starts_with("stack app is not as it shall be after 1ns"),
        "{text}"
    );
    daemon.requests().await;
}

#[test]
fn who_waits_for_a_service_that_failed_has_failed_and_who_waits_for_that_one() {
    let map = |pairs: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
        let names = |on: &[&str]| on.iter().map(|on| (*on).to_owned()).collect();
        let pairs = pairs.iter();
        pairs
            .map(|(name, on)| ((*name).to_owned(), names(on)))
            .collect()
    };
    let mut moving = map(&[
        ("a", &["b", "x"]),
        ("b", &["job"]),
        ("c", &["x"]),
        ("x", &[]),
    ]);
    let mut failed = BTreeMap::from([("job".to_owned(), "exit 1".to_owned())]);
    hold_back(&mut moving, &mut failed);
    assert_eq!(moving, map(&[("c", &["x"]), ("x", &[])]));
    let failed: Vec<_> = failed
        .iter()
        .map(|(n, why)| format!("{n}: {why}"))
        .collect();
    assert_eq!(
        failed,
        ["a: it waits for b", "b: it waits for job", "job: exit 1"]
    );
}
