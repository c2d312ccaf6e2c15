//! The Docker Engine API over HTTP, for `docker` and every other client of it.
//!
//! Role: decode a request, call a [`backend`] trait, encode the answer byte-compatibly with
//! Docker. What clients parse is exact: statuses, texts, `null` against absent, order. The traits
//! belong to this crate; the daemon implements them over manager and executor. No state but
//! caches. One tokio task per connection, owned by [`Server`]. Design: `docs/design/engine-api.md`.

pub mod backend;
#[cfg(feature = "client")]
pub mod client;
pub mod error;
pub mod event;

mod convert;
mod dto;
mod http;
mod routes;

pub use crate::{
    backend::Backends,
    error::{ApiError, ErrorKind},
    event::{Event, EventHub, EventScope},
    http::server::Server,
};
