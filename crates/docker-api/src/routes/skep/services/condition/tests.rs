//! Conditions of services whose tasks are in one state or another.

use skep_model::{
    HealthConfig, JobStatus, Meta, Rng, ServiceId, ServiceSpec, SpecVersion, TaskId, TaskSpec,
    TaskStatus, UpdateStatus, Version,
};

use super::*;

const NOW: Timestamp = Timestamp(1_000_000_000_000);

fn service(mode: ServiceMode) -> Service {
    Service {
        id: ServiceId::random(&mut Rng::from_seed(1)),
        meta: Meta::default(),
        spec: Arc::new(ServiceSpec {
            mode,
            ..ServiceSpec::default()
        }),
        spec_version: SpecVersion::default(),
        previous_spec: None,
        previous_spec_version: None,
        endpoint: None,
        update_status: None,
        job_status: None,
        is_pending_delete: false,
    }
}

fn node() -> NodeId {
    NodeId::random(&mut Rng::from_seed(9))
}

/// Made `age` seconds ago.
fn task(slot: u64, age: u64, [desired, state]: [TaskState; 2], err: &str) -> Task {
    let age_nanos = i64::try_from(age * 1_000_000_000).unwrap();
    let created_at = Timestamp(NOW.0 - age_nanos);
    Task {
        id: TaskId::random(&mut Rng::from_seed(slot * 1000 + age)),
        meta: Meta {
            created_at,
            ..Meta::default()
        },
        spec: Arc::new(TaskSpec::default()),
        spec_version: None,
        service_id: None,
        slot,
        node_id: Some(node()),
        annotations: Arc::default(),
        service_annotations: Arc::default(),
        status: TaskStatus {
            state,
            err: err.to_owned(),
            ..TaskStatus::default()
        },
        desired_state: desired,
        endpoint: None,
        log_driver: None,
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    }
}

fn labelled(mut task: Task, labels: &[(&str, &str)]) -> Task {
    let annotations = Arc::make_mut(&mut task.annotations);
    let pairs = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    annotations.labels.extend(pairs);
    task
}

fn read(service: &Service, tasks: Vec<Task>) -> Condition {
    let tasks: Vec<Arc<Task>> = tasks.into_iter().map(Arc::new).collect();
    of(&Subject {
        service,
        tasks: &tasks,
        node_name: &|_| "node2".to_owned(),
        now: NOW,
    })
}

#[track_caller]
fn check(tasks: Vec<Task>, stuck: &[&str], waits: &[&str]) {
    let service = service(ServiceMode::Replicated { replicas: 1 });
    let found = read(&service, tasks);
    assert_eq!(
        (found.stuck, found.waits),
        (
            stuck.iter().map(|s| (*s).to_owned()).collect(),
            waits.iter().map(|s| (*s).to_owned()).collect()
        )
    );
}

use TaskState::{
    Assigned, Complete, Failed, Pending, Preparing, Ready, Rejected, Remove, Running, Shutdown,
    Starting,
};

const EXIT: &str = "task: non-zero exit (3)";

#[test]
fn a_service_that_runs_lacks_nothing() {
    let old = task(1, 90, [Shutdown, Failed], EXIT);
    check(vec![task(1, 60, [Running, Running], ""), old], &[], &[]);
    check(vec![task(1, 60, [Remove, Failed], EXIT)], &[], &[]);
}

#[test]
fn what_tasks_wait_for_is_told_once() {
    let err = "no suitable node (scheduling constraints not satisfied on 3 nodes)";
    let waiting = |slot| task(slot, 60, [Running, Pending], err);
    check(
        vec![waiting(3), waiting(1), waiting(2)],
        &[],
        &[&format!("slot 1: {err} (and 2 others)")],
    );
    check(
        vec![waiting(2), task(1, 9, [Running, Preparing], "")],
        &[],
        &["slot 1 is preparing", &format!("slot 2: {err}")],
    );
    let mut checked = task(1, 9, [Running, Starting], "");
    Arc::make_mut(&mut checked.spec).container.health = Some(HealthConfig::default());
    check(
        vec![checked],
        &[],
        &["slot 1 is starting and not healthy yet"],
    );
    let mut turned = task(1, 9, [Running, Running], "");
    turned.status.message = NOT_READY_MESSAGE.to_owned();
    check(vec![turned], &[], &["slot 1 runs but is not ready"]);
}

#[test]
fn a_replacement_says_what_it_waits_for() {
    let old = task(1, 90, [Shutdown, Running], "");
    let new = task(1, 2, [Ready, Ready], "");
    check(
        vec![old, new],
        &[],
        &["slot 1 waits for its task on node2 to stop"],
    );
    let labels = [
        (rollout::FAILURES_LABEL, "1"),
        (rollout::CAUSE_LABEL, "exit 3"),
    ];
    let new = labelled(task(1, 2, [Ready, Ready], ""), &labels);
    let old = task(1, 90, [Shutdown, Failed], EXIT);
    check(vec![old, new], &[], &["slot 1 is restarted in 3s: exit 3"]);
}

#[test]
fn a_crash_loop_says_what_ends_the_task_and_when_it_is_tried_again() {
    let labels = [
        (rollout::FAILURES_LABEL, "5"),
        (rollout::CAUSE_LABEL, "exit 3"),
    ];
    let new = || labelled(task(1, 2, [Ready, Ready], ""), &labels);
    let text = "slot 1 is crash-looping: exit 3 (5 failures, next try in 18s)";
    check(vec![new()], &[text], &[]);
    let gone = "No such image: app:9";
    let rejected = task(1, 30, [Shutdown, Rejected], gone);
    let text = format!("slot 1 is crash-looping: {gone} on node2 (5 failures, next try in 18s)");
    check(vec![rejected, new()], &[&text], &[]);
    let tried = labelled(task(1, 25, [Running, Running], ""), &labels);
    let text = "slot 1 is crash-looping: exit 3 (5 failures)";
    check(vec![tried], &[text], &[]);
}

#[test]
fn what_is_not_tried_again_says_why() {
    let failed = task(1, 30, [Shutdown, Failed], EXIT);
    let exhausted = labelled(failed.clone(), &[(rollout::EXHAUSTED_LABEL, "2")]);
    check(
        vec![exhausted],
        &["slot 1 has no restart attempts left: exit 3"],
        &[],
    );
    check(
        vec![failed],
        &["slot 1 failed and is not restarted: exit 3"],
        &[],
    );
    // The restart policy has yet to look at it.
    let fresh = task(1, 30, [Running, Failed], EXIT);
    check(vec![fresh], &[], &[]);
    let mut done = task(1, 30, [Shutdown, Complete], "");
    Arc::make_mut(&mut done.spec).restart.condition = RestartCondition::OnFailure;
    check(
        vec![done],
        &[],
        &["slot 1 has completed and is not restarted"],
    );
}

#[test]
fn only_the_present_run_of_a_job_counts() {
    let mut job = service(ServiceMode::ReplicatedJob {
        max_concurrent: 1,
        total_completions: 2,
    });
    job.job_status = Some(JobStatus {
        job_iteration: Version(4),
        last_execution: None,
    });
    let of_run = |run, mut task: Task| {
        task.job_iteration = Some(Version(run));
        task
    };
    let past = of_run(3, task(0, 99, [Shutdown, Failed], EXIT));
    assert_eq!(read(&job, vec![past.clone()]), Condition::default());
    let done = of_run(4, task(0, 40, [Complete, Complete], ""));
    let assigned = of_run(4, task(1, 20, [Complete, Assigned], ""));
    let found = read(&job, vec![past, done, assigned]);
    assert_eq!(found.waits, ["slot 1 is assigned"]);
    assert!(found.stuck.is_empty());
}

#[test]
fn a_rollback_nobody_asked_for_is_told_after_its_end() {
    let mut subject = service(ServiceMode::Global);
    let status = |state, message: &str| UpdateStatus {
        state,
        started_at: None,
        completed_at: None,
        message: message.to_owned(),
    };
    assert_eq!(read(&subject, Vec::new()).waits, ["no node is to run it"]);
    let text = "update rolled back due to failure or early termination of task t: exit 3";
    let message = format!("rollback completed: {text}");
    subject.update_status = Some(status(UpdateState::RollbackCompleted, &message));
    let running = || task(0, 30, [Running, Running], "");
    assert_eq!(read(&subject, vec![running()]).waits, [text]);
    subject.update_status = Some(status(UpdateState::RollbackCompleted, "rollback completed"));
    assert_eq!(read(&subject, vec![running()]), Condition::default());
    subject.update_status = Some(status(UpdateState::Paused, "update paused"));
    assert_eq!(read(&subject, vec![running()]).stuck, ["update paused"]);
}

#[test]
fn a_task_that_was_rejected_before_its_delay_was_over_says_why_all_the_while() {
    let gone = "No such image: gone:latest";
    let old = task(1, 60, [Shutdown, Rejected], gone);
    let wait = "slot 1 is restarted in 3s: No such image: gone:latest on node2";
    check(vec![task(1, 2, [Ready, Rejected], gone), old], &[], &[wait]);
    let now = "slot 1 is restarted: No such image: gone:latest on node2";
    check(vec![task(1, 20, [Ready, Rejected], gone)], &[], &[now]);
}
