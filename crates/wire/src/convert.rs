//! Conversions between `model` and [`crate::proto`], one file per object or family of values.
//!
//! Towards the wire they are infallible (`From<&model>`); from the wire they are `TryFrom` with a
//! [`crate::Error`] that names the field. What the model cannot hold is refused, never dropped. A
//! field whose absence means a default in Swarm reads as that default.

mod annotations;
mod cluster;
mod cluster_spec;
mod container;
mod directory;
mod dispatch;
mod endpoint;
mod field;
mod mount;
mod network;
mod node;
mod node_spec;
mod privileges;
mod resource;
mod resources;
mod secret;
mod service;
mod service_spec;
mod task;
mod task_spec;
mod time;

pub(crate) use self::{
    field::{At, id},
    task::TaskParts,
};

#[cfg(test)]
mod tests;
