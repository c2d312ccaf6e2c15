//! The shape of `CHANGELOG.md`: Keep a Changelog.

use crate::workspace::root;

const SECTIONS: [&str; 6] = [
    "Added",
    "Changed",
    "Deprecated",
    "Fixed",
    "Removed",
    "Security",
];

/// What is wrong with a changelog, line by line.
fn mistakes(text: &str) -> Vec<String> {
    let mut mistakes = Vec::new();
    if !text.starts_with("# Changelog\n") {
        mistakes.push("line 1: must be `# Changelog`".to_owned());
    }
    let releases: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("## "))
        .collect();
    if releases.first() != Some(&"## [Unreleased]") {
        mistakes.push("the first release must be `## [Unreleased]`".to_owned());
    }
    let mut is_in_section = false;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if let Some(release) = line.strip_prefix("## ") {
            is_in_section = false;
            let is_dated = release.split_once("] - ").is_some_and(|(version, date)| {
                version.starts_with('[') && date.len() == 10 && date.matches('-').count() == 2
            });
            if release != "[Unreleased]" && !is_dated {
                mistakes.push(format!("line {number}: must be `## [x.y.z] - yyyy-mm-dd`"));
            }
        } else if let Some(section) = line.strip_prefix("### ") {
            is_in_section = true;
            if !SECTIONS.contains(&section) {
                mistakes.push(format!(
                    "line {number}: section must be one of {SECTIONS:?}"
                ));
            }
        } else if line.starts_with("- ") && !is_in_section {
            mistakes.push(format!("line {number}: an entry belongs into a section"));
        }
    }
    mistakes
}

#[test]
fn the_changelog_keeps_its_shape() {
    let text = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    crate::workspace::check(&mistakes(&text), "CHANGELOG.md follows Keep a Changelog");
}

#[test]
fn mistakes_are_found() {
    assert!(mistakes("# Changelog\n\n## [Unreleased]\n\n### Added\n\n- x\n").is_empty());
    assert_eq!(
        mistakes("# Changelog\n\n## [0.1.0] - 2026-11-21\n").len(),
        1
    );
    assert_eq!(
        mistakes("# Changelog\n\n## [Unreleased]\n- x\n\n### New\n\n## 0.1.0\n").len(),
        3
    );
}
