//! Cron patterns: which minutes of which days, and when the next of them is in a time zone.
//!
//! Five fields (minute, hour, day of month, month, day of week) with `*`, lists, ranges, steps and English names, or
//! `@daily` and its like. No seconds, no `L`, `W`, `#`. What happens when clocks are changed is told in
//! `docs/design/jobs.md`. Pure: the zone database is built in, and time is an argument.

use std::sync::LazyLock;

use jiff::{
    SignedDuration,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

use crate::time::Timestamp;

/// Longest pattern that is read; all minutes as a list have 172 characters.
const PATTERN_LENGTH_MAX: usize = 512;
/// Days searched for the next instant: 29 February may be eight years away (1896, 1904).
const DAYS_SEARCHED_MAX: usize = 9 * 366;
/// No zone turns its clocks further than this, so that instants this much apart are in the order of their local times.
const TURN_MAX: SignedDuration = SignedDuration::from_hours(4);

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Why a pattern or zone cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Neither five fields nor a known name.
    #[error(
        "is neither five fields like `30 2 * * 1-5` nor one of @hourly, @daily, @weekly, @monthly, @yearly"
    )]
    Shape,
    /// A field that cannot be read.
    #[error("{field} `{text}` is not within {low}-{high}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        text: String,
        /// Least value.
        low: u8,
        /// Greatest value.
        high: u8,
    },
    /// Like 30 February.
    #[error("never happens")]
    Never,
    /// Not in the zone database.
    #[error("is no time zone like `Europe/Berlin`")]
    Zone,
}

/// A parsed pattern; sets of numbers as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Either day field begins with `*`: both must match, else one suffices.
    are_days_joined: bool,
}

/// A pattern in a time zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    pattern: Pattern,
    zone: TimeZone,
}

struct Field {
    name: &'static str,
    low: u8,
    high: u8,
    names: &'static [&'static str],
}

const MINUTE: Field = Field {
    name: "minute",
    low: 0,
    high: 59,
    names: &[],
};
const HOUR: Field = Field {
    name: "hour",
    low: 0,
    high: 23,
    names: &[],
};
const DAY: Field = Field {
    name: "day of month",
    low: 1,
    high: 31,
    names: &[],
};
const MONTH: Field = Field {
    name: "month",
    low: 1,
    high: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAY: Field = Field {
    name: "day of week",
    low: 0,
    high: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

// === impl Field ===

impl Field {
    fn parse(&self, text: &str) -> Result<u64, Invalid> {
        let mut bits = 0;
        for item in text.split(',') {
            bits |= self.item(item).ok_or_else(|| Invalid::Field {
                field: self.name,
                text: text.to_owned(),
                low: self.low,
                high: self.high,
            })?;
        }
        Ok(bits)
    }

    /// `*`, `7`, `1-5`, each with an optional `/2`; `7/2` counts on from 7.
    fn item(&self, item: &str) -> Option<u64> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(number(step)?)),
            None => (item, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.low, self.high),
            Some((from, to)) => (self.value(from)?, self.value(to)?),
            None if step.is_some() => (self.value(range)?, self.high),
            None => (self.value(range)?, self.value(range)?),
        };
        let step = step.unwrap_or(1);
        if from > to || step == 0 {
            return None;
        }
        let values = (from..=to).step_by(usize::from(step));
        Some(values.fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Option<u8> {
        let named = self
            .names
            .iter()
            .position(|name| text.eq_ignore_ascii_case(name));
        let value = match named {
            Some(index) => self.low + u8::try_from(index).ok()?,
            None => number(text)?,
        };
        (self.low..=self.high).contains(&value).then_some(value)
    }
}

fn number(text: &str) -> Option<u8> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_decimal)
}

fn has(bits: u64, value: i8) -> bool {
    u8::try_from(value).is_ok_and(|value| bits >> value & 1 == 1)
}

// === impl Pattern ===

impl Pattern {
    /// Reads five fields or a name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > PATTERN_LENGTH_MAX {
            return Err(Invalid::Shape);
        }
        let text = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(Invalid::Shape);
        };
        let weekdays = WEEKDAY.parse(weekday)?;
        let pattern = Self {
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY.parse(day)?,
            months: MONTH.parse(month)?,
            // Sunday is 0 and 7.
            weekdays: weekdays | weekdays >> 7,
            are_days_joined: day.starts_with('*') || weekday.starts_with('*'),
        };
        if pattern.never_happens() {
            return Err(Invalid::Never);
        }
        Ok(pattern)
    }

    fn never_happens(&self) -> bool {
        let longest = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut months = (1..)
            .zip(longest)
            .filter(|(month, _)| has(self.months, *month));
        self.are_days_joined && !months.any(|(_, days)| (1..=days).any(|day| has(self.days, day)))
    }

    fn has_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let is_day = match self.are_days_joined {
            true => day && weekday,
            false => day || weekday,
        };
        has(self.months, date.month()) && is_day
    }

    /// Whether it goes by elapsed time rather than by hours of the day.
    fn is_every_hour(&self) -> bool {
        self.hours == (1 << 24) - 1
    }
}

// === impl Schedule ===

impl Schedule {
    /// `pattern` in the zone of that name.
    pub fn new(pattern: Pattern, zone: &str) -> Result<Self, Invalid> {
        let zone = match zone {
            "UTC" => TimeZone::UTC,
            name => ZONES.get(name).map_err(|_| Invalid::Zone)?,
        };
        Ok(Self { pattern, zone })
    }

    /// The first instant after `after`; `None` beyond the years that can be told.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let local = self.zone.to_datetime(to_jiff(after)?);
        let from = local.checked_sub(TURN_MAX).ok()?;
        let mut found: Option<(DateTime, Timestamp)> = None;
        let mut date = from.date();
        for _ in 0..DAYS_SEARCHED_MAX {
            if self.pattern.has_day(date) {
                for time in self.times_of(date).filter(|time| *time >= from) {
                    if let Some((first, instant)) = found
                        && time.duration_since(first) > TURN_MAX
                    {
                        return Some(instant);
                    }
                    let next = self.instants(time).into_iter().flatten();
                    for instant in next.filter(|instant| *instant > after) {
                        found = match found {
                            Some((first, earlier)) => Some((first, earlier.min(instant))),
                            None => Some((time, instant)),
                        };
                    }
                }
            }
            if let Some((first, instant)) = found
                && date
                    .to_datetime(jiff::civil::Time::MAX)
                    .duration_since(first)
                    > TURN_MAX
            {
                return Some(instant);
            }
            date = date.tomorrow().ok()?;
        }
        found.map(|(_, instant)| instant)
    }

    /// The last instant after `after` and not later than `to`. Looks at hours, then at days, so that a
    /// long outage costs no more than the instants of its last busy day.
    pub fn last_between(&self, after: Timestamp, to: Timestamp) -> Option<Timestamp> {
        const WINDOWS_SECONDS: [i64; 4] = [60, 3600, 24 * 3600, 7 * 24 * 3600];
        for seconds in WINDOWS_SECONDS {
            let from = Timestamp(to.0.saturating_sub(seconds * 1_000_000_000)).max(after);
            let mut last = None;
            let mut at = from;
            while let Some(next) = self.next_after(at).filter(|next| *next <= to) {
                last = Some(next);
                at = next;
            }
            if last.is_some() || from == after {
                return last;
            }
        }
        None
    }

    /// The instant as people of the zone write it.
    pub fn local(&self, at: Timestamp) -> String {
        let offset = |at: jiff::Timestamp| at.to_zoned(self.zone.clone());
        to_jiff(at).map_or_else(String::new, |at| {
            offset(at).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
        })
    }

    fn times_of(&self, date: Date) -> impl Iterator<Item = DateTime> {
        let Pattern { hours, minutes, .. } = self.pattern;
        let hours = (0..24).filter(move |hour| has(hours, *hour));
        hours.flat_map(move |hour| {
            let minutes = (0..60).filter(move |minute| has(minutes, *minute));
            minutes.map(move |minute| date.at(hour, minute, 0, 0))
        })
    }

    /// When the clocks of the zone show `time` and the schedule means it.
    fn instants(&self, time: DateTime) -> [Option<Timestamp>; 2] {
        let at = |offset: jiff::tz::Offset| offset.to_timestamp(time).ok();
        let is_every_hour = self.pattern.is_every_hour();
        let ambiguous = self.zone.to_ambiguous_timestamp(time);
        let found = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => [at(offset), None],
            AmbiguousOffset::Gap { .. } if is_every_hour => [None, None],
            AmbiguousOffset::Gap { before, .. } => [at(before).and_then(|at| self.turn(at)), None],
            AmbiguousOffset::Fold { before, after } if is_every_hour => [at(before), at(after)],
            AmbiguousOffset::Fold { before, .. } => [at(before), None],
        };
        found.map(|at| at.and_then(from_jiff))
    }

    /// The last time clocks were changed, at `at` or before.
    fn turn(&self, at: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let after = at.checked_add(SignedDuration::from_secs(1)).ok()?;
        let turn = self.zone.preceding(after).next()?;
        Some(turn.timestamp())
    }
}

fn to_jiff(at: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_nanosecond(i128::from(at.0)).ok()
}

fn from_jiff(at: jiff::Timestamp) -> Option<Timestamp> {
    i64::try_from(at.as_nanosecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests;
