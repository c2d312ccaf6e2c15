//! `skep local stop` and `skep local start`

use crate::{
    commands::local::{End, locked, numbers},
    local::machine::Machine,
};

/// Which nodes, and how.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct StopArgs {
    /// The nodes
    #[arg(required = true)]
    nodes: Vec<String>,
    /// Kill the daemon instead of asking it; containers keep running
    #[arg(long, conflicts_with = "power_off")]
    kill: bool,
    /// End containers and network too, as when the plug is pulled
    #[arg(long)]
    power_off: bool,
}

/// Which nodes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct StartArgs {
    /// The nodes
    #[arg(required = true)]
    nodes: Vec<String>,
}

pub(super) fn stop(name: &str, args: &StopArgs) -> anyhow::Result<()> {
    let (_lock, mut machine) = locked(name)?;
    let how = match (args.kill, args.power_off) {
        (_, true) => End::PowerOff,
        (true, false) => End::Kill,
        (false, false) => End::Stop,
    };
    for number in numbers(&machine, &args.nodes)? {
        machine.end(number, how)?;
    }
    Ok(())
}

pub(super) async fn start(name: &str, args: &StartArgs) -> anyhow::Result<()> {
    let (_lock, mut machine) = locked(name)?;
    let wanted = numbers(&machine, &args.nodes)?;
    machine.ensure_switch()?;
    for &number in &wanted {
        machine.ensure_node(number)?;
        machine.ensure_daemon(number)?;
    }
    wait(&machine, &wanted).await
}

async fn wait(machine: &Machine, numbers: &[u8]) -> anyhow::Result<()> {
    for number in numbers {
        machine.wait_ready(*number).await?;
    }
    Ok(())
}
