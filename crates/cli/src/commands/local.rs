//! `skep local`: arguments, and which command gets them.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};

use crate::local::{
    layout,
    machine::{End, Machine},
    namespace,
    state::{self, State},
};

mod cut;
mod down;
mod exec;
mod load;
mod power;
mod ps;
mod up;

/// A cluster on this machine.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Which cluster of this machine
    #[arg(long, global = true, default_value = "default", value_name = "NAME")]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Make a cluster, or make one whole again: start its nodes, heal its network
    Up(up::Args),
    /// List the nodes
    Ps(ps::Args),
    /// Run a command on a node, a shell by default
    Exec(exec::Args),
    /// Load an image archive (docker save) into nodes
    Load(load::Args),
    /// Cut nodes off from all others and from this machine
    Cut(cut::Args),
    /// Undo cuts, of one node or of all
    Heal(cut::HealArgs),
    /// Stop nodes' daemons; containers keep running
    Stop(power::StopArgs),
    /// Start nodes that were stopped
    Start(power::StartArgs),
    /// Remove the cluster and all that belongs to it
    Down,
    /// Hold the namespaces of a node
    #[command(hide = true)]
    Hold {
        /// Its host name; the switch has none
        node: Option<String>,
    },
    /// Start a program in the background and print its pid
    #[command(hide = true)]
    Launch {
        /// Where its output goes
        log: PathBuf,
        #[arg(last = true)]
        program: Vec<String>,
    },
}

/// One way only.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Way {
    /// The node can send, and receives nothing
    In,
    /// The node receives, and cannot send
    Out,
}

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One JSON object a line
    Json,
}

/// Runs a command of `skep local`.
pub(crate) async fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Hold { node } => namespace::hold(node.as_deref())?,
        Verb::Launch { log, program } => namespace::launch(log, program, out)?,
        verb => {
            if !nix::unistd::geteuid().is_root() {
                bail!(
                    "`skep local` makes network namespaces and runs containers: it must be run as root"
                );
            }
            layout::check_name(&args.name)?;
            return dispatch(&args.name, verb, out).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn dispatch(name: &str, verb: &Verb, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Up(args) => up::run(name, args, out).await?,
        Verb::Ps(args) => ps::run(&machine(name)?, args, out).await?,
        Verb::Exec(args) => return exec::run(&machine(name)?, args),
        Verb::Load(args) => load::run(&machine(name)?, args, out).await?,
        Verb::Cut(args) => cut::run(name, args)?,
        Verb::Heal(args) => cut::heal(name, args)?,
        Verb::Stop(args) => power::stop(name, args)?,
        Verb::Start(args) => power::start(name, args).await?,
        Verb::Down => down::run(name, out)?,
        Verb::Hold { .. } | Verb::Launch { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The cluster called `name`.
fn machine(name: &str) -> anyhow::Result<Machine> {
    let state = State::read(name)?;
    let state = state.with_context(|| {
        format!("there is no local cluster `{name}`; `skep local up` makes one")
    })?;
    Ok(Machine::new(name, state))
}

/// The cluster called `name`, which only this command changes while the lock lives.
fn locked(name: &str) -> anyhow::Result<(state::Lock, Machine)> {
    let lock = state::lock()?;
    Ok((lock, machine(name)?))
}

/// Numbers of nodes named, each once, in order.
fn numbers(machine: &Machine, names: &[String]) -> anyhow::Result<Vec<u8>> {
    let found: anyhow::Result<std::collections::BTreeSet<u8>> = names
        .iter()
        .map(|name| machine.state.number_of(name))
        .collect();
    Ok(found?.into_iter().collect())
}
