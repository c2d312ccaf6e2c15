//! Fixed seeds pass, a seed is the same run in every process, and known bugs are found.

use std::process::Command;

use skep_sim::{Bug, Options, run_seed};

/// Seeds within which each deliberate bug must show.
const BUG_SEEDS: u64 = 60;

fn run_binary(seeds: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_skep-sim"))
        .args(["run", "--seeds", seeds])
        .output()
        .expect("the binary runs");
    let text = String::from_utf8(output.stdout).expect("output is text");
    assert!(output.status.success(), "{text}");
    let hash = text
        .split("trace ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    hash.expect("the summary ends with the trace's hash")
        .to_owned()
}

/// Some seed finds the bug, by one of the invariants it belongs to. Others may find what follows
/// from it.
#[track_caller]
fn check(bug: Bug, invariants: &[&str]) {
    check_with(bug, invariants, Options::default());
}

/// The same in seeds that all have jobs and stacks: what must be about them is found sooner.
#[track_caller]
fn check_busy(bug: Bug, invariants: &[&str]) {
    let options = Options {
        is_busy: true,
        ..Options::default()
    };
    check_with(bug, invariants, options);
}

#[track_caller]
fn check_with(bug: Bug, invariants: &[&str], options: Options) {
    let options = Options {
        bug: Some(bug),
        ..options
    };
    let is_found = (0..BUG_SEEDS).any(|seed| {
        let violation = run_seed(seed, &options).violation;
        violation.is_some_and(|violation| invariants.contains(&violation.invariant.as_str()))
    });
    assert!(is_found, "{bug} was not found");
}

#[test]
fn a_seed_gives_the_same_trace_twice() {
    for seed in 0..8 {
        let (first, second) = (
            run_seed(seed, &Options::default()),
            run_seed(seed, &Options::default()),
        );
        assert_eq!(first, second, "seed {seed}");
        assert_eq!(first.violation, None, "seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_trace_in_every_process() {
    assert_eq!(run_binary("0..8"), run_binary("0..8"));
    assert_ne!(run_binary("0..8"), run_binary("1..9"));
}

#[test]
fn a_run_goes_on_for_as_many_steps_as_asked() {
    let options = Options {
        steps_max: Some(100),
        ..Options::default()
    };
    assert_eq!(run_seed(3, &options).event_count, 100);
}

#[test]
fn an_acknowledgement_before_the_write_is_found() {
    check(Bug::AckBeforeDurable, &["committed-is-durable"]);
}

#[test]
fn a_status_the_agent_forgets_is_found() {
    check(Bug::ForgetStatus, &["reports-grow"]);
}

#[test]
fn a_change_the_dispatcher_skips_is_found() {
    check(Bug::SkipAssignment, &["converges", "durable-first"]);
}

#[test]
fn a_node_that_overstates_its_capacity_is_found() {
    check(Bug::OverstateCapacity, &["reservations"]);
}

#[test]
fn a_snapshot_that_lacks_a_task_is_found() {
    check(Bug::LossySnapshot, &["same-store"]);
}

#[test]
fn a_snapshot_that_lacks_the_group_is_found() {
    check(Bug::SnapshotWithoutGroup, &["same-group"]);
}

#[test]
fn a_vote_the_disk_forgets_is_found() {
    check(Bug::ForgetVote, &["one-vote", "one-leader"]);
}

#[test]
fn a_commit_without_a_majority_is_found() {
    check(Bug::CountTwice, &["committed-is-durable"]);
}

#[test]
fn a_change_that_the_directory_misses_is_found() {
    check(Bug::SkipFeed, &["directory"]);
}

#[test]
fn a_task_sent_without_its_address_is_found() {
    check(Bug::DropNodeAddress, &["node-addresses"]);
}

#[test]
fn a_certificate_before_its_commit_is_found() {
    check(Bug::EarlyCertificate, &["certificates"]);
}

#[test]
fn a_secret_sent_where_nobody_uses_it_is_found() {
    check(Bug::LeakSecret, &["supplies"]);
}

#[test]
fn an_update_that_is_complete_too_early_is_found() {
    check(Bug::CompleteEarly, &["rollouts"]);
}

#[test]
fn a_second_task_for_a_complete_place_of_a_job_is_found() {
    check_busy(Bug::RunAgain, &["jobs"]);
}

#[test]
fn an_update_that_stops_all_tasks_at_once_is_found() {
    check(Bug::StopAll, &["availability"]);
}

#[test]
fn a_drain_that_stops_tasks_at_once_is_found() {
    check(Bug::DrainAtOnce, &["availability"]);
}

#[test]
fn a_leader_that_ignores_the_parallelism_of_updates_is_found() {
    check(Bug::IgnoreParallelism, &["rollouts", "availability"]);
}

#[test]
fn a_leader_that_ignores_how_many_tasks_of_a_job_may_be_at_once_is_found() {
    check_busy(Bug::IgnoreConcurrency, &["stored-state", "jobs"]);
}

#[test]
fn a_leader_that_counts_completions_twice_is_found() {
    check_busy(Bug::CountJobTwice, &["converges"]);
}

#[test]
fn a_leader_that_ignores_what_services_wait_for_is_found() {
    check(Bug::IgnoreDependencies, &["rollouts", "stacks"]);
}

#[test]
fn a_deploy_that_leaves_secrets_as_they_are_is_found() {
    check_busy(Bug::KeepSecret, &["redeploys"]);
}
