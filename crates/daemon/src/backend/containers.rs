//! The container side of the Engine API, over the engine.
//!
//! Above 300 lines because it is one trait with a method per route of the API; each is a few lines.

use std::{pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt;
use skep_docker_api::{
    backend::{
        AttachOptions, AttachedIo, BoxStream, ConsoleSize, ContainerBackend, ContainerDetail,
        ContainerSummary, ExecConfig, ExecDetail, ExecStart, LogMessage, LogOptions, LogSource,
        OutputChunk, ProcessTable, RemoveContainerOptions, StatsMode, StatsSample, Tail,
        WaitCondition, WaitOutcome,
    },
    error::{ApiError, ErrorKind, Result},
};
use skep_executor::{
    engine::{Container, Engine, LifecycleError, Phase, signal_number},
    runtime::{self, OutputStream},
};
use skep_model::Timestamp;

use crate::backend::{
    container_view::{detail, stats_sample, stopped_sample, summary},
    execs::Execs,
};

/// Time between two samples of a container's resource use, as Docker's.
const STATS_PERIOD: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(crate) struct Containers {
    pub(crate) engine: Arc<Engine>,
    pub(crate) execs: Execs,
}

impl Containers {
    fn find(&self, id: &str) -> Result<Arc<Container>> {
        let mut found = self.engine.find(id);
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(ApiError::not_found(format!("No such container: {id}"))),
            _ => Err(ApiError::invalid(format!(
                "Multiple IDs found with provided prefix: {id}"
            ))),
        }
    }

    fn running(&self, id: &str) -> Result<Arc<Container>> {
        let container = self.find(id)?;
        if container.status().is_running() {
            return Ok(container);
        }
        let id = &container.record().id;
        Err(ApiError::conflict(format!("container {id} is not running")))
    }
}

#[async_trait]
impl ContainerBackend for Containers {
    async fn containers(&self, size: bool) -> Result<Vec<ContainerSummary>> {
        let all = self.engine.containers();
        Ok(all
            .iter()
            .map(|container| summary(&self.engine, container, size))
            .collect())
    }

    async fn container(&self, id: &str, size: bool) -> Result<ContainerDetail> {
        let container = self.find(id)?;
        let mut detail = detail(&self.engine, &container, size);
        detail.exec_ids = self.execs.running_in(container.record().id.as_str());
        Ok(detail)
    }

    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<Result<Vec<LogMessage>>>> {
        let container = self.find(id)?;
        log_stream(&container, options)
    }

    async fn top(&self, id: &str, ps_args: &str) -> Result<ProcessTable> {
        let container = self.running(id)?;
        let table = container
            .handle()
            .top(ps_args)
            .await
            .map_err(from_runtime)?;
        Ok(ProcessTable {
            titles: table.titles,
            processes: table.processes,
        })
    }

    async fn stats(&self, id: &str, mode: StatsMode) -> Result<BoxStream<StatsSample>> {
        let container = self.find(id)?;
        let count = match mode {
            StatsMode::Stream => usize::MAX,
            StatsMode::Twice => 2,
            StatsMode::Once => 1,
        };
        let ticks = tokio::time::interval(STATS_PERIOD);
        let ticks = tokio_stream::wrappers::IntervalStream::new(ticks).take(count);
        Ok(Box::pin(ticks.map(
            move |_| match container.handle().stats() {
                Ok(stats) => stats_sample(&container, stats),
                Err(_) => stopped_sample(&container),
            },
        )))
    }

    async fn attach(&self, id: &str, options: AttachOptions) -> Result<AttachedIo> {
        let container = self.running(id)?;
        let wanted = runtime::AttachOptions {
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        let (input, output) = container
            .handle()
            .attach(wanted)
            .await
            .map_err(from_runtime)?;
        let live = output.into_stream().map(|piece| {
            piece.map(|(stream, data)| OutputChunk {
                source: source(stream),
                data,
            })
        });
        let past: BoxStream<std::io::Result<OutputChunk>> = if options.logs {
            let options = runtime::LogOptions {
                stdout: options.stdout,
                stderr: options.stderr,
                ..runtime::LogOptions::default()
            };
            let entries = container.handle().logs(options).map_err(from_runtime)?;
            Box::pin(entries.map(|entry| match entry {
                Ok(entry) => Ok(OutputChunk {
                    source: source(entry.stream),
                    data: entry.bytes,
                }),
                Err(error) => Err(std::io::Error::other(error)),
            }))
        } else {
            Box::pin(futures_util::stream::empty())
        };
        let output: BoxStream<std::io::Result<OutputChunk>> = if options.stream {
            Box::pin(past.chain(live))
        } else {
            past
        };
        Ok(AttachedIo {
            has_tty: container.record().config.has_tty,
            output,
            input: options.stdin.then(|| Box::pin(input) as _),
        })
    }

    async fn resize(&self, id: &str, size: ConsoleSize) -> Result<()> {
        let container = self.running(id)?;
        container
            .handle()
            .resize(size.height, size.width)
            .await
            .map_err(from_runtime)
    }

    async fn stop(
        &self,
        id: &str,
        signal: Option<&str>,
        grace: Option<Option<Duration>>,
    ) -> Result<()> {
        let container = self.find(id)?;
        if !container.status().is_running() {
            return Err(ApiError::new(
                ErrorKind::NotModified,
                "container is already stopped",
            ));
        }
        let signal = signal.map(parse_signal).transpose()?;
        self.engine
            .stop(&container, signal, grace)
            .await
            .map_err(from_lifecycle)
    }

    async fn kill(&self, id: &str, signal: &str) -> Result<()> {
        let container = self.find(id)?;
        let signal = parse_signal(if signal.is_empty() { "KILL" } else { signal })?;
        if !container.status().is_running() {
            let id = &container.record().id;
            let message = format!("cannot kill container: {id}: container {id} is not running");
            return Err(ApiError::conflict(message));
        }
        self.engine
            .signal(&container, signal)
            .await
            .map_err(from_lifecycle)
    }

    async fn remove(&self, id: &str, options: RemoveContainerOptions) -> Result<()> {
        let container = self.find(id)?;
        self.engine
            .remove(&container, options.force)
            .await
            .map_err(from_lifecycle)
    }

    async fn wait(
        &self,
        id: &str,
        condition: WaitCondition,
    ) -> Result<Pin<Box<dyn Future<Output = Result<WaitOutcome>> + Send>>> {
        let container = self.find(id)?;
        let mut status = container.watch();
        Ok(Box::pin(async move {
            let is_met = |status: &skep_executor::engine::ContainerStatusView| match condition {
                WaitCondition::NotRunning => !status.is_running(),
                WaitCondition::NextExit => status.has_ended(),
                WaitCondition::Removed => status.phase == Phase::Removed,
            };
            let status = match status.wait_for(is_met).await {
                Ok(status) => status.clone(),
                Err(_) => container.status(),
            };
            Ok(WaitOutcome {
                exit_code: i64::from(status.exit_code),
                error: None,
            })
        }))
    }

    async fn prunable(&self) -> Result<Vec<ContainerSummary>> {
        // Every container belongs to a task, so the agent removes them all.
        Ok(Vec::new())
    }

    async fn exec_create(&self, id: &str, config: ExecConfig) -> Result<String> {
        let container = self.running(id)?;
        Ok(self
            .execs
            .create(self.engine.random_name(), &container, config))
    }

    async fn exec_start(&self, exec_id: &str, start: ExecStart) -> Result<AttachedIo> {
        self.execs.start(exec_id, start).await
    }

    async fn exec_resize(&self, exec_id: &str, size: ConsoleSize) -> Result<()> {
        self.execs.resize(exec_id, size)
    }

    async fn exec(&self, exec_id: &str) -> Result<ExecDetail> {
        self.execs.detail(exec_id)
    }
}

/// A container's log as the API wants it.
fn log_stream(
    container: &Container,
    options: LogOptions,
) -> Result<BoxStream<Result<Vec<LogMessage>>>> {
    let options = runtime::LogOptions {
        stdout: options.stdout,
        stderr: options.stderr,
        since: options.since.map(|time| time.0),
        until: options.until.map(|time| time.0),
        tail: match options.tail {
            Tail::All => None,
            Tail::Lines(count) => Some(count),
        },
        follow: options.follow && !container.status().has_ended(),
    };
    let batches = container
        .handle()
        .log_batches(options)
        .map_err(from_runtime)?;
    Ok(Box::pin(batches.map(|batch| {
        let entries = batch.map_err(from_runtime)?.into_iter();
        let messages = entries.map(|entry| LogMessage {
            source: source(entry.stream),
            time: Timestamp(entry.time),
            data: entry.bytes,
            attributes: entry.details.into_iter().collect(),
            origin: None,
        });
        Ok(messages.collect())
    })))
}

pub(crate) fn source(stream: OutputStream) -> LogSource {
    match stream {
        OutputStream::Stdout => LogSource::Stdout,
        OutputStream::Stderr => LogSource::Stderr,
    }
}

fn parse_signal(signal: &str) -> Result<i32> {
    signal_number(signal).map_err(|error| ApiError::invalid(error.to_string()))
}

pub(crate) fn from_runtime(error: runtime::Error) -> ApiError {
    use runtime::Error as E;
    let kind = match &error {
        E::NotFound(_) => ErrorKind::NotFound,
        E::NotRunning(_) | E::Exists(_) => ErrorKind::Conflict,
        E::NoLog => ErrorKind::NotImplemented,
        E::NotRun { .. }
        | E::Top(_)
        | E::MissingSource(_)
        | E::NotShared { .. }
        | E::Spec(_)
        | E::User(_) => ErrorKind::InvalidArgument,
        E::NoOciRuntime
        | E::BrokenOciRuntime { .. }
        | E::Refused { .. }
        | E::MonitorGone(_)
        | E::TimedOut { .. }
        | E::TimeLimit
        | E::Io { .. }
        | E::Protocol(_) => ErrorKind::System,
    };
    let message = error.to_string();
    ApiError::new(kind, message).with_source(error)
}

fn from_lifecycle(error: LifecycleError) -> ApiError {
    match error {
        LifecycleError::Runtime(error) => from_runtime(error),
        LifecycleError::Running(_) | LifecycleError::BeingRemoved(_) => {
            ApiError::conflict(error.to_string())
        }
        LifecycleError::Leftovers { .. } => ApiError::new(ErrorKind::System, error.to_string()),
    }
}
