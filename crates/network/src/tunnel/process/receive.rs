//! From the network to the interface: tell garbage from datagrams, find their peers, decrypt, check the source.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use defguard_boringtun::noise::handshake::parse_handshake_anon;
use defguard_boringtun::noise::{Packet, Tunn, TunnResult};
use defguard_boringtun::x25519;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

use super::super::key::PublicKey;
use super::device::Device;

/// What one system call can give: a datagram's limit, which holds for all of them together.
const BYTES_MAX: usize = 1 << 16;

/// Room for the largest answer of the protocol to a handshake.
const MESSAGE_BYTES_MAX: usize = 256;

/// The thread's body.
pub(super) fn run(device: &Device) {
    let mut datagrams = vec![0; BYTES_MAX];
    let mut packet = vec![0; BYTES_MAX];
    loop {
        match read(device, &mut datagrams) {
            Some((0, ..)) => {}
            Some((length, stride, from)) => {
                for datagram in datagrams[..length].chunks(stride.max(1)) {
                    receive(device, datagram, from, &mut packet);
                }
            }
            None => {
                if !device.wait(&device.socket) {
                    return;
                }
            }
        }
    }
}

/// Reads one datagram, or several of one size: length, size of each, sender.
fn read(device: &Device, buffer: &mut [u8]) -> Option<(usize, usize, SocketAddr)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(i32);
    let message = recvmsg::<SockaddrStorage>(
        device.socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )
    .ok()?;
    let mut stride = message.bytes;
    for part in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::UdpGroSegments(size) = part {
            stride = usize::try_from(size).unwrap_or(stride);
        }
    }
    let from = message.address?;
    let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    let v6 = || {
        from.as_sockaddr_in6()
            .map(|v6| SocketAddr::V6((*v6).into()))
    };
    Some((message.bytes, stride, v4.or_else(v6)?))
}

/// Whatever comes from the network: nothing of it is believed before it is authenticated.
fn receive(device: &Device, datagram: &[u8], from: SocketAddr, buffer: &mut [u8]) {
    let peers = device.peers();
    let peer = match Tunn::parse_incoming_packet(datagram) {
        Ok(Packet::PacketData(data)) => peers.by_receiver(data.receiver_idx),
        Ok(Packet::HandshakeResponse(response)) => peers.by_receiver(response.receiver_idx),
        Ok(Packet::PacketCookieReply(reply)) => peers.by_receiver(reply.receiver_idx),
        Ok(Packet::HandshakeInit(_)) => {
            initiator(device, datagram, from).and_then(|key| peers.by_key(&key))
        }
        Err(_) => None,
    };
    let Some(peer) = peer else { return };
    let mut noise = peer.noise();
    let mut result = noise.tunn.decapsulate(Some(from.ip()), datagram, buffer);
    // An answer may be followed by packets that waited for it.
    while let TunnResult::WriteToNetwork(message) = result {
        device.send(message, peer.endpoint());
        result = noise.tunn.decapsulate(None, &[], buffer);
    }
    if let TunnResult::WriteToTunnelV4(packet, source) = result
        && source == peer.address()
    {
        device.deliver(packet);
    }
}

/// Who begins a handshake, if it is worth finding out: that takes most of the time of a handshake.
fn initiator(device: &Device, datagram: &[u8], from: SocketAddr) -> Option<PublicKey> {
    let mut cookie = [0; MESSAGE_BYTES_MAX];
    let source: IpAddr = from.ip();
    match device
        .limiter
        .verify_packet(Some(source), datagram, &mut cookie)
    {
        Ok(Packet::HandshakeInit(init)) if device.admits(source) => {
            let public = x25519::PublicKey::from(*device.public().as_bytes());
            let half = parse_handshake_anon(device.secret(), &public, &init).ok()?;
            Some(PublicKey::to_find(half.peer_static_public))
        }
        Err(TunnResult::WriteToNetwork(cookie)) => {
            device.send(cookie, from);
            None
        }
        Ok(_) | Err(_) => None,
    }
}
