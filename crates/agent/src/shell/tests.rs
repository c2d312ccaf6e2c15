//! The running agent against a node and a dispatcher in memory, in paused time.

mod fakes;

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use skep_model::{TaskState, dispatch::DispatchError};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use self::fakes::{FakeDispatcher, FakeNode, task, task_id};
use super::{Agent, AgentConfig, Error, Handle};
use crate::db::Db;

/// Virtual time a test may wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    shutdown: CancellationToken,
    run: JoinHandle<Result<(), Error>>,
    handle: Handle,
}

fn start(dir: &Path, node: &FakeNode, dispatcher: &FakeDispatcher) -> Running {
    let config = AgentConfig {
        seed: 1,
        core_count: NonZeroUsize::MIN,
    };
    let db = Db::open(&dir.join("tasks.db")).unwrap();
    let agent = Agent::new(
        config,
        Arc::new(node.clone()),
        Box::new(dispatcher.clone()),
        db,
    );
    let shutdown = CancellationToken::new();
    let handle = agent.handle();
    let run = tokio::spawn(agent.run(shutdown.clone()));
    Running {
        shutdown,
        run,
        handle,
    }
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        self.run.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn an_assigned_task_runs_and_its_states_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (node, dispatcher) = (FakeNode::new(), FakeDispatcher::new());
    dispatcher.assign(task(1, TaskState::Running));
    let agent = start(dir.path(), &node, &dispatcher);
    let status = dispatcher.wait_for(1, TaskState::Running).await;
    assert_eq!(status.message, "started");
    assert_eq!(
        status.container.unwrap().container_id,
        task_id(1).to_string()
    );
    assert_eq!(node.calls(1), ["prepare", "start", "wait"]);
    assert!(agent.handle.report().borrow().session_id.is_some());
    node.exit(1, 3);
    let status = dispatcher.wait_for(1, TaskState::Failed).await;
    assert_eq!(status.err, "task: non-zero exit (3)");
    agent.stop().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn heartbeats_keep_coming() {
    let dir = tempfile::tempdir().unwrap();
    let (node, dispatcher) = (FakeNode::new(), FakeDispatcher::new());
    let agent = start(dir.path(), &node, &dispatcher);
    tokio::time::sleep(Duration::from_secs(52)).await;
    assert_eq!(dispatcher.heartbeats(), 11, "one at once and one every 5 s");
    assert_eq!(dispatcher.sessions(), 1);
    agent.stop().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn containers_outlive_the_daemon_and_are_resumed_without_a_manager() {
    let dir = tempfile::tempdir().unwrap();
    let (node, dispatcher) = (FakeNode::new(), FakeDispatcher::new());
    for number in 1..=2 {
        dispatcher.assign(task(number, TaskState::Running));
    }
    let agent = start(dir.path(), &node, &dispatcher);
    dispatcher.wait_for(1, TaskState::Running).await;
    dispatcher.wait_for(2, TaskState::Running).await;
    agent.stop().await;
    assert!(node.is_running(1) && node.is_running(2));
    node.exit(2, 4);

    dispatcher.fail_with(Some(DispatchError::NoLeader("none yet".to_owned())));
    let agent = start(dir.path(), &node, &dispatcher);
    node.wait_for_call(1, "wait").await;
    let calls = ["prepare", "start", "wait", "wait dropped", "wait"];
    assert_eq!(node.calls(1), calls, "adopted, neither stopped nor started");
    dispatcher.fail_with(None);
    assert_eq!(
        dispatcher.wait_for(2, TaskState::Failed).await.err,
        "task: non-zero exit (4)"
    );
    assert!(node.is_running(1));
    agent.stop().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_broken_session_is_rebuilt_and_everything_reported_again() {
    let dir = tempfile::tempdir().unwrap();
    let (node, dispatcher) = (FakeNode::new(), FakeDispatcher::new());
    dispatcher.assign(task(1, TaskState::Running));
    let agent = start(dir.path(), &node, &dispatcher);
    dispatcher.wait_for(1, TaskState::Running).await;
    dispatcher.break_session();
    dispatcher.wait_for(1, TaskState::Running).await;
    assert_eq!(dispatcher.sessions(), 2);
    assert_eq!(
        node.calls(1),
        ["prepare", "start", "wait"],
        "the task noticed nothing"
    );
    agent.stop().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_session_that_lost_one_stream_closes_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let (node, dispatcher) = (FakeNode::new(), FakeDispatcher::new());
    dispatcher.assign(task(1, TaskState::Running));
    let agent = start(dir.path(), &node, &dispatcher);
    dispatcher.wait_for(1, TaskState::Running).await;
    let session = dispatcher.break_assignments();
    timeout(PATIENCE, session.closed()).await.unwrap();
    dispatcher.wait_for(1, TaskState::Running).await;
    agent.stop().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_shutdown_overtakes_a_prepare_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let (node, dispatcher) = (FakeNode::new(), FakeDispatcher::new());
    node.hang_prepare(1);
    dispatcher.assign(task(1, TaskState::Running));
    let agent = start(dir.path(), &node, &dispatcher);
    node.wait_for_call(1, "prepare").await;
    dispatcher.assign(task(1, TaskState::Shutdown));
    dispatcher.wait_for(1, TaskState::Shutdown).await;
    let calls = ["prepare", "prepare dropped", "update", "shutdown"];
    assert_eq!(node.calls(1), calls);
    agent.stop().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn prepares_run_two_per_core_and_slow_ones_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let (node, dispatcher) = (FakeNode::new(), FakeDispatcher::new());
    for number in 1..=6 {
        node.hang_prepare(number);
        dispatcher.assign(task(number, TaskState::Running));
    }
    let agent = start(dir.path(), &node, &dispatcher);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(node.preparing_count(), 2);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.preparing_count(), 4);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.preparing_count(), 6);
    agent.stop().await;
    assert_eq!(
        node.preparing_count(),
        0,
        "the daemon's end drops operations"
    );
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_task_deleted_from_the_cluster_is_stopped_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (node, dispatcher) = (FakeNode::new(), FakeDispatcher::new());
    dispatcher.assign(task(1, TaskState::Running));
    let agent = start(dir.path(), &node, &dispatcher);
    dispatcher.wait_for(1, TaskState::Running).await;
    dispatcher.remove(1);
    node.wait_for_call(1, "remove").await;
    assert_eq!(
        node.calls(1),
        [
            "prepare",
            "start",
            "wait",
            "wait dropped",
            "update",
            "shutdown",
            "remove"
        ]
    );
    agent.stop().await;
    let db = Db::open(&dir.path().join("tasks.db")).unwrap();
    assert_eq!(db.load().unwrap().tasks, []);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn leaving_removes_every_container_and_ends_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let (node, dispatcher) = (FakeNode::new(), FakeDispatcher::new());
    dispatcher.assign(task(1, TaskState::Running));
    let agent = start(dir.path(), &node, &dispatcher);
    dispatcher.wait_for(1, TaskState::Running).await;
    timeout(PATIENCE, agent.handle.leave())
        .await
        .unwrap()
        .unwrap();
    agent.run.await.unwrap().unwrap();
    assert_eq!(
        node.calls(1),
        [
            "prepare",
            "start",
            "wait",
            "wait dropped",
            "terminate",
            "remove"
        ]
    );
    assert!(matches!(agent.handle.leave().await, Err(Error::Stopped)));
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_container_nobody_knows_is_swept_after_the_first_complete_set() {
    let dir = tempfile::tempdir().unwrap();
    let (node, dispatcher) = (FakeNode::new(), FakeDispatcher::new());
    node.add_container(9);
    let agent = start(dir.path(), &node, &dispatcher);
    node.wait_for_call(9, "remove orphan").await;
    agent.stop().await;
}
