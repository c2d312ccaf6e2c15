//! The book against the plainest computation of the same value, and what it says of special cases.

use std::{collections::BTreeMap, net::IpAddr};

use proptest::prelude::*;
use skep_model::{
    Driver, IpamConfig, IpamOptions, Network, NetworkSpec, PortConfig, Protocol, PublishMode, Rng,
    ServiceId, TaskId, VXLAN_IDS_OPTION,
    directory::{Entry, ServiceEntry, ServicePlace, Standing, TaskPlace},
    object::Meta,
};
use skep_network::{
    Mac,
    dns::{ServiceNames, TaskNames, Zone},
    plane::{Health, Overlay, Remote, Service},
};

use super::*;
use crate::dataplane::Place;

mod absence;

const NETWORKS: u8 = 3;

fn id<T>(kind: u64, number: u8, of: impl FnOnce(&mut Rng) -> T) -> T {
    of(&mut Rng::from_seed(kind * 1000 + u64::from(number)))
}

fn network_id(number: u8) -> NetworkId {
    id(1, number, NetworkId::random)
}

fn service_id(number: u8) -> ServiceId {
    id(2, number, ServiceId::random)
}

fn task_id(number: u8) -> TaskId {
    id(3, number, TaskId::random)
}

fn node_id(number: u8) -> NodeId {
    id(4, number, NodeId::random)
}

/// Overlay `number`: 10.0.<number>.0/24, VXLAN id 4097 and up.
fn network(number: u8) -> Arc<Network> {
    let driver = Driver {
        name: "overlay".to_owned(),
        options: [(
            VXLAN_IDS_OPTION.to_owned(),
            (4097 + u32::from(number)).to_string(),
        )]
        .into(),
    };
    let mut spec = NetworkSpec::default();
    spec.annotations.name = format!("net{number}");
    let subnet = format!("10.0.{number}.0/24").parse().ok();
    Arc::new(Network {
        id: network_id(number),
        meta: Meta::default(),
        spec,
        driver_state: Some(driver.clone()),
        ipam: Some(IpamOptions {
            driver: Some(driver),
            configs: vec![IpamConfig {
                subnet,
                ..IpamConfig::default()
            }],
        }),
        is_pending_delete: false,
    })
}

fn ip(network: u8, host: u8) -> IpAddr {
    [10, 0, network, host].into()
}

/// Node 0 is the own one.
fn node(number: u8, has_path: bool, is_down: bool) -> Entry {
    Entry::Node(Arc::new(NodeEntry {
        id: node_id(number),
        data_path: has_path.then(|| [192, 0, 2, 1 + number].into()),
        addresses: vec![[192, 0, 2, 1 + number].into()],
        slice: Some(slice(number)),
        is_down,
        tunnel_keys: Vec::new(),
    }))
}

fn slice(number: u8) -> Slice {
    Slice {
        number: 1 + u16::from(number),
        v4: format!("10.252.{}.1/22", 4 * (number + 1)).parse().unwrap(),
        v6: None,
    }
}

fn service(number: u8, networks: &[u8], has_vip: bool, port: u16) -> Entry {
    let place = |&network: &u8| ServicePlace {
        network: network_id(network),
        vips: has_vip
            .then(|| ip(network, 200 + number))
            .into_iter()
            .collect(),
        aliases: vec!["shared".to_owned()],
    };
    let port = PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: 80,
        published_port: port,
        publish_mode: PublishMode::Ingress,
    };
    Entry::Service(Arc::new(ServiceEntry {
        id: service_id(number),
        name: format!("svc{number}"),
        networks: networks.iter().map(place).collect(),
        ports: if port.published_port == 0 {
            Vec::new()
        } else {
            vec![port]
        },
        is_local_first: false,
        publish_address: None,
    }))
}

fn task(number: u8, host: u8, of: u8, on: u8, networks: &[u8], standing: Standing) -> Entry {
    let place = |&network: &u8| TaskPlace {
        network: network_id(network),
        addresses: vec![ip(network, host)],
    };
    Entry::Task(Arc::new(TaskEntry {
        id: task_id(number),
        service_id: (of > 0).then(|| service_id(of)),
        slot: u64::from(number),
        name: format!("svc{of}.{number}.x"),
        container_id: container_id(number),
        node_id: node_id(on),
        places: networks.iter().map(place).collect(),
        node_addresses: vec![[10, 252, 4 * (on + 1) + 2, host].into()],
        standing,
    }))
}

/// The container of task `number`.
fn container_id(number: u8) -> String {
    format!("{number:064x}")
}

fn container(networks: &[u8], host: u8) -> LocalContainer {
    let place = |(index, &number): (usize, &u8)| Place {
        network: NetworkFacts::of(&network(number)).unwrap(),
        interface: format!("eth{}", index + 1),
        addresses: vec![format!("10.0.{number}.{host}/24").parse().unwrap()],
        aliases: Vec::new(),
    };
    LocalContainer {
        netns_path: format!("/run/{host}").into(),
        places: networks.iter().enumerate().map(place).collect(),
        upstreams: Vec::new(),
        local: Vec::new(),
    }
}

fn message(index: u64, is_complete: bool, changes: Vec<Change>) -> Message {
    Message {
        index,
        is_complete,
        is_last: true,
        changes,
    }
}

fn book() -> Book {
    let data_path = DataPath {
        address: [192, 0, 2, 1].into(),
        port: 4789,
    };
    let mut book = Book::new(node_id(0), "skep0", data_path);
    book.set_slice(Some(slice(0)));
    book
}

/// Something that happens to a node.
#[derive(Debug, Clone)]
enum Event {
    Set(Entry),
    Remove(Key),
    Container(u8, LocalContainer),
    NoContainer(u8),
    Slice(bool),
    Bury(u8),
    End(u8),
}

fn networks() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::subsequence((0..NETWORKS).collect::<Vec<_>>(), 0..=usize::from(NETWORKS))
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Starting),
        Just(Standing::Ready),
        Just(Standing::Leaving),
        Just(Standing::Unready)
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let entry = prop_oneof![
        2 => (0..NETWORKS).prop_map(|number| Entry::Network(network(number))),
        2 => (0u8..4, any::<bool>(), any::<bool>()).prop_map(|(n, p, d)| node(n, p, d)),
        3 => (1u8..4, networks(), any::<bool>(), 0u16..3)
            .prop_map(|(number, networks, vip, port)| service(number, &networks, vip, port)),
        8 => (1u8..9, 2u8..9, 0u8..4, 0u8..4, networks(), standing())
            .prop_map(|(number, host, of, on, networks, s)| task(number, host, of, on, &networks, s)),
    ];
    let key = prop_oneof![
        (0..NETWORKS).prop_map(|number| Key::Network(network_id(number))),
        (0u8..4).prop_map(|number| Key::Node(node_id(number))),
        (1u8..4).prop_map(|number| Key::Service(service_id(number))),
        (1u8..9).prop_map(|number| Key::Task(task_id(number))),
    ];
    prop_oneof![
        6 => entry.prop_map(Event::Set),
        2 => key.prop_map(Event::Remove),
        2 => (0u8..3, networks(), 2u8..9).prop_map(|(c, networks, host)| {
            Event::Container(c, container(&networks, host))
        }),
        1 => (0u8..3).prop_map(Event::NoContainer),
        1 => any::<bool>().prop_map(Event::Slice),
        1 => (0u8..4).prop_map(Event::Bury),
        1 => (1u8..9).prop_map(Event::End),
    ]
}

/// All that happened, as it is now.
#[derive(Default)]
struct World {
    entries: BTreeMap<Key, Entry>,
    containers: BTreeMap<String, LocalContainer>,
    has_slice: bool,
    buried: BTreeSet<NodeId>,
    ended: BTreeSet<String>,
}

impl World {
    fn tasks(&self) -> impl Iterator<Item = &TaskEntry> {
        self.entries.values().filter_map(|entry| match entry {
            Entry::Task(task) => Some(&**task),
            Entry::Network(_) | Entry::Service(_) | Entry::Node(_) => None,
        })
    }

    fn services(&self) -> impl Iterator<Item = &ServiceEntry> {
        self.entries.values().filter_map(|entry| match entry {
            Entry::Service(service) => Some(&**service),
            Entry::Network(_) | Entry::Task(_) | Entry::Node(_) => None,
        })
    }

    fn node(&self, id: NodeId) -> Option<&NodeEntry> {
        match self.entries.get(&Key::Node(id)) {
            Some(Entry::Node(node)) => Some(node),
            _ => None,
        }
    }

    fn is_down(&self, id: NodeId) -> bool {
        id != node_id(0) && self.node(id).is_some_and(|node| node.is_down)
    }

    fn path_to(&self, id: NodeId) -> Option<IpAddr> {
        let node = self.node(id)?;
        node.data_path.filter(|_| !self.buried.contains(&id))
    }

    fn health(&self, task: &TaskEntry) -> Option<Health> {
        let is_own = task.node_id == node_id(0);
        let is_there = match is_own {
            true => !self.ended.contains(&task.container_id),
            false => self.path_to(task.node_id).is_some(),
        };
        let is_silent = self.is_down(task.node_id);
        match task.standing {
            _ if !is_there => None,
            Standing::Starting => None,
            Standing::Ready | Standing::Leaving | Standing::Unready if is_silent => {
                Some(Health::Silent)
            }
            Standing::Ready => Some(Health::Ready),
            Standing::Leaving | Standing::Unready => Some(Health::Leaving),
        }
    }

    fn remotes(&self, number: u8) -> BTreeMap<Mac, Remote> {
        let id = network_id(number);
        let containers = self.containers.values();
        let places = containers.flat_map(|container| &container.places);
        let places = places.filter(|place| place.network.id == id.as_str());
        let own: Vec<Mac> = places.filter_map(Place::mac).collect();
        let mut remotes = BTreeMap::new();
        for task in self.tasks().filter(|task| task.node_id != node_id(0)) {
            for place in task.places.iter().filter(|place| place.network == id) {
                let mac = Mac::from_ip(place.addresses[0]);
                if let Some(node) = self.path_to(task.node_id).filter(|_| !own.contains(&mac)) {
                    let addresses = place.addresses.clone();
                    remotes.insert(mac, Remote { node, addresses });
                }
            }
        }
        remotes
    }

    fn backends<'a>(
        &self,
        tasks: impl Iterator<Item = (&'a TaskEntry, IpAddr)>,
    ) -> BTreeMap<IpAddr, Health> {
        let mut backends = BTreeMap::new();
        for (task, address) in tasks {
            let old = backends.get(&address).copied();
            let health = [Health::Ready, Health::Leaving, Health::Silent]
                .into_iter()
                .find(|one| [self.health(task), old].contains(&Some(*one)));
            backends.extend(health.map(|health| (address, health)));
        }
        backends
    }

    /// The plainest way from the world to the networks of the value.
    fn overlay(&self, number: u8) -> Overlay {
        let id = network_id(number);
        let facts = NetworkFacts::of(&network(number)).unwrap();
        let on = |task: &&TaskEntry| task.places.iter().any(|place| place.network == id);
        let address = |task: &TaskEntry| {
            let place = task.places.iter().find(|place| place.network == id);
            place.unwrap().addresses[0]
        };
        let mut zone = Zone::new(&facts.name, facts.subnets.clone());
        let mut services = BTreeMap::new();
        let names = |task: &TaskEntry| TaskNames {
            names: vec![task.name.clone(), task.container_id[..12].to_owned()],
            slot: Some(task.slot),
            addresses: vec![address(task)],
        };
        let is_ready = |task: &&TaskEntry| self.health(task) == Some(Health::Ready);
        for service in self.services() {
            let Some(place) = service.networks.iter().find(|place| place.network == id) else {
                continue;
            };
            let its = |task: &&TaskEntry| task.service_id == Some(service.id);
            let called = ServiceNames {
                name: service.name.clone(),
                aliases: place.aliases.clone(),
                vips: place.vips.clone(),
                tasks: self
                    .tasks()
                    .filter(on)
                    .filter(its)
                    .filter(is_ready)
                    .map(names)
                    .collect(),
                ports: Vec::new(),
            };
            zone.put(service.id.as_str(), &called);
            let tasks = self.tasks().filter(on).filter(its);
            let backends = self.backends(tasks.map(|task| (task, address(task))));
            if !place.vips.is_empty() {
                let vips = place.vips.clone();
                let service_value = Service { vips, backends };
                services.insert(service.id.to_string(), Arc::new(service_value));
            }
        }
        let is_alone = |task: &&TaskEntry| task.service_id.is_none();
        for task in self.tasks().filter(on).filter(is_alone).filter(is_ready) {
            let tasks = vec![names(task)];
            let alone = ServiceNames {
                tasks,
                ..ServiceNames::default()
            };
            zone.put(task.id.as_str(), &alone);
        }
        Overlay {
            remotes: self.remotes(number),
            services,
            names: Arc::new(zone),
            ..network_value(&facts)
        }
    }

    /// The plainest way to the value, but for the mesh.
    fn networks(&self) -> BTreeMap<String, Arc<Overlay>> {
        let has_container = |number: &u8| {
            let mut places = self
                .containers
                .values()
                .flat_map(|container| &container.places);
            places.any(|place| place.network.id == network_id(*number).as_str())
        };
        let numbers = (0..NETWORKS).filter(has_container);
        let overlay = |number| {
            (
                network_id(number).to_string(),
                Arc::new(self.overlay(number)),
            )
        };
        numbers.map(overlay).collect()
    }

    /// A book that was told everything at once.
    fn fresh(&self) -> Book {
        let mut book = book();
        book.set_slice(self.has_slice.then(|| slice(0)));
        for (id, container) in &self.containers {
            book.set_container(id, container.clone());
        }
        let changes = self.entries.values().cloned().map(Change::Set).collect();
        book.take(message(1, true, changes));
        self.buried.iter().for_each(|id| book.bury(*id));
        for id in &self.ended {
            book.end_container(id);
        }
        book
    }
}

fn network_value(facts: &NetworkFacts) -> Overlay {
    Overlay {
        vni: facts.vni,
        mtu: facts.mtu,
        is_encrypted: facts.is_encrypted,
        subnets: facts.subnets.clone(),
        remotes: BTreeMap::new(),
        services: BTreeMap::new(),
        names: Arc::new(Zone::new(&facts.name, facts.subnets.clone())),
    }
}

fn perform(event: Event, world: &mut World, book: &mut Book, index: u64) {
    perform_in(event, world, book, index);
    let buried = std::mem::take(&mut world.buried).into_iter();
    world.buried = buried.filter(|id| world.is_down(*id)).collect();
}

fn perform_in(event: Event, world: &mut World, book: &mut Book, index: u64) {
    match event {
        Event::Set(entry) => {
            world.entries.insert(entry.key(), entry.clone());
            book.take(message(index, false, vec![Change::Set(entry)]));
        }
        Event::Remove(key) => {
            if let Some(Entry::Task(task)) = world.entries.remove(&key) {
                world.ended.remove(&task.container_id);
            }
            book.take(message(index, false, vec![Change::Remove(key)]));
        }
        Event::Container(number, container) => {
            let id = format!("c{number}");
            book.set_container(&id, container.clone());
            world.containers.insert(id, container);
        }
        Event::NoContainer(number) => {
            let id = format!("c{number}");
            book.remove_container(&id);
            world.containers.remove(&id);
        }
        Event::Bury(number) => {
            let id = node_id(number);
            book.bury(id);
            if world.is_down(id) {
                world.buried.insert(id);
            }
        }
        Event::End(number) => {
            let id = container_id(number);
            book.end_container(&id);
            world.ended.insert(id);
        }
        Event::Slice(has_slice) => {
            book.set_slice(has_slice.then(|| slice(0)));
            world.has_slice = has_slice;
        }
    }
}

proptest! {
    /// Whatever happens in whatever order, the value is that of the world as it is.
    #[test]
    fn the_way_to_a_value_does_not_matter(
        events in proptest::collection::vec((event(), any::<bool>()), 1..60),
    ) {
        let (mut world, mut book) = (World { has_slice: true, ..World::default() }, book());
        book.take(message(1, true, Vec::new()));
        for (index, (event, asks)) in (2..).zip(events) {
            perform(event, &mut world, &mut book, index);
            if asks {
                let value = book.desired();
                prop_assert_eq!(&value.networks, &world.networks());
                let fresh = world.fresh().desired();
                prop_assert_eq!(&value.mesh, &fresh.mesh);
                prop_assert_eq!(&value.containers, &fresh.containers);
                prop_assert!(!book.is_stale());
            }
        }
    }

    /// A complete set that says what is known already changes nothing, and shares all memory.
    #[test]
    fn a_complete_set_changes_only_what_is_otherwise(
        events in proptest::collection::vec(event(), 1..40),
    ) {
        let (mut world, mut book) = (World { has_slice: true, ..World::default() }, book());
        book.take(message(1, true, Vec::new()));
        for event in events {
            perform(event, &mut world, &mut book, 2);
        }
        let before = book.desired();
        let told = book.directory().unwrap();
        book.take(told);
        prop_assert!(!book.is_stale());
        let after = book.desired();
        prop_assert_eq!(before.generation, after.generation);
        for (id, network) in &before.networks {
            prop_assert!(Arc::ptr_eq(network, &after.networks[id]));
        }
    }
}

#[test]
fn parts_of_a_message_count_when_all_have_come() {
    let mut book = book();
    book.set_container("c", container(&[1], 2));
    let set = |entry| vec![Change::Set(entry)];
    let first = message(7, true, set(node(1, true, false)));
    book.take(Message {
        is_last: false,
        ..first
    });
    let tasks = set(task(1, 9, 1, 1, &[1], Standing::Ready));
    book.take(Message {
        is_last: false,
        ..message(7, false, tasks.clone())
    });
    assert_eq!(book.index(), None);
    assert!(
        book.desired()
            .networks
            .values()
            .all(|network| network.remotes.is_empty())
    );
    // The stream broke; the next one begins again.
    book.take(message(8, true, set(node(1, true, false))));
    assert_eq!(book.index(), Some(8));
    assert!(
        book.desired()
            .networks
            .values()
            .all(|network| network.remotes.is_empty())
    );
    book.take(message(9, false, tasks));
    assert_eq!(
        book.desired().networks[network_id(1).as_str()]
            .remotes
            .len(),
        1
    );
}

#[test]
fn published_ports_lead_to_ready_tasks_of_nodes_that_are_up() {
    let mut book = book();
    let set =
        |entries: Vec<Entry>| -> Vec<Change> { entries.into_iter().map(Change::Set).collect() };
    book.take(message(
        1,
        true,
        set(vec![
            node(0, true, true),
            node(1, true, false),
            node(2, true, true),
            service(1, &[], false, 8080),
            task(1, 2, 1, 0, &[], Standing::Ready),
            task(2, 2, 1, 1, &[], Standing::Leaving),
            task(3, 2, 1, 2, &[], Standing::Ready),
            task(4, 3, 1, 1, &[], Standing::Starting),
        ]),
    ));
    let ports = |book: &mut Book| -> Vec<_> {
        let mesh = book.desired().mesh.unwrap();
        let ports = mesh.ports.iter();
        ports
            .map(|(port, to)| (port.port, to.backends.clone()))
            .collect()
    };
    let mut wanted = BTreeMap::from([
        ("10.252.6.2:80".parse().unwrap(), Health::Ready),
        ("10.252.10.2:80".parse().unwrap(), Health::Leaving),
        ("10.252.14.2:80".parse().unwrap(), Health::Silent),
    ]);
    assert_eq!(ports(&mut book), [(8080, wanted.clone())]);
    let last = wanted.pop_last();
    assert_eq!(book.down().collect::<Vec<_>>(), [node_id(2)]);
    book.bury(node_id(2));
    assert_eq!(ports(&mut book), [(8080, wanted.clone())]);
    // A node that is down keeps its way back, and gets its share back with its first word.
    let mesh = book.desired().mesh.unwrap();
    assert_eq!(mesh.peers.keys().copied().collect::<Vec<_>>(), [2, 3]);
    book.take(message(2, false, set(vec![node(2, true, false)])));
    wanted.extend(last.map(|(address, _)| (address, Health::Ready)));
    assert_eq!(ports(&mut book), [(8080, wanted)]);
    assert_eq!(book.desired().check(), []);
}

#[test]
fn what_the_directory_says_of_a_network_goes_before_what_a_task_brought() {
    let mut book = book();
    let mut own = container(&[1], 2);
    own.places[0].network.vni = 9999;
    let facts = own.places[0].network.clone();
    book.set_container("c", own);
    assert!(!book.knows(&facts));
    assert_eq!(book.desired().networks[&facts.id].vni, 9999);
    book.take(message(
        1,
        true,
        vec![Change::Set(Entry::Network(network(1)))],
    ));
    assert!(book.knows(&facts));
    assert_eq!(book.desired().networks[&facts.id].vni, 4098);
    assert_eq!(book.name_of(&facts.id), Some("net1"));
}
