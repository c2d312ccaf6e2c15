//! Measures an overlay between two nodes beside the raw veth path between them: throughput, what it costs the processors, latency,
//! connections.
//!
//! `cargo run --release -p skep-network --example overlay_bench [seconds [congestion control]]` as root; it makes namespaces of its own.
//! Paths are measured in turn, in rounds, and medians are printed, because the machine may be shared. Processor time is what others
//! disturb least. A congestion control that paces (BBR) hides much of what a path costs behind its timers; `cubic` or `reno` do not.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::sockopt::TcpCongestion;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect as connect_socket, setsockopt,
    socket,
};
use nix::time::{ClockId, clock_gettime};
use skep_network::Mac;
use skep_network::dns::Zone;
use skep_network::plane::{
    Container, DataPath, Desired, Health, Overlay, Place, Plane, Remote, Service,
};

/// Rounds over all paths.
const ROUND_COUNT: usize = 5;

/// Questions of one latency measurement.
const QUESTION_COUNT: usize = 5000;

/// Connections of one measurement.
const CONNECTION_COUNT: usize = 2000;

/// Bytes written at once.
const CHUNK_BYTES: usize = 128 << 10;

/// What a server does with a connection: its first byte says.
const PUMP: u8 = 1;
const ECHO: u8 = 2;

/// A way from a client's namespace to a server's address.
struct Way {
    name: &'static str,
    client: &'static str,
    server: &'static str,
    bind: &'static str,
    target: &'static str,
}

const WAYS: [Way; 3] = [
    Way {
        name: "raw veth, node to node",
        client: "node1",
        server: "node2",
        bind: "192.0.2.2:7000",
        target: "192.0.2.2:7000",
    },
    Way {
        name: "overlay, task address",
        client: "a",
        server: "b",
        bind: "10.0.1.3:7000",
        target: "10.0.1.3:7000",
    },
    Way {
        name: "overlay, virtual address",
        client: "a",
        server: "b",
        bind: "10.0.1.3:7001",
        target: "10.0.1.100:7001",
    },
];

#[expect(clippy::print_stdout, reason = "a measuring tool prints")]
fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let seconds = words.next().map_or(Ok(1), |text| text.parse())?;
    let control = words.next();
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("needs root")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    for name in ["node1", "node2", "a", "b"] {
        run(&format!(
            "ip netns add {name} && ip -n {name} link set lo up"
        ))?;
    }
    run("ip link add eth0 netns node1 type veth peer name eth0 netns node2")?;
    for number in [1, 2] {
        run(&format!(
            "ip -n node{number} addr add 192.0.2.{number}/24 dev eth0"
        ))?;
        run(&format!("ip -n node{number} link set eth0 up"))?;
    }
    let _planes = [plane(1)?, plane(2)?];
    for way in &WAYS {
        serve(way)?;
    }
    let mut results: BTreeMap<usize, [Vec<f64>; 4]> = BTreeMap::new();
    for _ in 0..ROUND_COUNT {
        for (index, way) in WAYS.iter().enumerate() {
            let [gigabits, cost] =
                throughput(way, Duration::from_secs(seconds), control.as_deref())?;
            let measured = [gigabits, cost, latency(way)?, connections(way)?];
            let all = results.entry(index).or_default();
            all.iter_mut()
                .zip(measured)
                .for_each(|(all, one)| all.push(one));
        }
    }
    let medians = results.into_values().map(|mut all| {
        all.iter_mut()
            .for_each(|values| values.sort_by(f64::total_cmp));
        all.map(|values| values[values.len() / 2])
    });
    let medians: Vec<[f64; 4]> = medians.collect();
    for (way, [gigabits, cost, micros, rate]) in WAYS.iter().zip(&medians) {
        let [raw_gigabits, raw_cost, raw_micros, raw_rate] = &medians[0];
        println!(
            "{:26} {gigabits:5.1} Gb/s ({:.2})  {cost:5.1} us/64 KiB ({:.2})  p50 {micros:5.1} us ({:.2})  {rate:6.0} connections/s ({:.2})",
            way.name,
            gigabits / raw_gigabits,
            cost / raw_cost,
            micros / raw_micros,
            rate / raw_rate
        );
    }
    Ok(())
}

fn run(command: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").args(["-c", command]).status()?;
    ensure!(status.success(), "`{command}` failed");
    Ok(())
}

/// Runs work on a thread in a namespace.
fn inside<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let netns = File::open(format!("/run/netns/{name}"))?;
    let thread = std::thread::spawn(move || {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
        work()
    });
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// Opens a node's plane with its container.
fn plane(number: u8) -> anyhow::Result<Plane> {
    let (own, other) = (number, 3 - number);
    let names = ["a", "b"];
    let subnet = "10.0.1.0/24".parse()?;
    let task = |number: u8| IpAddr::from([10, 0, 1, number + 1]);
    let node = |number: u8| IpAddr::from([192, 0, 2, number]);
    let remote = Remote {
        node: node(other),
        addresses: vec![task(other)],
    };
    let service = Service {
        vips: vec![[10, 0, 1, 100].into()],
        backends: [(task(2), Health::Ready)].into(),
    };
    let data_path = DataPath {
        address: node(own),
        port: 4789,
    };
    let mut desired = Desired::new(1, data_path);
    let overlay = Overlay {
        vni: 4097,
        mtu: None,
        is_encrypted: false,
        subnets: vec![subnet],
        remotes: [(Mac::from_ip(task(other)), remote)].into(),
        services: [("s".to_owned(), Arc::new(service))].into(),
        names: Arc::new(Zone::new("net", vec![subnet])),
    };
    let place = Place {
        interface: "eth1".to_owned(),
        mac: Mac::from_ip(task(own)),
        addresses: vec![task(own)],
    };
    let name = names[usize::from(own - 1)];
    let container = Container {
        netns_path: format!("/run/netns/{name}").into(),
        attachments: [("net".to_owned(), place)].into(),
        upstreams: Vec::new(),
        zones: Vec::new(),
    };
    desired.networks.insert("net".to_owned(), Arc::new(overlay));
    desired
        .containers
        .insert(name.to_owned(), Arc::new(container));
    inside(&format!("node{own}"), move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(async {
            let plane = Plane::open(format!("/run/plane{own}")).await?;
            let report = plane.update(desired).await?;
            ensure!(report.failures.is_empty(), "{:?}", report.failures);
            Ok(plane)
        })
    })
}

/// Starts a server that ends with the process.
fn serve(way: &Way) -> anyhow::Result<()> {
    let address: SocketAddr = way.bind.parse()?;
    let listener = inside(way.server, move || Ok(TcpListener::bind(address)?))?;
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(())
}

/// What fails ends the connection, and the client notices.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut mode = [0];
    stream.read_exact(&mut mode)?;
    if mode == [PUMP] {
        let mut buffer = vec![0; CHUNK_BYTES];
        while stream.read(&mut buffer)? > 0 {}
        return Ok(());
    }
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Connects, with a congestion control of one's own if it is named: it must be the socket's before it connects.
fn connect(way: &Way, control: Option<&str>) -> anyhow::Result<TcpStream> {
    let address: SocketAddr = way.target.parse()?;
    let control = control.map(OsString::from);
    let stream = inside(way.client, move || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        if let Some(control) = &control {
            setsockopt(&socket, TcpCongestion, control).context("congestion control")?;
        }
        connect_socket(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        Ok(TcpStream::from(socket))
    })?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Time this process, which is both ends, has had processors. The kernel's work for packets is mostly done in it.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// Gigabits a second, and microseconds of processor time for 64 KiB.
fn throughput(way: &Way, time: Duration, control: Option<&str>) -> anyhow::Result<[f64; 2]> {
    let mut stream = connect(way, control)?;
    stream.write_all(&[PUMP])?;
    let spent = processor_time()?;
    let chunk = vec![0; CHUNK_BYTES];
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed() < time {
        stream.write_all(&chunk)?;
        count += 1;
    }
    let (elapsed, spent) = (start.elapsed(), processor_time()?.saturating_sub(spent));
    let bytes = f64::from(count) * f64::from(u32::try_from(CHUNK_BYTES)?);
    Ok([
        bytes * 8.0 / elapsed.as_secs_f64() / 1e9,
        spent.as_secs_f64() * 1e6 / (bytes / 65_536.0),
    ])
}

/// Microseconds from question to answer, the median.
fn latency(way: &Way) -> anyhow::Result<f64> {
    let mut stream = connect(way, None)?;
    stream.write_all(&[ECHO])?;
    let mut times = Vec::with_capacity(QUESTION_COUNT);
    let mut byte = [0];
    for _ in 0..QUESTION_COUNT {
        let start = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

/// Connections with one question each, a second.
fn connections(way: &Way) -> anyhow::Result<f64> {
    let address: SocketAddr = way.target.parse()?;
    inside(way.client, move || {
        let start = Instant::now();
        for _ in 0..CONNECTION_COUNT {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(&[ECHO, 0])?;
            stream.read_exact(&mut [0])?;
        }
        let count = f64::from(u32::try_from(CONNECTION_COUNT)?);
        Ok(count / start.elapsed().as_secs_f64())
    })
}
