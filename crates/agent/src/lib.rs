//! The worker: holds a session with a dispatcher, runs the tasks it is assigned, reports on them.
//!
//! Entry point is [`Agent`]: one loop that owns an [`AgentCore`], and jobs for calls and operations.
//! [`AgentCore`] and [`TaskMachine`] are pure cores; the simulator drives them without the shell. In
//! `core` and `task` there is no clock, randomness or tokio. The node is behind [`Executor`], the
//! manager behind [`DispatcherClient`], both implemented elsewhere. Design: `docs/design/agent.md`.

pub mod core;
pub mod db;
pub mod dispatcher;
mod error_chain;
pub mod exec;
pub mod shell;
pub mod task;

pub use skep_model::dispatch as protocol;

pub use crate::{
    core::AgentCore,
    db::Db,
    dispatcher::DispatcherClient,
    exec::{Controller, ControllerError, ExecError, Executor},
    shell::{Agent, AgentConfig, Handle, Report},
    task::TaskMachine,
};
