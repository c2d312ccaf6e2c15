//! The simulator's smoke run: fixed seeds, and some that change with each commit.

use std::process::Command;

use anyhow::Context;

use crate::metadata::binaries;
use crate::step::{cargo, output, root, succeed};

/// The simulator.
const PACKAGE: &str = "skep-sim";

/// Seeds that always run, from 0. The cost of more is the gate's time.
const FIXED_SEED_COUNT: u64 = 100;

/// Seeds that are new with each commit.
const COMMIT_SEED_COUNT: u64 = 4;

/// Runs seeds through the simulator's binary. Without a binary there is nothing to run.
pub(crate) fn run() -> anyhow::Result<()> {
    if !binaries(PACKAGE)?.iter().any(|name| name == PACKAGE) {
        return Ok(());
    }
    let first = seed_of_head()?;
    for (from, to) in [(0, FIXED_SEED_COUNT), (first, first + COMMIT_SEED_COUNT)] {
        let seeds = format!("{from}..{to}");
        let run = [
            "run", "--quiet", "--locked", "-p", PACKAGE, "--bin", PACKAGE, "--",
        ];
        let arguments = ["run", "--seeds", &seeds];
        succeed(cargo(run.into_iter().chain(arguments)))
            .with_context(|| format!("seeds {seeds}"))?;
    }
    Ok(())
}

/// The first twelve hexadecimal digits of the commit: each commit tries something new, and names it.
fn seed_of_head() -> anyhow::Result<u64> {
    let mut git = Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(root());
    let commit = output(git)?;
    let digits = commit
        .get(..12)
        .context("a commit has at least twelve digits")?;
    u64::from_str_radix(digits, 16).context("a commit is hexadecimal")
}
