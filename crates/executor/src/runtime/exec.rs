//! Running another process in a container: a helper process per session, streams straight to the daemon.

use std::{
    fmt, fs, io,
    os::unix::net::UnixListener as StdListener,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader},
    net::{UnixListener, UnixStream},
    process::{Child, Command},
    time::timeout,
};

use super::{error::Error, handle::Handle, pty::Pty, spec, user};
use crate::monitor::{
    Phase,
    config::{EXEC_FILE, ExecSpec},
    exec::{EXEC_CONSOLE_FILE, PROCESS_FILE, REPORT_FILE, Report},
};

/// The helper and the OCI runtime answer in tens of milliseconds; seconds under heavy load.
const START_WAIT_MAX: Duration = Duration::from_secs(60);

/// A report is below 5 KiB.
const REPORT_BYTES_MAX: u64 = 64 << 10;

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecConfig {
    pub args: Vec<String>,
    /// Added to the container's.
    pub env: Vec<String>,
    /// Empty: the container's user.
    pub user: String,
    /// Empty: the container's working directory.
    pub cwd: String,
    pub has_tty: bool,
    /// Rows, columns.
    pub tty_size: Option<(u16, u16)>,
    pub has_stdin: bool,
    pub is_privileged: bool,
    /// The process and its group are killed this long after its start, and when the [`Exec`] is dropped. `None`: they live on.
    pub time_limit: Option<Duration>,
}

/// The process' stdin.
pub type ExecInput = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// The process' stdout or stderr; a pty has only the first.
pub type ExecOutput = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// A running session. Dropping it ends the process only if that has a time limit.
pub struct Exec {
    /// In the host's pid namespace.
    pub pid: i32,
    /// Take it to move it elsewhere; dropping it ends the process' stdin.
    pub stdin: Option<ExecInput>,
    pub stdout: Option<ExecOutput>,
    pub stderr: Option<ExecOutput>,
    terminal: Option<Pty>,
    reports: BufReader<tokio::io::Take<UnixStream>>,
    session: Session,
}

/// Resizes and signals a session while its streams and its `wait` are in other hands.
#[derive(Clone, Debug)]
pub struct ExecControl {
    pid: i32,
    terminal: Option<Pty>,
}

/// The session's directory, removed with it.
#[derive(Debug)]
struct Session {
    dir: PathBuf,
}

// === impl Handle ===

impl Handle {
    /// Starts a process in the running container. [`Error::NotRun`] carries exit code and sentence of a program that cannot run.
    pub async fn exec(&self, exec: ExecConfig) -> Result<Exec, Error> {
        let state = self.settled_state().await?;
        if state.phase != Phase::Running {
            return Err(Error::NotRunning(self.id().clone()));
        }
        let spec = ExecSpec {
            version: 1,
            container_id: self.id().to_string(),
            program: exec.args.first().cloned().unwrap_or_default(),
            oci: self.settings().oci().await?,
            monitor_pid: state.monitor.pid,
            has_tty: exec.has_tty,
            time_limit_ms: exec
                .time_limit
                .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        };
        let (handle, wish) = (self.clone(), exec.clone());
        let prepared = tokio::task::spawn_blocking(move || handle.prepare_exec(&wish, &spec));
        let (session, reports, console) = prepared
            .await
            .map_err(|error| Error::Protocol(io::Error::other(error)))??;
        let started = run_helper(self, &exec, session, reports, console);
        timeout(START_WAIT_MAX, started).await.unwrap_or_else(|_| {
            Err(Error::TimedOut {
                id: self.id().clone(),
                what: "exec",
            })
        })
    }

    /// Files and sockets of a session. Blocking.
    fn prepare_exec(
        &self,
        exec: &ExecConfig,
        spec: &ExecSpec,
    ) -> Result<(Session, StdListener, StdListener), Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = self.dir().join("exec").join(format!("{pid}-{number}"));
        // A daemon that died, with the same pid, may have left one.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let session = Session { dir: dir.clone() };
        let config = self.config();
        let host = self.settings().host(self.id(), config, None)?;
        let user = match exec.user.is_empty() {
            true => host.user.clone(),
            false => user::resolve(&config.rootfs, &exec.user, &config.groups_add)?,
        };
        let process = spec::oci_exec(config, exec, &user, &host)?;
        let write = |name: &str, bytes: serde_json::Result<Vec<u8>>| {
            let path = dir.join(name);
            let written = bytes
                .map_err(io::Error::from)
                .and_then(|bytes| fs::write(&path, bytes));
            written.map_err(Error::io("write", path))
        };
        write(PROCESS_FILE, serde_json::to_vec(&process))?;
        write(EXEC_FILE, serde_json::to_vec(spec))?;
        let listen = |name| {
            let listener = crate::monitor::bind_in(&dir, name)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let failed = |error| Error::io("listen in", &dir)(error);
        let reports = listen(REPORT_FILE).map_err(failed)?;
        let console = listen(EXEC_CONSOLE_FILE).map_err(failed)?;
        Ok((session, reports, console))
    }
}

async fn run_helper(
    handle: &Handle,
    exec: &ExecConfig,
    session: Session,
    reports: StdListener,
    console: StdListener,
) -> Result<Exec, Error> {
    let mut command = handle
        .settings()
        .monitor_command(&["exec".as_ref(), &session.dir]);
    set_stdio(&mut command, exec);
    let mut child = command
        .spawn()
        .map_err(Error::io("run the exec helper in", &session.dir))?;
    // Taken before `wait`, which would close stdin.
    let pipes = pipes(&mut child);
    let reports = UnixListener::from_std(reports).map_err(Error::Protocol)?;
    let accepted = tokio::select! {
        accepted = reports.accept() => accepted,
        status = child.wait() => Err(io::Error::other(format!("exec helper ended: {status:?}"))),
    };
    let (stream, _) = accepted.map_err(Error::Protocol)?;
    let mut reports = BufReader::new(stream.take(REPORT_BYTES_MAX));
    let pid = match next_report(&mut reports).await? {
        Report::Started { pid } => pid,
        Report::Failed { code, message } => return Err(Error::NotRun { code, message }),
        Report::Exited { .. } | Report::TimedOut => {
            return Err(Error::Protocol(io::ErrorKind::InvalidData.into()));
        }
    };
    let (stdin, stdout, stderr, terminal) = match exec.has_tty {
        false => (pipes.0, pipes.1, pipes.2, None),
        true => {
            let pty = receive_pty(console, exec.tty_size).map_err(Error::Protocol)?;
            let input = exec.has_stdin.then(|| Box::new(pty.clone()) as ExecInput);
            (
                input,
                Some(Box::new(pty.clone()) as ExecOutput),
                None,
                Some(pty),
            )
        }
    };
    // The async runtime reaps the helper when it ends.
    Ok(Exec {
        pid,
        stdin,
        stdout,
        stderr,
        terminal,
        reports,
        session,
    })
}

fn set_stdio(command: &mut Command, exec: &ExecConfig) {
    let output = || {
        if exec.has_tty {
            Stdio::null()
        } else {
            Stdio::piped()
        }
    };
    let has_input = exec.has_stdin && !exec.has_tty;
    command.stdin(if has_input {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    command.stdout(output()).stderr(output());
}

type Streams = (Option<ExecInput>, Option<ExecOutput>, Option<ExecOutput>);

fn pipes(child: &mut Child) -> Streams {
    let stdin = child
        .stdin
        .take()
        .map(|stream| Box::new(stream) as ExecInput);
    let stdout = child
        .stdout
        .take()
        .map(|stream| Box::new(stream) as ExecOutput);
    let stderr = child
        .stderr
        .take()
        .map(|stream| Box::new(stream) as ExecOutput);
    (stdin, stdout, stderr)
}

/// The OCI runtime has sent the pty before the helper reported: nothing to wait for.
fn receive_pty(console: StdListener, size: Option<(u16, u16)>) -> io::Result<Pty> {
    let (stream, _) = console.accept()?;
    let master = crate::monitor::receive_fd(&stream)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    let pty = Pty::new(master)?;
    if let Some((rows, columns)) = size {
        pty.resize(rows, columns)?;
    }
    Ok(pty)
}

async fn next_report(
    reports: &mut BufReader<tokio::io::Take<UnixStream>>,
) -> Result<Report, Error> {
    let mut line = String::new();
    reports
        .read_line(&mut line)
        .await
        .map_err(Error::Protocol)?;
    serde_json::from_str(&line).map_err(|error| Error::Protocol(error.into()))
}

// === impl Exec ===

impl Exec {
    /// Waits for the process' end and gives its exit code, or [`Error::TimeLimit`]. Call it until it has answered once.
    pub async fn wait(&mut self) -> Result<i32, Error> {
        match next_report(&mut self.reports).await? {
            Report::Exited { code } => Ok(code),
            Report::TimedOut => Err(Error::TimeLimit),
            Report::Failed { code, message } => Err(Error::NotRun { code, message }),
            Report::Started { .. } => Err(Error::Protocol(io::ErrorKind::InvalidData.into())),
        }
    }

    /// For `resize` and `signal` from elsewhere.
    pub fn control(&self) -> ExecControl {
        ExecControl {
            pid: self.pid,
            terminal: self.terminal.clone(),
        }
    }
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Exec");
        debug
            .field("pid", &self.pid)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

// === impl ExecControl ===

impl ExecControl {
    /// Sets the pty's size; nothing without a pty.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        self.terminal
            .as_ref()
            .map_or(Ok(()), |terminal| terminal.resize(rows, columns))
    }

    /// Sends a signal. The caller knows that the process has not been waited for.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        Ok(crate::monitor::kill(self.pid, signal)?)
    }
}

// === impl Session ===

impl Drop for Session {
    fn drop(&mut self) {
        // The container's deletion removes what stays.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
