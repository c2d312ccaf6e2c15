//! The control plane's shell: leader core, raft driver, handles for the API and for agents.
//!
//! Entry points: [`Core`] (decisions), [`Replica`] (core, raft node and group without IO, stepped by
//! the simulator too), [`Manager`] (the tokio shell that owns it: one task, plus one thread that waits
//! for the disk) and [`Handle`] (what the rest of the daemon holds). Leaves out containers and HTTP. Design: `docs/design/leader-core.md`.

pub mod bootstrap;
pub mod command;
pub mod core;
pub mod entry;
pub mod event;
pub mod group;
pub mod replica;
pub mod vault;

mod disk;
mod handle;
mod manager;

pub use crate::{
    core::{
        Core,
        revisions::list as revisions,
        stacks::{
            PlannedService, StackPlan, Standing, find as stack, list as stacks,
            revisions as stack_revisions,
        },
    },
    handle::{AgentConnection, Feed, Handle, Published},
    manager::{Config, Ended, Manager, Outbound, Outbox, Start},
    replica::{Joined, Replica, StartError, StepRefused},
};
