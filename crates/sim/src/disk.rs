//! A manager's disk: `skep_raft::MemoryDisk` behind a queue, as the shell's disk thread serves it.
//!
//! One request at a time, each taking virtual time. A crash loses or keeps the write under way and
//! everything behind it in the queue.

use std::{collections::VecDeque, time::Duration};

use skep_manager::{
    entry,
    replica::{DiskDone, DiskRequest, SnapshotContent},
};
use skep_model::Rng;
use skep_raft::{Crash, DiskError, MemoryDisk, Ready, Restored, Snapshot, Storage};
use skep_store::{ObjectId, Store};
use skep_wire::snapshot::Membership;

use crate::{
    bug::Bug,
    context::Context,
    event::{Event, ManagerIndex},
    profile::span,
};

/// How much longer a slow disk takes.
const SLOW_FACTOR: u32 = 40;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Disk {
    storage: MemoryDisk,
    /// Whose log is on it.
    raft_id: u64,
    rng: Rng,
    queue: VecDeque<DiskRequest>,
    write_max: Duration,
    is_slow: bool,
    /// The write under way was taken; a full disk takes none.
    is_begun: bool,
    /// The next write fails; when true it is stored all the same.
    failing: Option<bool>,
}

impl Disk {
    /// A disk that holds what `storage` does.
    pub(crate) fn new(storage: MemoryDisk, raft_id: u64, rng: Rng, write_max: Duration) -> Self {
        Self {
            storage,
            raft_id,
            rng,
            queue: VecDeque::new(),
            write_max,
            is_slow: false,
            is_begun: false,
            failing: None,
        }
    }

    /// Holds nothing more; the next member to use it is `raft_id`.
    pub(crate) fn wipe(&mut self, raft_id: u64) {
        self.storage = MemoryDisk::new();
        self.queue.clear();
        self.raft_id = raft_id;
        self.is_begun = false;
    }

    /// What a starting process finds.
    pub(crate) fn restored(&mut self) -> Restored {
        self.storage
            .restored()
            .expect("a disk in memory can be read")
    }

    /// Makes it slow, or quick again.
    pub(crate) fn set_slow(&mut self, is_slow: bool) {
        self.is_slow = is_slow;
    }

    /// Fills it, or makes room.
    pub(crate) fn set_full(&mut self, is_full: bool) {
        self.storage.set_full(is_full);
    }

    /// The next write fails.
    pub(crate) fn fail_next(&mut self) {
        self.failing = Some(self.rng.percent(50));
    }

    /// No more faults.
    pub(crate) fn calm(&mut self) {
        self.is_slow = false;
        self.failing = None;
        self.storage.set_full(false);
    }

    /// Hands over a request.
    pub(crate) fn send(
        &mut self,
        ctx: &mut Context,
        to: (ManagerIndex, u64),
        request: DiskRequest,
    ) {
        self.queue.push_back(request);
        if self.queue.len() == 1 {
            self.begin(ctx, to);
        }
    }

    fn begin(&mut self, ctx: &mut Context, (manager, life): (ManagerIndex, u64)) {
        let mut delay = span(&mut self.rng, self.write_max);
        if self.is_slow {
            delay *= SLOW_FACTOR;
        }
        if let Some(DiskRequest::Write(ready)) = self.queue.front_mut() {
            if ctx.bug == Some(Bug::ForgetVote)
                && let Some(hard_state) = &mut ready.hard_state
            {
                hard_state.vote = 0;
            }
            self.is_begun = self.storage.begin(ready).is_ok();
        }
        ctx.queue.after(delay, Event::DiskDone { manager, life });
    }

    /// The request under way ends.
    pub(crate) fn finish(
        &mut self,
        ctx: &mut Context,
        manager: ManagerIndex,
        life: u64,
    ) -> Option<DiskDone> {
        let done = match self.queue.pop_front()? {
            DiskRequest::Write(ready) => self.finish_write(ctx, &ready),
            DiskRequest::Snapshot {
                content,
                metadata,
                compact_to,
            } => {
                let snapshot = Snapshot {
                    data: encode(&content, ctx.bug).into(),
                    metadata: metadata.clone(),
                };
                let saved = self.storage.save_snapshot(&snapshot);
                match saved.and_then(|()| self.storage.compact(compact_to)) {
                    Ok(()) => DiskDone::SnapshotSaved {
                        metadata,
                        compact_to,
                    },
                    Err(error) => DiskDone::SnapshotFailed(error),
                }
            }
            DiskRequest::Attach(mut message) => match self.storage.snapshot() {
                Ok(Some(snapshot)) => {
                    message.attach_snapshot(snapshot);
                    DiskDone::Attached(message)
                }
                Ok(None) | Err(_) => DiskDone::AttachFailed { to: message.to },
            },
            DiskRequest::Restore => DiskDone::Restored(self.storage.restored()),
        };
        if !self.queue.is_empty() {
            self.begin(ctx, (manager, life));
        }
        Some(done)
    }

    fn finish_write(&mut self, ctx: &mut Context, ready: &Ready) -> DiskDone {
        let failure = self.failing.take();
        let crash = match failure {
            Some(true) | None => Crash::Kept,
            Some(false) => Crash::Lost,
        };
        let was_begun = std::mem::take(&mut self.is_begun);
        self.storage.crash(crash);
        if was_begun && crash == Crash::Kept {
            ctx.facts.logs.durable(self.raft_id, ready);
        }
        if was_begun && failure.is_none() {
            DiskDone::Written(ready.number)
        } else {
            DiskDone::WriteFailed(DiskError::Full(std::io::ErrorKind::StorageFull.into()))
        }
    }

    /// The process dies: what was under way reached the disk or did not.
    pub(crate) fn crash(&mut self, ctx: &mut Context) {
        let under_way = self.queue.pop_front();
        self.queue.clear();
        let is_kept = self.rng.percent(50);
        let was_begun = std::mem::take(&mut self.is_begun);
        self.storage
            .crash(if is_kept { Crash::Kept } else { Crash::Lost });
        match under_way {
            Some(DiskRequest::Write(ready)) if is_kept && was_begun => {
                ctx.facts.logs.durable(self.raft_id, &ready);
            }
            Some(DiskRequest::Snapshot {
                content,
                metadata,
                compact_to,
            }) if is_kept => {
                let snapshot = Snapshot {
                    data: encode(&content, ctx.bug).into(),
                    metadata,
                };
                self.save_snapshot_partly(&snapshot, compact_to);
            }
            _ => {}
        }
    }

    /// Both steps may fail on a full disk, as if they had not begun.
    fn save_snapshot_partly(&mut self, snapshot: &Snapshot, compact_to: u64) {
        if self.storage.save_snapshot(snapshot).is_ok() && self.rng.percent(50) {
            let _ = self.storage.compact(compact_to);
        }
    }
}

/// The bytes of a snapshot; bugs leave something out.
fn encode(content: &SnapshotContent, bug: Option<Bug>) -> Vec<u8> {
    let bytes = content.encode();
    if !matches!(bug, Some(Bug::LossySnapshot | Bug::SnapshotWithoutGroup)) {
        return bytes;
    }
    let (snapshot, store) = entry::decode_snapshot(&bytes).expect("a snapshot just made");
    if bug == Some(Bug::SnapshotWithoutGroup) {
        return entry::encode_snapshot(&store, &Membership::default());
    }
    let Some(lost) = store.tasks().next().map(|task| task.id) else {
        return bytes;
    };
    let objects = store.objects();
    let kept = objects.filter(|object| object.id() != ObjectId::Task(lost));
    let store = Store::from_objects(kept).expect("a store without a task is a store");
    entry::encode_snapshot(&store, &snapshot.membership)
}
