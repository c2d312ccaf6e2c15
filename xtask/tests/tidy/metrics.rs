//! Metrics nobody updates: a family in a crate's `metrics.rs` that no other file of the crate uses.

use crate::workspace::{SourceFile, check, rust_files};

const KINDS: [&str; 4] = ["Counter", "Family", "Gauge", "Histogram"];

/// Names of the fields that are metric families.
fn families(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let field = line
            .trim()
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub ");
        let (name, kind) = field.strip_suffix(',')?.split_once(": ")?;
        let is_name = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let is_family = KINDS.iter().any(|start| {
            kind.strip_prefix(start)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('<'))
        });
        (is_name && is_family).then_some(name)
    })
}

fn crate_dir(path: &str) -> &str {
    path.split_once("/src/").map_or(path, |(dir, _)| dir)
}

#[test]
fn every_metric_is_updated() {
    let files = rust_files();
    let is_metrics = |file: &&SourceFile| file.path.ends_with("/metrics.rs");
    let mut offenders = Vec::new();
    for metrics in files.iter().filter(is_metrics) {
        let dir = crate_dir(&metrics.path);
        let others = files
            .iter()
            .filter(|file| file.path != metrics.path && crate_dir(&file.path) == dir);
        let others: Vec<&SourceFile> = others.collect();
        for name in families(&metrics.text) {
            let field = format!(".{name}");
            // Updates may be methods beside the family; then the method is what others call.
            let is_used = others.iter().any(|file| file.text.contains(&field))
                || metrics.text.matches(&format!("self{field}")).count() > 1;
            if !is_used {
                offenders.push(format!("{}: {name}", metrics.path));
            }
        }
    }
    check(&offenders, "metrics nobody updates: update or remove them");
}

#[test]
fn families_are_recognised() {
    let text =
        "    pub(crate) tasks: Family<Labels, Gauge>,\n    sent: Counter,\n    name: String,\n";
    assert_eq!(families(text).collect::<Vec<_>>(), ["tasks", "sent"]);
}
