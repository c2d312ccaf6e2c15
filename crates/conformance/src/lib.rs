//! Harness of the black-box suite: nodes and clusters in namespaces of their own, the docker command, plain HTTP.
//!
//! The tests are in `tests/`, one file for each theme. The harness knows nothing of Skep but its binary and flags, so that a case
//! can be checked against another engine. Design: `docs/design/conformance.md`.

mod cluster;
mod docker;
mod dockerd;
mod engine;
mod http;
mod images;
mod load;
mod node;
mod poll;
mod requests;
mod sandbox;

pub use cluster::Cluster;
pub use docker::Output;
pub use dockerd::Dockerd;
pub use engine::Engine;
pub use http::Response;
pub use images::{binary, guestbook, images, root};
pub use load::{Failure, Load, Tally};
pub use node::{Node, Options};
pub use poll::until;
pub use requests::Requests;
