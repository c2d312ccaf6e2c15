//! The gate: every step runs, even after a failure, and the summary says how long each took.

use std::process::{Command, Stdio};

use anyhow::bail;

use crate::smoke;
use crate::step::{Steps, cargo, output, root, succeed};

/// Runs all steps.
pub(crate) fn run() -> anyhow::Result<()> {
    let before = tree()?;
    let mut steps = Steps::default();
    steps.run("format", || succeed(cargo(["fmt", "--all", "--check"])));
    steps.run("lints", || {
        let clippy = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ];
        succeed(cargo(clippy))
    });
    steps.run("build", || {
        succeed(cargo(["build", "--workspace", "--bins", "--locked"]))
    });
    steps.run("tests", tests);
    steps.run("documentation tests", || {
        succeed(cargo([
            "test",
            "--doc",
            "--workspace",
            "--locked",
            "--quiet",
        ]))
    });
    steps.run("documentation", || {
        let flags = ["--no-deps", "--document-private-items", "--locked"];
        let mut doc = cargo(["doc", "--workspace"].into_iter().chain(flags));
        doc.env("RUSTDOCFLAGS", "-D warnings");
        succeed(doc)
    });
    steps.run("simulator smoke", smoke::run);
    steps.run("tree unchanged", || {
        let after = tree()?;
        if after != before {
            bail!("the gate changed the tree:\n{after}");
        }
        Ok(())
    });
    steps.finish()
}

/// Nextest where there is one, else cargo's own runner. Snapshots are compared, never written.
fn tests() -> anyhow::Result<()> {
    let mut probe = cargo(["nextest", "--version"]);
    probe.stdout(Stdio::null()).stderr(Stdio::null());
    let has_nextest = probe.status().is_ok_and(|status| status.success());
    let mut command = if has_nextest {
        cargo([
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
        ])
    } else {
        cargo([
            "test",
            "--workspace",
            "--locked",
            "--all-targets",
            "--no-fail-fast",
        ])
    };
    command.env("INSTA_UPDATE", "no").env("CI", "true");
    succeed(command)
}

/// What git sees as changed.
fn tree() -> anyhow::Result<String> {
    let mut git = Command::new("git");
    git.args(["status", "--porcelain"]).current_dir(root());
    output(git)
}
