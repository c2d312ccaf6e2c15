//! The node network: one bridge, a network namespace per container, published ports.
//!
//! Role: give a container an address, a way out and its published ports, and keep it so across crashes, restarts and flushed
//! firewalls. Networks a node has for itself: [`local`]. Between nodes: [`plane`] (overlays, virtual addresses, the routing mesh) and [`dns`]. Design:
//! `docs/design/node-network.md`.
//!
//! Entry point: [`Network::open`], then [`Network::attach`] and [`Network::detach`]. [`container_resolv_conf`] is a pure function.
//!
//! Threads: one owner thread per [`Network`] (`skep-network`), fed by a bounded channel; it holds the state, talks netlink and
//! runs `nft`. It has one companion (`skep-netns`) that enters the containers' namespaces. Both inherit the network namespace of
//! the thread that calls [`Network::open`]. Everything up to `plan` is pure; everything from `netlink` on does IO.

mod config;
mod digest;
mod endpoint;
mod error;
mod pool;
mod ports;
mod resolv;

mod plan;
mod rules;

mod apply;
mod conntrack;
mod doctor;
mod netlink;
mod netns;
mod nfnl;
mod nft;
mod observe;
mod reservation;
mod state;
mod sysctl;
mod watch;

mod network;
mod owner;

pub mod dns;
pub mod local;
pub mod path;
pub mod plane;
pub mod tunnel;

#[cfg(test)]
mod testbed;

pub use apply::ApplyError;
pub use config::{Config, ConfigError, Given, Layout};
pub use endpoint::{Attachment, EndpointIdError, EndpointInfo, Mac};
pub use error::{Error, Report};
pub use netlink::NetlinkError;
pub use netns::NetnsError;
pub use network::Network;
pub use nfnl::NetfilterError;
pub use nft::NftError;
pub use plan::{
    Desired, DesiredEndpoint, Observed, ObservedBridge, ObservedLink, ObservedRules, Step, Veth,
    Way, plan,
};
pub use pool::{Pool, PoolError};
pub use ports::{HostPort, PortConflict, Protocol};
pub use reservation::ReservationError;
pub use resolv::{DnsSettings, container_resolv_conf, overlay_resolv_conf};
pub use rules::{PortRule, Ruleset};
pub use state::StateError;
pub use sysctl::SysctlError;
