//! What the Engine API is served from: its backend traits over manager, engine and node.

pub(crate) mod cluster;
mod container_view;
pub(crate) mod containers;
mod errors;
mod execs;
pub(crate) mod images;
pub(crate) mod node_errands;
pub(crate) mod node_logs;
mod remote;
mod service_logs;
pub(crate) mod swarm_events;
pub(crate) mod system;
pub(crate) mod view;
pub(crate) mod volumes;

pub(crate) use self::execs::Execs;
