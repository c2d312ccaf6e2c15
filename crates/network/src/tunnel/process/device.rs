//! One device: a TUN interface in the tunnels' namespace, a UDP socket in the node's, and the peers between them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use defguard_boringtun::noise::rate_limiter::RateLimiter;
use defguard_boringtun::x25519;
use nix::sched::{CloneFlags, setns};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket,
    sockopt,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::device::Device as Config;
use super::super::key::PublicKey;
use super::peers::{Peer, Peers};
use super::{Devices, NETNS, lock, receive, sys, transmit};

/// Room for datagrams that wait in a socket: 5 ms at 10 Gb/s.
const SOCKET_BYTES: usize = 8 << 20;

/// How long a full link may hold up a sender before the datagram is dropped.
const SEND_TIMEOUT: i64 = 100_000;

/// Handshakes a second above which their senders must first prove that they receive what is sent to them (WireGuard's cookies). Each costs
/// 0.2 ms; each is counted twice, because it is looked at before it is known whose it is.
const HANDSHAKES_PER_SECOND: u64 = 2 * 100;

/// Handshakes a second from one address, proof or not. A node sends one in five seconds for each of its keys.
const HANDSHAKES_PER_SOURCE: u32 = 20;

/// Addresses that are counted in one second; handshakes of others wait for the next.
const SOURCE_COUNT_MAX: usize = 1024;

/// Pause after a failure that is likely to come again.
const FAILURE_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Largest message the protocol makes for itself.
const MESSAGE_BYTES_MAX: usize = 256;

/// A device that two threads serve.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) device: Arc<Device>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share.
pub(super) struct Device {
    pub(super) tun: File,
    pub(super) socket: UdpSocket,
    pub(super) limiter: Arc<RateLimiter>,
    endpoint: SocketAddr,
    secret: x25519::StaticSecret,
    public: PublicKey,
    peers: ArcSwap<Peers>,
    /// Number of the next peer: sessions say it, so it must not be an old one's.
    next_index: Mutex<u32>,
    sources: Mutex<Sources>,
    stop: EventFd,
    is_stopping: AtomicBool,
}

/// Who sent handshakes in this second.
#[derive(Debug)]
struct Sources {
    since: Instant,
    counts: BTreeMap<IpAddr, u32>,
}

/// Makes a device, or gives it other peers. One with another key or endpoint is made anew.
pub(super) fn configure(dir: &Path, devices: &Devices, config: &Config) -> io::Result<()> {
    let mut devices = lock(devices);
    let is_same = |running: &Running| {
        running.device.public == config.key.public() && running.device.endpoint == config.endpoint
    };
    if !devices.get(&config.slot).is_some_and(is_same) {
        // The socket and the interface must be free for the new one.
        if let Some(running) = devices.remove(&config.slot) {
            running.stop();
        }
        devices.insert(config.slot, Running::start(dir, config)?);
    }
    if let Some(running) = devices.get(&config.slot) {
        running.device.set_peers(config);
    }
    Ok(())
}

// === impl Running ===

impl Running {
    fn start(dir: &Path, config: &Config) -> io::Result<Running> {
        let device = Arc::new(Device::open(dir, config)?);
        let mut running = Running {
            device,
            threads: Vec::new(),
        };
        let outcome = running
            .spawn("transmit", transmit::run)
            .and_then(|()| running.spawn("receive", receive::run));
        match outcome {
            Ok(()) => Ok(running),
            Err(error) => {
                running.stop();
                Err(error)
            }
        }
    }

    fn spawn(&mut self, name: &str, body: fn(&Device)) -> io::Result<()> {
        let device = Arc::clone(&self.device);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || body(&device))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Ends the threads; the interface goes with the last of them.
    pub(super) fn stop(self) {
        self.device.is_stopping.store(true, Ordering::Release);
        // Fails only when the counter is full, and then it is readable too.
        let _ = self.device.stop.write(1);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

// === impl Device ===

impl Device {
    fn open(dir: &Path, config: &Config) -> io::Result<Device> {
        let netns = File::open(dir.join(NETNS))?;
        let link = config.slot.link();
        let open = move || {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
            sys::open_tun(link)
        };
        let tun = std::thread::Builder::new().spawn(open)?.join();
        let tun = tun.map_err(|_| io::Error::other("a thread died"))??;
        let secret = config.key.secret();
        let limiter = RateLimiter::new(&x25519::PublicKey::from(&secret), HANDSHAKES_PER_SECOND);
        Ok(Device {
            tun,
            socket: open_socket(config.endpoint)?,
            limiter: Arc::new(limiter),
            endpoint: config.endpoint,
            secret,
            public: config.key.public(),
            peers: ArcSwap::default(),
            next_index: Mutex::new(1),
            sources: Mutex::new(Sources {
                since: Instant::now(),
                counts: BTreeMap::new(),
            }),
            stop: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
            is_stopping: AtomicBool::new(false),
        })
    }

    pub(super) fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    pub(super) fn public(&self) -> PublicKey {
        self.public
    }

    pub(super) fn secret(&self) -> &x25519::StaticSecret {
        &self.secret
    }

    /// The peers of now.
    pub(super) fn peers(&self) -> arc_swap::Guard<Arc<Peers>> {
        self.peers.load()
    }

    /// Takes other peers; those that stay keep their sessions.
    fn set_peers(&self, config: &Config) {
        let old = self.peers.load_full();
        let mut next_index = lock(&self.next_index);
        let peers = config
            .peers
            .iter()
            .map(|(key, peer)| match old.by_key(key) {
                Some(known) => known.with(*peer),
                None => {
                    let index = *next_index;
                    *next_index = next_index.wrapping_add(1);
                    Peer::new(self, (*key, *peer), index)
                }
            });
        self.peers.store(Arc::new(peers.map(Arc::new).collect()));
        drop(next_index);
        // Whoever is new is greeted at once.
        self.tick();
    }

    /// Does what time demands: handshakes, signs of life.
    pub(super) fn tick(&self) {
        self.limiter.reset_count();
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        for peer in self.peers().all() {
            peer.tick(self, &mut buffer);
        }
    }

    /// Sends one datagram. What the network does not take is lost, as datagrams are.
    pub(super) fn send(&self, datagram: &[u8], to: SocketAddr) {
        let _ = self.socket.send_to(datagram, to);
    }

    /// Gives the node a packet. An interface that is down takes none.
    pub(super) fn deliver(&self, packet: &[u8]) {
        let _ = nix::unistd::write(&self.tun, packet);
    }

    /// Whether one more handshake from this address is listened to.
    pub(super) fn admits(&self, source: IpAddr) -> bool {
        let mut sources = lock(&self.sources);
        if sources.since.elapsed() >= Duration::from_secs(1) {
            sources.since = Instant::now();
            sources.counts.clear();
        }
        if sources.counts.len() >= SOURCE_COUNT_MAX && !sources.counts.contains_key(&source) {
            return false;
        }
        let count = sources.counts.entry(source).or_default();
        *count += 1;
        *count <= HANDSHAKES_PER_SOURCE
    }

    /// Waits until `file` can be read; false when the device is to end.
    pub(super) fn wait(&self, file: impl AsFd) -> bool {
        let mut files = [
            PollFd::new(&file, PollFlags::IN),
            PollFd::new(&self.stop, PollFlags::IN),
        ];
        // An interrupted wait is a short one.
        let _ = poll(&mut files, None);
        !self.is_stopping.load(Ordering::Acquire)
    }

    /// Waits a little after a failure that is likely to come again; false when the device is to end.
    pub(super) fn pause(&self) -> bool {
        let mut files = [PollFd::new(&self.stop, PollFlags::IN)];
        let _ = poll(&mut files, Some(&FAILURE_PAUSE));
        !self.is_stopping.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("public", &self.public)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// A socket at an address the node has, or will have.
fn open_socket(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let family = match endpoint {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Datagram, flags, SockProtocol::Udp)?;
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    setsockopt(&fd, sockopt::RcvBufForce, &SOCKET_BYTES)?;
    setsockopt(&fd, sockopt::SndBufForce, &SOCKET_BYTES)?;
    let limit = nix::sys::time::TimeVal::new(0, SEND_TIMEOUT);
    setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    // A kernel without it gives single datagrams.
    let _ = setsockopt(&fd, sockopt::UdpGroSegment, &true);
    bind(fd.as_raw_fd(), &SockaddrStorage::from(endpoint))?;
    Ok(UdpSocket::from(fd))
}
