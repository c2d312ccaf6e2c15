//! The disk thread: the only place that waits for the raft log's fsync.
//!
//! One thread, one request at a time, in order. The shell keeps collecting work while a write is
//! under way, and everything collected goes into the next one: that is the group commit.

use std::{io, thread};

use bytes::Bytes;
use skep_raft::{DiskError, Ready, Restored, Snapshot, SnapshotMetadata, Storage};
use tokio::sync::mpsc;

/// Requests on their way to the disk thread. One ready and one snapshot can be under way.
const QUEUE: usize = 4;

/// Work for the disk.
pub(crate) enum Request {
    /// Make a ready durable.
    Write(Ready),
    /// Store a snapshot and drop the log behind it.
    Snapshot {
        /// Encodes the store; runs on the disk thread, off the core's path.
        encode: Box<dyn FnOnce() -> Bytes + Send>,
        /// Where in the log it stands.
        metadata: SnapshotMetadata,
        /// Entries up to here are dropped.
        compact_to: u64,
    },
    /// Read everything back, after a failed write.
    Restore,
}

/// What became of a request.
pub(crate) enum Done {
    /// The ready with this number is durable.
    Written(u64),
    /// The write failed; nothing of it is stored.
    WriteFailed(DiskError),
    /// The snapshot is in force.
    SnapshotSaved {
        /// Where in the log it stands.
        metadata: SnapshotMetadata,
        /// Entries up to here are gone.
        compact_to: u64,
    },
    /// The snapshot failed; the older one is in force.
    SnapshotFailed(DiskError),
    /// What is stored.
    Restored(Result<Restored, DiskError>),
}

/// The thread's two ends. Dropping it ends the thread after the request under way.
#[derive(Debug)]
pub(crate) struct Disk {
    requests: mpsc::Sender<Request>,
    done: mpsc::Receiver<Done>,
}

impl Disk {
    /// Starts the thread that owns `storage`.
    pub(crate) fn spawn(storage: Box<dyn Storage>) -> io::Result<Self> {
        let (requests, requests_rx) = mpsc::channel(QUEUE);
        let (done_tx, done) = mpsc::channel(QUEUE);
        let body = move || serve(storage, requests_rx, &done_tx);
        thread::Builder::new()
            .name("raft-disk".to_owned())
            .spawn(body)?;
        Ok(Self { requests, done })
    }

    /// Hands over a request.
    ///
    /// # Panics
    /// When more is sent than may be under way: a bug of the shell.
    pub(crate) fn send(&self, request: Request) {
        assert!(
            self.requests.try_send(request).is_ok(),
            "the disk thread takes what it is sent"
        );
    }

    /// Waits until the thread has ended and closed its storage.
    pub(crate) async fn close(self) {
        let Self { requests, mut done } = self;
        drop(requests);
        while done.recv().await.is_some() {}
    }

    /// The next finished request; `None` when the thread has died. Cancel-safe.
    pub(crate) async fn done(&mut self) -> Option<Done> {
        self.done.recv().await
    }
}

fn serve(
    mut storage: Box<dyn Storage>,
    mut requests: mpsc::Receiver<Request>,
    done: &mpsc::Sender<Done>,
) {
    while let Some(request) = requests.blocking_recv() {
        let answer = match request {
            Request::Write(ready) => match storage.write(&ready) {
                Ok(()) => Done::Written(ready.number),
                Err(error) => Done::WriteFailed(error),
            },
            Request::Snapshot {
                encode,
                metadata,
                compact_to,
            } => {
                let snapshot = Snapshot {
                    data: encode(),
                    metadata: metadata.clone(),
                };
                let saved = storage
                    .save_snapshot(&snapshot)
                    .and_then(|()| storage.compact(compact_to));
                match saved {
                    Ok(()) => Done::SnapshotSaved {
                        metadata,
                        compact_to,
                    },
                    Err(error) => Done::SnapshotFailed(error),
                }
            }
            Request::Restore => Done::Restored(storage.restored()),
        };
        if done.blocking_send(answer).is_err() {
            return;
        }
    }
}
