//! Echo requests to many nodes at once: raw sockets of ICMP and ICMPv6 (RFC 792, RFC 4443).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, ipproto, recvfrom, sendto,
    socket_with,
};

use super::Search;

/// How long an answer may take. Nodes of a cluster are not further apart.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(500);

/// How often a round looks whether it is to stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Requests under way at once: large packets to all nodes of a large cluster would be a burst.
const BATCH_COUNT: usize = 64;

/// Largest packet there is.
const PACKET_BYTES_MAX: usize = 65_535;

/// Bytes of an echo message before its payload: type, code, checksum, identifier, sequence number.
const HEADER_BYTES: usize = 8;

/// How a family's messages look.
#[derive(Debug, Clone, Copy)]
struct Form {
    request: u8,
    reply: u8,
    /// Bytes of the IP header, without options.
    ip_bytes: usize,
    /// Whether the kernel hands over the IP header too.
    has_ip_header: bool,
}

const V4: Form = Form {
    request: 8,
    reply: 0,
    ip_bytes: 20,
    has_ip_header: true,
};

const V6: Form = Form {
    request: 128,
    reply: 129,
    ip_bytes: 40,
    has_ip_header: false,
};

/// Asks until every search is over.
pub(super) fn perform(
    local: IpAddr,
    searches: &mut BTreeMap<IpAddr, Search>,
    is_stopped: &AtomicBool,
) -> io::Result<()> {
    let form = if local.is_ipv4() { V4 } else { V6 };
    let socket = open(local)?;
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let identifier = u16::from_ne_bytes(bytes);
    let mut sequence = 0u16;
    loop {
        let is_open = |(ip, search): (&IpAddr, &Search)| Some((*ip, search.next()?));
        let batch: Vec<(IpAddr, u32)> = searches
            .iter()
            .filter_map(is_open)
            .take(BATCH_COUNT)
            .collect();
        if batch.is_empty() || is_stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        sequence = sequence.wrapping_add(1);
        let mut waiting = Vec::new();
        for (ip, size) in batch {
            let packet = request(form, size, (identifier, sequence));
            let to = SocketAddr::new(ip, 0);
            match sendto(&socket, &packet, SendFlags::empty(), &to) {
                Ok(_) => waiting.push(ip),
                Err(Errno::MSGSIZE) => search(searches, ip).refused(),
                // No route, or no room: as if it had been lost.
                Err(_) => search(searches, ip).missed(),
            }
        }
        let answered = collect(&socket, form, (identifier, sequence), &mut waiting)?;
        for ip in answered {
            search(searches, ip).answered();
        }
        for ip in waiting {
            search(searches, ip).missed();
        }
    }
}

fn search(searches: &mut BTreeMap<IpAddr, Search>, ip: IpAddr) -> &mut Search {
    searches.get_mut(&ip).expect("a batch is of searches")
}

/// A socket that sends from `local`, whatever size the kernel believes the path to carry.
fn open(local: IpAddr) -> io::Result<OwnedFd> {
    let (family, protocol) = match local {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::RAW, flags, Some(protocol))?;
    match local {
        IpAddr::V4(_) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
        IpAddr::V6(_) => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?,
    }
    bind(&socket, &SocketAddr::new(local, 0))?;
    Ok(socket)
}

/// An echo request that makes an IP packet of `size` bytes.
fn request(form: Form, size: u32, (identifier, sequence): (u16, u16)) -> Vec<u8> {
    let size = usize::try_from(size).map_or(PACKET_BYTES_MAX, |size| size.min(PACKET_BYTES_MAX));
    let mut packet = vec![0; size.saturating_sub(form.ip_bytes).max(HEADER_BYTES)];
    packet[0] = form.request;
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    // The kernel fills that of ICMPv6 in itself.
    let checksum = checksum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The Internet checksum (RFC 1071) of bytes in which it is still 0.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("the carries were added")
}

/// Takes answers in until nobody is waited for or it has been long enough. Who answered leaves `waiting`.
fn collect(
    socket: &OwnedFd,
    form: Form,
    numbers: (u16, u16),
    waiting: &mut Vec<IpAddr>,
) -> io::Result<Vec<IpAddr>> {
    let end = Instant::now() + ANSWER_WAIT_MAX;
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut answered = Vec::new();
    while !waiting.is_empty() {
        match recvfrom(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, length, Some(from))) => {
                let from = SocketAddr::try_from(from).map(|from| from.ip());
                let place = waiting.iter().position(|ip| Ok(*ip) == from);
                if let Some(place) = place.filter(|_| is_reply(form, &buffer[..length], numbers)) {
                    answered.push(waiting.swap_remove(place));
                }
            }
            Ok((_, _, None)) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                wait(socket, left.min(LOOK_INTERVAL))?;
            }
            // What ICMP says of an earlier request: it will miss its answer.
            Err(Errno::MSGSIZE | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::CONNREFUSED) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(answered)
}

fn wait(socket: &OwnedFd, duration: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(duration).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a packet answers the request with these numbers.
fn is_reply(form: Form, packet: &[u8], (identifier, sequence): (u16, u16)) -> bool {
    let skip = match packet.first() {
        Some(first) if form.has_ip_header => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    let Some(&[kind, code, _, _, i0, i1, s0, s1]) = packet.get(skip..skip + HEADER_BYTES) else {
        return false;
    };
    (kind, code) == (form.reply, 0)
        && u16::from_be_bytes([i0, i1]) == identifier
        && u16::from_be_bytes([s0, s1]) == sequence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_size_asked_for_and_a_checksum_that_adds_up() {
        for size in [128, 1279, 1500, 9000] {
            let packet = request(V4, size, (0xabcd, 7));
            assert_eq!(packet.len() + V4.ip_bytes, usize::try_from(size).unwrap());
            // With its checksum in place everything adds up to nothing.
            assert_eq!(checksum(&packet), 0);
        }
    }

    #[test]
    fn only_the_answer_to_the_last_request_counts() {
        let reply = |kind: u8, sequence: u16| {
            let mut packet = vec![0x45; 20];
            packet.extend([kind, 0, 0, 0, 0xab, 0xcd]);
            packet.extend(sequence.to_be_bytes());
            packet
        };
        assert!(is_reply(V4, &reply(0, 7), (0xabcd, 7)));
        assert!(!is_reply(V4, &reply(0, 6), (0xabcd, 7)));
        assert!(!is_reply(V4, &reply(8, 7), (0xabcd, 7)));
        assert!(!is_reply(V4, &reply(0, 7), (0xabce, 7)));
        assert!(!is_reply(V4, &reply(0, 7)[..24], (0xabcd, 7)));
        assert!(!is_reply(V4, &[], (0xabcd, 7)));
    }
}
