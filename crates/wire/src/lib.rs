//! `docker.swarmkit.v1` on the wire and on disk: messages, and conversions to and from `model`.
//!
//! [`proto`] holds the messages, compiled from our own `.proto` files with SwarmKit's names and
//! numbers. Conversions live in `convert`, one file per object; [`log`], [`snapshot`],
//! [`member`] and [`record`] are the formats made of them: raft entries, snapshots, members of the
//! raft group and the worker's records.
//! [`peer`] is what Skep's managers add to the protocol. With feature `grpc` there are clients and
//! servers of the services too. Decisions are left out. Design: `docs/design/wire.md`.

#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
mod convert;
mod error;
mod framing;
pub mod log;
pub mod member;
mod object_codec;
pub mod peer;
pub mod proto;
pub mod record;
pub mod revision;
mod secret;
pub mod snapshot;
mod spec_cache;
pub mod stack;

pub use crate::{
    error::{Error, FieldPath, Problem},
    spec_cache::SpecCache,
};
