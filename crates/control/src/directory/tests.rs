//! A feed that follows changes knows what a feed opened anew would be told.

use std::collections::BTreeMap;

use ipnet::IpNet;
use skep_model::{
    Certificate, Driver, Endpoint, EndpointSpec, EngineDescription, Id, IpamConfig, IpamOptions,
    Meta, NODE_NETWORK, NOT_READY_MESSAGE, Network, NetworkAttachmentConfig, NetworkSpec,
    NodeDescription, NodeSpec, NodeStatus, Plugin, PortConfig, Rng, Role, ServiceId, ServiceSpec,
    TaskId, TaskSpec, TaskStatus, Version, VirtualIp, directory::Slice,
};
use skep_store::{Action, ActionKind};

use super::*;

fn id(number: u64) -> Id {
    format!("{number:0>25}").parse().unwrap()
}

fn network(number: u64) -> Arc<Network> {
    let name = match number {
        0 => NODE_NETWORK.to_owned(),
        1 => "ingress".to_owned(),
        number => format!("net{number}"),
    };
    let driver = Driver {
        name: if number == 0 { "skep" } else { "overlay" }.to_owned(),
        options: BTreeMap::new(),
    };
    let mut spec = NetworkSpec {
        driver: Some(driver.clone()),
        is_ingress: number == 1,
        ..NetworkSpec::default()
    };
    spec.annotations.name = name;
    let config = IpamConfig {
        subnet: Some(format!("10.{number}.0.0/16").parse().unwrap()),
        ..IpamConfig::default()
    };
    Arc::new(Network {
        id: NetworkId(id(number)),
        meta: Meta::default(),
        spec,
        driver_state: Some(driver),
        ipam: Some(IpamOptions {
            driver: None,
            configs: vec![config],
        }),
        is_pending_delete: false,
    })
}

fn place(network_number: u64, addr: &str) -> NetworkAttachment {
    NetworkAttachment {
        network: network(network_number),
        addresses: vec![addr.parse::<IpNet>().unwrap()],
        aliases: Vec::new(),
        driver_options: BTreeMap::new(),
    }
}

fn node(number: u64, state: NodeState, is_skep: bool) -> Object {
    let name = if is_skep { "skep" } else { "overlay" };
    let plugin = Plugin {
        kind: "Network".to_owned(),
        name: name.to_owned(),
    };
    let mut engine = EngineDescription {
        plugins: vec![plugin],
        ..EngineDescription::default()
    };
    let plane = DataPlane {
        data_path: Some([192, 0, 2, 1].into()),
        ..DataPlane::default()
    };
    plane.store(&mut engine.labels);
    Object::Node(Arc::new(Node {
        id: NodeId(id(number)),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: Some(NodeDescription {
            engine,
            ..NodeDescription::default()
        }),
        status: NodeStatus {
            state,
            ..NodeStatus::default()
        },
        manager_status: None,
        certificate: Certificate::default(),
        role: Role::Worker,
        attachments: vec![place(0, &format!("10.0.{}.1/24", number + 1))],
        vxlan_udp_port: 4789,
    }))
}

fn service(number: u64, networks: &[u64], is_published: bool) -> Object {
    let mut spec = ServiceSpec::default();
    Arc::make_mut(&mut spec.annotations).name = format!("service{number}");
    let wanted = networks.iter().map(|network| NetworkAttachmentConfig {
        target: id(*network).to_string(),
        aliases: vec![format!("alias{number}")],
        ..NetworkAttachmentConfig::default()
    });
    Arc::make_mut(&mut spec.task).networks = wanted.collect();
    let port = PortConfig {
        target_port: 80,
        published_port: 8080,
        ..PortConfig::default()
    };
    let ports: Vec<PortConfig> = is_published.then_some(port).into_iter().collect();
    spec.endpoint = Some(EndpointSpec {
        ports: ports.clone(),
        ..EndpointSpec::default()
    });
    let vip = |network: &u64| VirtualIp {
        network_id: id(*network).to_string(),
        addr: format!("10.{network}.1.{number}/16"),
    };
    Object::Service(Arc::new(Service {
        id: ServiceId(id(number)),
        meta: Meta::default(),
        spec: Arc::new(spec),
        spec_version: Version(0),
        previous_spec: None,
        previous_spec_version: None,
        endpoint: Some(Endpoint {
            spec: None,
            ports,
            virtual_ips: networks.iter().map(vip).collect(),
        }),
        update_status: None,
        job_status: None,
        is_pending_delete: false,
    }))
}

fn task(rng: &mut Rng, number: u64) -> Object {
    let states = [
        TaskState::New,
        TaskState::Assigned,
        TaskState::Running,
        TaskState::Failed,
    ];
    let pick = |rng: &mut Rng, count: u64| rng.below(count);
    let mut networks: Vec<NetworkAttachment> = Vec::new();
    for network in 0..5 {
        if pick(rng, 3) == 0 {
            networks.push(place(network, &format!("10.{network}.2.{number}/16")));
        }
    }
    let node = pick(rng, 4);
    Object::Task(Arc::new(Task {
        id: TaskId(id(number)),
        meta: Meta::default(),
        spec: Arc::new(TaskSpec::default()),
        spec_version: None,
        service_id: Some(ServiceId(id(pick(rng, 4)))),
        slot: number,
        node_id: (node < 3).then(|| NodeId(id(node))),
        annotations: Arc::default(),
        service_annotations: Arc::default(),
        status: TaskStatus {
            state: states[usize::try_from(pick(rng, 4)).unwrap()],
            message: ["started", NOT_READY_MESSAGE][usize::from(pick(rng, 3) == 0)].to_owned(),
            ..TaskStatus::default()
        },
        desired_state: [TaskState::Running, TaskState::Shutdown][usize::from(pick(rng, 3) == 0)],
        endpoint: None,
        log_driver: None,
        networks,
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    }))
}

fn random_object(rng: &mut Rng) -> Object {
    let number = rng.below(4);
    match rng.below(8) {
        0 => {
            let states = [NodeState::Ready, NodeState::Down, NodeState::Unknown];
            let state = states[usize::try_from(rng.below(3)).unwrap()];
            node(number, state, rng.below(4) > 0)
        }
        1 => Object::Network(network(number + 1)),
        2 | 3 => {
            let all = [2, 3, 4];
            let count = usize::try_from(rng.below(3)).unwrap();
            service(number, &all[..count], rng.below(2) == 0)
        }
        _ => {
            let number = rng.below(12);
            task(rng, number)
        }
    }
}

fn random_action(store: &Store, rng: &mut Rng) -> Action {
    let object = random_object(rng);
    let known = store.object(object.id());
    let kind = match (&known, rng.below(4)) {
        (None, _) => ActionKind::Create,
        (Some(_), 0) => ActionKind::Remove,
        (Some(_), _) => ActionKind::Update,
    };
    let object = match (kind, known) {
        (ActionKind::Remove, Some(known)) => known,
        _ => object,
    };
    Action { kind, object }
}

#[test]
fn a_task_has_the_standing_its_states_and_its_readiness_give_it() {
    let standing = |state, message: &str, desired_state| {
        let mut rng = Rng::from_seed(1);
        let Object::Task(mut task) = task(&mut rng, 1) else {
            unreachable!("it makes tasks");
        };
        let own = Arc::make_mut(&mut task);
        own.node_id = Some(NodeId(id(0)));
        own.status.state = state;
        own.status.message = message.to_owned();
        own.desired_state = desired_state;
        match entry_of(&Object::Task(task)) {
            Some(Entry::Task(entry)) => Some(entry.standing),
            _ => None,
        }
    };
    let (starting, running) = (TaskState::Starting, TaskState::Running);
    assert_eq!(
        standing(starting, "starting", running),
        Some(Standing::Starting)
    );
    assert_eq!(standing(running, "started", running), Some(Standing::Ready));
    let unready = standing(running, NOT_READY_MESSAGE, running);
    assert_eq!(unready, Some(Standing::Unready));
    let leaving = standing(running, NOT_READY_MESSAGE, TaskState::Shutdown);
    assert_eq!(leaving, Some(Standing::Leaving));
    assert_eq!(
        standing(TaskState::Failed, NOT_READY_MESSAGE, running),
        None
    );
}

#[test]
fn following_changes_is_as_good_as_asking_anew() {
    for seed in 0..300 {
        let mut rng = Rng::from_seed(seed);
        let mut store = Store::default();
        let create = |store: &mut Store, object| {
            let kind = ActionKind::Create;
            store.apply(&Action { kind, object }).unwrap()
        };
        create(&mut store, Object::Network(network(0)));
        let own = NodeId(id(0));
        let (mut feed, first) = Feed::open(&store, own);
        let mut known: BTreeMap<Key, Entry> = BTreeMap::new();
        let take = |known: &mut BTreeMap<Key, Entry>, changes: Vec<Change>| {
            for change in changes {
                match change {
                    Change::Set(entry) => drop(known.insert(entry.key(), entry)),
                    Change::Remove(key) => {
                        assert!(known.remove(&key).is_some(), "{key:?} was not known");
                    }
                }
            }
        };
        take(&mut known, first);
        for step in 0..60 {
            let mut changes = Vec::new();
            for _ in 0..=rng.below(4) {
                let action = random_action(&store, &mut rng);
                changes.push(store.apply(&action).unwrap());
            }
            take(&mut known, feed.follow(&store, &changes));
            let (_, anew) = Feed::open(&store, own);
            let mut expected = BTreeMap::new();
            take(&mut expected, anew);
            assert_eq!(known, expected, "seed {seed}, step {step}");
        }
    }
}

#[test]
fn a_node_is_told_of_its_networks_and_of_what_is_published() {
    let mut rng = Rng::from_seed(1);
    let mut store = Store::default();
    let mut on_net = |number, networks: Vec<NetworkAttachment>, node| {
        let Object::Task(task) = task(&mut rng, number) else {
            unreachable!("it is a task")
        };
        let mut task = Arc::unwrap_or_clone(task);
        task.networks = networks;
        task.node_id = Some(NodeId(id(node)));
        task.status.state = TaskState::Running;
        task.desired_state = TaskState::Running;
        Object::Task(Arc::new(task))
    };
    let objects = [
        Object::Network(network(0)),
        Object::Network(network(2)),
        Object::Network(network(3)),
        node(0, NodeState::Ready, true),
        node(1, NodeState::Down, true),
        node(2, NodeState::Ready, false),
        service(0, &[2], false),
        service(1, &[3], false),
        service(2, &[3], true),
        on_net(1, vec![place(2, "10.2.2.1/16")], 0),
        on_net(2, vec![place(2, "10.2.2.2/16")], 1),
        on_net(3, vec![place(3, "10.3.2.3/16")], 1),
        on_net(4, vec![place(3, "10.3.2.4/16"), place(0, "10.0.2.4/24")], 1),
    ];
    for object in objects {
        let kind = ActionKind::Create;
        store.apply(&Action { kind, object }).unwrap();
    }
    let (_, told) = Feed::open(&store, NodeId(id(0)));
    let keys: Vec<Key> = told.iter().map(Change::key).collect();
    let expected = [
        Key::Network(NetworkId(id(2))),
        Key::Service(ServiceId(id(0))),
        Key::Service(ServiceId(id(2))),
        Key::Task(TaskId(id(1))),
        Key::Task(TaskId(id(2))),
        Key::Task(TaskId(id(4))),
        Key::Node(NodeId(id(0))),
        Key::Node(NodeId(id(1))),
    ];
    assert_eq!(keys, expected);
    let down = told.iter().find_map(|change| match change {
        Change::Set(Entry::Node(node)) if node.id == NodeId(id(1)) => Some(node),
        Change::Set(_) | Change::Remove(_) => None,
    });
    let down = down.unwrap();
    assert!(down.is_down);
    let slice = Slice {
        number: 2,
        v4: "10.0.2.1/24".parse().unwrap(),
        v6: None,
    };
    assert_eq!(down.slice, Some(slice));
}
