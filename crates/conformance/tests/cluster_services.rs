//! Services of a cluster through the managers that do not lead: jobs over several nodes while daemons die, schedules by
//! the clock, revisions.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use skep_conformance::{Cluster, until};

/// Longest wait for what takes seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for the next minute to begin, and a task to run then.
const MINUTE_PATIENCE: Duration = Duration::from_secs(120);
/// Completions of the job.
const COMPLETIONS: u64 = 18;

/// Creates a job whose every completion is a line in a file of the machine, shared by all nodes.
fn create_job(cluster: &Cluster, asked: usize) {
    let shared = cluster.dir().display();
    cluster.node(asked).docker_ok(&format!(
        "service create -d --no-resolve-image --name job --mode replicated-job --max-concurrent 6 --replicas {COMPLETIONS} \
         --restart-condition on-failure --restart-delay 0s --mount type=bind,source={shared},target=/shared \
         skep/busybox sh -c 'sleep 1; hostname >> /shared/completions'"
    ));
}

fn status_of(cluster: &Cluster, asked: usize, service: &str) -> Value {
    let filters = format!("%7B%22name%22:%5B%22{service}%22%5D%7D");
    let found = cluster
        .node(asked)
        .json(&format!("/services?status=true&filters={filters}"));
    found[0].clone()
}

fn completed(cluster: &Cluster, asked: usize) -> Result<u64, String> {
    let service = status_of(cluster, asked, "job");
    let count = service["ServiceStatus"]["CompletedTasks"].as_u64();
    count.ok_or_else(|| service.to_string())
}

/// A job goes on while the daemons of a worker and of the leader are killed.
fn check_job(cluster: &Cluster, leader: usize, follower: usize) {
    create_job(cluster, follower);
    let some_are_done = |what: &str, asked: usize, count: u64| {
        until(what, PATIENCE, || match completed(cluster, asked)? {
            done if done >= count => Ok(()),
            done => Err(format!("{done} completed")),
        });
    };
    some_are_done("the job is under way", follower, 3);
    for victim in [4, leader] {
        cluster.skep_ok(&format!("local stop --kill node{victim}"));
        cluster.skep_ok(&format!("local start node{victim}"));
    }
    some_are_done("the job has completed", follower, COMPLETIONS);
    assert_eq!(completed(cluster, follower), Ok(COMPLETIONS));
    // Containers outlive their daemon, so none had to run again.
    let lines = std::fs::read_to_string(cluster.dir().join("completions")).expect("a file");
    let names: BTreeSet<&str> = lines.lines().collect();
    let counts = (lines.lines().count(), names.len());
    let expected = usize::try_from(COMPLETIONS).expect("a small number");
    assert_eq!(counts, (expected, expected), "{lines}");
}

/// A revision is returned to through managers that do not lead.
fn check_revisions(cluster: &Cluster, follower: usize) {
    let node = cluster.node(follower);
    node.docker_ok(
        "service create -d --no-resolve-image --name web --env V=1 --stop-signal KILL skep/busybox sleep 1000",
    );
    cluster.converged(follower, "web", 1);
    for value in [2, 3] {
        node.docker_ok(&format!(
            "service update -q --no-resolve-image --env-add V={value} web"
        ));
    }
    let name = format!("node{follower}");
    let host = format!("--host unix://{}", node.socket().display());
    let shown = cluster.skep_ok(&format!("service history web {host}"));
    let numbers: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(numbers, ["REVISION", "1", "2", "3"], "{name}: {shown}");
    let said = cluster.skep_ok(&format!("service rollback web --to 1 {host}"));
    assert!(said.contains("web: rollback completed"), "{said}");
    let spec = node.json("/services/web");
    let env = &spec["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"];
    assert_eq!(*env, serde_json::json!(["V=1"]));
    let refused = cluster.skep_fails(&format!("service rollback web --to 9 {host}"));
    assert!(refused.contains("has no revision 9"), "{refused}");
}

#[test]
fn jobs_schedules_and_revisions_through_followers() {
    let cluster = Cluster::start(4, 3);
    let leader = cluster.leader_as_seen_by(1);
    let follower = (1..=3)
        .find(|number| *number != leader)
        .expect("three managers");
    cluster.node(follower).docker_ok(
        "service create -d --no-resolve-image --name minutely --mode replicated-job \
         --label 'skep.job.schedule=* * * * *' skep/busybox true",
    );
    let created = status_of(&cluster, follower, "minutely");
    let last = "0001-01-01T00:00:00Z";
    assert_eq!(created["JobStatus"]["LastExecution"], last, "{created}");
    check_revisions(&cluster, follower);
    check_job(&cluster, leader, follower);
    until("the clock has run the job", MINUTE_PATIENCE, || {
        let service = status_of(&cluster, follower, "minutely");
        let status = &service["ServiceStatus"];
        let has_run = service["JobStatus"]["LastExecution"] != last;
        if has_run && status["CompletedTasks"] == 1 {
            Ok(())
        } else {
            Err(format!("{} {status}", service["JobStatus"]))
        }
    });
}
