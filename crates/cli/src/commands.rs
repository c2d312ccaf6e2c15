//! The verbs: a file for each, with its arguments and what it does.

pub(crate) mod cluster;
pub(crate) mod exec;
pub(crate) mod job;
pub(crate) mod local;
pub(crate) mod net;
pub(crate) mod node;
pub(crate) mod service;
pub(crate) mod stack;
pub(crate) mod swarm;
pub(crate) mod system;
