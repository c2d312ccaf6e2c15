//! WireGuard between nodes, for encrypted networks: keys, devices, and the process that does it where the kernel cannot.
//!
//! Everything here is about one node's two devices; which packets go through them is `plane`'s business. Design:
//! `docs/design/encryption.md`.
//!
//! Entry points: [`Keys`] (the node's own), [`Config`] (a part of `plane::Desired`), [`main`] (the process `skep tunnel`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

mod control;
mod device;
mod kernel;
mod key;
mod keys;
mod process;

pub use control::ControlError;
pub use key::PublicKey;
pub use keys::{Keys, KeysError};
pub use process::main;

pub(crate) use control::Process;
#[cfg(test)]
pub(crate) use device::PeerState;
pub(crate) use device::{Device, DeviceState, PeerChanges, address, devices, usable_keys};
pub(crate) use kernel::WireguardSocket;
pub(crate) use key::Slot;
pub(crate) use keys::DIR;
pub(crate) use process::NETNS;

/// UDP port of WireGuard, the same on all nodes; the next one is used too, each for one of a node's two keys. Registered to nobody, below
/// the ports that sockets get by themselves, and not 51820, which a user's own WireGuard is likely to have.
pub const PORT: u16 = 4796;

/// What a node needs to know to encrypt: a part of `plane::Desired`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node's own number: its slice's.
    pub number: u16,
    /// [`PORT`].
    pub port: u16,
    /// The node's own keys.
    pub keys: Keys,
    /// Every other node, by number.
    pub peers: BTreeMap<u16, Peer>,
    /// How to start the process, where the kernel lacks WireGuard.
    pub launch: Launch,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its data-path address.
    pub node: IpAddr,
    /// Its keys as it told them: the one in force, and one more. None if it has not told any yet.
    pub keys: Vec<PublicKey>,
}

/// How to start the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launch {
    /// The program `skep`; `tunnel` and a directory are appended.
    pub program: PathBuf,
    /// Directories of control groups the process joins, so that stopping the daemon's unit does not stop it.
    pub cgroups: Vec<PathBuf>,
    /// Use the process even where the kernel has WireGuard; for tests.
    pub is_always: bool,
}
