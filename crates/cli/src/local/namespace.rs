//! Namespaces of a node or of the switch: made with a first process that does nothing but hold them,
//! entered to run commands in them, gone when that process is killed.
//!
//! The kernel does the cleaning up: a node's holder is the first process of a pid namespace, so with it
//! end daemon, monitors and containers, and their mounts and network go with the last of them. A holder
//! that is not yet written down ends with the command that made it (see [`Fresh::keep`]).

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout, sethostname, setsid},
};

use crate::local::process::Process;

/// What the holder says when its namespaces are as they shall be.
const READY: &str = "ready\n";
/// What it waits for before it stays.
const STAY: &[u8] = b"stay\n";

/// Whose namespaces.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind<'a> {
    /// Network, mounts, processes and the name of a machine.
    Node {
        /// Its host name.
        name: &'a str,
    },
    /// A network.
    Switch,
}

/// Namespaces that end with this command unless kept.
#[derive(Debug)]
pub(crate) struct Fresh {
    holder: Child,
    pub(crate) process: Process,
}

/// Makes namespaces and their holder.
pub(crate) fn create(kind: Kind<'_>) -> anyhow::Result<Fresh> {
    let mut command = Command::new(executable()?);
    command.args(["local", "hold"]);
    let mut flags = CloneFlags::CLONE_NEWNET;
    if let Kind::Node { name } = kind {
        command.arg(name);
        flags |= CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWPID;
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.current_dir("/");
    let mut holder = on_thread(|| {
        unshare(flags)?;
        command.spawn()
    })
    .context("failed to make namespaces")?;
    let process = Process::of(holder.id()).context("failed to find the holder of namespaces")?;
    let mut answer = String::new();
    let stdout = holder.stdout.take().context("the holder has no output")?;
    BufReader::new(stdout).read_line(&mut answer)?;
    if answer != READY {
        bail!("the holder of namespaces did not get ready");
    }
    Ok(Fresh { holder, process })
}

/// What `skep local hold` does.
pub(crate) fn hold(name: Option<&str>) -> anyhow::Result<()> {
    setsid().context("failed to start a session")?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block()?;
    if let Some(name) = name {
        let none: Option<&str> = None;
        // What the host mounts later shows up here, what is mounted here stays here. As on a machine of its
        // own, mounts are shared: containers may ask for binds that follow them.
        for kind in [MsFlags::MS_SLAVE, MsFlags::MS_SHARED] {
            let flags = MsFlags::MS_REC | kind;
            mount(none, "/", none, flags, none).context("failed to detach mounts")?;
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/proc", Some("proc"), flags, none).context("failed to mount /proc")?;
        sethostname(name).context("failed to set the host name")?;
    }
    io::stdout().write_all(READY.as_bytes())?;
    io::stdout().flush()?;
    let mut answer = [0; STAY.len()];
    if io::stdin().read_exact(&mut answer).is_err() {
        // The command has ended before it wrote this process down; nobody is there to be told.
        return Ok(());
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    loop {
        reap()?;
        signals.wait()?;
    }
}

/// The first process of a pid namespace is the parent of all that lost theirs.
fn reap() -> Result<(), Errno> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// What `skep local launch` does: starts a program in the background, with its output in `log`, and
/// prints its pid. Its parent will be the namespace's first process.
pub(crate) fn launch(
    log: &std::path::Path,
    program: &[String],
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    setsid().context("failed to start a session")?;
    let log = File::options().create(true).append(true).open(log)?;
    let (name, arguments) = program.split_first().context("no program")?;
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    let child = command
        .spawn()
        .with_context(|| format!("failed to start `{name}`"))?;
    writeln!(out, "{}", child.id())?;
    Ok(())
}

/// Starts `command` in the namespaces of `holder`: all of them, or the network alone.
pub(crate) fn spawn_in(
    holder: &Process,
    is_network_only: bool,
    command: &mut Command,
) -> anyhow::Result<Child> {
    let open = |name: &str| File::open(format!("/proc/{}/ns/{name}", holder.pid));
    // The pid namespace comes before the mounts: afterwards `/proc` is another one.
    let spaces: &[(&str, CloneFlags)] = &[
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let spaces = if is_network_only {
        &spaces[..1]
    } else {
        spaces
    };
    let files: Vec<(File, CloneFlags)> = spaces
        .iter()
        .map(|(name, flag)| Ok((open(name)?, *flag)))
        .collect::<io::Result<_>>()
        .context("the namespaces are gone")?;
    if !holder.is_alive() {
        bail!("the namespaces are gone");
    }
    let program = command.get_program().to_string_lossy().into_owned();
    on_thread(|| {
        // Entering mounts needs a root directory that is not shared with other threads.
        unshare(CloneFlags::CLONE_FS)?;
        for (file, flag) in &files {
            setns(file, *flag)?;
        }
        command.spawn()
    })
    .with_context(|| format!("failed to start `{program}`"))
}

/// Feeds `script` to `command` in the network of `holder`, or in this one.
pub(crate) fn feed(
    holder: Option<&Process>,
    mut command: Command,
    script: &str,
) -> anyhow::Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.stderr(Stdio::piped());
    let mut child = match holder {
        Some(holder) => spawn_in(holder, true, &mut command)?,
        None => command
            .spawn()
            .with_context(|| format!("failed to start `{program}`"))?,
    };
    if let Some(mut input) = child.stdin.take() {
        // It may fail before it has read all; its message says more than the broken pipe.
        let _ = input.write_all(script.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("`{program}` failed: {}", text.trim());
    }
    Ok(())
}

/// The network interfaces in the namespace of `holder`, or in this one.
pub(crate) fn links(holder: Option<&Process>) -> io::Result<Vec<String>> {
    let process = holder.map_or("self".to_owned(), |holder| holder.pid.to_string());
    let text = std::fs::read_to_string(format!("/proc/{process}/net/dev"))?;
    let names = text.lines().filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
}

/// This program.
pub(crate) fn executable() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("failed to find this program")
}

/// Runs `work` on a thread of its own: namespaces are the thread's, and it ends with them.
fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(work);
        thread.join().unwrap_or_else(|_| {
            let message = "the thread that enters namespaces panicked";
            Err(io::Error::other(message))
        })
    })
}

// === impl Fresh ===

impl Fresh {
    /// Lets the namespaces outlive this command: to be called once they are written down.
    pub(crate) fn keep(mut self) -> anyhow::Result<()> {
        let mut input = self
            .holder
            .stdin
            .take()
            .context("the holder has no input")?;
        input
            .write_all(STAY)
            .context("the holder of namespaces has ended")
    }
}
