//! The simulator's smoke run: fixed seeds, and one that changes with each commit.

use std::process::Command;

use anyhow::Context;

use crate::metadata::binaries;
use crate::step::{cargo, output, root, succeed};

/// The simulator.
const PACKAGE: &str = "skep-sim";

/// Seeds that always run. The cost of more is the gate's time.
const FIXED_SEEDS: [u64; 4] = [1, 2, 3, 4];

/// Runs the simulator's binary as `--seed <seed>`, once for each seed. Without a binary there is nothing to run.
pub(crate) fn run() -> anyhow::Result<()> {
    let names = binaries(PACKAGE)?;
    let Some(name) = names.iter().find(|name| *name == PACKAGE).or(names.first()) else {
        return Ok(());
    };
    for seed in FIXED_SEEDS.into_iter().chain([seed_of_head()?]) {
        let seed = seed.to_string();
        let run = [
            "run", "--quiet", "--locked", "-p", PACKAGE, "--bin", name, "--", "--seed", &seed,
        ];
        succeed(cargo(run)).with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

/// The first 15 hexadecimal digits of the commit, so that each commit tries something new and the seed is known from it.
fn seed_of_head() -> anyhow::Result<u64> {
    let mut git = Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(root());
    let commit = output(git)?;
    let digits = commit
        .get(..15)
        .context("a commit has at least 15 digits")?;
    u64::from_str_radix(digits, 16).context("a commit is hexadecimal")
}
