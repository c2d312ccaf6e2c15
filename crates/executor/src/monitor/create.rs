//! From an empty process to a created container: every step in order, and the report to the daemon.

use std::{
    fs,
    io::{self, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{dup2_stdin, dup2_stdout};

use super::{
    config::{MONITOR_FILE, MonitorConfig, read_json},
    oci::{self, Operation},
    ports::Ports,
    protocol::SOCKET_FILE,
    serve::{Created, Monitor},
    setup::{self, Cgroups},
    state::{Exit, Phase, ProcessId, State},
    stdio::{self, ContainerIo},
};

/// Written into a failed creation's record when nothing better is known; Docker's code for a daemon-side failure.
const FAILED_CODE: i32 = 128;

/// Signals taken through a descriptor: none may end a monitor but SIGKILL.
pub(super) const TAKEN_SIGNALS: [Signal; 8] = [
    Signal::SIGCHLD,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// Runs one container to its end.
pub(super) fn run(dir: &Path) -> Result<(), String> {
    let dir = dir
        .canonicalize()
        .map_err(|e| format!("failed to open container directory: {e}"))?;
    let config: MonitorConfig = read_json(&dir.join(MONITOR_FILE))
        .map_err(|e| format!("failed to read {MONITOR_FILE}: {e}"))?;
    block_signals()?;
    setup::detach()?;
    let mut state = State::creating().map_err(|e| format!("failed to observe itself: {e}"))?;
    write_state(&state, &dir)?;

    let created = create(&dir, &config, &mut state);
    let (created, cgroups) = match created {
        Ok(created) => created,
        Err((code, error)) => {
            state.phase = Phase::Failed;
            let finished_at = super::unix_nanos();
            state.exit = Some(Exit {
                code,
                is_oom_killed: false,
                finished_at,
                error,
            });
            write_state(&state, &dir)?;
            super::serve::remove_cgroups(&config);
            report(&state);
            return Ok(());
        }
    };
    state.phase = Phase::Created;
    write_state(&state, &dir)?;
    report(&state);
    // Off the critical path: the daemon already goes on.
    setup::leave_daemon_cgroup(cgroups);
    let _ = fs::write("/proc/self/oom_score_adj", "-999");
    Monitor::new(dir, config, state, created)?.run()
}

fn block_signals() -> Result<(), String> {
    let taken: SigSet = TAKEN_SIGNALS.into_iter().collect();
    taken
        .thread_block()
        .map_err(|error| format!("failed to block signals: {error}"))
}

fn write_state(state: &State, dir: &Path) -> Result<(), String> {
    state
        .write(dir)
        .map_err(|error| format!("failed to write state: {error}"))
}

/// Tells the daemon, which reads our stdout to its end, and then lets go of the daemon's descriptors.
fn report(state: &State) {
    if let Ok(text) = serde_json::to_vec(state) {
        // The daemon may have died meanwhile: it will read the file.
        let _ = io::stdout()
            .write_all(&text)
            .and_then(|()| io::stdout().flush());
    }
    if let Ok(null) = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
    {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
    }
}

type Failure = (i32, String);

fn create(
    dir: &Path,
    config: &MonitorConfig,
    state: &mut State,
) -> Result<(Created, Cgroups), Failure> {
    let fatal = |message: String| (FAILED_CODE, message);
    let ports = Ports::reserve(&config.reserved_ports).map_err(fatal)?;
    let mut cgroups = setup::mounts(dir, config).map_err(fatal)?;
    let socket = dir.join(SOCKET_FILE);
    let _ = fs::remove_file(socket);
    let listener = stdio::bind_in(dir, SOCKET_FILE)
        .map_err(|error| fatal(format!("failed to listen: {error}")))?;

    let mut command = oci::command(&config.oci, dir);
    command
        .arg("create")
        .arg("--bundle")
        .arg(dir.join("bundle"));
    command.arg("--pid-file").arg(dir.join("pid"));
    let (mut io, console) = stdio::connect(&mut command, dir, config).map_err(fatal)?;
    command.arg(&config.id);
    oci::clear_log(dir);
    run_create(dir, config, command)?;
    if let Some(console) = console {
        let terminal = console.receive(config.tty_size).map_err(fatal)?;
        io = ContainerIo {
            terminal: Some(terminal),
            ..ContainerIo::default()
        };
    }
    let process = read_pid(&dir.join("pid"))
        .map_err(|error| fatal(format!("failed to find the container's process: {error}")))?;
    if let Some(cgroup) = &mut cgroups.extra {
        let _ = setup::join(cgroup, process.pid);
    }
    state.process = Some(process);
    let hidden_cgroups = cgroups.extra_parent.take();
    Ok((
        Created {
            listener,
            io,
            ports,
            hidden_cgroups,
        },
        cgroups,
    ))
}

fn run_create(dir: &Path, config: &MonitorConfig, mut command: Command) -> Result<(), Failure> {
    let path = config.oci.path.display();
    let status = command
        .status()
        .map_err(|error| (FAILED_CODE, format!("failed to run `{path}`: {error}")))?;
    // The command holds our copies of the container's ends.
    drop(command);
    if status.success() {
        return Ok(());
    }
    let ending = match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    };
    let raw = oci::last_error(dir, &ending);
    let first = config.program.as_str();
    Err(oci::describe(
        Operation::Create,
        config.oci.kind,
        first,
        &raw,
    ))
}

/// Reads a pid file and the process' start time.
pub(super) fn read_pid(path: &PathBuf) -> io::Result<ProcessId> {
    let text = fs::read_to_string(path)?;
    let pid = text
        .trim()
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    ProcessId::observe(pid)
}
