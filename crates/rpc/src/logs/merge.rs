//! Lines of several sources put into one order by time. Design: `docs/design/logs.md`.
//!
//! A value without clock or channels: who uses it says what has arrived and what time it is. Each source's own order is never changed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use skep_model::Timestamp;

/// How long lines wait for those of sources that have none just now.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For sources that have not said that all their old lines are there; `None` waits as long as it takes.
    pub past: Option<Duration>,
    /// For sources that have nothing new.
    pub live: Duration,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Merge<S, L> {
    patience: Patience,
    sources: BTreeMap<S, Source<L>>,
    /// First lines of all sources that have any, by their place in the order.
    heads: BTreeSet<(Timestamp, S)>,
}

#[derive(Debug)]
struct Source<L> {
    phase: Phase,
    lines: VecDeque<Waiting<L>>,
    /// Place of the newest line. A clock that was set back does not change a source's order.
    newest: Timestamp,
}

/// What may still come from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Lines from before the reading began.
    Past,
    /// Only lines that are written now.
    Live,
    /// Nothing.
    Ended,
}

#[derive(Debug)]
struct Waiting<L> {
    place: Timestamp,
    arrived: Timestamp,
    line: L,
}

impl<S: Copy + Ord, L> Merge<S, L> {
    /// Without sources.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            sources: BTreeMap::new(),
            heads: BTreeSet::new(),
        }
    }

    /// A source begins, or begins anew: lines that wait are dropped, because it will send them again.
    pub fn open(&mut self, source: S) {
        let old = self.sources.remove(&source);
        if let Some(head) = old.and_then(|old| old.lines.front().map(|head| head.place)) {
            self.heads.remove(&(head, source));
        }
        let fresh = Source {
            phase: Phase::Past,
            lines: VecDeque::new(),
            newest: Timestamp(i64::MIN),
        };
        self.sources.insert(source, fresh);
    }

    /// The source has given all it had when it was asked.
    pub fn catch_up(&mut self, source: S) {
        if let Some(source) = self.sources.get_mut(&source)
            && source.phase == Phase::Past
        {
            source.phase = Phase::Live;
        }
    }

    /// The source has nothing more. It is forgotten with its last line.
    pub fn end(&mut self, source: S) {
        if let Some(found) = self.sources.get_mut(&source) {
            found.phase = Phase::Ended;
            if found.lines.is_empty() {
                self.sources.remove(&source);
            }
        }
    }

    /// Takes lines of a source that was opened and has not ended, at `now`.
    pub fn push(
        &mut self,
        now: Timestamp,
        source: S,
        lines: impl IntoIterator<Item = (Timestamp, L)>,
    ) {
        let Some(found) = self.sources.get_mut(&source) else {
            return;
        };
        let was_empty = found.lines.is_empty();
        for (time, line) in lines {
            let place = time.max(found.newest);
            found.newest = place;
            found.lines.push_back(Waiting {
                place,
                arrived: now,
                line,
            });
        }
        if was_empty && let Some(head) = found.lines.front() {
            self.heads.insert((head.place, source));
        }
    }

    /// Sources that have no lines here and may have some: only their lines are needed, so only they need be read.
    pub fn wanted(&self) -> impl Iterator<Item = S> {
        let empty = self
            .sources
            .iter()
            .filter(|(_, source)| source.lines.is_empty());
        empty.map(|(id, _)| *id)
    }

    /// Whether no line of this source is here.
    pub(crate) fn lacks_lines(&self, source: S) -> bool {
        self.sources
            .get(&source)
            .is_some_and(|source| source.lines.is_empty())
    }

    /// Whether some source may still have old lines.
    pub fn has_past(&self) -> bool {
        let mut sources = self.sources.values();
        sources.any(|source| source.phase == Phase::Past)
    }

    /// How many lines wait here.
    pub fn waiting_count(&self) -> usize {
        let sources = self.sources.values();
        sources.map(|source| source.lines.len()).sum()
    }

    /// Whether no line waits and none can come.
    pub fn is_over(&self) -> bool {
        self.sources.is_empty()
    }

    /// The lines that come next, at most so many.
    pub fn pop(&mut self, now: Timestamp, count_max: usize) -> Vec<L> {
        let mut out = Vec::new();
        // Only a source that runs out of lines can change the answer while all have some.
        let mut is_free = false;
        while out.len() < count_max {
            if !is_free {
                if !self.is_due(now) {
                    break;
                }
                is_free = self.wanted().next().is_none();
            }
            let Some((_, first)) = self.heads.pop_first() else {
                break;
            };
            let next = self.heads.first().copied();
            let Some(source) = self.sources.get_mut(&first) else {
                break;
            };
            // As long as no other source comes before it, and each line may go.
            let run_max = if is_free { count_max } else { out.len() + 1 };
            while out.len() < run_max
                && let Some(head) = source.lines.front()
                && next.is_none_or(|next| (head.place, first) < next)
            {
                out.extend(source.lines.pop_front().map(|head| head.line));
            }
            match source.lines.front() {
                Some(head) => drop(self.heads.insert((head.place, first))),
                None if source.phase == Phase::Ended => drop(self.sources.remove(&first)),
                None => is_free = false,
            }
        }
        out
    }

    /// When the first line need wait no longer; `None` while there is none, or it waits for a source without limit.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let (_, first) = self.heads.first()?;
        let arrived = self.sources.get(first)?.lines.front()?.arrived;
        let patience = if self.lacks(Phase::Past) {
            self.patience.past?
        } else if self.lacks(Phase::Live) {
            self.patience.live
        } else {
            Duration::ZERO
        };
        Some(arrived.saturating_add(patience))
    }

    /// Whether the first line may go. A source that was waited for in vain is taken for one without old lines.
    fn is_due(&mut self, now: Timestamp) -> bool {
        let is_due = |deadline: Option<Timestamp>| deadline.is_some_and(|deadline| deadline <= now);
        if !is_due(self.next_deadline()) {
            return false;
        }
        for source in self.sources.values_mut() {
            if source.lines.is_empty() && source.phase == Phase::Past {
                source.phase = Phase::Live;
            }
        }
        is_due(self.next_deadline())
    }

    fn lacks(&self, phase: Phase) -> bool {
        let mut empty = self
            .sources
            .values()
            .filter(|source| source.lines.is_empty());
        empty.any(|source| source.phase == phase)
    }
}

#[cfg(test)]
mod tests;
