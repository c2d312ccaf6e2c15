//! The disk thread: the only place that waits for the raft log's fsync.
//!
//! One thread, one request at a time, in order. The shell keeps collecting work while a write is
//! under way, and everything collected goes into the next one: that is the group commit.

use std::{io, thread};

use bytes::Bytes;
use skep_raft::{Message, Snapshot, Storage};
use tokio::sync::mpsc;

use crate::replica::{DiskDone, DiskRequest};

/// Requests on their way to the disk thread: one ready, one snapshot, and one snapshot to be sent
/// per member that lags.
const QUEUE: usize = 64;

/// The thread's two ends. Dropping it ends the thread after the request under way.
#[derive(Debug)]
pub(crate) struct Disk {
    requests: mpsc::Sender<DiskRequest>,
    done: mpsc::Receiver<DiskDone>,
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

    /// Hands over a request. A snapshot to be sent is dropped when too many wait: false then.
    ///
    /// # Panics
    /// When more writes are sent than may be under way: a bug of the shell.
    pub(crate) fn send(&self, request: DiskRequest) -> bool {
        let is_optional = matches!(request, DiskRequest::Attach(_));
        let is_taken = self.requests.try_send(request).is_ok();
        assert!(
            is_taken || is_optional,
            "the disk thread takes what it is sent"
        );
        is_taken
    }

    /// Waits until the thread has ended and closed its storage.
    pub(crate) async fn close(self) {
        let Self { requests, mut done } = self;
        drop(requests);
        while done.recv().await.is_some() {}
    }

    /// The next finished request; `None` when the thread has died. Cancel-safe.
    pub(crate) async fn done(&mut self) -> Option<DiskDone> {
        self.done.recv().await
    }
}

fn serve(
    mut storage: Box<dyn Storage>,
    mut requests: mpsc::Receiver<DiskRequest>,
    done: &mpsc::Sender<DiskDone>,
) {
    while let Some(request) = requests.blocking_recv() {
        let answer = carry_out(storage.as_mut(), request);
        if done.blocking_send(answer).is_err() {
            return;
        }
    }
}

fn carry_out(storage: &mut dyn Storage, request: DiskRequest) -> DiskDone {
    match request {
        DiskRequest::Write(ready) => match storage.write(&ready) {
            Ok(()) => DiskDone::Written(ready.number),
            Err(error) => DiskDone::WriteFailed(error),
        },
        DiskRequest::Snapshot {
            content,
            metadata,
            compact_to,
        } => {
            let snapshot = Snapshot {
                data: Bytes::from(content.encode()),
                metadata: metadata.clone(),
            };
            let saved = storage
                .save_snapshot(&snapshot)
                .and_then(|()| storage.compact(compact_to));
            match saved {
                Ok(()) => DiskDone::SnapshotSaved {
                    metadata,
                    compact_to,
                },
                Err(error) => DiskDone::SnapshotFailed(error),
            }
        }
        DiskRequest::Attach(message) => attach(storage, message),
        DiskRequest::Restore => DiskDone::Restored(storage.restored()),
    }
}

fn attach(storage: &mut dyn Storage, mut message: Message) -> DiskDone {
    match storage.snapshot() {
        Ok(Some(snapshot)) => {
            message.attach_snapshot(snapshot);
            DiskDone::Attached(message)
        }
        Ok(None) => DiskDone::AttachFailed { to: message.to },
        Err(error) => {
            tracing::warn!(error = %error, "Failed to read the snapshot to send");
            DiskDone::AttachFailed { to: message.to }
        }
    }
}
