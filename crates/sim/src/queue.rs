//! The scheduler: a heap of events in virtual time. Events of one moment happen in the order they
//! were scheduled, so a run depends on its seed alone.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

use skep_model::Timestamp;

use crate::event::Event;

#[derive(Debug)]
struct Entry {
    at: Timestamp,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The heap gives out its greatest, which shall be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// What will happen, and the time it is.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    now: Timestamp,
    next_number: u64,
    heap: BinaryHeap<Entry>,
}

impl Queue {
    /// An empty queue at `now`.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            now,
            ..Self::default()
        }
    }

    /// The virtual time.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Schedules `event`; a time in the past means now.
    pub(crate) fn at(&mut self, at: Timestamp, event: Event) {
        self.next_number += 1;
        self.heap.push(Entry {
            at: at.max(self.now),
            number: self.next_number,
            event,
        });
    }

    /// Schedules `event` after `delay`.
    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Takes the next event and moves the time to it.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let entry = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}
