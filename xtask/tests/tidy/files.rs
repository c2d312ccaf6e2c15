//! Rules about files: names, length, the first line, what a `main.rs` and a `lib.rs` are for.

use crate::workspace::{check, files, rust_files};

/// Longest Rust file, in lines.
const LINE_COUNT_MAX: usize = 700;

/// Files that may be longer. The list only shrinks: a file that has become short must leave it.
const LONG_FILES: &[&str] = &[];

/// Longest `main.rs`, in lines: parse, log, build, run, exit.
const MAIN_LINE_COUNT_MAX: usize = 60;

/// Names that name no concept.
const VAGUE_NAMES: &[&str] = &[
    "util", "utils", "helper", "helpers", "common", "misc", "types", "mod",
];

#[test]
fn rust_files_open_with_documentation() {
    let offenders: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.path)
        .collect();
    check(
        &offenders,
        "files whose first line is not `//! …`: say what the file is, what it leaves out, where the design is",
    );
}

#[test]
fn rust_files_are_short() {
    let mut offenders = Vec::new();
    for file in rust_files() {
        let count = file.text.lines().count();
        let is_exempt = LONG_FILES.contains(&file.path.as_str());
        if count > LINE_COUNT_MAX && !is_exempt {
            offenders.push(format!("{}: {count} lines", file.path));
        }
        if count <= LINE_COUNT_MAX && is_exempt {
            offenders.push(format!(
                "{}: is short now, take it off the exception list",
                file.path
            ));
        }
    }
    check(
        &offenders,
        "Rust files have at most 700 lines: split by concept, move tests to `<file>/tests.rs`",
    );
}

#[test]
fn files_are_named_after_concepts() {
    let offenders: Vec<String> = rust_files()
        .into_iter()
        .map(|file| file.path)
        .filter(|path| {
            let parts = path.trim_end_matches(".rs").split('/');
            parts.into_iter().any(|part| VAGUE_NAMES.contains(&part))
        })
        .collect();
    check(
        &offenders,
        "vague names, or `mod.rs`: name the concept; `foo.rs` beside `foo/`",
    );
}

#[test]
fn mains_are_short() {
    let offenders: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| file.path.ends_with("/main.rs"))
        .filter(|file| file.text.lines().count() > MAIN_LINE_COUNT_MAX)
        .map(|file| file.path)
        .collect();
    check(
        &offenders,
        "a `main.rs` has at most 60 lines; everything else is a library that tests can call",
    );
}

#[test]
fn libs_are_tables_of_contents() {
    let allowed = [
        "//",
        "#![",
        "mod ",
        "pub mod ",
        "pub(crate) mod ",
        "pub use ",
        "use ",
        "#[",
    ];
    let mut offenders = Vec::new();
    for file in rust_files() {
        if !(file.path.starts_with("crates/") && file.path.ends_with("/src/lib.rs")) {
            continue;
        }
        let top_level = file
            .text
            .lines()
            .filter(|line| !line.starts_with([' ', '}', ')', ']']));
        let code = top_level.filter(|line| !line.is_empty());
        let strangers = code.filter(|line| !allowed.iter().any(|start| line.starts_with(start)));
        offenders.extend(strangers.map(|line| format!("{}: {line}", file.path)));
    }
    check(
        &offenders,
        "a `lib.rs` is documentation, `mod` lines and `pub use`; move code into a module",
    );
}

#[test]
fn files_end_with_one_line_end_and_have_no_trailing_blanks() {
    let mut offenders = Vec::new();
    let is_ours = |path: &str| {
        [".rs", ".toml", ".md", ".sh", ".proto"]
            .iter()
            .any(|end| path.ends_with(end))
    };
    for file in files().into_iter().filter(|file| is_ours(&file.path)) {
        if !file.text.is_empty() && (!file.text.ends_with('\n') || file.text.ends_with("\n\n")) {
            offenders.push(format!("{}: end of file", file.path));
        }
        let blanks = file
            .text
            .lines()
            .position(|line| line.ends_with([' ', '\t', '\r']));
        offenders.extend(blanks.map(|index| format!("{}:{}", file.path, index + 1)));
    }
    check(
        &offenders,
        "files end with one line end, lines with no blank",
    );
}
