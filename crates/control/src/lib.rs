//! The brain: reconcilers that turn stored state, time and a seed into plans.
//!
//! [`drive()`] is the entry point. The manager's leader core, the script tests and the simulator all
//! call it with a [`skep_store::Transaction`], the set of [`Dirty`] keys and the pending [`Wakes`];
//! it runs [`reconcile`] on every dirty key and applies the plans until nothing is left to do.
//! [`check()`] states what must always hold of stored state. No IO, no clock, no memory between
//! activations: a new leader decides as the old one would have. See
//! `docs/design/orchestration.md`, `docs/design/jobs.md` and `docs/design/scheduler.md`. [`network`]
//! hands out addresses, ports and numbers; [`job`] says what commands make of a job.
#![warn(clippy::wildcard_enum_match_arm)]

mod check;
mod depends;
pub mod directory;
mod dirty;
mod drain;
mod drive;
mod global;
mod history;
pub mod job;
mod key;
pub mod network;
mod node;
mod placement;
mod plan;
pub mod rebalance;
mod replicated;
mod restart;
mod revision;
mod scheduler;
mod service;
mod slot;
mod task;
mod update;
mod wakes;

pub use crate::{
    check::{JobViolation, NetworkViolation, Violation, check, check_step},
    dirty::Dirty,
    drive::{
        ACTIVATIONS_MAX, Driven, ENTRY_BYTES_MAX, Reconcile, WRITES_PER_ENTRY_MAX, apply, drive,
        drive_by, reconcile,
    },
    key::Key,
    plan::{Change, Plan, Report, Wait},
    scheduler::explain,
    wakes::Wakes,
};
