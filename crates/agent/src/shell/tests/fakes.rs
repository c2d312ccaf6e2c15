//! A node and a dispatcher in memory. Both outlive the agent, as containers and managers do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use skep_model::{
    Annotations, ContainerStatus, Id, Meta, Node, NodeDescription, PortConfig, Rng, SessionId,
    Task, TaskId, TaskSpec, TaskState, TaskStatus,
    dispatch::{
        AssignmentChange, AssignmentSequence, AssignmentsKind, AssignmentsMessage, DispatchError,
        HeartbeatRequest, HeartbeatResponse, SessionMessage, SessionRequest, StatusUpdate,
        WeightedPeer,
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::PATIENCE;
use crate::{
    dispatcher::{DispatcherClient, MessageStream},
    exec::{Controller, ControllerError, ExecError, Executor, Supplies, Waited},
};

pub(super) fn task_id(number: u64) -> TaskId {
    TaskId(Id::random(&mut Rng::from_seed(number)))
}

pub(super) fn task(number: u64, desired_state: TaskState) -> Arc<Task> {
    Arc::new(Task {
        id: task_id(number),
        meta: Meta::default(),
        spec: Arc::new(TaskSpec::default()),
        spec_version: None,
        service_id: None,
        slot: number,
        node_id: None,
        annotations: Arc::new(Annotations::default()),
        service_annotations: Arc::new(Annotations::default()),
        status: TaskStatus {
            state: TaskState::Assigned,
            ..TaskStatus::default()
        },
        desired_state,
        endpoint: None,
        log_driver: None,
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    })
}

/// A node whose containers are entries of a map.
#[derive(Clone)]
pub(super) struct FakeNode {
    state: Arc<Mutex<NodeState>>,
    /// Bumped by every call, for those who wait for one.
    calls: watch::Sender<usize>,
}

#[derive(Default)]
struct NodeState {
    calls: Vec<(TaskId, &'static str)>,
    hanging: BTreeSet<TaskId>,
    preparing_count: usize,
    /// Exit code of each container, `None` while it runs.
    containers: BTreeMap<TaskId, watch::Sender<Option<i32>>>,
}

impl FakeNode {
    pub(super) fn new() -> Self {
        Self {
            state: Arc::default(),
            calls: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock().unwrap()
    }

    fn record(&self, id: TaskId, call: &'static str) {
        self.state().calls.push((id, call));
        self.calls.send_modify(|count| *count += 1);
    }

    pub(super) fn calls(&self, number: u64) -> Vec<&'static str> {
        let state = self.state();
        let of_task = state.calls.iter().filter(|(id, _)| *id == task_id(number));
        of_task.map(|(_, call)| *call).collect()
    }

    /// Waits until the task's newest call is `call`.
    pub(super) async fn wait_for_call(&self, number: u64, call: &str) {
        let mut calls = self.calls.subscribe();
        let arrived = calls.wait_for(|_| self.calls(number).last() == Some(&call));
        let result = timeout(PATIENCE, arrived)
            .await
            .map(|result| result.is_ok());
        assert_eq!(result, Ok(true), "no {call}, only {:?}", self.calls(number));
    }

    pub(super) fn hang_prepare(&self, number: u64) {
        self.state().hanging.insert(task_id(number));
    }

    pub(super) fn preparing_count(&self) -> usize {
        self.state().preparing_count
    }

    pub(super) fn add_container(&self, number: u64) {
        self.state()
            .containers
            .insert(task_id(number), watch::Sender::new(None));
    }

    pub(super) fn is_running(&self, number: u64) -> bool {
        self.state()
            .containers
            .get(&task_id(number))
            .is_some_and(|exit| exit.borrow().is_none())
    }

    pub(super) fn exit(&self, number: u64, code: i32) {
        self.state().containers[&task_id(number)].send_replace(Some(code));
    }
}

#[async_trait]
impl Executor for FakeNode {
    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        Ok(NodeDescription::default())
    }

    async fn configure(&self, _: &Node) -> Result<(), ExecError> {
        Ok(())
    }

    fn supply(&self, _: Supplies) {}

    fn controller(&self, task: &Task) -> Result<Arc<dyn Controller>, ControllerError> {
        Ok(Arc::new(FakeController {
            id: task.id,
            node: self.clone(),
        }))
    }

    async fn known_tasks(&self) -> Vec<TaskId> {
        self.state().containers.keys().copied().collect()
    }

    async fn remove_orphan(&self, task: TaskId) -> Result<(), ControllerError> {
        self.state().containers.remove(&task);
        self.record(task, "remove orphan");
        Ok(())
    }
}

struct FakeController {
    id: TaskId,
    node: FakeNode,
}

/// Records that an operation was dropped before its end.
struct Dropped<'a>(&'a FakeController, Option<&'static str>);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.1 {
            self.0.node.record(self.0.id, call);
        }
        if self.1 == Some("prepare dropped") {
            self.0.node.state().preparing_count -= 1;
        }
    }
}

#[async_trait]
impl Controller for FakeController {
    async fn update(&self, _: &Task) -> Result<(), ControllerError> {
        self.node.record(self.id, "update");
        Ok(())
    }

    async fn prepare(&self) -> Result<(), ControllerError> {
        self.node.record(self.id, "prepare");
        if self.node.state().hanging.contains(&self.id) {
            self.node.state().preparing_count += 1;
            let _dropped = Dropped(self, Some("prepare dropped"));
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn start(&self) -> Result<(), ControllerError> {
        self.node.record(self.id, "start");
        self.node
            .state()
            .containers
            .insert(self.id, watch::Sender::new(None));
        Ok(())
    }

    async fn wait(&self, _is_ready: bool) -> Result<Waited, ControllerError> {
        self.node.record(self.id, "wait");
        let mut dropped = Dropped(self, Some("wait dropped"));
        let exit = self
            .node
            .state()
            .containers
            .get(&self.id)
            .map(watch::Sender::subscribe);
        let mut exit =
            exit.ok_or_else(|| ControllerError::Fatal("no such container".to_owned()))?;
        let code = exit
            .wait_for(Option::is_some)
            .await
            .map_or(0, |code| code.unwrap_or(0));
        dropped.1 = None;
        match code {
            0 => Ok(Waited::Ended),
            code => Err(ControllerError::Exited { code, cause: None }),
        }
    }

    async fn shutdown(&self) -> Result<(), ControllerError> {
        self.node.record(self.id, "shutdown");
        Ok(())
    }

    async fn terminate(&self) -> Result<(), ControllerError> {
        self.node.record(self.id, "terminate");
        Ok(())
    }

    async fn remove(&self) -> Result<(), ControllerError> {
        self.node.state().containers.remove(&self.id);
        self.node.record(self.id, "remove");
        Ok(())
    }

    async fn container_status(&self) -> Option<ContainerStatus> {
        Some(ContainerStatus {
            container_id: self.id.to_string(),
            pid: 0,
            exit_code: 0,
        })
    }

    async fn port_status(&self) -> Vec<PortConfig> {
        Vec::new()
    }
}

/// A dispatcher that keeps one node's assignments.
#[derive(Clone)]
pub(super) struct FakeDispatcher {
    state: Arc<Mutex<DispatcherState>>,
    /// Reports of the current session; bumped by every one.
    reported: watch::Sender<BTreeMap<TaskId, TaskStatus>>,
}

#[derive(Default)]
struct DispatcherState {
    assigned: BTreeMap<TaskId, Arc<Task>>,
    session_count: u64,
    heartbeat_count: usize,
    failure: Option<DispatchError>,
    session: Option<mpsc::Sender<Result<SessionMessage, DispatchError>>>,
    assignments: Option<mpsc::Sender<Result<AssignmentsMessage, DispatchError>>>,
    sequence: AssignmentSequence,
}

impl FakeDispatcher {
    pub(super) fn new() -> Self {
        Self {
            state: Arc::default(),
            reported: watch::Sender::new(BTreeMap::new()),
        }
    }

    fn state(&self) -> MutexGuard<'_, DispatcherState> {
        self.state.lock().unwrap()
    }

    pub(super) fn assign(&self, task: Arc<Task>) {
        let mut state = self.state();
        state.assigned.insert(task.id, Arc::clone(&task));
        state.send(
            AssignmentsKind::Incremental,
            vec![AssignmentChange::UpdateTask(task)],
        );
    }

    pub(super) fn remove(&self, number: u64) {
        let mut state = self.state();
        state.assigned.remove(&task_id(number));
        let change = AssignmentChange::RemoveTask(task_id(number));
        state.send(AssignmentsKind::Incremental, vec![change]);
    }

    pub(super) fn fail_with(&self, error: Option<DispatchError>) {
        self.state().failure = error;
    }

    pub(super) fn break_session(&self) {
        self.reported.send_modify(BTreeMap::clear);
        let mut state = self.state();
        state.session = None;
        state.assignments = None;
    }

    /// Ends the assignments stream; the other one is returned.
    pub(super) fn break_assignments(&self) -> mpsc::Sender<Result<SessionMessage, DispatchError>> {
        self.reported.send_modify(BTreeMap::clear);
        let mut state = self.state();
        state.assignments = None;
        state.session.clone().unwrap()
    }

    pub(super) fn heartbeats(&self) -> usize {
        self.state().heartbeat_count
    }

    pub(super) fn sessions(&self) -> u64 {
        self.state().session_count
    }

    /// Waits until the task is reported in `wanted`.
    pub(super) async fn wait_for(&self, number: u64, wanted: TaskState) -> TaskStatus {
        let mut reported = self.reported.subscribe();
        let id = task_id(number);
        let is_there = |statuses: &BTreeMap<TaskId, TaskStatus>| {
            statuses
                .get(&id)
                .is_some_and(|status| status.state == wanted)
        };
        let result = timeout(PATIENCE, reported.wait_for(is_there)).await;
        match result {
            Ok(Ok(statuses)) => statuses[&id].clone(),
            Ok(Err(_)) | Err(_) => {
                panic!(
                    "task {number} is not {wanted}: {:?}",
                    self.reported.borrow().get(&id)
                )
            }
        }
    }
}

impl DispatcherState {
    fn send(&mut self, kind: AssignmentsKind, changes: Vec<AssignmentChange>) {
        let Some(stream) = &self.assignments else {
            return;
        };
        let applies_to = self.sequence;
        self.sequence = applies_to.next();
        let message = AssignmentsMessage {
            kind,
            applies_to,
            results_in: self.sequence,
            changes,
        };
        stream.try_send(Ok(message)).unwrap();
    }
}

#[async_trait]
impl DispatcherClient for FakeDispatcher {
    async fn session(
        &self,
        _: SessionRequest,
    ) -> Result<MessageStream<SessionMessage>, DispatchError> {
        let mut state = self.state();
        if let Some(error) = &state.failure {
            return Err(error.clone());
        }
        state.session_count += 1;
        let (tx, rx) = mpsc::channel(4);
        let message = SessionMessage {
            session_id: SessionId(Id::random(&mut Rng::from_seed(state.session_count))),
            node: None,
            managers: Vec::new(),
            network_bootstrap_keys: Vec::new(),
            root_ca: Vec::new(),
        };
        tx.try_send(Ok(message)).unwrap();
        state.session = Some(tx);
        Ok(rx)
    }

    async fn assignments(
        &self,
        _: SessionId,
    ) -> Result<MessageStream<AssignmentsMessage>, DispatchError> {
        let mut state = self.state();
        let (tx, rx) = mpsc::channel(16);
        state.assignments = Some(tx);
        state.sequence = AssignmentSequence::NONE;
        let tasks = state
            .assigned
            .values()
            .cloned()
            .map(AssignmentChange::UpdateTask)
            .collect();
        state.send(AssignmentsKind::Complete, tasks);
        Ok(rx)
    }

    async fn heartbeat(&self, _: HeartbeatRequest) -> Result<HeartbeatResponse, DispatchError> {
        self.state().heartbeat_count += 1;
        Ok(HeartbeatResponse {
            period: Duration::from_secs(5),
        })
    }

    async fn update_statuses(&self, update: StatusUpdate) -> Result<(), DispatchError> {
        self.reported
            .send_modify(|known| known.extend(update.updates));
        Ok(())
    }

    async fn managers_changed(&self, _: Vec<WeightedPeer>) {}
}
