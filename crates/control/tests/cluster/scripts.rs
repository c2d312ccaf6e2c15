//! Scripts: cluster commands and what they show, in one file each; `UPDATE=1` rewrites them.
//!
//! A line beginning with `$` is a command, `#` a comment; what follows a command is its output.
//! After every command the cluster settles and its invariants are checked; agents do what they
//! are told unless `agents wait` says otherwise.

use std::{fs, path::Path};

use crate::world::World;

#[track_caller]
fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scripts/{name}.txt"));
    let expected = fs::read_to_string(&path).unwrap();
    let mut world = World::new();
    let mut actual = String::new();
    for line in expected.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            actual.push_str(line);
            actual.push('\n');
            actual.push_str(&world.run(command));
        } else if line.is_empty() || line.starts_with('#') {
            actual.push_str(line);
            actual.push('\n');
        }
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "a test may be told to rewrite its data"
    )]
    let is_update = std::env::var("UPDATE").is_ok();
    if is_update {
        fs::write(&path, actual).unwrap();
    } else {
        similar(&expected, &actual);
    }
}

#[track_caller]
fn similar(expected: &str, actual: &str) {
    let pairs = expected.lines().zip(actual.lines());
    for (number, (expected, actual)) in pairs.enumerate() {
        assert_eq!(expected, actual, "line {}", number + 1);
    }
    assert_eq!(expected, actual);
}

macro_rules! scripts {
    ($($name:ident => $file:literal;)*) => {
        $(#[test] fn $name() { check($file) })*
    };
}

scripts! {
    services_fill_slots_and_scale => "scale";
    jobs_complete => "job";
    jobs_cover_nodes => "job-global";
    jobs_run_on_schedule => "job-schedule";
    runs_of_a_job_share_the_limit_of_a_node => "job-max-per-node";
    ended_tasks_are_replaced_by_policy => "restart";
    run_options_need_leave => "run-options";
    updates_roll => "update";
    failed_updates_pause_continue_or_roll_back => "update-failure";
    updates_take_no_more_than_they_may => "update-availability";
    rollbacks_restore_the_previous_spec => "rollback";
    every_update_setting_counts => "update-settings";
    updates_have_a_deadline => "update-deadline";
    services_wait_for_others => "depends";
    crash_loops_slow_down => "crash-loop";
    nodes_come_and_go => "nodes";
    drained_nodes_empty_task_by_task => "drain";
    drained_nodes_keep_no_revision_of_a_paused_update => "drain-paused";
    tasks_move_to_nodes_that_come => "rebalance";
    dead_workers_are_forgotten => "node-ttl";
    global_services_cover_nodes => "global";
    tasks_go_where_they_fit => "placement";
    tasks_go_near_others_or_apart => "affinity";
    tasks_that_no_longer_fit_are_evicted => "eviction";
    removed_services_disappear => "removal";
    history_is_limited => "history";
    a_new_leader_goes_on => "leader";
    networks_hand_out_addresses => "network";
    addresses_run_out_and_come_back => "network-exhausted";
    networks_have_two_families => "network-dual-stack";
    published_ports_are_unique => "ports";
    nodes_of_docker_balance_from_addresses => "load-balancers";
    subnets_do_not_overlap => "subnets";
    removed_networks_hold_what_their_tasks_use => "network-removed";
    nodes_have_slices => "node-network";
    slices_run_out => "node-network-exhausted";
    a_restored_swarm_gets_slices => "node-network-late";
}
