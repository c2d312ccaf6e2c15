//! Counts of what must not be: failed requests and wrong addresses, with the requests they were among.

use std::collections::BTreeMap;

/// Failures shown one by one for each row.
const TOLD_COUNT_MAX: usize = 6;

/// What one load met.
#[derive(Debug, Default)]
pub(super) struct Count {
    /// Requests that were answered as they should be.
    pub(super) answered: u64,
    /// Those that were not, by kind.
    pub(super) failed: BTreeMap<&'static str, u64>,
    /// Some failures in words.
    pub(super) told: Vec<String>,
}

/// Rows in the order in which they were first met.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    load: String,
    round_count: usize,
    count: Count,
}

// === impl Count ===

impl Count {
    pub(super) fn failed_count(&self) -> u64 {
        self.failed.values().sum()
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        for (kind, count) in other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
        self.told.extend(other.told);
        self.told.truncate(TOLD_COUNT_MAX);
    }
}

// === impl Faults ===

impl Faults {
    /// Adds what a load met during something.
    pub(super) fn add(&mut self, what: &str, load: &str, count: Count) {
        let is_same = |row: &&mut Row| row.what == what && row.load == load;
        let row = match self.rows.iter_mut().find(is_same) {
            Some(row) => row,
            None => {
                let row = Row {
                    what: what.to_owned(),
                    load: load.to_owned(),
                    round_count: 0,
                    count: Count::default(),
                };
                self.rows.push(row);
                self.rows.last_mut().expect("a row was just added")
            }
        };
        row.round_count += 1;
        row.count.add(count);
    }

    /// How many there were in all.
    pub(super) fn count(&self) -> u64 {
        self.rows.iter().map(|row| row.count.failed_count()).sum()
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:36} {:34} {:>6} {:>9} {:>7}\n",
            "during", "load", "rounds", "answered", "failed"
        );
        for row in &self.rows {
            let kinds: Vec<String> = row
                .count
                .failed
                .iter()
                .map(|(kind, count)| format!("{kind} {count}"))
                .collect();
            text.push_str(&format!(
                "{:36} {:34} {:>6} {:>9} {:>7} {}\n",
                row.what,
                row.load,
                row.round_count,
                row.count.answered,
                row.count.failed_count(),
                kinds.join(", ")
            ));
            for line in &row.count.told {
                text.push_str(&format!("    {line}\n"));
            }
        }
        text
    }
}
