//! Tokens that do not belong into code, and words that do not belong into the repository.

use crate::workspace::{SourceFile, check, files, rust_files};

/// Tokens and what to do instead. Written in two parts, so that this file does not contain them.
const TOKENS: &[(&str, &str)] = &[
    (
        concat!("FIX", "ME"),
        "write TODO(reason) with the condition for its removal",
    ),
    (concat!("dbg", "!("), "use tracing, or nothing"),
    (
        concat!("#[ig", "nore"),
        "a test that does not run is no test: fix or delete it",
    ),
    (
        concat!("#[al", "low("),
        "use #[expect(lint, reason = \"…\")]",
    ),
    (
        concat!("#![al", "low("),
        "use #![expect(lint, reason = \"…\")]",
    ),
    (concat!("unimple", "mented!("), "return a typed error"),
    (
        concat!("tokio::sync::mpsc::unbo", "unded_channel"),
        "every queue has a limit",
    ),
];

/// Words that speak of how the project is made instead of the project, or of the machine it was made on.
const WORDS: &[&str] = &[
    concat!("anth", "ropic"),
    concat!("chat", "gpt"),
    concat!("cla", "ude"),
    concat!("co-auth", "ored-by"),
    concat!("cop", "ilot"),
    concat!("language mo", "del"),
    concat!("open", "ai"),
    concat!("/wo", "rk/main"),
    concat!("/wo", "rk/shared"),
];

/// The files in which `unsafe` may be allowed.
fn may_be_unsafe(path: &str) -> bool {
    ["crates/network/", "crates/executor/"]
        .iter()
        .any(|dir| path.starts_with(dir))
        && path.ends_with("sys.rs")
}

fn find<'a>(file: &'a SourceFile, token: &'a str) -> impl Iterator<Item = String> {
    let lines = file.text.lines().enumerate();
    lines
        .filter(move |(_, line)| line.contains(token))
        .map(|(index, _)| format!("{}:{}", file.path, index + 1))
}

#[test]
fn code_has_no_banned_tokens() {
    let mut offenders = Vec::new();
    for file in rust_files() {
        for (token, advice) in TOKENS {
            offenders
                .extend(find(&file, token).map(|place| format!("{place}: `{token}`: {advice}")));
        }
    }
    check(&offenders, "banned tokens");
}

#[test]
fn todos_name_their_condition() {
    let token = concat!("TO", "DO");
    let mut offenders = Vec::new();
    for file in rust_files() {
        let lines = file.text.lines().enumerate();
        let bare = lines.filter(|(_, line)| {
            line.match_indices(token)
                .any(|(at, _)| !line[at + token.len()..].starts_with('('))
        });
        offenders.extend(bare.map(|(index, _)| format!("{}:{}", file.path, index + 1)));
    }
    offenders.retain(|place| !place.starts_with("xtask/tests/tidy/"));
    check(
        &offenders,
        "write TODO(reason), and name the condition for its removal",
    );
}

#[test]
fn unsafe_code_lies_in_sys_files() {
    let mut offenders = Vec::new();
    let token = concat!("expect(unsafe_", "code");
    for file in rust_files()
        .into_iter()
        .filter(|file| !may_be_unsafe(&file.path))
    {
        offenders.extend(find(&file, token));
    }
    check(
        &offenders,
        "unsafe code belongs into a `sys.rs` of network or executor, each use with `// SAFETY:`",
    );
}

#[test]
fn the_repository_speaks_of_the_project_alone() {
    let mut offenders = Vec::new();
    for file in files() {
        let text = file.text.to_lowercase();
        let found = WORDS.iter().filter(|word| text.contains(*word));
        offenders.extend(found.map(|word| format!("{}: `{word}`", file.path)));
    }
    check(&offenders, "words that do not belong into the repository");
}
