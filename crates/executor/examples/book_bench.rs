//! What one change costs the book: 1,000 services with 20 tasks each on one network, one task that
//! comes and goes. Prints milliseconds.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use skep_executor::dataplane::{Book, LocalContainer, NetworkFacts, Place};
use skep_model::{
    NetworkId, NodeId, PortConfig, Protocol, PublishMode, Rng, ServiceId, TaskId,
    directory::{
        Change, Entry, Message, NodeEntry, ServiceEntry, ServicePlace, Slice, Standing, TaskEntry,
        TaskPlace,
    },
};
use skep_network::plane::DataPath;

const SERVICES: u32 = 1000;
const TASKS: u32 = 20;
const ROUNDS: usize = 200;

fn main() {
    let mut rng = Rng::from_seed(1);
    let (own, other) = (NodeId::random(&mut rng), NodeId::random(&mut rng));
    let network = NetworkId::random(&mut rng);
    let data_path = DataPath {
        address: [192, 0, 2, 1].into(),
        port: 4789,
    };
    let mut book = Book::new(own, "skep0", data_path);
    book.set_slice(Some(slice(1)));
    book.set_container("c", container(network));
    let mut entries: Vec<Entry> = [(own, 1), (other, 2)]
        .map(|(id, number)| node(id, number))
        .into();
    let mut last = None;
    for service in 0..SERVICES {
        let id = ServiceId::random(&mut rng);
        entries.push(Entry::Service(Arc::new(service_entry(
            id, network, service,
        ))));
        for number in 0..TASKS {
            let task = task_entry(
                (TaskId::random(&mut rng), id),
                (network, other),
                (service, number),
            );
            last = Some(task.clone());
            entries.push(Entry::Task(Arc::new(task)));
        }
    }
    let begun = Instant::now();
    let changes = entries.into_iter().map(Change::Set).collect();
    book.take(message(1, true, changes));
    drop(book.desired());
    report("complete set", &mut [begun.elapsed()]);
    let mut task = last.expect("there are tasks");
    let mut held = book.desired();
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        task.standing = if round % 2 == 0 {
            Standing::Leaving
        } else {
            Standing::Ready
        };
        let change = Change::Set(Entry::Task(Arc::new(task.clone())));
        let begun = Instant::now();
        book.take(message(2, false, vec![change]));
        // The plane holds the value before.
        let next = book.desired();
        times.push(begun.elapsed());
        held = next;
    }
    assert!(held.check().is_empty());
    report("one task", &mut times);
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let line = format!(
        "{what}: p50 {:.2} ms, p99 {:.2} ms\n",
        ms(at(50)),
        ms(at(99))
    );
    // A closed pipe is the reader's choice.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
}

fn message(index: u64, is_complete: bool, changes: Vec<Change>) -> Message {
    Message {
        index,
        is_complete,
        is_last: true,
        changes,
    }
}

fn slice(number: u16) -> Slice {
    let address = Ipv4Addr::from(0x0afc_0001 + (u32::from(number) << 10));
    Slice {
        number,
        v4: ipnet::Ipv4Net::new(address, 22).expect("22 is a prefix length"),
        v6: None,
    }
}

fn node(id: NodeId, number: u16) -> Entry {
    let address = IpAddr::from([192, 0, 2, u8::try_from(number).unwrap_or(0)]);
    Entry::Node(Arc::new(NodeEntry {
        id,
        data_path: Some(address),
        addresses: vec![address],
        slice: Some(slice(number)),
        is_down: false,
        tunnel_keys: Vec::new(),
    }))
}

fn container(network: NetworkId) -> LocalContainer {
    let facts = NetworkFacts {
        id: network.to_string(),
        name: "red".to_owned(),
        vni: 4097,
        mtu: None,
        subnets: vec!["10.0.0.0/8".parse().expect("a subnet")],
        gateways: Vec::new(),
        is_internal: false,
        is_encrypted: false,
        is_ingress: false,
    };
    LocalContainer {
        netns_path: "/run/x".into(),
        places: vec![Place {
            network: facts,
            interface: "eth1".to_owned(),
            addresses: vec!["10.0.0.2/8".parse().expect("an address")],
            aliases: Vec::new(),
        }],
        upstreams: Vec::new(),
        local: Vec::new(),
    }
}

fn address(base: u8, number: u32) -> IpAddr {
    Ipv4Addr::from((u32::from(base) << 16 | 0x0a00_0000) + number).into()
}

fn service_entry(id: ServiceId, network: NetworkId, number: u32) -> ServiceEntry {
    ServiceEntry {
        id,
        name: format!("service{number}"),
        networks: vec![ServicePlace {
            network,
            vips: vec![address(1, number)],
            aliases: vec![format!("alias{number}")],
        }],
        ports: vec![PortConfig {
            name: String::new(),
            protocol: Protocol::Tcp,
            target_port: 80,
            published_port: u16::try_from(10_000 + number).unwrap_or(u16::MAX),
            publish_mode: PublishMode::Ingress,
        }],
        is_local_first: false,
        publish_address: None,
    }
}

fn task_entry(
    (id, service_id): (TaskId, ServiceId),
    (network, node_id): (NetworkId, NodeId),
    (service, number): (u32, u32),
) -> TaskEntry {
    TaskEntry {
        id,
        service_id: Some(service_id),
        slot: u64::from(number + 1),
        name: format!("service{service}.{}.{id}", number + 1),
        container_id: format!("{:064x}", service * TASKS + number),
        node_id,
        places: vec![TaskPlace {
            network,
            addresses: vec![address(2, service * TASKS + number)],
        }],
        node_addresses: vec![Ipv4Addr::from(0x0afc_0a00 + number).into()],
        standing: Standing::Ready,
    }
}
