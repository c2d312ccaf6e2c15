//! The peers of a device: found by key (handshakes), by number (data) and by inner address (packets to send).

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use defguard_boringtun::noise::{Tunn, TunnResult};
use defguard_boringtun::x25519;

use super::super::device::DevicePeer;
use super::super::key::PublicKey;
use super::device::Device;
use super::lock;

/// Age at which the session of a peer that is kept alive is replaced: WireGuard's for sessions that carry data.
const REKEY_AFTER: Duration = Duration::from_secs(120);

/// The side with the larger key leaves it to the other for so long.
const REKEY_POLITENESS: Duration = Duration::from_secs(10);

/// How often a peer that is kept alive hears of us: what WireGuard's manual recommends.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// A key of another node.
pub(super) struct Peer {
    config: DevicePeer,
    session: Arc<Session>,
}

/// What lasts when a peer gets another endpoint.
struct Session {
    key: PublicKey,
    index: u32,
    noise: Mutex<Noise>,
}

pub(super) struct Noise {
    pub(super) tunn: Tunn,
    /// When it last heard of us for the sake of it.
    kept_at: Option<Instant>,
}

/// A table of peers.
#[derive(Default)]
pub(super) struct Peers {
    by_key: BTreeMap<PublicKey, Arc<Peer>>,
    by_address: HashMap<Ipv4Addr, Arc<Peer>>,
    by_index: HashMap<u32, Arc<Peer>>,
}

// === impl Peer ===

impl Peer {
    /// `index` must be no other peer's.
    pub(super) fn new(device: &Device, (key, config): (PublicKey, DevicePeer), index: u32) -> Peer {
        let tunn = Tunn::new(
            device.secret().clone(),
            x25519::PublicKey::from(*key.as_bytes()),
            None,
            None,
            // The protocol's numbers have 24 bits for it.
            index & 0x00ff_ffff,
            Some(Arc::clone(&device.limiter)),
        );
        let noise = Noise {
            tunn,
            kept_at: None,
        };
        Peer {
            config,
            session: Arc::new(Session {
                key,
                index: index & 0x00ff_ffff,
                noise: Mutex::new(noise),
            }),
        }
    }

    /// The same peer, elsewhere.
    pub(super) fn with(&self, config: DevicePeer) -> Peer {
        Peer {
            config,
            session: Arc::clone(&self.session),
        }
    }

    pub(super) fn key(&self) -> PublicKey {
        self.session.key
    }

    pub(super) fn config(&self) -> DevicePeer {
        self.config
    }

    pub(super) fn endpoint(&self) -> SocketAddr {
        self.config.endpoint
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.config.address
    }

    pub(super) fn noise(&self) -> MutexGuard<'_, Noise> {
        lock(&self.session.noise)
    }

    pub(super) fn handshake_age(&self) -> Option<Duration> {
        self.noise().tunn.time_since_last_handshake()
    }

    /// Does what time demands.
    pub(super) fn tick(&self, device: &Device, buffer: &mut [u8]) {
        let mut noise = self.noise();
        if let TunnResult::WriteToNetwork(message) = noise.tunn.update_timers(buffer) {
            device.send(message, self.endpoint());
        }
        if self.config.is_kept_alive {
            self.keep_alive(&mut noise, device, buffer);
        }
    }

    /// Sees to it that there is a session, that it is young, and that the peer hears of us.
    fn keep_alive(&self, noise: &mut Noise, device: &Device, buffer: &mut [u8]) {
        let is_polite = device.public() > self.key();
        let patience = REKEY_AFTER
            + if is_polite {
                REKEY_POLITENESS
            } else {
                Duration::ZERO
            };
        let age = noise.tunn.time_since_last_handshake();
        let message = if age.is_none_or(|age| age >= patience) {
            // Nothing comes of it while one is under way.
            noise.tunn.format_handshake_initiation(buffer, false)
        } else if noise.kept_at.is_none_or(|at| at.elapsed() >= KEEPALIVE) {
            noise.kept_at = Some(Instant::now());
            noise.tunn.encapsulate(&[], buffer)
        } else {
            TunnResult::Done
        };
        if let TunnResult::WriteToNetwork(message) = message {
            device.send(message, self.endpoint());
        }
    }
}

// === impl Peers ===

impl Peers {
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.by_key.values()
    }

    pub(super) fn by_key(&self, key: &PublicKey) -> Option<&Arc<Peer>> {
        self.by_key.get(key)
    }

    pub(super) fn by_address(&self, address: Ipv4Addr) -> Option<&Arc<Peer>> {
        self.by_address.get(&address)
    }

    /// By the number a datagram names: its lowest byte is the session's.
    pub(super) fn by_receiver(&self, receiver: u32) -> Option<&Arc<Peer>> {
        self.by_index.get(&(receiver >> 8))
    }
}

impl FromIterator<Arc<Peer>> for Peers {
    fn from_iter<I: IntoIterator<Item = Arc<Peer>>>(peers: I) -> Peers {
        let mut table = Peers::default();
        for peer in peers {
            table.by_address.insert(peer.address(), Arc::clone(&peer));
            table.by_index.insert(peer.session.index, Arc::clone(&peer));
            table.by_key.insert(peer.key(), peer);
        }
        table
    }
}
