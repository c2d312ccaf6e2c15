//! `skep monitor`: the small process that owns one container.
//!
//! It holds the container's stdio, writes its log, reaps it, records its end and outlives the daemon. One thread, one `poll` loop, no
//! async runtime, no logging framework: `main` must be the first thing a process does. The daemon's side is `crate::runtime`; processes,
//! files and protocol are described in `docs/design/monitor.md`.

mod clients;
pub mod config;
mod create;
pub mod exec;
mod held;
mod json_log;
mod lines;
mod oci;
mod output;
mod ports;
pub mod protocol;
mod requests;
mod serve;
mod setup;
pub mod state;
mod stdio;
mod sys;

use std::{
    ffi::OsString,
    io::Write,
    path::Path,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

pub use self::{
    config::{ExecSpec, LogFile, MonitorConfig, OciKind, OciRuntime},
    exec::Report,
    state::{Exit, Phase, ProcessId, State},
};

pub(crate) use self::{
    json_log::rotated,
    stdio::{bind_in, receive_fd},
    sys::kill,
};

/// Runs `skep monitor ARGS`: `DIR` for a container, `exec DIR` for one exec session. `args` lacks the program's name and the word `monitor`.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let outcome = match args.as_slice() {
        [dir] => create::run(Path::new(dir)),
        [mode, dir] if mode == "exec" => exec::run(Path::new(dir)),
        _ => Err("usage: monitor DIR | monitor exec DIR".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Stderr is `monitor.log`; when it is gone nobody is left to tell.
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

/// Nanoseconds since the epoch; 0 when the clock is before it.
pub(crate) fn unix_nanos() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}
