//! raft-rs logs through `slog`; this passes its messages to `tracing`. Its chatter is debug to us.

use slog::{Drain, Level, Never, OwnedKVList, Record};

/// A logger for one raft node.
pub(crate) fn logger() -> slog::Logger {
    slog::Logger::root(Bridge, slog::o!())
}

#[derive(Debug)]
struct Bridge;

impl Drain for Bridge {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => {
                tracing::error!(text = %record.msg(), "Raft failed");
            }
            Level::Warning | Level::Info => tracing::debug!(text = %record.msg(), "Raft"),
            Level::Debug | Level::Trace => tracing::trace!(text = %record.msg(), "Raft"),
        }
        Ok(())
    }
}
