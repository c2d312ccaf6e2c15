//! Networks: what a cluster begins with, what is refused, and what agents are told.

use skep_model::{
    Driver, EndpointSpec, IpamConfig, IpamOptions, NetworkAttachmentConfig, NetworkId, NetworkSpec,
    PREDEFINED_LABEL, Plugin, PortConfig, Protocol, dispatch::AssignmentChange,
    reserved::engine::DataPlane,
};

use super::*;

fn network(name: &str, subnet: &str) -> NetworkSpec {
    let mut spec = NetworkSpec::default();
    spec.annotations.name = name.to_owned();
    if !subnet.is_empty() {
        let config = IpamConfig {
            subnet: Some(subnet.parse().unwrap()),
            ..IpamConfig::default()
        };
        spec.ipam = Some(IpamOptions {
            driver: None,
            configs: vec![config],
        });
    }
    spec
}

fn on_network(command: Command, network: NetworkId) -> Command {
    let Command::CreateService { mut spec } = command else {
        panic!("no service");
    };
    Arc::make_mut(&mut spec.task).networks = vec![NetworkAttachmentConfig {
        target: network.to_string(),
        ..NetworkAttachmentConfig::default()
    }];
    Command::CreateService { spec }
}

fn publishing(command: Command, published_port: u16) -> Command {
    let Command::CreateService { mut spec } = command else {
        panic!("no service");
    };
    spec.endpoint = Some(EndpointSpec {
        ports: vec![PortConfig {
            target_port: 80,
            published_port,
            ..PortConfig::default()
        }],
        ..EndpointSpec::default()
    });
    Command::CreateService { spec }
}

impl Harness {
    fn create_network(&mut self, spec: NetworkSpec) -> Result<NetworkId, String> {
        let spec = Box::new(spec);
        match self.run(Command::CreateNetwork { spec }) {
            Ok(Answer::Network(id)) => Ok(id),
            Ok(other) => panic!("answered {other:?}"),
            Err(error) => Err(error.message),
        }
    }

    fn run(&mut self, command: Command) -> Result<Answer, CommandError> {
        let to = self.command(command);
        self.settle();
        self.reply(to).expect("a command is answered").clone()
    }

    fn refusal(&mut self, command: Command) -> String {
        self.run(command).expect_err("it is refused").message
    }
}

#[test]
fn a_new_cluster_has_its_networks() {
    let harness = Harness::leading();
    let tables = harness.core.store().networks();
    let ingress = tables.ingress().unwrap();
    assert_eq!(ingress.name(), "ingress");
    assert_eq!(ingress.vxlan_ids().collect::<Vec<_>>(), [4096]);
    let subnets: Vec<_> = ingress.subnets().map(|config| config.subnet).collect();
    assert_eq!(subnets, [Some("10.0.0.0/24".parse().unwrap())]);
    for name in ["bridge", "host"] {
        let network = tables.by_name(name).unwrap();
        assert!(network.spec.is_predefined() && network.is_complete());
        assert_eq!(network.subnets().count(), 0);
    }
}

#[test]
fn a_network_is_refused_with_the_reason() {
    let mut harness = Harness::leading();
    harness
        .create_network(network("back", "10.0.5.0/24"))
        .unwrap();
    let mut refused = |spec| harness.create_network(spec).unwrap_err();
    assert_eq!(
        refused(network("BACK", "")),
        "name conflicts with an existing object: network BACK already exists"
    );
    assert_eq!(
        refused(network("wide", "10.0.0.0/16")),
        "Pool overlaps with other one on this address space: 10.0.0.0/16 and 10.0.0.0/24 of \
         network ingress"
    );
    let mut labelled = network("mine", "");
    let label = (PREDEFINED_LABEL.to_owned(), "true".to_owned());
    labelled.annotations.labels.extend([label]);
    assert_eq!(
        refused(labelled),
        "label com.docker.swarm.predefined is for internally created predefined networks and \
         cannot be applied by users"
    );
    let mut second = network("mesh", "");
    second.is_ingress = true;
    assert!(refused(second).ends_with("is already present"));
    let mut foreign = network("own", "");
    foreign.driver = Some(Driver {
        name: "weave".to_owned(),
        ..Driver::default()
    });
    assert_eq!(refused(foreign), "plugin weave not supported");
}

#[test]
fn a_network_in_use_stays() {
    let mut harness = Harness::with_agent();
    let id = harness.create_network(network("back", "")).unwrap();
    let Ok(Answer::Service(service)) = harness.run(on_network(create("web", 1), id)) else {
        panic!("the service is not created");
    };
    let remove = || Command::RemoveNetwork { id };
    assert_eq!(
        harness.refusal(remove()),
        format!("network {id} is in use by service {service}")
    );
    harness.run(Command::RemoveService { id: service }).unwrap();
    harness.run(remove()).unwrap();
    assert_eq!(harness.refusal(remove()), format!("network {id} not found"));
    let host = harness.core.store().networks().by_name("host").unwrap().id;
    assert_eq!(
        harness.refusal(Command::RemoveNetwork { id: host }),
        format!("network {host} (host) is a swarm predefined network and cannot be removed")
    );
}

#[test]
fn ingress_is_removed_when_no_service_publishes_and_made_anew() {
    let mut harness = Harness::with_agent();
    let id = harness.core.store().networks().ingress().unwrap().id;
    let created = harness.run(publishing(create("web", 1), 8080));
    let Ok(Answer::Service(service)) = created else {
        panic!("the service is not created");
    };
    assert_eq!(
        harness.refusal(Command::RemoveNetwork { id }),
        format!("ingress network cannot be removed because service {service} depends on it")
    );
    harness.run(Command::RemoveService { id: service }).unwrap();
    harness.run(Command::RemoveNetwork { id }).unwrap();
    let mut spec = network("mesh", "10.200.0.0/16");
    spec.is_ingress = true;
    harness.create_network(spec).unwrap();
    let ingress = harness.core.store().networks().ingress().unwrap();
    assert_eq!(ingress.name(), "mesh");
}

#[test]
fn services_name_networks_and_ports_they_can_have() {
    let mut harness = Harness::leading();
    let ingress = harness.core.store().networks().ingress().unwrap().id;
    let nowhere = NetworkId::random(&mut Rng::from_seed(9));
    assert_eq!(
        harness.refusal(on_network(create("web", 1), nowhere)),
        format!("network {nowhere} not found")
    );
    assert_eq!(
        harness.refusal(on_network(create("web", 1), ingress)),
        "Service cannot be explicitly attached to the ingress network \"ingress\""
    );
    let Ok(Answer::Service(first)) = harness.run(publishing(create("a", 1), 8080)) else {
        panic!("the service is not created");
    };
    assert_eq!(
        harness.refusal(publishing(create("b", 1), 8080)),
        format!("port '8080' is already in use by service 'a' ({first}) as an ingress port")
    );
    harness.run(publishing(create("b", 1), 8081)).unwrap();
}

#[test]
fn ports_the_cluster_lives_on_are_not_published() {
    let mut harness = Harness::leading();
    let refusal = harness.refusal(publishing(create("web", 1), 2377));
    assert_eq!(
        refusal,
        "port 2377/tcp cannot be published: the nodes of the cluster use it themselves"
    );
    harness.run(publishing(create("web", 1), 4789)).unwrap();
    let over_udp = |port| {
        let Command::CreateService { mut spec } = publishing(create("dns", 1), port) else {
            panic!("no service");
        };
        spec.endpoint.as_mut().unwrap().ports[0].protocol = Protocol::Udp;
        Command::CreateService { spec }
    };
    // The data path's, and those of its encrypted networks.
    for port in [4789, 4796, 4797] {
        assert_eq!(
            harness.refusal(over_udp(port)),
            format!(
                "port {port}/udp cannot be published: the nodes of the cluster use it themselves"
            )
        );
    }
    harness.run(over_udp(2377)).unwrap();
}

#[test]
fn an_agent_is_sent_tasks_with_their_places() {
    let mut harness = Harness::with_agent();
    let id = harness.create_network(network("back", "")).unwrap();
    harness.run(on_network(create("web", 1), id)).unwrap();
    let sent = harness.sent_tasks();
    let [task] = sent.as_slice() else {
        panic!("sent {} tasks", sent.len());
    };
    let [place] = task.networks.as_slice() else {
        panic!("the task has {} places", task.networks.len());
    };
    assert!(place.network.is_complete());
    assert_eq!(place.addresses, ["10.0.1.3/24".parse().unwrap()]);
    let endpoint = task.endpoint.as_ref().unwrap();
    assert_eq!(endpoint.virtual_ips[0].addr, "10.0.1.2/24");
}

impl Harness {
    /// The agent says what it is, anew.
    fn register_with(&mut self, network_driver: &str) {
        let node = self.core.store().node(self.node_id()).unwrap();
        let mut description = node.description.clone().unwrap();
        description.engine.plugins.push(Plugin {
            kind: "Network".to_owned(),
            name: network_driver.to_owned(),
        });
        let request = SessionRequest {
            description,
            session_id: None,
        };
        let message = FromAgent::Register {
            node_id: self.node_id(),
            addr: "192.0.2.1:1".to_owned(),
            request: Box::new(request),
        };
        self.handle(Event::Agent {
            connection: ConnectionId(2),
            message,
        });
        self.settle();
    }

    /// The node's places, as the first session message after `from` says.
    fn told_places(&self, from: usize) -> Vec<skep_model::NetworkAttachment> {
        let told = self.out[from..].iter().find_map(|effect| match effect {
            Effect::Send {
                message: ToAgent::Session(message),
                ..
            } => message.node.as_ref().map(|node| node.attachments.clone()),
            _ => None,
        });
        told.expect("a session message was sent")
    }

    fn sent_tasks(&self) -> Vec<Arc<Task>> {
        let messages = self.out.iter().filter_map(|effect| match effect {
            Effect::Send {
                message: ToAgent::Assignments(message),
                ..
            } => Some(&message.changes),
            _ => None,
        });
        let tasks = messages.flatten().filter_map(|change| match change {
            AssignmentChange::UpdateTask(task) => Some(Arc::clone(task)),
            _ => None,
        });
        tasks.collect()
    }
}

#[test]
fn a_node_of_skep_is_told_its_slice_at_once() {
    let mut harness = Harness::with_agent();
    let from = harness.out.len();
    harness.register_with("skep");
    let told = harness.told_places(from);
    let [place] = told.as_slice() else {
        panic!("told {} places", told.len());
    };
    assert_eq!(place.network.name(), "skep_gwbridge");
    assert_eq!(place.addresses[0], "10.252.4.1/22".parse().unwrap());
    assert_eq!(place.addresses[1].prefix_len(), 64);
}

#[test]
fn a_task_is_sent_with_its_address_in_the_slice() {
    let mut harness = Harness::with_agent();
    harness.register_with("skep");
    harness.run(publishing(create("web", 1), 8080)).unwrap();
    let sent = harness.sent_tasks();
    let [task] = sent.as_slice() else {
        panic!("sent {} tasks", sent.len());
    };
    let addresses: Vec<_> = task.node_addresses().collect();
    assert_eq!(addresses[0], "10.252.6.0/22".parse().unwrap());
    assert_eq!(addresses.len(), 2);
}

#[test]
fn the_node_network_is_nobodys_to_use_or_remove() {
    let mut harness = Harness::leading();
    let tables = harness.core.store().networks();
    let id = tables.node_network().unwrap().id;
    assert_eq!(
        harness.refusal(Command::RemoveNetwork { id }),
        format!("network {id} (skep_gwbridge) is a swarm predefined network and cannot be removed")
    );
    assert_eq!(
        harness.refusal(on_network(create("web", 1), id)),
        "Service cannot be explicitly attached to the node network \"skep_gwbridge\""
    );
    let mut second = network("second", "");
    second.driver = Some(Driver {
        name: "skep".to_owned(),
        ..Driver::default()
    });
    assert_eq!(
        harness.create_network(second).unwrap_err(),
        "plugin skep not supported"
    );
    assert_eq!(
        harness
            .create_network(network("over", "10.252.0.0/16"))
            .unwrap_err(),
        "Pool overlaps with other one on this address space: 10.252.0.0/16 and 10.252.0.0/14 of \
         network skep_gwbridge"
    );
}

#[test]
fn a_node_of_docker_is_told_where_it_balances_from() {
    let mut harness = Harness::with_agent();
    let from = harness.out.len();
    harness.register_with("overlay");
    let told = harness.told_places(from);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].network.name(), "ingress");
    assert_eq!(told[0].addresses, ["10.0.0.2/24".parse().unwrap()]);
}

#[test]
fn keys_of_the_data_plane_are_rotated_one_by_one() {
    let mut harness = Harness::leading();
    let times = |harness: &Harness, subsystem: &str| -> Vec<u64> {
        let cluster = harness.core.store().cluster().unwrap();
        let keys = cluster.network_bootstrap_keys.iter();
        let own = keys.filter(|key| key.subsystem == subsystem);
        own.map(|key| key.lamport_time).collect()
    };
    let before = ["networking:gossip", "networking:ipsec"].map(|name| times(&harness, name));
    harness.now = harness.now + Duration::from_secs(12 * 3600 + 1);
    harness.settle();
    for (name, before) in ["networking:gossip", "networking:ipsec"].iter().zip(before) {
        assert_eq!(before.len(), 3);
        let after = times(&harness, name);
        assert_eq!(after[..2], before[1..], "{name}");
        assert!(after[2] > before[2], "{name}");
    }
    let deadline = harness.core.next_deadline().unwrap();
    assert!(deadline > harness.now, "there is nothing left to do");
}

#[test]
fn a_manager_that_listens_elsewhere_keeps_its_own_port() {
    let mut harness = Harness::leading();
    let member = skep_wire::member::Member {
        raft_id: 1,
        node_id: harness.core.store().nodes().next().unwrap().id,
        addr: "192.0.2.1:7777".to_owned(),
    };
    let group = Group::new(1, vec![member]);
    harness.handle(Event::Group(Arc::new(group)));
    let refusal = harness.refusal(publishing(create("web", 1), 7777));
    assert_eq!(
        refusal,
        "port 7777/tcp cannot be published: the nodes of the cluster use it themselves"
    );
    harness.run(publishing(create("web", 1), 2377)).unwrap();
}

#[test]
fn a_service_names_each_network_once() {
    let mut harness = Harness::leading();
    let id = harness.create_network(network("back", "")).unwrap();
    let Command::CreateService { mut spec } = on_network(create("web", 1), id) else {
        panic!("no service");
    };
    let networks = &mut Arc::make_mut(&mut spec.task).networks;
    networks.push(networks[0].clone());
    let refusal = harness.refusal(Command::CreateService { spec });
    assert_eq!(refusal, "network \"back\" is specified multiple times");
}

#[test]
fn subnets_keep_clear_of_the_nodes_own_addresses() {
    let harness = Harness::leading();
    let own = harness.core.store().nodes().next().unwrap().clone();
    let mut joined = skep_model::Node::clone(&own);
    joined.status.addr = "10.0.1.7".to_owned();
    // One by which nobody knows it: who asks for a subnet with it gets that, but it is not chosen.
    let mut description = NodeDescription::default();
    let told = DataPlane {
        addresses: vec![[10, 0, 1, 7].into(), [10, 0, 2, 9].into()],
        ..DataPlane::default()
    };
    told.store(&mut description.engine.labels);
    joined.description = Some(description);
    let mut tx = Transaction::new(harness.core.store(), skep_model::Version(1_000), START);
    tx.update_node(joined).unwrap();
    let view = tx.view();
    let id = NetworkId(skep_model::Id::LOWEST);
    let refusal = skep_control::network::allocate(view, id, &network("back", "10.0.1.0/24"));
    assert_eq!(
        refusal.unwrap_err().to_string(),
        format!(
            "Pool overlaps with other one on this address space: 10.0.1.0/24 has address 10.0.1.7 of \
             node {}",
            own.id
        )
    );
    for (wanted, given) in [("", "10.0.3.0/24"), ("10.0.2.0/24", "10.0.2.0/24")] {
        let made = skep_control::network::allocate(view, id, &network("back", wanted)).unwrap();
        let subnet = made.ipam.configs[0].subnet.unwrap();
        assert_eq!(subnet, given.parse().unwrap());
    }
}
