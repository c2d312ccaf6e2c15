//! Containers on this node: images, an OCI runtime under `skep monitor`, logs, exec and stats.
//!
//! Design: `docs/design/engine.md`, `monitor.md` and `images.md` there. Knows nothing of the cluster beyond the task it is given.

pub mod dataplane;
pub mod engine;
pub mod image;
pub mod local_network;
pub mod monitor;
pub mod runtime;
