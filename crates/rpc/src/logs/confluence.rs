//! Several writers of lines and one reader, who gets them by time. Bounded: a writer waits until its lines are needed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use skep_model::Timestamp;
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TryRecvError},
    },
    time::{Instant, sleep_until},
};

use crate::logs::merge::{Merge, Patience};

/// Batches of a source that wait beside the one being merged: its next one is there when it is needed.
const BATCHES: usize = 1;

/// See the module's documentation.
#[derive(Debug)]
pub struct Confluence<S, L> {
    state: Mutex<State<S, L>>,
    wake: Arc<Notify>,
    began: Instant,
}

#[derive(Debug)]
struct State<S, L> {
    merge: Merge<S, L>,
    batches: BTreeMap<S, mpsc::Receiver<Batch<L>>>,
    is_finished: bool,
}

#[derive(Debug)]
enum Batch<L> {
    Lines(Vec<(Timestamp, L)>),
    CaughtUp,
    End,
}

/// Where a source's lines go in. Dropped without [`end`](Self::end), the source may begin anew.
#[derive(Debug)]
pub struct Inlet<L> {
    batches: mpsc::Sender<Batch<L>>,
    wake: Arc<Notify>,
}

impl<L> Clone for Inlet<L> {
    fn clone(&self) -> Self {
        Self {
            batches: self.batches.clone(),
            wake: Arc::clone(&self.wake),
        }
    }
}

/// Nobody reads these lines any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads these lines any more")]
pub struct Unread;

impl<L> Inlet<L> {
    /// Hands lines over, once there is room.
    ///
    /// # Errors
    /// The reader went, or wants the source from the beginning.
    pub async fn send(&self, lines: Vec<(Timestamp, L)>) -> Result<(), Unread> {
        self.put(Batch::Lines(lines)).await
    }

    /// Says that all old lines were handed over.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn catch_up(&self) -> Result<(), Unread> {
        self.put(Batch::CaughtUp).await
    }

    /// Says that no more lines come.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn end(&self) -> Result<(), Unread> {
        self.put(Batch::End).await
    }

    async fn put(&self, batch: Batch<L>) -> Result<(), Unread> {
        self.batches.send(batch).await.map_err(|_| Unread)?;
        self.wake.notify_one();
        Ok(())
    }
}

impl<S: Copy + Ord, L> Confluence<S, L> {
    /// Without sources.
    pub fn new(patience: Patience) -> Self {
        Self {
            state: Mutex::new(State {
                merge: Merge::new(patience),
                batches: BTreeMap::new(),
                is_finished: false,
            }),
            wake: Arc::default(),
            began: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S, L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes lines wait for a source that is not open yet.
    pub fn expect(&self, source: S) {
        self.lock().merge.open(source);
    }

    /// Opens a source, or opens it anew: what waits of it is dropped.
    pub fn open(&self, source: S) -> Inlet<L> {
        let (tx, rx) = mpsc::channel(BATCHES);
        let mut state = self.lock();
        state.merge.open(source);
        state.batches.insert(source, rx);
        Inlet {
            batches: tx,
            wake: Arc::clone(&self.wake),
        }
    }

    /// Makes lines no longer wait for the old ones of a source.
    pub fn excuse(&self, source: S) {
        self.lock().merge.catch_up(source);
        self.wake.notify_one();
    }

    /// Makes what is here all there is.
    pub fn finish(&self) {
        self.lock().is_finished = true;
        self.wake.notify_one();
    }

    /// The next lines, at most so many; none when there are none now.
    pub fn take(&self, count_max: usize) -> Vec<L> {
        let mut state = self.lock();
        let now = self.now();
        state.take_in(now);
        state.merge.pop(now, count_max)
    }

    /// How many lines wait here, once no source has old ones to give any more.
    pub fn caught_up(&self) -> Option<usize> {
        let state = self.lock();
        (!state.merge.has_past()).then(|| state.merge.waiting_count())
    }

    /// Waits until [`take`](Self::take) may have something or all sources have caught up; false when there never will be anything.
    pub async fn ready(&self) -> bool {
        let had_past = self.lock().merge.has_past();
        loop {
            let deadline = {
                let mut state = self.lock();
                let now = self.now();
                state.take_in(now);
                if had_past && !state.merge.has_past() && !state.is_finished {
                    return true;
                }
                let deadline = state.merge.next_deadline();
                if deadline.is_some_and(|deadline| deadline <= now) {
                    return true;
                }
                if state.is_finished && state.merge.is_over() {
                    return false;
                }
                deadline.map(|deadline| self.began + deadline.since(Timestamp::ZERO))
            };
            let due = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = due => {}
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::ZERO.saturating_add(self.began.elapsed())
    }
}

impl<S: Copy + Ord, L> State<S, L> {
    /// Takes what is there of the sources whose lines are needed.
    fn take_in(&mut self, now: Timestamp) {
        let wanted: Vec<S> = self.merge.wanted().collect();
        for source in wanted {
            let is_over = self.take_in_of(now, source);
            if is_over || (self.is_finished && self.merge.lacks_lines(source)) {
                self.merge.end(source);
                self.batches.remove(&source);
            }
        }
    }

    /// Whether the source has ended.
    fn take_in_of(&mut self, now: Timestamp, source: S) -> bool {
        let Some(batches) = self.batches.get_mut(&source) else {
            return false;
        };
        while self.merge.lacks_lines(source) {
            match batches.try_recv() {
                Ok(Batch::Lines(lines)) => self.merge.push(now, source, lines),
                Ok(Batch::CaughtUp) => self.merge.catch_up(source),
                Ok(Batch::End) => return true,
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => {
                    self.batches.remove(&source);
                    return false;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const FINITE: Patience = Patience {
        past: None,
        live: Duration::ZERO,
    };

    const NONE: [i64; 0] = [];

    fn lines(range: std::ops::Range<i64>) -> Vec<(Timestamp, i64)> {
        range.map(|time| (Timestamp(time), time)).collect()
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn writers_wait_until_their_lines_are_needed() {
        let all = Confluence::new(FINITE);
        let (one, two) = (all.open(1), all.open(2));
        one.send(lines(0..2)).await.unwrap();
        assert_eq!(all.take(9), NONE, "two may have earlier ones");
        one.send(lines(2..4)).await.unwrap();
        let third = timeout(Duration::from_secs(9), one.send(lines(4..6)));
        third.await.expect_err("there is no room for a third batch");
        two.send(lines(1..2)).await.unwrap();
        assert!(all.ready().await);
        assert_eq!(all.take(9), [0, 1], "one may have another 1");
        assert_eq!(all.take(9), [1]);
        two.end().await.unwrap();
        assert_eq!(all.take(9), [2, 3]);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_is_there_when_it_is_finished_still_comes() {
        let all = Confluence::new(FINITE);
        let one = all.open(1);
        all.expect(2);
        one.send(lines(0..3)).await.unwrap();
        assert_eq!(all.take(9), NONE, "two is expected");
        all.finish();
        assert!(all.ready().await);
        assert_eq!(all.take(2), [0, 1]);
        assert_eq!(all.take(2), [2]);
        assert!(!all.ready().await);
        one.send(lines(3..4)).await.expect_err("it is finished");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_source_opened_anew_shuts_out_its_former_writer() {
        let all = Confluence::new(FINITE);
        let old = all.open(1);
        old.send(lines(0..3)).await.unwrap();
        let new = all.open(1);
        old.send(lines(3..4)).await.expect_err("it was replaced");
        new.send(lines(0..4)).await.unwrap();
        assert!(all.ready().await);
        assert_eq!(all.take(9), [0, 1, 2, 3]);
        new.end().await.unwrap();
        all.finish();
        assert!(!all.ready().await);
    }
}
