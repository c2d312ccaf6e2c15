//! `skep monitor exec DIR`: one exec session. Enters the monitor's mount namespace, lets the OCI runtime start the process with this
//! process' own stdio (or a pty that goes straight to the daemon), waits for it and reports over a socket. A session with a time limit
//! ends with it, and with the daemon: nobody would count its result.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::net::UnixStream,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, getpgid, getpgrp, kill_process, kill_process_group,
        pidfd_open, wait,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    config::{EXEC_FILE, ExecSpec, read_json},
    oci::{self, Operation},
    serve::exit_code,
    stdio::connect_in,
};

/// The daemon's socket for reports, inside the session's directory.
pub const REPORT_FILE: &str = "report.sock";

/// The daemon's socket for the pty, inside the session's directory.
pub const EXEC_CONSOLE_FILE: &str = "console.sock";

/// The OCI process description, inside the session's directory.
pub const PROCESS_FILE: &str = "process.json";

/// What the helper tells the daemon: one JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    Started {
        pid: i32,
    },
    Exited {
        code: i32,
    },
    /// It was killed because its time was over.
    TimedOut,
    /// It never ran; `code` is what the client gets as exit code.
    Failed {
        code: i32,
        message: String,
    },
}

/// Runs one session.
pub(super) fn run(dir: &Path) -> Result<(), String> {
    let dir = dir
        .canonicalize()
        .map_err(|e| format!("failed to open session directory: {e}"))?;
    let spec: ExecSpec =
        read_json(&dir.join(EXEC_FILE)).map_err(|e| format!("failed to read {EXEC_FILE}: {e}"))?;
    let mut daemon = connect_in(&dir, REPORT_FILE)
        .map_err(|error| format!("failed to reach the daemon: {error}"))?;
    let last = session(&dir, &spec, &mut daemon)
        .unwrap_or_else(|(code, message)| Report::Failed { code, message });
    send(&mut daemon, &last);
    Ok(())
}

fn session(dir: &Path, spec: &ExecSpec, daemon: &mut UnixStream) -> Result<Report, (i32, String)> {
    let fatal = |message: String| (128, message);
    super::setup::detach().map_err(fatal)?;
    let namespace = File::open(format!("/proc/{}/ns/mnt", spec.monitor_pid))
        .map_err(|error| fatal(format!("failed to open the monitor's namespace: {error}")))?;
    setns(namespace, CloneFlags::CLONE_NEWNS)
        .map_err(|error| fatal(format!("failed to enter the monitor's namespace: {error}")))?;

    let mut command = oci::command(&spec.oci, dir);
    command
        .arg("exec")
        .arg("--detach")
        .arg("--process")
        .arg(dir.join(PROCESS_FILE));
    command.arg("--pid-file").arg(dir.join("pid"));
    if spec.time_limit_ms.is_some() {
        command.process_group(0);
    }
    let handle = File::open(dir).map_err(|error| fatal(error.to_string()))?;
    if spec.has_tty {
        use std::os::fd::AsRawFd;
        let (pid, fd) = (std::process::id(), handle.as_raw_fd());
        command
            .arg("--console-socket")
            .arg(format!("/proc/{pid}/fd/{fd}/{EXEC_CONSOLE_FILE}"));
    } else {
        command
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit());
    }
    let status = command.arg(&spec.container_id).status().map_err(|error| {
        fatal(format!(
            "failed to run `{}`: {error}",
            spec.oci.path.display()
        ))
    })?;
    // The end of the streams must be the process' end, not ours.
    release_stdio();
    if !status.success() {
        let ending = format!("status {}", status.code().or(status.signal()).unwrap_or(-1));
        let raw = oci::last_error(dir, &ending);
        return Err(oci::describe(
            Operation::Exec,
            spec.oci.kind,
            &spec.program,
            &raw,
        ));
    }
    let pid = fs::read_to_string(dir.join("pid"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| fatal("failed to read the process' pid".to_owned()))?;
    send(daemon, &Report::Started { pid });
    let lost = || fatal("lost the process".to_owned());
    let is_over_time = match spec.time_limit_ms {
        Some(limit) => end_within(pid, daemon, Duration::from_millis(limit)).map_err(fatal)?,
        None => false,
    };
    let code = wait_for(pid).ok_or_else(lost)?;
    Ok(match is_over_time {
        true => Report::TimedOut,
        false => Report::Exited { code },
    })
}

/// Waits until the process has ended; kills it with its whole group when that takes longer than `limit` or the daemon goes away.
/// Whether it was killed. It is not reaped here: its number stays its own.
fn end_within(pid: i32, daemon: &UnixStream, limit: Duration) -> Result<bool, String> {
    let failed = |error: Errno| format!("failed to watch the process: {error}");
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH).map_err(failed)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut watched = [
            PollFd::new(&process, PollFlags::IN),
            // The daemon never writes: only its end is seen.
            PollFd::new(daemon, PollFlags::RDHUP),
        ];
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) if !watched[0].revents().is_empty() => return Ok(false),
            Ok(0) if !left.is_zero() => {}
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    // runc makes a session of its own for the process, crun leaves it in the group that was made for it.
    let group = getpgid(Some(pid)).ok().filter(|group| *group != getpgrp());
    let killed = match group {
        Some(group) => kill_process_group(group, Signal::KILL),
        None => kill_process(pid, Signal::KILL),
    };
    killed
        .map(|()| true)
        .map_err(|error| format!("failed to kill the process: {error}"))
}

fn release_stdio() {
    if let Ok(null) = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
    {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
        let _ = dup2_stderr(&null);
    }
}

fn wait_for(wanted: i32) -> Option<i32> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == wanted => {
                return Some(exit_code(status));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

fn send(daemon: &mut UnixStream, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        // Without a daemon the session simply goes on unobserved.
        let _ = daemon.write_all(&line);
    }
}
