//! Test support: a node and a world in namespaces of their own, and servers that say who asked.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{Shutdown, shutdown};

use crate::ports::Protocol;

pub(crate) mod cluster;

/// How long a client waits; dropped packets make a test take this long.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// The world behind the node. Everything lies below a private `/run`.
#[derive(Debug)]
pub(crate) struct Testbed {
    run_dir: PathBuf,
    world: PathBuf,
}

/// A server that answers every connection or datagram with its peer's IP address; ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Stop {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// Runs a test on a thread in fresh namespaces, with a runtime that has no other threads.
pub(crate) fn on_node(test: impl AsyncFnOnce(&Testbed) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("kernel tests need root (CAP_SYS_ADMIN)");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        run("ip link set lo up");
        run("ip netns add world");
        run("ip link add up0 type veth peer name eth0 netns world");
        // A real interface had its second to look for duplicates of its link-local address long ago.
        run("busybox sysctl -w net.ipv6.conf.up0.accept_dad=0");
        run("ip addr add 192.0.2.1/24 dev up0");
        run("ip link set up0 up");
        run("ip addr add 2001:db8::1/64 dev up0 nodad");
        run("ip -n world addr add 192.0.2.2/24 dev eth0");
        run("ip -n world addr add 2001:db8::2/64 dev eth0 nodad");
        run("ip -n world link set eth0 up");
        // Asking makes the kernel notice the carrier; packets sent before are lost.
        run("ip link show up0 && ip -n world link show eth0");
        let bed = Testbed {
            run_dir: "/run/skep".into(),
            world: "/run/netns/world".into(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(&bed));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a shell command that must succeed.
#[track_caller]
pub(crate) fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{command}`: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Asks a server from a namespace, none for the node's, and returns the address the server saw.
pub(crate) fn ask(protocol: Protocol, from: Option<&Path>, to: &str) -> io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    inside(from, move || match protocol {
        Protocol::Udp => {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            ask_from(&socket)
        }
        Protocol::Tcp | Protocol::Sctp => {
            let mut stream = TcpStream::connect_timeout(&to, ANSWER_TIMEOUT)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        }
    })
}

/// Asks on a connected socket.
pub(crate) fn ask_from(socket: &UdpSocket) -> io::Result<String> {
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut buffer = [0; 64];
    loop {
        match socket.send(b"?").and_then(|_| socket.recv(&mut buffer)) {
            Ok(length) => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            // What ICMP said of an earlier datagram.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
}

/// Runs `work` on a thread in a namespace.
pub(crate) fn inside<T: Send + 'static>(
    netns: Option<&Path>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let netns = netns.map(|path| std::fs::File::open(path).unwrap());
    std::thread::spawn(move || {
        if let Some(netns) = netns {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        }
        work()
    })
    .join()
    .unwrap()
}

fn answer(name: Option<&str>, peer: SocketAddr) -> String {
    name.map_or_else(|| peer.ip().to_canonical().to_string(), str::to_owned)
}

// === impl Server ===

impl Server {
    pub(crate) fn tcp(netns: Option<&Path>, address: &str) -> Server {
        Server::tcp_named(netns, address, None)
    }

    /// With a name it answers that instead.
    pub(crate) fn tcp_named(
        netns: Option<&Path>,
        address: &str,
        name: Option<&'static str>,
    ) -> Server {
        let address: SocketAddr = address.parse().unwrap();
        let listener = inside(netns, move || TcpListener::bind(address).unwrap());
        let stop = Stop::Tcp(listener.try_clone().unwrap());
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = stream.write_all(answer(name, peer).as_bytes());
            }
        });
        Server {
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn udp(netns: Option<&Path>, address: &str) -> Server {
        Server::udp_named(netns, address, None)
    }

    /// With a name it answers that instead.
    pub(crate) fn udp_named(
        netns: Option<&Path>,
        address: &str,
        name: Option<&'static str>,
    ) -> Server {
        let address: SocketAddr = address.parse().unwrap();
        let socket = inside(netns, move || UdpSocket::bind(address).unwrap());
        let stop = Stop::Udp(socket.try_clone().unwrap());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            // An empty datagram is the end.
            while let Ok((1.., peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(answer(name, peer).as_bytes(), peer);
            }
        });
        Server {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match &self.stop {
            Stop::Tcp(listener) => {
                let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
            }
            Stop::Udp(socket) => {
                let port = socket.local_addr().map_or(0, |address| address.port());
                let _ = socket.send_to(&[], ("127.0.0.1", port));
            }
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Testbed ===

impl Testbed {
    pub(crate) fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    pub(crate) fn world(&self) -> &Path {
        &self.world
    }

    /// Runs a command in a namespace.
    #[track_caller]
    pub(crate) fn run_in(&self, netns: &Path, command: &str) -> String {
        run(&format!("nsenter --net={} {command}", netns.display()))
    }

    /// Names of a namespace's links.
    pub(crate) fn links_in(&self, netns: &Path) -> Vec<String> {
        let listing = self.run_in(netns, "ip -br link");
        listing
            .lines()
            .filter_map(|line| line.split(['@', ' ']).next())
            .map(str::to_owned)
            .collect()
    }

    /// A datagram socket in a namespace.
    pub(crate) fn udp_socket_in(&self, netns: &Path) -> UdpSocket {
        inside(Some(netns), || UdpSocket::bind("0.0.0.0:0").unwrap())
    }

    /// Everything the node network could leave behind: links, rules, mounts, files.
    pub(crate) fn inventory(&self) -> String {
        let mut links: Vec<String> = run("ip -br link")
            .lines()
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect();
        links.sort();
        let rules = run("nft list ruleset");
        let mounts = run("cat /proc/thread-self/mounts");
        let files = run(&format!(
            "find {} 2>/dev/null || true",
            self.run_dir.display()
        ));
        let files = files.replace(&format!("{}\n", self.run_dir.display()), "");
        format!("{links:?}\n{rules}\n{mounts}\n{files}")
    }
}
