//! From the interface to the network: read packets, find their peers, encrypt.

use std::net::Ipv4Addr;

use defguard_boringtun::noise::TunnResult;

use super::device::Device;
use super::run::Run;

/// Largest packet an interface can have.
const PACKET_BYTES_MAX: usize = 1 << 16;

/// The thread's body.
pub(super) fn run(device: &Device) {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let mut run = Run::new();
    loop {
        match nix::unistd::read(&device.tun, &mut packet) {
            Ok(length) => transmit(device, &packet[..length], &mut run),
            Err(error) => {
                run.flush(device);
                let is_empty = error == nix::Error::EAGAIN;
                let goes_on = if is_empty {
                    device.wait(&device.tun)
                } else {
                    // Somebody deleted the interface.
                    device.pause()
                };
                if !goes_on {
                    return;
                }
            }
        }
    }
}

/// Encrypts a packet for the peer that has its destination. Without one it is dropped.
fn transmit(device: &Device, packet: &[u8], run: &mut Run) {
    let peers = device.peers();
    let Some(peer) = destination(packet).and_then(|address| peers.by_address(address)) else {
        return;
    };
    let mut noise = peer.noise();
    // Without a session the packet waits in there, and this is the handshake.
    if let TunnResult::WriteToNetwork(datagram) = noise.tunn.encapsulate(packet, run.room()) {
        let length = datagram.len();
        run.push(length, peer.endpoint(), device);
    }
}

/// Where an IPv4 packet goes.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let is_v4 = packet.first()? >> 4 == 4;
    let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    is_v4.then(|| octets.into())
}
