//! The agent's view of the engine: one controller per task.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use skep_agent::exec::{
    Controller, ControllerError, ExecError, Executor, OOM_CAUSE, Supplies, UNHEALTHY_CAUSE, Waited,
};
use skep_model::{
    ContainerStatus, Node, NodeDescription, NodeTlsInfo, PortConfig, Protocol, PublishMode, Task,
    TaskId, reserved::service::readiness::ReadinessPolicy,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Container, ContainerStatusView, CreateError, Engine, HealthStatus, Phase, describe,
    drain::{self, Drain},
    lifecycle::LifecycleError,
    plan::is_container_of,
};
use crate::{image::RegistryAuth, runtime};

/// Makes controllers for the agent.
#[derive(Debug)]
pub struct TaskExecutor {
    engine: Arc<Engine>,
    tls: NodeTlsInfo,
}

impl TaskExecutor {
    /// An executor over `engine`; `tls` is what the node says of its certificate.
    pub fn new(engine: Arc<Engine>, tls: NodeTlsInfo) -> Self {
        Self { engine, tls }
    }
}

#[async_trait]
impl Executor for TaskExecutor {
    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        describe::description(&self.engine, self.tls.clone())
            .map_err(|error| ExecError::Describe(error.into()))
    }

    async fn configure(&self, node: &Node) -> Result<(), ExecError> {
        self.engine.set_node_labels(&node.spec.annotations.labels);
        Ok(())
    }

    fn supply(&self, supplies: Supplies) {
        self.engine.supplies.take(supplies);
    }

    fn controller(&self, task: &Task) -> Result<Arc<dyn Controller>, ControllerError> {
        let controller = TaskController {
            engine: Arc::clone(&self.engine),
            task: Mutex::new(Arc::new(task.clone())),
        };
        Ok(Arc::new(controller))
    }

    async fn known_tasks(&self) -> Vec<TaskId> {
        self.engine.read().by_task.keys().copied().collect()
    }

    async fn remove_orphan(&self, task: TaskId) -> Result<(), ControllerError> {
        remove(&self.engine, task).await
    }
}

/// One task's container, by the task's id; holds no state of its own.
#[derive(Debug)]
struct TaskController {
    engine: Arc<Engine>,
    task: Mutex<Arc<Task>>,
}

impl TaskController {
    fn task(&self) -> Arc<Task> {
        Arc::clone(&self.task.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn container(&self) -> Option<Arc<Container>> {
        let task = self.task();
        let container = self.engine.container_of_task(task.id)?;
        debug_assert!(is_container_of(&container.record().labels, task.id));
        Some(container)
    }

    /// Returns once the started container is healthy, at once without a health check. One that turns
    /// out unhealthy is stopped.
    async fn become_healthy(&self, container: &Arc<Container>) -> Result<(), ControllerError> {
        if container.health_check().is_none() {
            return Ok(());
        }
        let is_healthy = tokio::select! {
            biased;
            status = container.ended() => return ending(container, &status),
            is_healthy = container.is_healthy() => is_healthy,
        };
        if is_healthy {
            return Ok(());
        }
        self.end_unhealthy(container).await
    }

    /// Whether the healthy container is ready for its first connections; it is where its service says nothing of
    /// readiness. The agent tries again, and shows why until then.
    async fn check_ready(&self, container: &Arc<Container>) -> Result<(), ControllerError> {
        let Some(policy) = self.readiness() else {
            return Ok(());
        };
        tokio::select! {
            biased;
            status = container.ended() => ending(container, &status),
            () = container.unhealthy() => self.end_unhealthy(container).await,
            answer = self.engine.ask_readiness(container, &policy) => {
                answer.map_err(ControllerError::Temporary)
            }
        }
    }

    fn readiness(&self) -> Option<ReadinessPolicy> {
        ReadinessPolicy::of(&self.task().service_annotations.labels)
    }

    /// Stops a container because it is unhealthy. It is not drained: what it answers is of no use.
    /// Dropped and called again it goes on.
    async fn end_unhealthy(&self, container: &Arc<Container>) -> Result<(), ControllerError> {
        let stopped = self.engine.stop(container, None, None).await;
        stopped.map_err(temporary)?;
        ending(container, &container.status())
    }
}

/// What the end of a container means for its task.
fn ending(container: &Container, status: &ContainerStatusView) -> Result<(), ControllerError> {
    let health = container.health();
    let is_unhealthy = health.is_some_and(|health| health.status == HealthStatus::Unhealthy);
    if status.exit_code == 0 && status.error.is_empty() && !status.is_oom_killed {
        if is_unhealthy {
            // Docker calls this a task that has completed, and `on-failure` then starts no other.
            return Err(ControllerError::Fatal(UNHEALTHY_CAUSE.to_owned()));
        }
        return Ok(());
    }
    let cause = if status.is_oom_killed {
        Some(OOM_CAUSE.to_owned())
    } else if is_unhealthy {
        Some(UNHEALTHY_CAUSE.to_owned())
    } else {
        Some(status.error.clone()).filter(|error| !error.is_empty())
    };
    Err(ControllerError::Exited {
        code: status.exit_code,
        cause,
    })
}

#[async_trait]
impl Controller for TaskController {
    async fn update(&self, task: &Task) -> Result<(), ControllerError> {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(task.clone());
        Ok(())
    }

    async fn prepare(&self) -> Result<(), ControllerError> {
        if self.container().is_some() {
            return Err(ControllerError::AlreadyPrepared);
        }
        let task = self.task();
        let auth = registry_auth(&task.spec.container.registry_auth.0);
        let engine = Arc::clone(&self.engine);
        // A dropped future must not leave half a container, so the making runs on to its end. But
        // then nobody waits for the container: a removal of the task may have looked for it in vain.
        let abandoned = CancellationToken::new();
        let _abandon = abandoned.clone().drop_guard();
        let making = self.engine.watchers.spawn(async move {
            let container = engine.create_for_task(&task, auth).await?;
            if abandoned.is_cancelled()
                && let Err(error) = engine.remove(&container, true).await
            {
                warn!(error = %error, "Failed to remove an unwanted container");
            }
            Ok(())
        });
        match making.await {
            Ok(made) => made.map_err(from_create),
            Err(error) => Err(ControllerError::Temporary(error.to_string())),
        }
    }

    async fn start(&self) -> Result<(), ControllerError> {
        let container = self.container().ok_or_else(no_container)?;
        if container.status().phase != Phase::Created {
            // Started before, but perhaps not waited for to the end.
            self.become_healthy(&container).await?;
            self.check_ready(&container).await?;
            return Err(ControllerError::AlreadyStarted);
        }
        let (engine, created) = (Arc::clone(&self.engine), Arc::clone(&container));
        let starting = self
            .engine
            .watchers
            .spawn(async move { engine.start(&created).await });
        match starting.await {
            Ok(started) => started.map_err(from_start)?,
            Err(error) => return Err(ControllerError::Temporary(error.to_string())),
        }
        self.become_healthy(&container).await?;
        self.check_ready(&container).await
    }

    async fn wait(&self, is_ready: bool) -> Result<Waited, ControllerError> {
        let container = self.container().ok_or_else(no_container)?;
        let policy = self.readiness();
        let ended = tokio::select! {
            biased;
            status = container.ended() => ending(&container, &status),
            () = container.unhealthy() => self.end_unhealthy(&container).await,
            why = self.engine.readiness_turn(&container, policy.as_ref(), is_ready) => {
                return Ok(why.map_or(Waited::Ready, Waited::NotReady));
            }
        };
        ended.map(|()| Waited::Ended)
    }

    async fn shutdown(&self) -> Result<(), ControllerError> {
        let Some(container) = self.container() else {
            return Ok(());
        };
        if container.status().phase == Phase::Created {
            // Never started: there is nothing to ask.
            return self.terminate().await;
        }
        if let Some(drain) = Drain::of(&self.task())
            && drain::is_serving(&container)
        {
            self.engine.drain(&container, drain).await;
        }
        if container.status().has_ended() {
            return Ok(());
        }
        self.engine
            .stop(&container, None, None)
            .await
            .map_err(temporary)
    }

    async fn terminate(&self) -> Result<(), ControllerError> {
        let Some(container) = self.container() else {
            return Ok(());
        };
        if container.status().has_ended() {
            return Ok(());
        }
        self.engine.kill(&container).await.map_err(temporary)
    }

    async fn remove(&self) -> Result<(), ControllerError> {
        remove(&self.engine, self.task().id).await
    }

    async fn container_status(&self) -> Option<ContainerStatus> {
        let container = self.container()?;
        let status = container.status();
        Some(ContainerStatus {
            container_id: container.record().id.to_string(),
            pid: status.pid,
            exit_code: status.exit_code,
        })
    }

    async fn port_status(&self) -> Vec<PortConfig> {
        let Some(container) = self.container() else {
            return Vec::new();
        };
        let record = container.record();
        let ports = record.network.iter().flat_map(|network| &network.ports);
        ports.map(port_config).collect()
    }
}

async fn remove(engine: &Arc<Engine>, task: TaskId) -> Result<(), ControllerError> {
    let Some(container) = engine.container_of_task(task) else {
        return Ok(());
    };
    let engine_of_task = Arc::clone(engine);
    let removing = engine
        .watchers
        .spawn(async move { engine_of_task.remove(&container, true).await });
    match removing.await {
        Ok(Ok(()) | Err(LifecycleError::BeingRemoved(_))) => Ok(()),
        Ok(Err(error)) => Err(temporary(error)),
        Err(error) => Err(ControllerError::Temporary(error.to_string())),
    }
}

fn port_config(port: &skep_network::HostPort) -> PortConfig {
    PortConfig {
        name: String::new(),
        protocol: match port.protocol {
            skep_network::Protocol::Tcp => Protocol::Tcp,
            skep_network::Protocol::Udp => Protocol::Udp,
            skep_network::Protocol::Sctp => Protocol::Sctp,
        },
        target_port: port.target,
        published_port: port.published,
        publish_mode: PublishMode::Host,
    }
}

fn no_container() -> ControllerError {
    ControllerError::Fatal("the task's container is gone".to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
fn temporary(error: LifecycleError) -> ControllerError {
    ControllerError::Temporary(error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
fn from_create(error: CreateError) -> ControllerError {
    if error.is_temporary() {
        ControllerError::Temporary(chain(&error))
    } else {
        ControllerError::Fatal(chain(&error))
    }
}

fn from_start(error: LifecycleError) -> ControllerError {
    match error {
        LifecycleError::Runtime(runtime::Error::NotRun { code, message }) => {
            ControllerError::Exited {
                code,
                cause: Some(message),
            }
        }
        other => ControllerError::Fatal(chain(&other)),
    }
}

/// The error with its causes: what the user reads in `docker service ps`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Docker's `X-Registry-Auth`: base64url JSON. Malformed credentials count as none.
fn registry_auth(encoded: &str) -> Option<RegistryAuth> {
    if encoded.is_empty() {
        return None;
    }
    let json = URL_SAFE.decode(encoded).ok()?;
    let fields: BTreeMap<String, String> = serde_json::from_slice(&json).ok()?;
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    Some(RegistryAuth {
        username: field("username"),
        password: field("password"),
        identity_token: field("identitytoken"),
        server: field("serveraddress"),
    })
}
