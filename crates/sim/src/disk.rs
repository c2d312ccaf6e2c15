//! A manager's disk: `skep_raft::MemoryDisk` behind a queue, as the shell's disk thread serves it.
//!
//! One request at a time, each taking virtual time. A crash loses or keeps the write under way and
//! everything behind it in the queue.

use std::{collections::VecDeque, time::Duration};

use skep_model::Rng;
use skep_raft::{Crash, MemoryDisk, Ready, Restored, Snapshot, SnapshotMetadata, Storage};

use crate::{
    context::Context,
    event::{Event, ManagerIndex},
    profile::span,
};

/// How much longer a slow disk takes.
const SLOW_FACTOR: u32 = 40;

/// Work for the disk.
#[derive(Debug)]
pub(crate) enum Request {
    /// Make a ready durable.
    Write(Ready),
    /// Store a snapshot and drop the log behind it.
    Snapshot { snapshot: Snapshot, compact_to: u64 },
    /// Read everything back.
    Restore,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Done {
    Written(u64),
    WriteFailed,
    SnapshotSaved {
        metadata: SnapshotMetadata,
        compact_to: u64,
    },
    SnapshotFailed,
    Restored(Restored),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Disk {
    storage: MemoryDisk,
    rng: Rng,
    queue: VecDeque<Request>,
    write_max: Duration,
    is_slow: bool,
    /// The write under way was taken; a full disk takes none.
    is_begun: bool,
    /// The next write fails; when true it is stored all the same.
    failing: Option<bool>,
}

impl Disk {
    /// A disk that holds what `storage` does.
    pub(crate) fn new(storage: MemoryDisk, rng: Rng, write_max: Duration) -> Self {
        Self {
            storage,
            rng,
            queue: VecDeque::new(),
            write_max,
            is_slow: false,
            is_begun: false,
            failing: None,
        }
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
    pub(crate) fn send(&mut self, ctx: &mut Context, to: (ManagerIndex, u64), request: Request) {
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
        if let Some(Request::Write(ready)) = self.queue.front() {
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
    ) -> Option<Done> {
        let done = match self.queue.pop_front()? {
            Request::Write(ready) => self.finish_write(ctx, manager, &ready),
            Request::Snapshot {
                snapshot,
                compact_to,
            } => {
                let metadata = snapshot.metadata.clone();
                let saved = self.storage.save_snapshot(&snapshot);
                match saved.and_then(|()| self.storage.compact(compact_to)) {
                    Ok(()) => Done::SnapshotSaved {
                        metadata,
                        compact_to,
                    },
                    Err(_) => Done::SnapshotFailed,
                }
            }
            Request::Restore => Done::Restored(self.restored()),
        };
        if !self.queue.is_empty() {
            self.begin(ctx, (manager, life));
        }
        Some(done)
    }

    fn finish_write(&mut self, ctx: &mut Context, manager: ManagerIndex, ready: &Ready) -> Done {
        let failure = self.failing.take();
        let crash = match failure {
            Some(true) | None => Crash::Kept,
            Some(false) => Crash::Lost,
        };
        let was_begun = std::mem::take(&mut self.is_begun);
        self.storage.crash(crash);
        if was_begun && crash == Crash::Kept {
            ctx.durable(manager, ready);
        }
        if was_begun && failure.is_none() {
            Done::Written(ready.number)
        } else {
            Done::WriteFailed
        }
    }

    /// The process dies: what was under way reached the disk or did not.
    pub(crate) fn crash(&mut self, ctx: &mut Context, manager: ManagerIndex) {
        let under_way = self.queue.pop_front();
        self.queue.clear();
        let is_kept = self.rng.percent(50);
        let was_begun = std::mem::take(&mut self.is_begun);
        self.storage
            .crash(if is_kept { Crash::Kept } else { Crash::Lost });
        match under_way {
            Some(Request::Write(ready)) if is_kept && was_begun => ctx.durable(manager, &ready),
            Some(Request::Snapshot {
                snapshot,
                compact_to,
            }) if is_kept => self.save_snapshot_partly(&snapshot, compact_to),
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
