//! Licences of everything we link, from `cargo metadata`.

use crate::workspace::{check, metadata, packages};

/// Licences that may be linked into an Apache-2.0 program. The same list is in `deny.toml`.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// File-level copyleft, used unmodified.
const EXCEPTIONS: &[(&str, &str)] = &[("imbl", "MPL-2.0+"), ("imbl-sized-chunks", "MPL-2.0+")];

/// Whether an SPDX expression can be satisfied. `AND` binds closer than `OR`; a slash is an old way to write `OR`.
fn is_satisfied(expression: &str, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let expression = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let mut position = 0;
    let value = alternatives(&words, &mut position, is_allowed);
    value && position == words.len()
}

fn alternatives(words: &[&str], position: &mut usize, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut value = conjunction(words, position, is_allowed);
    while words.get(*position) == Some(&"OR") {
        *position += 1;
        // Both sides are read whatever the first one says.
        let other = conjunction(words, position, is_allowed);
        value = value || other;
    }
    value
}

fn conjunction(words: &[&str], position: &mut usize, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut value = licence(words, position, is_allowed);
    while words.get(*position) == Some(&"AND") {
        *position += 1;
        let other = licence(words, position, is_allowed);
        value = value && other;
    }
    value
}

fn licence(words: &[&str], position: &mut usize, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let Some(word) = words.get(*position) else {
        return false;
    };
    *position += 1;
    if *word == "(" {
        let value = alternatives(words, position, is_allowed);
        *position += 1;
        return value;
    }
    if words.get(*position) == Some(&"WITH") {
        let exception = words.get(*position + 1).copied().unwrap_or_default();
        *position += 2;
        return is_allowed(&format!("{word} WITH {exception}"));
    }
    is_allowed(word)
}

#[test]
fn everything_we_link_has_a_licence_we_allow() {
    let metadata = metadata(true);
    let mut offenders = Vec::new();
    for package in packages(&metadata) {
        let name = package["name"].as_str().unwrap();
        let expression = package["license"].as_str().unwrap_or("no licence");
        let is_allowed =
            |licence: &str| ALLOWED.contains(&licence) || EXCEPTIONS.contains(&(name, licence));
        if !is_satisfied(expression, &is_allowed) {
            offenders.push(format!("{name}: {expression}"));
        }
    }
    check(
        &offenders,
        "licences not on the list: use another crate, or argue for an exception here and in deny.toml",
    );
}

#[test]
fn deny_toml_has_the_same_list() {
    let text = std::fs::read_to_string(crate::workspace::root().join("deny.toml")).unwrap();
    let quoted = ALLOWED
        .iter()
        .map(|licence| format!("    \"{licence}\",\n"));
    let list: String = quoted.collect();
    assert!(
        text.contains(&format!("allow = [\n{list}]")),
        "deny.toml must allow the same licences"
    );
    for (name, licence) in EXCEPTIONS {
        let line = format!("{{ allow = [\"{licence}\"], crate = \"{name}\" }}");
        assert!(text.contains(&line), "deny.toml lacks the exception {line}");
    }
}

#[test]
fn expressions_are_understood() {
    let is_allowed = |licence: &str| ["MIT", "ISC", "A WITH B"].contains(&licence);
    for expression in [
        "MIT",
        "GPL OR MIT",
        "GPL/MIT",
        "MIT AND ISC",
        "(GPL OR MIT) AND ISC",
        "A WITH B",
    ] {
        assert!(is_satisfied(expression, &is_allowed), "{expression}");
    }
    for expression in [
        "GPL",
        "MIT AND GPL",
        "GPL AND MIT OR GPL",
        "A WITH C",
        "",
        "MIT ISC",
    ] {
        assert!(!is_satisfied(expression, &is_allowed), "{expression}");
    }
}
