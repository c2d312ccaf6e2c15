//! Rewrites what machines can: format, lints with a known fix, expected output of tests.

use crate::step::{Steps, cargo, succeed};

/// Runs all steps.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut steps = Steps::default();
    steps.run("lints", || {
        let clippy = ["clippy", "--fix", "--workspace", "--all-targets"];
        succeed(cargo(
            clippy
                .into_iter()
                .chain(["--allow-dirty", "--allow-staged"]),
        ))
    });
    steps.run("format", || succeed(cargo(["fmt", "--all"])));
    steps.run("expected output", || {
        let mut tests = cargo(["test", "--workspace", "--all-targets", "--no-fail-fast"]);
        tests.env("INSTA_UPDATE", "always").env("UPDATE", "1");
        succeed(tests)
    });
    steps.finish()
}
