//! The worker: holds a session with a dispatcher, runs the tasks it is assigned, reports on them.
//!
//! Entry point is `Agent`; `AgentCore` and `TaskMachine` are the pure cores that it and the
//! simulator drive. The node itself is behind [`exec::Executor`], implemented elsewhere.
//! Design: `docs/design/agent.md`.

pub mod core;
pub mod db;
pub mod exec;
pub mod task;

pub use skep_model::dispatch as protocol;

pub use crate::{
    core::AgentCore,
    exec::{Controller, ControllerError, ExecError, Executor},
    task::TaskMachine,
};
