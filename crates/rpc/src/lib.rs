//! Port 2377: mTLS gRPC between nodes, on SwarmKit's messages. Design: `docs/design/rpc.md`.
//!
//! [`Server`] accepts connections, decides in one place who may call what, serves the manager's [`Handle`](skep_manager::Handle)
//! and passes calls for the leader on. [`Client`], [`join`] and [`RemoteDispatcher`] are a node's way to the managers it knows
//! ([`Remotes`]); [`Cluster`] is how the API of any manager reaches the leader; [`carry`] moves raft messages. [`Security`] holds the
//! TLS identity all of them use, exchangeable while running. The crate decides nothing about the cluster and stores nothing.

mod error;
mod limits;
mod security;

mod channels;
mod connection;
mod remotes;

mod convert;
mod gate;
mod server;
mod service;

mod client;
mod cluster;
pub mod directory;
mod dispatcher_client;
pub mod errands;
pub mod join;
pub mod logs;
mod transport;

pub use crate::{
    client::Client,
    cluster::Cluster,
    connection::DialError,
    dispatcher_client::RemoteDispatcher,
    error::RpcError,
    remotes::Remotes,
    security::{Credentials, Security, SecurityError},
    server::{Counters, Server},
    transport::carry,
};

#[cfg(test)]
mod tests;
