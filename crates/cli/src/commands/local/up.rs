//! `skep local up`

use std::{collections::BTreeMap, fs, io::Write};

use anyhow::{Context, bail};

use crate::{
    commands::local::ps,
    local::{
        layout::{self, NODE_COUNT_MAX, node_name},
        machine::Machine,
        namespace,
        state::{self, State},
        swarm,
    },
};

/// Nodes of a new cluster when none are asked for.
const NODE_COUNT: u8 = 3;
/// Managers of a new cluster when none are asked for: enough to lose one.
const MANAGER_COUNT: u8 = 3;

/// How large a cluster.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Number of nodes [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=i64::from(NODE_COUNT_MAX)))]
    nodes: Option<u8>,
    /// How many of them are managers [default: 3, or 1 of fewer nodes]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..))]
    managers: Option<u8>,
    /// Only run the daemons; do not make a cluster of them
    #[arg(long)]
    no_swarm: bool,
    /// Further flags of the daemons
    #[arg(last = true, value_name = "DAEMON FLAG")]
    daemon: Vec<String>,
}

pub(super) async fn run(name: &str, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let _lock = state::lock()?;
    let mut machine = match State::read(name)? {
        Some(state) => Machine::new(name, grown(name, state, args)?),
        None => Machine::new(name, planned(args)?),
    };
    machine.save()?;
    machine.ensure_switch()?;
    for number in machine.state.numbers() {
        machine.ensure_node(number)?;
    }
    machine.set_cuts(BTreeMap::new())?;
    for number in machine.state.numbers() {
        machine.ensure_daemon(number)?;
    }
    for number in machine.state.numbers() {
        machine.wait_ready(number).await?;
    }
    if !args.no_swarm {
        swarm::form(&machine).await?;
    }
    ps::table(&machine, out).await?;
    let socket = machine.layout.socket(1);
    writeln!(out, "\nexport DOCKER_HOST=unix://{}", socket.display())?;
    Ok(())
}

/// A new cluster.
fn planned(args: &Args) -> anyhow::Result<State> {
    let node_count = args.nodes.unwrap_or(NODE_COUNT);
    let of_few = if node_count < MANAGER_COUNT {
        1
    } else {
        MANAGER_COUNT
    };
    let manager_count = args.managers.unwrap_or(of_few);
    if manager_count > node_count {
        bail!("{manager_count} managers need as many nodes; there are {node_count}");
    }
    let routes = fs::read_to_string("/proc/net/route").context("failed to read routes")?;
    let mut links = namespace::links(None).context("failed to read interfaces")?;
    links.extend(state::subnets().into_iter().map(layout::host_link));
    let subnet = layout::choose_subnet(&routes, &links)
        .context("no subnet 10.78.x.0/24 is free on this machine")?;
    let mut state = State::new(subnet, node_count, manager_count)?;
    state.daemon_arguments.clone_from(&args.daemon);
    Ok(state)
}

/// A known cluster, perhaps with more nodes.
fn grown(name: &str, mut state: State, args: &Args) -> anyhow::Result<State> {
    let is_smaller = args.nodes.is_some_and(|count| count < state.node_count);
    let has_other_managers = args
        .managers
        .is_some_and(|count| count != state.manager_count);
    if is_smaller || has_other_managers {
        let (nodes, managers) = (state.node_count, state.manager_count);
        bail!(
            "there is a cluster `{name}` of {nodes} nodes, {managers} of them managers; \
             `skep local down` removes it, --name makes another"
        );
    }
    state.node_count = args.nodes.unwrap_or(state.node_count);
    if !args.daemon.is_empty() {
        state.daemon_arguments.clone_from(&args.daemon);
    }
    let running = state
        .numbers()
        .filter(|number| state.daemon(*number).is_some());
    let running: Vec<String> = running.map(node_name).collect();
    let has_other_flags = !args.daemon.is_empty();
    if has_other_flags && !running.is_empty() {
        bail!(
            "flags are for daemons that start, and {} run already",
            running.join(", ")
        );
    }
    Ok(state)
}
