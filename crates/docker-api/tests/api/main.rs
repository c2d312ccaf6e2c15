//! The API as clients see it: a server over a fake cluster and engine on a Unix socket.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cli;
mod engine;
mod fake;
mod golden;
mod http;
mod networks;
mod server;
mod swarm;
