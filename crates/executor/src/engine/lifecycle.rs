//! Starting, stopping and removing containers, and noticing their end.

use std::{fs, io, sync::Arc, time::Duration};

use tracing::{debug, warn};

use super::{
    Container, Engine,
    container::{ContainerStatusView, Phase},
};
use crate::{
    monitor::state::Exit,
    runtime::{self, ContainerId},
};

/// Pause before a wait that failed is tried again.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// Why a container could not be started, stopped or removed.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The runtime refused or failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// Only a container that does not run can be removed without force. The text is Docker's.
    #[error(
        "cannot remove container \"/{0}\": container is running: stop the container before \
         removing or force remove"
    )]
    Running(String),
    /// Somebody else removes it. The text is Docker's.
    #[error("removal of container {0} is already in progress")]
    BeingRemoved(ContainerId),
    /// Parts of it could not be removed; what remains is tried again when the daemon starts.
    #[error("failed to remove container {id}: {problems}")]
    Leftovers {
        /// Which.
        id: ContainerId,
        /// All that went wrong.
        problems: String,
    },
}

impl Engine {
    /// Starts a created container and watches it from then on.
    ///
    /// # Errors
    /// It could not be run; it is then in phase `Dead` with the error.
    pub async fn start(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), LifecycleError> {
        match container.handle().start().await {
            Ok(state) => {
                container.set_status((&state).into());
                self.note_container(container, "start", &[]);
                self.watch(container);
                Ok(())
            }
            Err(error) => {
                let exit_code = match &error {
                    runtime::Error::NotRun { code, .. } => *code,
                    _ => 128,
                };
                container.set_status(ContainerStatusView {
                    phase: Phase::Dead,
                    exit_code,
                    error: error.to_string(),
                    ..container.status()
                });
                self.release_network(container).await;
                let code = ("exitCode", exit_code.to_string());
                self.note_container(container, "die", &[code]);
                Err(error.into())
            }
        }
    }

    /// Follows a running container to its end and probes its health. The engine owns the task.
    pub(super) fn watch(self: &Arc<Self>, container: &Arc<Container>) {
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        let stopping = self.stopping.clone();
        self.watchers.spawn(async move {
            tokio::select! {
                exit = engine.exit_of(&container) => engine.note_end(&container, &exit).await,
                () = engine.probe(&container) => {}
                () = stopping.cancelled() => engine.store_health(&container),
            }
        });
    }

    async fn exit_of(&self, container: &Container) -> Exit {
        loop {
            match container.handle().wait().await {
                Ok(exit) => return exit,
                Err(error) => {
                    debug!(container.id = %container.record().id, error = %error, "Wait failed");
                    tokio::time::sleep(WATCH_RETRY).await;
                }
            }
        }
    }

    /// Records a container's end. Its ports and address are given back first: whoever sees the end
    /// may want them for the replacement.
    async fn note_end(&self, container: &Container, exit: &Exit) {
        self.release_network(container).await;
        let before = container.status();
        if before.has_ended() {
            return;
        }
        container.set_status(ContainerStatusView {
            phase: Phase::Exited,
            pid: 0,
            exit_code: exit.code,
            is_oom_killed: exit.is_oom_killed,
            error: exit.error.clone(),
            finished_at: Some(skep_model::Timestamp(exit.finished_at)),
            ..before
        });
        if exit.is_oom_killed {
            self.note_container(container, "oom", &[]);
        }
        self.note_container(container, "die", &[("exitCode", exit.code.to_string())]);
    }

    /// Stop signal, grace, SIGKILL; returns when it has ended. `signal` and `grace` default to the
    /// container's own; a grace of `Some(None)` waits for ever.
    ///
    /// # Errors
    /// Something of it may still run.
    pub async fn stop(
        &self,
        container: &Arc<Container>,
        signal: Option<i32>,
        grace: Option<Option<Duration>>,
    ) -> Result<(), LifecycleError> {
        let own = Duration::from_millis(container.record().stop_grace_ms);
        let exit = container
            .handle()
            .stop(signal, grace.unwrap_or(Some(own)))
            .await?;
        self.note_end(container, &exit).await;
        self.note_container(container, "stop", &[]);
        Ok(())
    }

    /// Sends a signal to a running container.
    ///
    /// # Errors
    /// It does not run, or the runtime failed.
    pub async fn signal(
        &self,
        container: &Arc<Container>,
        signal: i32,
    ) -> Result<(), LifecycleError> {
        container.handle().signal(signal).await?;
        self.note_container(container, "kill", &[("signal", signal.to_string())]);
        Ok(())
    }

    /// SIGKILL; returns when it has ended.
    ///
    /// # Errors
    /// Something of it may still run.
    pub async fn kill(&self, container: &Arc<Container>) -> Result<(), LifecycleError> {
        let exit = container.handle().kill().await?;
        self.note_end(container, &exit).await;
        Ok(())
    }

    /// Removes a container with its writable layer, network and anonymous volumes.
    ///
    /// # Errors
    /// It runs and `force` is not given, or something could not be removed.
    pub async fn remove(
        self: &Arc<Self>,
        container: &Arc<Container>,
        force: bool,
    ) -> Result<(), LifecycleError> {
        let record = Arc::clone(container.record());
        if container.status().is_running() {
            if !force {
                return Err(LifecycleError::Running(record.name.clone()));
            }
            self.kill(container).await?;
        }
        if !container.begin_removal() {
            return Err(LifecycleError::BeingRemoved(record.id.clone()));
        }
        let problems = self.discard(&record.id).await;
        self.forget(&record.id);
        for volume in &record.anonymous_volumes {
            match self.volumes().remove(volume, false).await {
                Ok(()) => self.note_volume("destroy", volume),
                Err(error) => debug!(volume, error = %error, "Anonymous volume stays"),
            }
        }
        self.note_container(container, "destroy", &[]);
        if problems.is_empty() {
            return Ok(());
        }
        Err(LifecycleError::Leftovers {
            id: record.id.clone(),
            problems: problems.join("; "),
        })
    }

    /// Removes whatever there is of a container, going on past failures. The record goes last: as
    /// long as it is there the next start of the daemon tries again.
    pub(super) async fn discard(self: &Arc<Self>, id: &ContainerId) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(errors) = self.runtime().delete(id).await {
            problems.push(errors.to_string());
        }
        if let Err(error) = self.detach(id).await {
            problems.push(error.to_string());
        }
        if let Err(error) = self.supplies.remove(id) {
            problems.push(format!("failed to remove secrets and configs: {error}"));
        }
        let (images, owner, dir) = (
            self.images().clone(),
            id.to_string(),
            self.container_dir(id),
        );
        let is_clean = problems.is_empty();
        let rest = tokio::task::spawn_blocking(move || -> Vec<String> {
            let mut problems = Vec::new();
            if let Err(error) = images.release(&owner) {
                problems.push(error.to_string());
            }
            if is_clean
                && let Err(error) = fs::remove_dir_all(&dir)
                && error.kind() != io::ErrorKind::NotFound
            {
                problems.push(format!("failed to remove `{}`: {error}", dir.display()));
            }
            problems
        });
        problems.extend(rest.await.unwrap_or_else(|error| vec![error.to_string()]));
        // A volume that cannot be unmounted keeps no container.
        for problem in self.volumes().release(id.as_str()).await {
            warn!(container.id = %id, problem, "Volume not taken back");
        }
        for problem in &problems {
            warn!(container.id = %id, problem, "Container not removed whole");
        }
        problems
    }

    /// Removes every container that runs for a task, as when the node leaves its cluster.
    pub async fn remove_task_containers(self: &Arc<Self>) {
        let all = self.containers();
        let of_tasks = all
            .iter()
            .filter(|container| container.record().task_id.is_some());
        let removals = of_tasks.map(|container| self.remove(container, true));
        for result in futures_util::future::join_all(removals).await {
            if let Err(error) = result {
                warn!(error = %error, "Failed to remove a task's container");
            }
        }
    }
}
