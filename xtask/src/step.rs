//! Timed commands and their summary.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// One line of the summary.
#[derive(Debug)]
struct Outcome {
    name: String,
    elapsed: Duration,
    failure: Option<String>,
}

/// Runs steps, remembers how they went, goes on after failures.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    outcomes: Vec<Outcome>,
}

/// A cargo command at the workspace's root. Nothing asks questions, and no test writes the tree.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(arguments)
        .current_dir(root())
        .stdin(std::process::Stdio::null());
    command
}

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// Runs a command and turns its exit status into a result.
pub(crate) fn succeed(mut command: Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("failed to run `{program}`"))?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}

/// What a command prints, without the last line end.
pub(crate) fn output(mut command: Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("failed to run `{program}`"))?;
    if !output.status.success() {
        bail!(
            "`{program}`: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8(output.stdout)
        .context("output is not UTF-8")?
        .trim_end()
        .to_owned())
}

// === impl Steps ===

impl Steps {
    /// Runs one step.
    #[expect(clippy::print_stderr, reason = "progress belongs on standard error")]
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<()>) {
        eprintln!("\n=== {name}");
        let start = Instant::now();
        let failure = step().err().map(|error| format!("{error:#}"));
        let elapsed = start.elapsed();
        self.outcomes.push(Outcome {
            name: name.to_owned(),
            elapsed,
            failure,
        });
    }

    /// Prints all steps with their times; fails if one failed.
    #[expect(clippy::print_stderr, reason = "the summary belongs on standard error")]
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        eprintln!("\n=== summary");
        let mut total = Duration::ZERO;
        let mut failed = Vec::new();
        for Outcome {
            name,
            elapsed,
            failure,
        } in self.outcomes
        {
            total += elapsed;
            let verdict = failure.as_ref().map_or("ok", |failure| failure.as_str());
            eprintln!("{:8.1} s  {name}: {verdict}", elapsed.as_secs_f64());
            failed.extend(failure.map(|_| name));
        }
        eprintln!("{:8.1} s  in all", total.as_secs_f64());
        if failed.is_empty() {
            return Ok(());
        }
        bail!("failed: {}", failed.join(", "))
    }
}
