//! A deterministic cluster in virtual time: the cores the daemon runs, with simulated edges.
//!
//! One seed gives everything: the size of the cluster, what clients ask, which faults occur, how
//! long each message and each operation takes. Entry points: [`run_seed`] for one run, [`cli`] for
//! the binary that hunts seeds. Invariants are checked after every commit, message and container
//! (`invariants`); then the faults stop and the cluster must become what its specs say
//! (`liveness`). Left out: tokio shells, gRPC, real disks and real containers, which have their own
//! tests. Design: `docs/design/simulation.md`.

mod queue;
mod trace;

mod event;
mod profile;

mod bug;
mod links;
mod network;

mod disk;
mod manager;
mod vault;

mod agent;
mod executor;
mod worker_db;

mod client;

mod context;
mod facts;
mod invariants;
mod liveness;
mod meter;

mod enrol;
mod faults;
mod repeat;
mod setup;
mod world;

pub mod cli;
mod run;
mod scale;

pub use crate::{
    bug::Bug,
    context::Violation,
    run::{Outcome, run_seed},
    world::Options,
};
