//! `skep local`: a cluster on one machine, each node with namespaces of its own.
//!
//! `layout` says what it consists of and is pure; `machine` applies that; `namespace` and `process` are
//! what it is made of; `state` is what is written down; `swarm` makes the daemons a cluster. Design:
//! `docs/design/local.md`.

mod cgroups;
pub(crate) mod layout;
pub(crate) mod machine;
pub(crate) mod namespace;
pub(crate) mod process;
pub(crate) mod state;
pub(crate) mod swarm;
