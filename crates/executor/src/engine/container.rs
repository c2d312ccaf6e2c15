//! One container: its record, and its state as last seen.

use std::sync::{Arc, OnceLock};

use skep_model::Timestamp;
use tokio::sync::watch;

use super::{
    health::{Health, HealthCheck, HealthStatus},
    record::Record,
};
use crate::{
    monitor::state::{self, State},
    runtime::Handle,
};

/// What a container does right now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Made, not started.
    #[default]
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// Could not be started, or its monitor is lost.
    Dead,
    /// Being removed; final.
    Removed,
}

/// A container's state as last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerStatusView {
    /// What it does.
    pub phase: Phase,
    /// Process id on the host; 0 when it does not run.
    pub pid: i32,
    /// Exit code; 0 while it runs.
    pub exit_code: i32,
    /// Ended by the OOM killer.
    pub is_oom_killed: bool,
    /// Why it could not start or ended oddly.
    pub error: String,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl ContainerStatusView {
    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether it has ended, well or not.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Exited | Phase::Dead | Phase::Removed)
    }
}

impl From<&State> for ContainerStatusView {
    fn from(state: &State) -> Self {
        let exit = state.exit.as_ref();
        Self {
            phase: match state.phase {
                state::Phase::Creating | state::Phase::Created => Phase::Created,
                state::Phase::Running => Phase::Running,
                state::Phase::Exited => Phase::Exited,
                state::Phase::Failed => Phase::Dead,
            },
            pid: state
                .process
                .filter(|_| exit.is_none())
                .map_or(0, |process| process.pid),
            exit_code: exit.map_or(0, |exit| exit.code),
            is_oom_killed: exit.is_some_and(|exit| exit.is_oom_killed),
            error: exit.map(|exit| exit.error.clone()).unwrap_or_default(),
            started_at: state.started_at.map(Timestamp),
            finished_at: exit.map(|exit| Timestamp(exit.finished_at)),
        }
    }
}

/// One container. Shared; its state can be waited for.
#[derive(Debug)]
pub struct Container {
    record: Arc<Record>,
    handle: Handle,
    status: watch::Sender<ContainerStatusView>,
    check: Option<HealthCheck>,
    /// `None` without a health check.
    health: watch::Sender<Option<Arc<Health>>>,
    /// When its connections were first waited for, before it is stopped.
    drain_since: OnceLock<Timestamp>,
}

impl Container {
    pub(super) fn new(record: Record, handle: Handle, status: ContainerStatusView) -> Self {
        let check = record.healthcheck.as_ref().and_then(HealthCheck::of);
        let health = check.as_ref().map(|_| Arc::default());
        Self {
            record: Arc::new(record),
            handle,
            status: watch::Sender::new(status),
            check,
            health: watch::Sender::new(health),
            drain_since: OnceLock::new(),
        }
    }

    /// The runtime's side of it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What it was made from.
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Its state as last seen.
    pub fn status(&self) -> ContainerStatusView {
        self.status.borrow().clone()
    }

    /// Follows its state.
    pub fn watch(&self) -> watch::Receiver<ContainerStatusView> {
        self.status.subscribe()
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> ContainerStatusView {
        let mut status = self.status.subscribe();
        match status.wait_for(ContainerStatusView::has_ended).await {
            Ok(status) => status.clone(),
            // The sender is ours, so it is still there.
            Err(_) => self.status(),
        }
    }

    /// How it is probed; `None`: it is not.
    pub fn health_check(&self) -> Option<&HealthCheck> {
        self.check.as_ref()
    }

    /// Its health as of the last probe, also after its end; `None` without a health check.
    pub fn health(&self) -> Option<Arc<Health>> {
        self.health.borrow().clone()
    }

    /// Waits until it is known to be healthy or unhealthy; healthy without a health check.
    pub(super) async fn is_healthy(&self) -> bool {
        let mut health = self.health.subscribe();
        let is_known = |health: &Option<Arc<Health>>| {
            health
                .as_ref()
                .is_none_or(|health| health.status != HealthStatus::Starting)
        };
        // The sender is ours, so it is still there.
        health.wait_for(is_known).await.is_ok_and(|health| {
            health
                .as_ref()
                .is_none_or(|health| health.status == HealthStatus::Healthy)
        })
    }

    /// Waits until it is unhealthy.
    pub(super) async fn unhealthy(&self) {
        let mut health = self.health.subscribe();
        let is_bad = |health: &Option<Arc<Health>>| {
            health
                .as_ref()
                .is_some_and(|health| health.status == HealthStatus::Unhealthy)
        };
        if health.wait_for(is_bad).await.is_err() {
            std::future::pending().await
        }
    }

    /// When its connections were first waited for; now, if that is the first time.
    pub(super) fn drain_since(&self, now: Timestamp) -> Timestamp {
        *self.drain_since.get_or_init(|| now)
    }

    pub(super) fn set_health(&self, health: Health) {
        self.health.send_replace(Some(Arc::new(health)));
    }

    pub(super) fn set_status(&self, status: ContainerStatusView) {
        self.status.send_replace(status);
    }

    /// Marks it as being removed; false when somebody else does that already.
    pub(super) fn begin_removal(&self) -> bool {
        self.status.send_if_modified(|status| {
            let is_first = status.phase != Phase::Removed;
            status.phase = Phase::Removed;
            is_first
        })
    }
}
