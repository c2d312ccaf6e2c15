//! `skep local cut` and `skep local heal`

use crate::{
    commands::local::{Way, locked, numbers},
    local::layout::Cut,
};

/// Which nodes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The nodes; each is alone afterwards
    #[arg(required = true)]
    nodes: Vec<String>,
    /// Drop only what is sent to the nodes (in) or by them (out)
    #[arg(long, value_enum)]
    one_way: Option<Way>,
}

/// Which nodes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct HealArgs {
    /// The nodes; all by default
    nodes: Vec<String>,
}

pub(super) fn run(name: &str, args: &Args) -> anyhow::Result<()> {
    let (_lock, mut machine) = locked(name)?;
    let cut = match args.one_way {
        None => Cut::Both,
        Some(Way::In) => Cut::In,
        Some(Way::Out) => Cut::Out,
    };
    let mut cuts = machine.state.cuts.clone();
    for number in numbers(&machine, &args.nodes)? {
        let before = cuts.get(&number).copied().unwrap_or(cut);
        cuts.insert(number, before.and(cut));
    }
    machine.set_cuts(cuts)
}

pub(super) fn heal(name: &str, args: &HealArgs) -> anyhow::Result<()> {
    let (_lock, mut machine) = locked(name)?;
    let healed = numbers(&machine, &args.nodes)?;
    let mut cuts = machine.state.cuts.clone();
    cuts.retain(|number, _| !healed.is_empty() && !healed.contains(number));
    machine.set_cuts(cuts)
}
