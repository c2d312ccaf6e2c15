//! The container's output on its way to the log, and the read buffer it passes through.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, read};

use super::{config::LogFile, json_log::JsonLog, lines::Lines, protocol::Kind};

/// Bytes of one read; two fit into the log's batch even fully escaped.
pub(super) const READ_BYTES: usize = 16 << 10;

/// What one read of an output stream gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Bytes(usize),
    /// Nothing now.
    Empty,
    /// The stream has ended.
    End,
}

/// Log and unfinished lines of both streams.
#[derive(Debug)]
pub(super) struct Output {
    log: Option<JsonLog>,
    stdout: Lines,
    stderr: Lines,
}

impl Output {
    pub(super) fn new(log: Option<LogFile>) -> Self {
        Self {
            log: log.map(JsonLog::open),
            stdout: Lines::default(),
            stderr: Lines::default(),
        }
    }

    /// Logs bytes of one stream.
    pub(super) fn write(&mut self, kind: Kind, bytes: &[u8]) {
        let Some(log) = &mut self.log else { return };
        let now = super::unix_nanos();
        let (lines, name) = match kind {
            Kind::Stderr => (&mut self.stderr, "stderr"),
            _ => (&mut self.stdout, "stdout"),
        };
        lines.push(bytes, |piece, is_end| log.append(name, piece, is_end, now));
        log.flush();
    }

    /// Logs what is left of both streams.
    pub(super) fn finish(&mut self) {
        let Some(log) = &mut self.log else { return };
        let now = super::unix_nanos();
        self.stdout
            .finish(|piece, is_end| log.append("stdout", piece, is_end, now));
        self.stderr
            .finish(|piece, is_end| log.append("stderr", piece, is_end, now));
        log.flush();
    }

    /// Entries lost to failed writes.
    pub(super) fn dropped(&self) -> u64 {
        self.log.as_ref().map_or(0, JsonLog::dropped)
    }

    /// Changes rotation; false without a log.
    pub(super) fn set_rotation(&mut self, max_size: u64, max_files: u32) -> bool {
        let Some(log) = &mut self.log else {
            return false;
        };
        log.set_rotation(max_size, max_files);
        true
    }
}

/// Reads once. `EIO` is how a pty says that its last user has gone.
pub(super) fn read_chunk(stream: &OwnedFd, buffer: &mut [u8]) -> Chunk {
    match read(stream.as_fd(), buffer) {
        Ok(0) => Chunk::End,
        Ok(count) => Chunk::Bytes(count),
        Err(Errno::AGAIN | Errno::INTR) => Chunk::Empty,
        Err(_) => Chunk::End,
    }
}
