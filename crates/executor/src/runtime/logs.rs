//! Reading a container's json-file log: from any point, backwards by lines, following through rotations until the container ends.
//!
//! Only the files are needed; the monitor is asked for nothing but its end. `files.rs` is the blocking reader, this file the async stream.

mod files;

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use self::files::LogFiles;
use super::{client::OutputStream, create::log_file, error::Error, handle::Handle};

/// Which part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    /// Nanoseconds since the epoch, inclusive.
    pub since: Option<i64>,
    /// Inclusive.
    pub until: Option<i64>,
    /// The last so many entries.
    pub tail: Option<u64>,
    /// Go on until the container ends.
    pub follow: bool,
}

/// One entry: a line with its newline, or a piece of one without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub stream: OutputStream,
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub bytes: Bytes,
    /// Labels and variables of the container that its log options name.
    pub details: BTreeMap<String, String>,
}

/// Entries in order. Ends at the log's end, or when following at the container's.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogEntry, Error>> + Send>>;

/// The same in batches. While following, an empty one says that all that was there at first has been given.
pub type LogBatches = Pin<Box<dyn Stream<Item = Result<Vec<LogEntry>, Error>> + Send>>;

impl Default for LogOptions {
    fn default() -> Self {
        let (since, until, tail) = (None, None, None);
        Self {
            stdout: true,
            stderr: true,
            since,
            until,
            tail,
            follow: false,
        }
    }
}

impl Handle {
    /// Where the container's log is; `None` without one.
    pub fn log_path(&self) -> Option<PathBuf> {
        log_file(self.id(), self.dir(), &self.config().log).map(|log| log.path)
    }

    /// The container's log.
    pub fn logs(&self, options: LogOptions) -> Result<LogStream, Error> {
        let entries = self
            .log_batches(options)?
            .map_ok(|batch| futures_util::stream::iter(batch.into_iter().map(Ok)));
        Ok(Box::pin(entries.try_flatten()))
    }

    /// The container's log in batches.
    pub fn log_batches(&self, options: LogOptions) -> Result<LogBatches, Error> {
        let log = log_file(self.id(), self.dir(), &self.config().log).ok_or(Error::NoLog)?;
        let changes = match options.follow {
            true => Some(Changes::of(&log.path).map_err(Error::io("watch", &log.path))?),
            false => None,
        };
        // Started first, so that an end during the last read is seen.
        let handle = self.clone();
        let ended: Ended = Box::pin(async move { drop(handle.wait().await) });
        let follower = Follower {
            files: Some(LogFiles::new(log.path, log.max_files)),
            has_caught_up: !options.follow,
            options,
            changes,
            ended: Some(ended),
            is_last_read: false,
            is_done: false,
        };
        Ok(Box::pin(futures_util::stream::try_unfold(
            follower,
            |mut follower| async move { Ok(follower.next().await?.map(|batch| (batch, follower))) },
        )))
    }
}

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Follower {
    /// Away while a blocking read has it.
    files: Option<LogFiles>,
    options: LogOptions,
    /// It was said that what was there at first has been given.
    has_caught_up: bool,
    changes: Option<Changes>,
    ended: Option<Ended>,
    /// The container has ended: what is in the file now is all.
    is_last_read: bool,
    is_done: bool,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<Vec<LogEntry>>, Error> {
        while !self.is_done {
            let entries = self.read().await?;
            if !entries.is_empty() {
                let wanted = self.select(entries);
                if !wanted.is_empty() {
                    return Ok(Some(wanted));
                }
                continue;
            }
            // The end of the file.
            if !std::mem::replace(&mut self.has_caught_up, true) {
                return Ok(Some(Vec::new()));
            }
            match (&self.changes, &mut self.ended) {
                (Some(changes), Some(ended)) if !self.is_last_read => {
                    tokio::select! {
                        changed = changes.wait() => changed.map_err(Error::io("watch", "log"))?,
                        () = ended => { self.is_last_read = true; self.ended = None; }
                    }
                }
                _ => self.is_done = true,
            }
        }
        Ok(None)
    }

    /// Reads a batch; an empty one at the end.
    async fn read(&mut self) -> Result<Vec<LogEntry>, Error> {
        let Some(mut files) = self.files.take() else {
            return Ok(Vec::new());
        };
        let tail = self.options.tail;
        let work = move || {
            let batch = files.read(tail);
            (files, batch)
        };
        let (files, batch) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::Protocol(io::Error::other(error)))?;
        let path = files.path().to_owned();
        self.files = Some(files);
        batch.map_err(Error::io("read", path))
    }

    /// What is wanted of a batch. The first entry that is too new is the end.
    fn select(&mut self, mut entries: Vec<LogEntry>) -> Vec<LogEntry> {
        if let Some(until) = self.options.until
            && let Some(end) = entries.iter().position(|entry| entry.time > until)
        {
            entries.truncate(end);
            self.is_done = true;
        }
        entries.retain(|entry| self.is_wanted(entry));
        entries
    }

    fn is_wanted(&self, entry: &LogEntry) -> bool {
        let options = &self.options;
        let is_stream_wanted = match entry.stream {
            OutputStream::Stdout => options.stdout,
            OutputStream::Stderr => options.stderr,
        };
        is_stream_wanted && options.since.is_none_or(|since| entry.time >= since)
    }
}

/// Wakes when something in the log's directory changes.
#[derive(Debug)]
struct Changes {
    watch: AsyncFd<OwnedFd>,
}

impl Changes {
    fn of(log: &Path) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let dir = log.parent().unwrap_or(Path::new("/"));
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, dir, events)?;
        Ok(Self {
            watch: super::sys::register(watch)?,
        })
    }

    /// Waits for a change since the last call; which one does not matter.
    async fn wait(&self) -> io::Result<()> {
        loop {
            let mut guard = self.watch.readable().await?;
            let mut events = [0; 4096];
            let read = guard
                .try_io(|fd| rustix::io::read(fd.get_ref(), &mut events).map_err(io::Error::from));
            if let Ok(outcome) = read {
                return outcome.map(drop);
            }
        }
    }
}
