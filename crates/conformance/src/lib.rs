//! Harness of the black-box suite: a node of its own namespaces, the docker command, plain HTTP.
//!
//! The tests are in `tests/`, one file for each theme. The harness knows nothing of Skep but its binary and flags, so that a case
//! can be checked against another engine. Design: `docs/design/conformance.md`.

mod docker;
mod http;
mod images;
mod node;
mod poll;
mod sandbox;

pub use docker::Output;
pub use http::Response;
pub use images::{binary, images, root};
pub use node::{Node, Options};
pub use poll::until;
