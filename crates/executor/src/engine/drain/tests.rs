//! Decisions case by case, and tables as kernels print them.

use std::sync::Arc;

use skep_model::{
    Annotations, Endpoint, Meta, PortConfig, Rng, TaskId, TaskSpec, TaskState, TaskStatus,
    VirtualIp,
};

use super::*;

const MS: Duration = Duration::from_millis(1);

fn task(desired_state: TaskState, endpoint: Option<Endpoint>, drain: Option<&str>) -> Task {
    let labels = drain.map(|drain| ("skep.drain".to_owned(), drain.to_owned()));
    Task {
        id: TaskId::random(&mut Rng::from_seed(3)),
        meta: Meta::default(),
        spec: Arc::new(TaskSpec::default()),
        spec_version: None,
        service_id: None,
        slot: 1,
        node_id: None,
        annotations: Arc::default(),
        service_annotations: Arc::new(Annotations {
            labels: labels.into_iter().collect(),
            ..Annotations::default()
        }),
        status: TaskStatus::default(),
        desired_state,
        endpoint: endpoint.map(Arc::new),
        log_driver: None,
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    }
}

fn published(publish_mode: PublishMode) -> Option<Endpoint> {
    let port = PortConfig {
        publish_mode,
        target_port: 80,
        ..PortConfig::default()
    };
    Some(Endpoint {
        ports: vec![port],
        ..Endpoint::default()
    })
}

fn with_vip() -> Option<Endpoint> {
    Some(Endpoint {
        virtual_ips: vec![VirtualIp::default()],
        ..Endpoint::default()
    })
}

/// `expected`: least and longest wait in milliseconds.
#[track_caller]
fn check(task: &Task, expected: Option<(u64, u64)>) {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap();
    let found = Drain::of(task).map(|drain| (millis(drain.settle), millis(drain.limit)));
    assert_eq!(found, expected);
}

#[test]
fn tasks_others_are_led_to_are_drained() {
    let stop = TaskState::Shutdown;
    check(
        &task(stop, published(PublishMode::Ingress), None),
        Some((500, 10_000)),
    );
    check(&task(stop, with_vip(), Some("1m")), Some((500, 60_000)));
    check(&task(stop, with_vip(), Some("200ms")), Some((200, 200)));
    check(
        &task(stop, published(PublishMode::Host), None),
        Some((0, 10_000)),
    );
    check(
        &task(TaskState::Remove, with_vip(), None),
        Some((500, 10_000)),
    );
}

#[test]
fn other_tasks_are_not_drained() {
    let stop = TaskState::Shutdown;
    check(&task(stop, None, None), None);
    check(&task(stop, Some(Endpoint::default()), None), None);
    // As the leader says of tasks whose service is removed.
    check(&task(TaskState::Remove, with_vip(), Some("0s")), None);
    // Nobody has told other nodes that it ends.
    check(&task(TaskState::Running, with_vip(), None), None);
}

fn drain() -> Drain {
    Drain::of(&task(TaskState::Shutdown, with_vip(), Some("2s"))).unwrap()
}

#[test]
fn nothing_stops_before_the_news_have_spread() {
    assert_eq!(drain().next(Duration::ZERO, None), Next::Wait(500 * MS));
    assert_eq!(drain().next(300 * MS, None), Next::Wait(200 * MS));
    assert!(!drain().is_settled(499 * MS) && drain().is_settled(500 * MS));
    // Settled without a look yet, as after a restart of the daemon: one is due at once.
    assert_eq!(drain().next(700 * MS, None), Next::Wait(Duration::ZERO));
}

#[test]
fn the_last_connection_or_the_limit_ends_it() {
    assert_eq!(drain().next(600 * MS, Some((3, MS))), Next::Wait(100 * MS));
    assert_eq!(drain().next(600 * MS, Some((0, MS))), Next::Stop);
    assert_eq!(drain().next(1_950 * MS, Some((3, MS))), Next::Wait(50 * MS));
    assert_eq!(drain().next(2_000 * MS, Some((3, MS))), Next::Stop);
    assert_eq!(drain().next(2_000 * MS, None), Next::Stop);
}

#[test]
fn looks_that_cost_much_are_rarer() {
    assert_eq!(
        drain().next(600 * MS, Some((9, 30 * MS))),
        Next::Wait(600 * MS)
    );
}

/// Tables of a little-endian machine.
#[cfg(target_endian = "little")]
mod tables {
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[track_caller]
    fn check(lines: &[&str], listeners: &[u16], expected: usize) {
        let text = format!("{HEAD}{}\n", lines.join("\n"));
        let mut known = BTreeSet::new();
        let count = count_connections(text.as_bytes(), &mut known).unwrap();
        assert_eq!(known.into_iter().collect::<Vec<_>>(), listeners);
        assert_eq!(count, expected);
    }

    const LISTEN: &str = "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";

    /// A socket of 10.0.0.5, port 80.
    fn line(remote: &str, state: &str, unsent: &str) -> String {
        format!(
            "   1: 0500000A:0050 {remote} {state} {unsent}:00000000 00:00000000 00000000 0 0 4712 1 0"
        )
    }

    #[test]
    fn connections_of_others_to_a_listening_port_count() {
        let client = line("0900000A:D431", "01", "00000000");
        check(&[LISTEN, &client, &client], &[80], 2);
        let half_closed = line("0900000A:D431", "08", "00000000");
        let sending = line("0900000A:D431", "04", "0000A000");
        check(&[LISTEN, &half_closed, &sending], &[80], 2);
    }

    #[test]
    fn what_serves_nobody_does_not_count() {
        let from_loopback = line("0100007F:D431", "01", "00000000");
        let from_itself = line("0500000A:D431", "01", "00000000");
        let sent = line("0900000A:D431", "04", "00000000");
        let time_wait = line("0900000A:D431", "06", "00000000");
        let handshake = line("0900000A:D431", "03", "00000000");
        check(
            &[
                LISTEN,
                &from_loopback,
                &from_itself,
                &sent,
                &time_wait,
                &handshake,
            ],
            &[80],
            0,
        );
        // A connection the container made: its own port is nobody's to listen on.
        let outgoing =
            "   2: 0500000A:D431 0900000A:0050 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0";
        check(&[LISTEN, outgoing, "", "rubbish"], &[80], 0);
        let client = line("0900000A:D431", "01", "00000000");
        check(&[&client], &[], 0);
    }

    #[test]
    fn ipv6_and_ipv4_in_it_are_read() {
        let listen = "   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1 0";
        let mapped = "   1: 0000000000000000FFFF00000500000A:1F90 0000000000000000FFFF00000900000A:D431 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0";
        let mapped_loopback = "   2: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:D431 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0";
        let loopback = "   3: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:D431 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0";
        check(&[listen, mapped, mapped_loopback, loopback], &[8080], 1);
        let (ip, port) = address("0000000000000000FFFF00000500000A:1F90").unwrap();
        assert_eq!((ip.to_string(), port), ("10.0.0.5".to_owned(), 8080));
    }
}

#[test]
fn connections_of_this_process_are_found() {
    let own = i32::try_from(std::process::id()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let look = Look::at(own, BTreeSet::new());
    assert!(look.listeners.contains(&port), "{:?}", look.listeners);
    // Only loopback: nobody else can be connected to it.
    let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let table = File::open(format!("/proc/{own}/net/tcp")).unwrap();
    let lines: Vec<Socket> = BufReader::new(table)
        .lines()
        .filter_map(|line| Socket::parse(&line.unwrap()))
        .filter(|socket| socket.local.1 == port && socket.state == state::ESTABLISHED)
        .collect();
    assert_eq!(lines.len(), 1);
    assert!(!lines[0].is_in_use());
    drop(client);
    assert_eq!(Look::at(0, BTreeSet::new()).count, 0);
}

#[test]
fn the_begin_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(stored_begin(dir.path()), None);
    fs::write(dir.path().join(FILE), "1234567890123456789").unwrap();
    assert_eq!(
        stored_begin(dir.path()),
        Some(Timestamp(1_234_567_890_123_456_789))
    );
    fs::write(dir.path().join(FILE), "soon").unwrap();
    assert_eq!(stored_begin(dir.path()), None);
}
