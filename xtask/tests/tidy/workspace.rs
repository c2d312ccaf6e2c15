//! The files and packages the rules look at.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A file git knows or would add, with its path from the workspace's root.
pub(crate) struct SourceFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

fn command_output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output();
    let output = output.unwrap_or_else(|error| panic!("`{program}`: {error}"));
    assert!(
        output.status.success(),
        "`{program} {}`: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("paths and metadata are UTF-8")
}

/// All text files that are or will be part of the repository.
pub(crate) fn files() -> Vec<SourceFile> {
    let listing = command_output(
        "git",
        &[
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
    );
    let paths = listing.split('\0').filter(|path| !path.is_empty());
    paths
        .filter_map(|path| {
            // A file that was deleted but not committed, or that is no text.
            let text = std::fs::read_to_string(root().join(path)).ok()?;
            Some(SourceFile {
                path: path.to_owned(),
                text,
            })
        })
        .collect()
}

pub(crate) fn rust_files() -> Vec<SourceFile> {
    files()
        .into_iter()
        .filter(|file| file.path.ends_with(".rs"))
        .collect()
}

/// `cargo metadata`; with dependencies only when `is_full`, which takes longer.
pub(crate) fn metadata(is_full: bool) -> Value {
    let mut arguments = vec!["metadata", "--locked", "--format-version=1"];
    if is_full {
        arguments.extend(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    } else {
        arguments.push("--no-deps");
    }
    serde_json::from_str(&command_output(env!("CARGO"), &arguments))
        .expect("cargo metadata prints JSON")
}

/// The packages of `cargo metadata`.
pub(crate) fn packages(metadata: &Value) -> &[Value] {
    metadata["packages"]
        .as_array()
        .expect("metadata lists packages")
}

/// Directory of a package, from the workspace's root.
pub(crate) fn package_dir(package: &Value) -> PathBuf {
    let manifest = Path::new(
        package["manifest_path"]
            .as_str()
            .expect("a package has a manifest"),
    );
    let dir = manifest.parent().expect("a manifest lies in a directory");
    dir.strip_prefix(root())
        .expect("members lie in the workspace")
        .to_owned()
}

/// Fails with a list of offenders and what to do about them.
#[track_caller]
pub(crate) fn check(offenders: &[String], advice: &str) {
    assert!(
        offenders.is_empty(),
        "{advice}\n  {}\n",
        offenders.join("\n  ")
    );
}
