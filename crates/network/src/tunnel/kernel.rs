//! The kernel's WireGuard: its devices' keys and peers, by generic netlink. The links themselves are route netlink's.
//!
//! Numbers are those of `linux/wireguard.h` and `linux/genetlink.h`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use zeroize::Zeroize as _;

use super::device::{Device, DevicePeer, DeviceState, PeerChanges, PeerState};
use super::key::PublicKey;
use crate::netlink::NetlinkError;
use crate::nfnl::{
    Buffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, attributes, find,
    take_message,
};

/// The family that knows the others' numbers.
const CONTROL: u16 = 0x10;
const CONTROL_GET_FAMILY: u8 = 3;
const CONTROL_FAMILY_ID: u16 = 1;
const CONTROL_FAMILY_NAME: u16 = 2;

const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const VERSION: u8 = 1;

const DEVICE_LINK: u16 = 2;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;

const PEER_PUBLIC_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_HANDSHAKE: u16 = 6;
const PEER_ADDRESSES: u16 = 9;

const PEER_REMOVE: u32 = 1;
const PEER_REPLACE_ADDRESSES: u32 = 2;

const ADDRESS_FAMILY: u16 = 1;
const ADDRESS_IP: u16 = 2;
const ADDRESS_PREFIX: u16 = 3;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Peers of one request: a peer takes some 120 bytes, and the list, an attribute, at most 65535.
const PEERS_PER_REQUEST: usize = 200;

/// Largest datagram of an answer.
const DATAGRAM_BYTES: usize = 1 << 16;

/// How long an answer may take. The kernel answers while it is asked; without a limit a wrong guess about it would hang the data plane.
const ANSWER_TIMEOUT: i64 = 5;

/// How often a kept peer hears of us, in seconds: what WireGuard's manual recommends.
const KEEPALIVE: u16 = 25;

/// A socket in the tunnels' namespace.
#[derive(Debug)]
pub(crate) struct WireguardSocket {
    fd: OwnedFd,
    family: u16,
    sequence: u32,
}

// === impl WireguardSocket ===

impl WireguardSocket {
    /// Opens a socket in the calling thread's namespace. Fails where the kernel has no WireGuard.
    pub(crate) fn open() -> Result<WireguardSocket, NetlinkError> {
        let open = || {
            let fd = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkGeneric,
            )?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            let limit = nix::sys::time::TimeVal::new(ANSWER_TIMEOUT, 0);
            setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
            Ok(fd)
        };
        let fd = open().map_err(|errno: nix::Error| NetlinkError::Socket(errno.into()))?;
        let mut socket = WireguardSocket {
            fd,
            family: CONTROL,
            sequence: 0,
        };
        let operation = "find WireGuard";
        let mut family = None;
        let write = |buffer: &mut Buffer| buffer.text(CONTROL_FAMILY_NAME, "wireguard");
        socket.request(operation, (CONTROL_GET_FAMILY, NLM_F_ACK), write, |body| {
            family = find(body, CONTROL_FAMILY_ID)
                .and_then(|id| Some(u16::from_ne_bytes(id.try_into().ok()?)));
        })?;
        socket.family = family.ok_or_else(|| NetlinkError::Refused {
            operation,
            source: io::ErrorKind::NotFound.into(),
        })?;
        Ok(socket)
    }

    /// Gives a device its key and port, and its peers some changes. What is there already is fine and not disturbed.
    pub(crate) fn configure(
        &mut self,
        device: &Device,
        changes: &PeerChanges,
    ) -> Result<(), NetlinkError> {
        let link = device.slot.link();
        let operation = "set up a WireGuard device";
        let basics = |buffer: &mut Buffer| {
            buffer.text(DEVICE_LINK, link);
            buffer.attribute(DEVICE_PRIVATE_KEY, device.key.as_bytes());
            buffer.attribute(DEVICE_PORT, &device.endpoint.port().to_ne_bytes());
        };
        self.request(operation, (SET_DEVICE, NLM_F_ACK), basics, |_| ())?;
        let removals = changes.remove.iter().map(|key| (key, None));
        let settings = changes.set.iter();
        let settings = settings.map(|(key, peer)| (key, Some((peer, changes.moved.contains(key)))));
        // Additions first: an address then moves from one peer to the other.
        let all: Vec<_> = settings.chain(removals).collect();
        for some in all.chunks(PEERS_PER_REQUEST) {
            let peers = |buffer: &mut Buffer| {
                buffer.text(DEVICE_LINK, link);
                buffer.nest(DEVICE_PEERS, |buffer| {
                    for (key, peer) in some {
                        buffer.nest(0, |buffer| write_peer(buffer, key, *peer));
                    }
                });
            };
            self.request(operation, (SET_DEVICE, NLM_F_ACK), peers, |_| ())?;
        }
        Ok(())
    }

    /// What a device is.
    pub(crate) fn state(&mut self, link: &str) -> Result<DeviceState, NetlinkError> {
        let mut state = DeviceState {
            key: None,
            port: 0,
            peers: BTreeMap::new(),
        };
        let now = SystemTime::now();
        let write = |buffer: &mut Buffer| buffer.text(DEVICE_LINK, link);
        // A long list comes in parts, each of which is a device.
        self.request(
            "read a WireGuard device",
            (GET_DEVICE, NLM_F_DUMP),
            write,
            |body| {
                for attribute in attributes(body) {
                    match attribute.kind {
                        DEVICE_PUBLIC_KEY => {
                            state.key = attribute.value.try_into().ok().and_then(PublicKey::new);
                        }
                        DEVICE_PORT => state.port = number(attribute.value).unwrap_or(0),
                        DEVICE_PEERS => {
                            let peers = attributes(attribute.value);
                            state
                                .peers
                                .extend(peers.filter_map(|peer| read_peer(peer.value, now)));
                        }
                        _ => {}
                    }
                }
            },
        )?;
        Ok(state)
    }

    fn request(
        &mut self,
        operation: &'static str,
        (command, flags): (u8, u16),
        write: impl FnOnce(&mut Buffer),
        take: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut buffer = Buffer::default();
        let header = [command, VERSION, 0, 0];
        buffer.raw(
            self.family,
            NLM_F_REQUEST | flags,
            self.sequence,
            header,
            write,
        );
        let sent = send(self.fd.as_raw_fd(), &buffer.bytes, MsgFlags::empty());
        // There may be a private key in it.
        buffer.bytes.zeroize();
        sent.map_err(|errno| NetlinkError::Socket(errno.into()))?;
        self.answers(operation, take)
    }

    fn answers(
        &self,
        operation: &'static str,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        let mut datagram = vec![0; DATAGRAM_BYTES];
        let outcome = loop {
            let length = recv(self.fd.as_raw_fd(), &mut datagram, MsgFlags::empty())
                .map_err(|errno| NetlinkError::Socket(errno.into()))?;
            let mut rest = &datagram[..length];
            let mut end = None;
            while let Some((kind, sequence, body)) = take_message(&mut rest) {
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    NLMSG_DONE => end = Some(Ok(())),
                    NLMSG_ERROR => {
                        let code = body
                            .first_chunk()
                            .map_or(0, |code| i32::from_ne_bytes(*code));
                        end = Some(match code {
                            0 => Ok(()),
                            code => Err(NetlinkError::Refused {
                                operation,
                                source: io::Error::from_raw_os_error(code.saturating_abs()),
                            }),
                        });
                    }
                    _ => take(body.get(4..).unwrap_or_default()),
                }
            }
            if let Some(end) = end {
                break end;
            }
        };
        // The kernel tells root a device's private key too.
        datagram.zeroize();
        outcome
    }
}

/// A peer to set, and whether its inner address is another; or one to remove.
fn write_peer(buffer: &mut Buffer, key: &PublicKey, peer: Option<(&DevicePeer, bool)>) {
    buffer.attribute(PEER_PUBLIC_KEY, key.as_bytes());
    let Some((peer, is_moved)) = peer else {
        return buffer.attribute(PEER_FLAGS, &PEER_REMOVE.to_ne_bytes());
    };
    buffer.attribute(PEER_ENDPOINT, &socket_address(peer.endpoint));
    let interval = if peer.is_kept_alive { KEEPALIVE } else { 0 };
    buffer.attribute(PEER_KEEPALIVE, &interval.to_ne_bytes());
    if !is_moved {
        return;
    }
    buffer.attribute(PEER_FLAGS, &PEER_REPLACE_ADDRESSES.to_ne_bytes());
    buffer.nest(PEER_ADDRESSES, |buffer| {
        buffer.nest(0, |buffer| {
            buffer.attribute(ADDRESS_FAMILY, &AF_INET.to_ne_bytes());
            buffer.attribute(ADDRESS_IP, &peer.address.octets());
            buffer.attribute(ADDRESS_PREFIX, &[32]);
        });
    });
}

fn read_peer(body: &[u8], now: SystemTime) -> Option<(PublicKey, PeerState)> {
    let key = PublicKey::new(find(body, PEER_PUBLIC_KEY)?.try_into().ok()?)?;
    let handshake = find(body, PEER_HANDSHAKE).and_then(|time| {
        let seconds = i64::from_ne_bytes(*time.first_chunk()?);
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))?;
        // A clock that was set back makes the handshake one of just now.
        (seconds > 0).then(|| now.duration_since(at).unwrap_or_default())
    });
    let peer = || {
        let mut addresses = attributes(find(body, PEER_ADDRESSES)?);
        let (address, None) = (addresses.next()?, addresses.next()) else {
            return None;
        };
        let octets: [u8; 4] = find(address.value, ADDRESS_IP)?.try_into().ok()?;
        let is_one = find(address.value, ADDRESS_PREFIX)? == [32];
        let interval = number(find(body, PEER_KEEPALIVE)?)?;
        is_one.then_some(DevicePeer {
            endpoint: read_socket_address(find(body, PEER_ENDPOINT)?)?,
            address: Ipv4Addr::from(octets),
            is_kept_alive: interval == KEEPALIVE,
        })
    };
    let peer = peer();
    Some((key, PeerState { peer, handshake }))
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let (family, port) = match address {
        SocketAddr::V4(_) => (AF_INET, address.port()),
        SocketAddr::V6(_) => (AF_INET6, address.port()),
    };
    let mut bytes = Vec::from(family.to_ne_bytes());
    bytes.extend(port.to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.extend(ip.octets());
            bytes.extend([0; 8]);
        }
        IpAddr::V6(ip) => {
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}

fn read_socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip = match number(bytes.get(..2)?)? {
        AF_INET => IpAddr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?),
        AF_INET6 => IpAddr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn number(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::key::{PrivateKey, Slot};
    use super::*;

    #[test]
    fn a_peer_is_read_as_it_was_written() {
        let key = PrivateKey::generate(Slot::Odd).unwrap().public();
        for endpoint in ["192.0.2.7:4796", "[2001:db8::7]:4797"] {
            let peer = DevicePeer {
                endpoint: endpoint.parse().unwrap(),
                address: [10, 1, 2, 3].into(),
                is_kept_alive: true,
            };
            let mut buffer = Buffer::default();
            write_peer(&mut buffer, &key, Some((&peer, true)));
            let time = [1_000_i64.to_ne_bytes(), 0_i64.to_ne_bytes()].concat();
            buffer.attribute(PEER_HANDSHAKE, &time);
            let now = UNIX_EPOCH + Duration::from_secs(1_007);
            let state = PeerState {
                peer: Some(peer),
                handshake: Some(Duration::from_secs(7)),
            };
            assert_eq!(read_peer(&buffer.bytes, now), Some((key, state)));
        }
    }

    #[test]
    fn half_a_peer_is_none() {
        let now = UNIX_EPOCH;
        assert_eq!(read_peer(&[], now), None);
        let key = PrivateKey::generate(Slot::Odd).unwrap().public();
        let mut buffer = Buffer::default();
        buffer.attribute(PEER_PUBLIC_KEY, key.as_bytes());
        buffer.attribute(PEER_ENDPOINT, &[2, 0, 1]);
        let state = PeerState {
            peer: None,
            handshake: None,
        };
        assert_eq!(read_peer(&buffer.bytes, now), Some((key, state)));
    }
}
