//! One container as the daemon holds it: requests to its monitor, and its record when the monitor is gone.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    Settings, cgroup,
    client::{AttachedInput, AttachedOutput, Connection},
    config::{ContainerConfig, ContainerId, PortReservation},
    error::Error,
};
use crate::monitor::{
    protocol::{RefusalKind, Request},
    state::{Exit, Phase, ProcessId, State, boot_id},
};

/// Between two looks at a container whose monitor has just closed its socket or is busy.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// After SIGKILL to its first process a container ends at once, unless the kernel is stuck.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);

/// Exit code when nobody saw the container's end; Docker's for SIGKILL.
const LOST_CODE: i32 = 137;

const SIGKILL: i32 = 9;

/// One container. Cheap to clone; holds no connection.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Arc<Settings>,
    id: ContainerId,
    dir: PathBuf,
    config: ContainerConfig,
}

/// Which streams to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

// === impl Handle ===

impl Handle {
    pub(super) fn new(
        settings: Arc<Settings>,
        id: ContainerId,
        dir: PathBuf,
        config: ContainerConfig,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                id,
                dir,
                config,
            }),
        }
    }

    pub fn id(&self) -> &ContainerId {
        &self.shared.id
    }

    pub fn config(&self) -> &ContainerConfig {
        &self.shared.config
    }

    /// The container's directory.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    pub(super) fn settings(&self) -> &Arc<Settings> {
        &self.shared.settings
    }

    /// The last written state; the monitor is not asked. One small file is read.
    pub fn state(&self) -> Result<State, Error> {
        State::read(&self.shared.dir).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound(self.shared.id.clone()),
            _ => Error::Io {
                action: "read state in",
                path: self.shared.dir.clone(),
                source,
            },
        })
    }

    /// Pid of the first process, while there is one.
    pub fn pid(&self) -> Option<i32> {
        let state = self.state().ok().filter(|state| !state.is_final())?;
        state.process.map(|process| process.pid)
    }

    /// Runs the created container. Returns when its process runs.
    pub async fn start(&self) -> Result<State, Error> {
        self.ask(Request::Start).await.map_err(|error| match error {
            Error::Refused {
                kind: RefusalKind::Failed,
                message,
            } => Error::NotRun { code: 128, message },
            other => other,
        })
    }

    /// Sends a signal (1–64) to the container's first process.
    pub async fn signal(&self, signal: i32) -> Result<(), Error> {
        self.ask(Request::Signal { signal }).await.map(drop)
    }

    /// Sets the pty's size.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        self.ask(Request::Resize { rows, columns }).await.map(drop)
    }

    /// Changes log rotation from now on.
    pub async fn set_log_rotation(&self, max_size: u64, max_files: u32) -> Result<(), Error> {
        self.ask(Request::SetLog {
            max_size,
            max_files,
        })
        .await
        .map(drop)
    }

    /// Gives a reserved host port back before the container's end.
    pub async fn release_port(&self, port: PortReservation) -> Result<(), Error> {
        self.ask(Request::ReleasePort { port }).await.map(drop)
    }

    /// Connects to the container's streams. Attach before `start` to miss nothing.
    pub async fn attach(
        &self,
        options: AttachOptions,
    ) -> Result<(AttachedInput, AttachedOutput), Error> {
        let AttachOptions {
            stdin,
            stdout,
            stderr,
        } = options;
        let mut connection = self.connect()?;
        connection
            .ask(&Request::Attach {
                stdin,
                stdout,
                stderr,
            })
            .await?;
        Ok(connection.into_streams())
    }

    /// Waits for the container's end, however long; its record is on disk then. Cancel-safe.
    pub async fn wait(&self) -> Result<Exit, Error> {
        loop {
            if let Ok(mut connection) = Connection::open(&self.shared.dir)
                && connection.send(&Request::Wait).await.is_ok()
                && let Ok(State {
                    exit: Some(exit), ..
                }) = connection.reply().await
            {
                return Ok(exit);
            }
            // The monitor has closed: its record is written, or it is dead, or it was busy for a moment.
            if let Some(exit) = self.settled_state().await?.exit {
                return Ok(exit);
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Ends the container: `signal` (or its own stop signal), then SIGKILL after `grace`; `None` waits for ever. A container that has
    /// not been started or has ended just gives its record.
    pub async fn stop(&self, signal: Option<i32>, grace: Option<Duration>) -> Result<Exit, Error> {
        let state = self.settled_state().await?;
        if let Some(exit) = state.exit {
            return Ok(exit);
        }
        if state.phase == Phase::Running {
            let signal = signal.unwrap_or(self.shared.config.stop_signal);
            self.signal_or_ended(signal).await?;
            match grace {
                None => return self.wait().await,
                Some(grace) => {
                    if let Ok(exit) = timeout(grace, self.wait()).await {
                        return exit;
                    }
                }
            }
        }
        self.kill().await
    }

    /// SIGKILL, to the first process and, if that does not help, to the whole cgroup.
    pub async fn kill(&self) -> Result<Exit, Error> {
        self.signal_or_ended(SIGKILL).await?;
        if let Ok(exit) = timeout(KILL_WAIT_MAX, self.wait()).await {
            return exit;
        }
        cgroup::kill_all(&self.shared.settings.cgroup_dirs(&self.shared.id));
        let (id, what) = (self.shared.id.clone(), "end after SIGKILL");
        timeout(KILL_WAIT_MAX, self.wait())
            .await
            .map_err(|_| Error::TimedOut { id, what })?
    }

    /// Pids of the container's processes, in the host's namespace.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let cgroup = self.shared.settings.cgroup_path(&self.shared.id);
        let hierarchies = &self.shared.settings.hierarchies;
        let dir = ["pids", "memory", "cpu"]
            .iter()
            .find_map(|name| hierarchies.dir_of(name, &cgroup));
        let dir = dir.ok_or_else(|| Error::NotRunning(self.shared.id.clone()))?;
        cgroup::pids(&dir).map_err(|_| Error::NotRunning(self.shared.id.clone()))
    }

    async fn signal_or_ended(&self, signal: i32) -> Result<(), Error> {
        match self.signal(signal).await {
            Err(
                Error::Refused {
                    kind: RefusalKind::Gone,
                    ..
                }
                | Error::NotRunning(_),
            ) => Ok(()),
            // The socket went away under the request: `wait` finds out why.
            Err(Error::Protocol(_)) => Ok(()),
            other => other,
        }
    }

    fn connect(&self) -> Result<Connection, Error> {
        Connection::open(&self.shared.dir).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Error::NotRunning(self.shared.id.clone())
            }
            _ => Error::Protocol(source),
        })
    }

    async fn ask(&self, request: Request) -> Result<State, Error> {
        self.connect()?.ask(&request).await
    }

    /// The state, after making sure that somebody still keeps it: a container without monitor is killed and its end recorded.
    pub(super) async fn settled_state(&self) -> Result<State, Error> {
        let state = self.state()?;
        if state.is_final() {
            return Ok(state);
        }
        let is_this_boot = boot_id().is_ok_and(|boot| boot == state.boot_id);
        if is_this_boot && state.monitor.is_alive() {
            return Ok(state);
        }
        self.bury(is_this_boot).await
    }

    /// Writes the record that a dead monitor could not write.
    async fn bury(&self, is_this_boot: bool) -> Result<State, Error> {
        let settings = &self.shared.settings;
        let _guard = settings.burial.lock().await;
        // The monitor's last act may have been its record, or another task has been here.
        let mut state = self.state()?;
        if state.is_final() {
            return Ok(state);
        }
        let dirs = settings.cgroup_dirs(&self.shared.id);
        let process = state.process.filter(|_| is_this_boot);
        let is_oom_killed =
            tokio::task::spawn_blocking(move || end_without_monitor(&dirs, process))
                .await
                .unwrap_or(false);
        let error = if is_this_boot {
            "monitor died"
        } else {
            "host restarted"
        }
        .to_owned();
        let finished_at = crate::monitor::unix_nanos();
        state.exit = Some(Exit {
            code: LOST_CODE,
            is_oom_killed,
            finished_at,
            error,
        });
        state.phase = Phase::Exited;
        let failed = Error::io("write state in", &self.shared.dir);
        state.write(&self.shared.dir).map_err(failed)?;
        let _ = std::fs::remove_dir_all(settings.oci_root().join(self.shared.id.as_str()));
        Ok(state)
    }
}

fn end_without_monitor(dirs: &[PathBuf], process: Option<ProcessId>) -> bool {
    if let Some(process) = process.filter(ProcessId::is_alive) {
        let _ = crate::monitor::kill(process.pid, SIGKILL);
    }
    let is_oom_killed = cgroup::was_oom_killed(dirs);
    let _ = cgroup::destroy(dirs);
    is_oom_killed
}
