//! Samples, their medians and percentiles, and the table and JSON made of them.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Least width of the column of names.
const NAME_WIDTH_MIN: usize = 34;

/// One measured figure.
#[derive(Debug)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    min: f64,
    max: f64,
    count: usize,
    load: f64,
    foreign: Option<f64>,
}

/// Figures in the order they were measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// What was going on elsewhere while samples were taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disturbance {
    /// The one-minute load average at the end.
    pub(crate) load: f64,
    /// The share of the machine others used, 0 to 1.
    pub(crate) foreign: Option<f64>,
}

// === impl Report ===

impl Report {
    /// Adds the median of samples.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        samples: &[f64],
        disturbance: Disturbance,
    ) {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let edge = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        let row = Row {
            name: name.into(),
            value: percentile(&sorted, 50),
            unit,
            min: edge(sorted.first()),
            max: edge(sorted.last()),
            count: sorted.len(),
            load: disturbance.load,
            foreign: disturbance.foreign,
        };
        self.rows.push(row);
    }

    /// The table, for people.
    pub(crate) fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.chars().count()).max();
        let width = width.unwrap_or_default().max(NAME_WIDTH_MIN);
        let mut text = format!(
            "{:width$} {:>10} {:6} {:>23} {:>3} {:>5} {:>8}\n",
            "measure", "median", "unit", "min – max", "n", "load", "foreign"
        );
        for row in &self.rows {
            let range = format!("{} – {}", short(row.min), short(row.max));
            let foreign = row
                .foreign
                .map_or_else(String::new, |share| format!("{:.0} %", share * 100.0));
            text.push_str(&format!(
                "{:width$} {:>10} {:6} {range:>23} {:>3} {:>5.1} {foreign:>8}\n",
                row.name,
                short(row.value),
                row.unit,
                row.count,
                row.load
            ));
        }
        text
    }

    /// One JSON object, for programs.
    pub(crate) fn json(&self, label: &str) -> Value {
        let mut measures = Map::new();
        for row in &self.rows {
            let value = json!({
                "median": row.value,
                "unit": row.unit,
                "min": row.min,
                "max": row.max,
                "count": row.count,
                "load": row.load,
                "foreign": row.foreign,
            });
            measures.insert(row.name.clone(), value);
        }
        json!({ "label": label, "measures": measures })
    }
}

/// Four digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A percentile of sorted samples: the smallest sample that so many per cent do not exceed.
pub(crate) fn percentile(sorted: &[f64], per_cent: usize) -> f64 {
    let rank = (sorted.len() * per_cent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// The mean; none of none.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values
        .into_iter()
        .fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then_some(sum / count)
}

/// Milliseconds, with fractions.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        let of = |per_cent| percentile(&sorted, per_cent).to_string();
        assert_eq!(
            [of(0), of(25), of(50), of(51), of(99), of(100)],
            ["1", "1", "2", "3", "4", "4"]
        );
        assert!(percentile(&[], 50).is_nan());
    }
}
