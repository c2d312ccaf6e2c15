//! Encrypted networks. Where the kernel has WireGuard node 1 uses it and the others their process; else all use their process, which is a
//! thread of the test here.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};

use super::*;
use crate::testbed::cluster::Cluster;
use crate::tunnel::{
    Config, DIR, Keys, Launch, NETNS, Peer, Process, PublicKey, Slot, WireguardSocket,
};

/// What must not be seen.
const SECRET: &str = "the bees know where the honey is";

/// The keys of all nodes.
struct Tunnels {
    keys: Vec<Keys>,
}

impl Tunnels {
    fn new(cluster: &Cluster) -> Tunnels {
        let numbers = 1..=cluster.nodes.len();
        let keys = numbers.map(|number| Keys::open(&run_dir(number), SystemTime::now()).unwrap());
        Tunnels {
            keys: keys.collect(),
        }
    }

    /// What a node should be: network `red` is encrypted.
    fn desired(&self, cluster: &Cluster, number: usize) -> Desired {
        let mut desired = cluster.desired(number);
        if let Some(network) = desired.networks.get_mut("red") {
            Arc::make_mut(network).is_encrypted = true;
        }
        let peers = self
            .keys
            .iter()
            .zip(1..)
            .filter(|(_, other)| *other != number);
        let peers = peers.map(|(keys, other)| {
            let keys = keys.public().into_iter().filter_map(PublicKey::new);
            let peer = Peer {
                node: cluster.node(other).address,
                keys: keys.collect(),
            };
            (u16::try_from(other).unwrap(), peer)
        });
        desired.tunnel = Some(Arc::new(Config {
            number: u16::try_from(number).unwrap(),
            port: crate::tunnel::PORT,
            keys: self.keys[number - 1].clone(),
            peers: peers.collect(),
            launch: Launch {
                is_always: number != 1,
                ..Launch::default()
            },
        }));
        desired
    }

    async fn update_one(&self, cluster: &Cluster, number: usize) -> Report {
        let desired = self.desired(cluster, number);
        let report = cluster.node(number).plane.update(desired).await.unwrap();
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        report
    }

    async fn update(&self, cluster: &mut Cluster) -> Vec<Report> {
        cluster.generation += 1;
        let mut reports = Vec::new();
        for number in 1..=cluster.nodes.len() {
            reports.push(self.update_one(cluster, number).await);
        }
        reports
    }

    fn advance(&mut self, number: usize) {
        self.keys[number - 1].advance(SystemTime::now()).unwrap();
    }
}

fn run_dir(number: usize) -> PathBuf {
    format!("/run/plane{number}").into()
}

fn tunnel_dir(number: usize) -> PathBuf {
    run_dir(number).join(DIR)
}

/// Waits until a condition holds, or fails after a long time with what it says.
fn until(condition: impl Fn() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while let Err(text) = condition() {
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until all peers of a device that are kept alive have a session.
fn until_greeted(number: usize, slot: Slot) {
    until(|| {
        let state = match Process::new(tunnel_dir(number)).state().unwrap() {
            Some(mut devices) => devices.remove(&slot),
            None => inside(Some(&tunnel_dir(number).join(NETNS)), move || {
                let mut socket = WireguardSocket::open().unwrap();
                Some(socket.state(slot.link()).unwrap())
            }),
        };
        let peers = state.ok_or("no device")?.peers.into_values();
        let kept: Vec<_> = peers
            .filter(|peer| peer.peer.is_some_and(|peer| peer.is_kept_alive))
            .collect();
        let is_greeted = !kept.is_empty() && kept.iter().all(|peer| peer.handshake.is_some());
        is_greeted.then_some(()).ok_or(format!("{kept:?}"))
    });
}

/// All frames that pass the test's own namespace, which joins the nodes.
struct Capture(OwnedFd);

impl Capture {
    fn start() -> Capture {
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .unwrap();
        setsockopt(&fd, sockopt::RcvBufForce, &(32 << 20)).unwrap();
        Capture(fd)
    }

    /// What passed so far.
    fn frames(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }
}

fn has(frames: &[Vec<u8>], text: &str) -> bool {
    let has = |frame: &Vec<u8>| {
        frame
            .windows(text.len())
            .any(|bytes| bytes == text.as_bytes())
    };
    frames.iter().any(has)
}

/// The datagrams among frames of IPv4 that went to this port.
fn datagrams(frames: &[Vec<u8>], port: u16) -> Vec<&[u8]> {
    let is_there = |frame: &&Vec<u8>| {
        frame.get(12..14) == Some(&[8, 0])
            && frame.get(23) == Some(&17)
            && frame.get(36..38) == Some(&port.to_be_bytes())
    };
    frames
        .iter()
        .filter(is_there)
        .map(|frame| &frame[42..])
        .collect()
}

/// Sends the secret by UDP and TCP and says whether an answer came by either.
fn tell(from: &Path, to: &str) -> bool {
    let to: std::net::SocketAddr = format!("{to}:80").parse().unwrap();
    inside(Some(from), move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        // Where there is no way it fails at once.
        let _ = socket.send_to(SECRET.as_bytes(), to);
        let mut buffer = [0; 64];
        let udp = socket.recv(&mut buffer).is_ok();
        let tcp = std::net::TcpStream::connect_timeout(&to, Duration::from_millis(300));
        udp || tcp.is_ok()
    })
}

#[test]
fn what_an_encrypted_network_carries_is_not_seen() {
    on_cluster(3, async |cluster| {
        let tunnels = Tunnels::new(cluster);
        let a = cluster.add(1, "a", &[("red", "10.0.1.2"), ("dual", "10.0.3.2")]);
        let b = cluster.add(2, "b", &[("red", "10.0.1.3"), ("dual", "10.0.3.3")]);
        let c = cluster.add(3, "c", &[("red", "10.0.1.4")]);
        tunnels.update(cluster).await;
        let capture = Capture::start();
        let names = [(&a, 2), (&b, 3), (&c, 4)];
        for (server, last) in names {
            let _udp = Server::udp_named(Some(server), "0.0.0.0:80", Some(SECRET));
            let _tcp = Server::tcp_named(Some(server), "0.0.0.0:80", Some(SECRET));
            for (client, _) in names {
                let to = format!("10.0.1.{last}:80");
                // The first packet makes the session.
                for protocol in [Protocol::Udp, Protocol::Tcp] {
                    assert_eq!(ask(protocol, Some(client), &to).unwrap(), SECRET);
                }
                assert!(tell(client, &format!("10.0.1.{last}")));
            }
        }
        let frames = capture.frames();
        let ports = [crate::tunnel::PORT, crate::tunnel::PORT + 1];
        let sent: usize = ports
            .iter()
            .map(|port| datagrams(&frames, *port).len())
            .sum();
        assert!(sent > 50, "{sent}");
        assert!(datagrams(&frames, 4789).is_empty());
        assert!(!has(&frames, SECRET));
        // The same on a network that is not encrypted: the capture sees it.
        let _udp = Server::udp(Some(&b), "0.0.0.0:80");
        assert!(tell(&a, "10.0.3.3"));
        assert!(has(&capture.frames(), SECRET));
        for node in &cluster.nodes {
            assert_eq!(node.plane.doctor().await.unwrap(), [""; 0]);
        }
    });
}

#[test]
fn packets_of_full_size_arrive() {
    on_cluster(2, async |cluster| {
        let tunnels = Tunnels::new(cluster);
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        cluster.add(2, "b", &[("red", "10.0.1.3")]);
        tunnels.update(cluster).await;
        assert!(run("ip -n a link show eth1").contains("mtu 1370"));
        for size in [0, 1000, 1370 - 28] {
            let netns = a.display();
            run(&format!(
                "nsenter --net={netns} busybox ping -c1 -W2 -s {size} 10.0.1.3"
            ));
        }
        // In fragments.
        let netns = a.display();
        run(&format!(
            "nsenter --net={netns} busybox ping -c1 -W2 -s 6000 10.0.1.3"
        ));
    });
}

#[test]
fn nothing_leaves_in_clear_when_the_tunnel_is_broken_and_it_heals() {
    on_cluster(2, async |cluster| {
        let tunnels = Tunnels::new(cluster);
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        let b = cluster.add(2, "b", &[("red", "10.0.1.3")]);
        tunnels.update(cluster).await;
        let _b = Server::udp(Some(&b), "0.0.0.0:80");
        until(|| {
            tell(&a, "10.0.1.3")
                .then_some(())
                .ok_or("no answer".to_owned())
        });
        let netns = tunnel_dir(1).join(NETNS);
        let netns = netns.display();
        let breaks = [
            format!("nsenter --net={netns} ip route flush table main"),
            format!("nsenter --net={netns} ip link del wg0"),
            format!("nsenter --net={netns} ip link set wg0 down"),
            format!("umount {netns}"),
            "process".to_owned(),
            "sockets".to_owned(),
        ];
        for break_it in breaks {
            if break_it == "process" {
                Process::new(tunnel_dir(1)).stop().unwrap();
                Process::new(tunnel_dir(2)).stop().unwrap();
            } else if break_it == "sockets" {
                // Processes that cannot be told to end do it by themselves.
                for dir in [1, 2].map(tunnel_dir) {
                    let is_process = std::fs::remove_file(dir.join("control.sock")).is_ok();
                    let links = format!("nsenter --net={} ip -o link", dir.join(NETNS).display());
                    until(|| {
                        let is_over = !is_process || !run(&links).contains("wg0");
                        is_over.then_some(()).ok_or(break_it.clone())
                    });
                }
            } else {
                run(&break_it);
            }
            let capture = Capture::start();
            // A namespace that is merely hidden still works.
            let is_cut = !break_it.starts_with("umount");
            assert_eq!(tell(&a, "10.0.1.3"), !is_cut, "{break_it}");
            let frames = capture.frames();
            assert!(!has(&frames, SECRET), "{break_it}");
            assert!(datagrams(&frames, 4789).is_empty(), "{break_it}");
            let plane = &cluster.node(1).plane;
            assert_ne!(plane.doctor().await.unwrap(), [""; 0], "{break_it}");
            for node in &cluster.nodes {
                let report = node.plane.reconcile().await.unwrap();
                assert!(report.failures.is_empty(), "{break_it}: {report:?}");
            }
            until(|| {
                let is_healed = tell(&a, "10.0.1.3");
                is_healed.then_some(()).ok_or(break_it.clone())
            });
            assert!(!has(&capture.frames(), SECRET), "{break_it}");
        }
    });
}

#[test]
fn a_node_without_a_key_gets_nothing_and_is_named() {
    on_cluster(2, async |cluster| {
        let tunnels = Tunnels::new(cluster);
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        let b = cluster.add(2, "b", &[("red", "10.0.1.3")]);
        let _b = Server::udp(Some(&b), "0.0.0.0:80");
        let mut desired = tunnels.desired(cluster, 1);
        let config = Arc::make_mut(desired.tunnel.as_mut().unwrap());
        config.peers.get_mut(&2).unwrap().keys.clear();
        tunnels.update_one(cluster, 2).await;
        let plane = cluster.node(1).plane.clone();
        let report = plane.update(desired).await.unwrap();
        let text = "packets of encrypted networks to node 192.0.2.2 are dropped: it has told no usable key";
        assert_eq!(report.warnings, [text]);
        assert_eq!(plane.doctor().await.unwrap(), [text]);
        let capture = Capture::start();
        assert!(!tell(&a, "10.0.1.3"));
        assert!(!has(&capture.frames(), SECRET));
        // It tells one: all is well.
        tunnels.update(cluster).await;
        until(|| {
            tell(&a, "10.0.1.3")
                .then_some(())
                .ok_or("no answer".to_owned())
        });
        assert_eq!(plane.doctor().await.unwrap(), [""; 0]);
        // A node that has lost its part of the node network.
        cluster.generation += 1;
        let mut desired = cluster.desired(1);
        Arc::make_mut(desired.networks.get_mut("red").unwrap()).is_encrypted = true;
        let report = plane.update(desired).await.unwrap();
        assert_eq!(report.warnings.len(), 1);
        assert!(!tell(&a, "10.0.1.3"));
        assert!(!has(&capture.frames(), SECRET));
    });
}

#[test]
fn sessions_outlive_the_daemon() {
    on_cluster(2, async |cluster| {
        let tunnels = Tunnels::new(cluster);
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        let b = cluster.add(2, "b", &[("red", "10.0.1.3")]);
        tunnels.update(cluster).await;
        let _b = Server::udp(Some(&b), "0.0.0.0:80");
        let stream = Stream::start(&a, "10.0.1.3:80");
        for number in [1, 2] {
            cluster.node(number).plane.close().await;
            stream.pass(200, "closed");
            let netns = cluster.node(number).netns.clone();
            cluster.nodes[number - 1].plane = open_plane(&netns, number).unwrap();
            let report = tunnels.update_one(cluster, number).await;
            // Its name server is the daemon.
            let own = if number == 1 { "a" } else { "b" };
            assert_eq!(steps(&report), [format!("container {own}: serve names")]);
            stream.pass(200, "adopted");
        }
        assert_eq!(stream.stop(), 0);
    });
}

/// Changes all keys of a cluster twice, so that nothing of the first ones is left, while containers on `streams` of its nodes talk.
fn check_rotation(node_count: usize, streams: &'static [(usize, &'static str)]) {
    on_cluster(node_count, async move |cluster| {
        let mut tunnels = Tunnels::new(cluster);
        let containers = [("a", "10.0.1.2"), ("b", "10.0.1.3"), ("c", "10.0.1.4")];
        let all: Vec<PathBuf> = (1..=node_count)
            .zip(containers)
            .map(|(number, (id, ip))| cluster.add(number, id, &[("red", ip)]))
            .collect();
        tunnels.update(cluster).await;
        let start = |netns: &PathBuf| Server::udp(Some(netns), "0.0.0.0:80");
        let _servers: Vec<Server> = all.iter().map(start).collect();
        let first: BTreeSet<_> = tunnels.keys.iter().flat_map(Keys::public).collect();
        let streams: Vec<Stream> = streams
            .iter()
            .map(|(from, to)| Stream::start(&all[from - 1], to))
            .collect();
        let pass = |when: &str| streams.iter().for_each(|stream| stream.pass(50, when));
        pass("at first");
        // Others hear of each step one after the other, and carry on in between.
        for number in (1..=node_count).chain(1..=node_count) {
            let next = tunnels.keys[number - 1].slot().other();
            tunnels.advance(number);
            tunnels.update(cluster).await;
            until_greeted(number, next);
            pass(&format!("node {number} prepares"));
            tunnels.advance(number);
            cluster.generation += 1;
            for other in (1..=node_count).rev() {
                tunnels.update_one(cluster, other).await;
                pass(&format!("node {number} swaps, node {other} follows"));
            }
            tunnels.advance(number);
            tunnels.update(cluster).await;
            pass(&format!("node {number} renews"));
        }
        let kinds = (1..=node_count).map(|number| match Process::new(tunnel_dir(number)).state() {
            Ok(None) => "kernel",
            Ok(Some(_)) | Err(_) => "process",
        });
        // For `kernel_and_process_understand_each_other`.
        say_kinds(&kinds.collect::<Vec<_>>());
        let last: BTreeSet<_> = tunnels.keys.iter().flat_map(Keys::public).collect();
        assert!(first.is_disjoint(&last));
        let lost: usize = streams.into_iter().map(Stream::stop).sum();
        assert_eq!(lost, 0);
    });
}

#[test]
fn keys_change_without_a_lost_packet() {
    check_rotation(
        3,
        &[(1, "10.0.1.3:80"), (1, "10.0.1.4:80"), (2, "10.0.1.4:80")],
    );
}

#[test]
fn two_nodes_change_keys_without_a_lost_packet() {
    check_rotation(2, &[(1, "10.0.1.3:80")]);
}

#[test]
fn what_was_not_encrypted_by_a_node_of_the_cluster_does_not_get_in() {
    on_cluster(2, async |cluster| {
        let tunnels = Tunnels::new(cluster);
        let a = cluster.add(1, "a", &[("red", "10.0.1.2"), ("dual", "10.0.3.2")]);
        let b = cluster.add(2, "b", &[("red", "10.0.1.3"), ("dual", "10.0.3.3")]);
        tunnels.update(cluster).await;
        let _b = Server::udp(Some(&b), "0.0.0.0:80");
        until(|| {
            tell(&a, "10.0.1.3")
                .then_some(())
                .ok_or("no answer".to_owned())
        });
        let counter = Capture::start();
        // Frames of the network that is not encrypted, with the other's number: as forged by a host of the underlay.
        assert!(tell(&a, "10.0.3.3"));
        let frames = counter.frames();
        let clear = datagrams(&frames, 4789);
        let clear = clear
            .iter()
            .find(|frame| has(&[frame.to_vec()], SECRET))
            .unwrap();
        let mut forged = clear.to_vec();
        forged[4..7].copy_from_slice(&[0, 0x10, 0x01]);
        let mac = |ip: &str| crate::testbed::cluster::mac(ip.parse().unwrap()).0;
        forged[8..14].copy_from_slice(&mac("10.0.1.3"));
        forged[14..20].copy_from_slice(&mac("10.0.1.2"));
        // Garbage, and what was sent before, once more.
        let capture = Capture::start();
        assert!(tell(&a, "10.0.1.3"));
        let frames = capture.frames();
        let old: Vec<Vec<u8>> = [crate::tunnel::PORT, crate::tunnel::PORT + 1]
            .iter()
            .flat_map(|port| datagrams(&frames, *port))
            .map(<[u8]>::to_vec)
            .collect();
        assert!(!old.is_empty());
        let received = || {
            let read = "cat /sys/class/net/eth1/statistics/rx_packets";
            run(&format!(
                "nsenter --net={} unshare -m sh -c 'mount -t sysfs none /sys && {read}'",
                b.display()
            ))
        };
        let before = received();
        let socket = UdpSocket::bind("192.0.2.254:0").unwrap();
        for _ in 0..20 {
            let _ = socket.send_to(&forged, "192.0.2.2:4789");
            for port in [crate::tunnel::PORT, crate::tunnel::PORT + 1] {
                for datagram in &old {
                    let _ = socket.send_to(datagram, ("192.0.2.2", port));
                    // A flipped bit, and another kind.
                    let mut garbage = datagram.clone();
                    garbage[20] ^= 1;
                    let _ = socket.send_to(&garbage, ("192.0.2.2", port));
                    garbage[0] = garbage[0] % 4 + 1;
                    let _ = socket.send_to(&garbage, ("192.0.2.2", port));
                }
                for length in [0, 1, 3, 4, 31, 32, 64, 92, 148, 1400] {
                    let _ = socket.send_to(&vec![1; length], ("192.0.2.2", port));
                    let _ = socket.send_to(&vec![4; length], ("192.0.2.2", port));
                }
            }
        }
        // What was sent after it has been seen, so it has been too.
        assert!(tell(&a, "10.0.3.3"));
        assert_eq!(received(), before);
        assert!(tell(&a, "10.0.1.3"));
    });
}

#[test]
fn tunnels_go_with_the_last_encrypted_network() {
    on_cluster(2, async |cluster| {
        let tunnels = Tunnels::new(cluster);
        cluster.add(1, "a", &[("red", "10.0.1.2")]);
        cluster.add(2, "b", &[("red", "10.0.1.3")]);
        tunnels.update(cluster).await;
        cluster.drop("a");
        let reports = tunnels.update(cluster).await;
        assert_eq!(
            steps(&reports[0]),
            ["network red: delete sandbox", "encryption: remove"]
        );
        assert!(Process::new(tunnel_dir(1)).state().unwrap().is_none());
        assert!(!tunnel_dir(1).join(NETNS).exists());
        assert_eq!(cluster.node(1).plane.doctor().await.unwrap(), [""; 0]);
        cluster.node(2).plane.remove().await.unwrap();
        assert!(Process::new(tunnel_dir(2)).state().unwrap().is_none());
        assert!(!tunnel_dir(2).exists());
    });
}

/// The machine is emulated: this takes half a minute alone, and twice that beside other tests.
#[test]
fn kernel_and_process_understand_each_other() {
    // The guest has memory of its own at /tmp, /run and /var/lib, so what it is to see is put where the virtual machine's kernel is kept.
    let cache = std::env::var_os("SKEP_CACHE").map_or("/var/cache/skep".into(), PathBuf::from);
    std::fs::create_dir_all(&cache).unwrap();
    let shared = tempfile::Builder::new()
        .prefix("guest-")
        .tempdir_in(cache)
        .unwrap();
    let program = shared.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let script = shared.path().join("script");
    let name = "plane::tests::encrypting::two_nodes_change_keys_without_a_lost_packet";
    let command = format!("{} --exact {name} --nocapture\n", program.display());
    std::fs::write(&script, command).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = std::process::Command::new(root.join("fixtures/vm/run"));
    command.arg(&script).env("SKEP_VM_TIMEOUT", "300");
    let output = command.output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{said:?}");
    assert!(
        said[0].contains("WireGuard by kernel, process\n"),
        "{said:?}"
    );
    assert!(said[0].contains("1 passed"), "{said:?}");
}

/// Numbered questions to a server that answers each, some of them on the way at any time.
struct Stream {
    stop: Arc<AtomicBool>,
    answered: Arc<std::sync::atomic::AtomicU64>,
    thread: JoinHandle<usize>,
}

/// Questions on the way: so few that no buffer overflows on a slow machine.
const WINDOW: usize = 16;

/// How long an answer may take before it counts as lost: an emulated machine beside a busy one takes seconds.
const LOST_AFTER: Duration = Duration::from_secs(20);

impl Stream {
    fn start(from: &Path, to: &'static str) -> Stream {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let socket = inside(Some(from), move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(LOST_AFTER)).unwrap();
            socket
        });
        let (stopping, counter) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            let (mut sent, mut got) = (0_usize, 0_usize);
            loop {
                while sent - got < WINDOW && !stopping.load(Ordering::Relaxed) {
                    socket.send(b"?").unwrap();
                    sent += 1;
                }
                if sent == got {
                    return 0;
                }
                match socket.recv(&mut buffer) {
                    Ok(_) => got += 1,
                    Err(_) => return sent - got,
                }
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Stream {
            stop,
            answered,
            thread,
        }
    }

    /// Waits for some more answers.
    fn pass(&self, count: u64, when: &str) {
        let target = self.answered.load(Ordering::Relaxed) + count;
        until(|| {
            let answered = self.answered.load(Ordering::Relaxed);
            (answered >= target)
                .then_some(())
                .ok_or(format!("{when}: {answered} of {target}"))
        });
    }

    /// Ends it; how many were lost.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[expect(clippy::print_stdout, reason = "another test reads it")]
fn say_kinds(kinds: &[&str]) {
    println!("WireGuard by {}", kinds.join(", "));
}
