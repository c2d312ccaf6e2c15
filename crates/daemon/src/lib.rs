//! The daemon: flags, config file and the composition of all parts; signals and shutdown.
//!
//! Entry point: [`run`]. No logic of its own: parts decide, this crate joins them. It is also the
//! only one besides the CLI that reads the environment.

mod args;
mod backend;
mod config;
mod daemon;
mod error_chain;
mod events;
mod logging;
mod metrics;
mod sockets;
mod subnet;
mod swarm;

pub use crate::{
    args::Args,
    config::{Config, Mistake},
    daemon::run,
};
