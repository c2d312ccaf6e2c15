//! Which networks a container gets, case by case.

use std::sync::Arc;

use skep_model::{
    ContainerSpec, DnsConfig, Driver, Endpoint, IpamConfig, IpamOptions, Meta, NODE_NETWORK_DRIVER,
    Network, NetworkAttachment, NetworkId, NetworkSpec, PREDEFINED_LABEL, PortConfig, Rng, TaskId,
    TaskSpec, TaskState, TaskStatus, VXLAN_IDS_OPTION,
};

use super::*;

fn network(name: &str, driver: &str, is_internal: bool) -> Arc<Network> {
    let driver = Driver {
        name: driver.to_owned(),
        options: [(VXLAN_IDS_OPTION.to_owned(), "4097".to_owned())].into(),
    };
    let mut spec = NetworkSpec {
        driver: Some(driver.clone()),
        is_internal,
        ..NetworkSpec::default()
    };
    spec.annotations.name = name.to_owned();
    let subnet = IpamConfig {
        subnet: "10.0.1.0/24".parse().ok(),
        ..IpamConfig::default()
    };
    Arc::new(Network {
        id: NetworkId::random(&mut Rng::from_seed(1)),
        meta: Meta::default(),
        spec,
        driver_state: Some(driver.clone()),
        ipam: Some(IpamOptions {
            driver: Some(driver),
            configs: vec![subnet],
        }),
        is_pending_delete: false,
    })
}

fn on(network: Arc<Network>, addresses: &[&str]) -> NetworkAttachment {
    NetworkAttachment {
        network,
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        aliases: Vec::new(),
        driver_options: [].into(),
    }
}

fn task(networks: Vec<NetworkAttachment>, container: ContainerSpec) -> Task {
    Task {
        id: TaskId::random(&mut Rng::from_seed(3)),
        meta: Meta::default(),
        spec: Arc::new(TaskSpec {
            container,
            ..TaskSpec::default()
        }),
        spec_version: None,
        service_id: None,
        slot: 1,
        node_id: None,
        annotations: Arc::default(),
        service_annotations: Arc::default(),
        status: TaskStatus::default(),
        desired_state: TaskState::Running,
        endpoint: None,
        log_driver: None,
        networks,
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    }
}

#[track_caller]
fn check(networks: Vec<NetworkAttachment>, mode: NodeMode, interfaces: &[&str]) {
    let plan = plan(&task(networks, ContainerSpec::default())).unwrap();
    let found: Vec<&str> = plan
        .places
        .iter()
        .map(|place| &place.interface[..])
        .collect();
    assert_eq!((plan.mode, &found[..]), (mode, interfaces));
}

#[test]
fn interfaces_follow_the_order_of_the_tasks_networks() {
    let red = || on(network("red", "overlay", false), &["10.0.1.5/24"]);
    let given = || {
        on(
            network("node", NODE_NETWORK_DRIVER, false),
            &["10.252.6.9/22", "fd00::9/64"],
        )
    };
    check(Vec::new(), NodeMode::Attached, &[]);
    check(vec![red()], NodeMode::Attached, &["eth1"]);
    check(
        vec![given(), red(), red()],
        NodeMode::Attached,
        &["eth1", "eth2"],
    );
    let plan = plan(&task(vec![red(), given()], ContainerSpec::default())).unwrap();
    let given = plan.given.unwrap();
    assert_eq!(
        (given.v4.to_string(), given.v6.unwrap().to_string()),
        ("10.252.6.9".to_owned(), "fd00::9".to_owned())
    );
}

#[test]
fn ingress_is_a_place_without_an_interface() {
    let mut ingress = Arc::unwrap_or_clone(network("ingress", "overlay", false));
    ingress.spec.is_ingress = true;
    let ingress = on(Arc::new(ingress), &["10.0.0.5/24"]);
    let red = on(network("red", "overlay", false), &["10.0.1.5/24"]);
    check(vec![ingress, red], NodeMode::Attached, &["eth0", "eth1"]);
}

#[test]
fn a_container_on_internal_networks_only_has_no_way_out() {
    let inner = || on(network("inner", "overlay", true), &["10.0.1.5/24"]);
    let red = || on(network("red", "overlay", false), &["10.0.1.5/24"]);
    check(vec![inner()], NodeMode::Closed, &["eth1"]);
    check(vec![inner(), red()], NodeMode::Attached, &["eth1", "eth2"]);
    let mut published = task(vec![inner()], ContainerSpec::default());
    published.endpoint = Some(Arc::new(Endpoint {
        ports: vec![PortConfig::default()],
        ..Endpoint::default()
    }));
    assert_eq!(plan(&published).unwrap().mode, NodeMode::Attached);
}

#[test]
fn the_nodes_own_networks_are_taken_by_their_driver() {
    check(
        vec![on(network("host", "host", false), &[])],
        NodeMode::Host,
        &[],
    );
    let mut bridge = on(network("bridge", "bridge", false), &[]);
    let labels = &mut Arc::make_mut(&mut bridge.network).spec.annotations.labels;
    labels.insert(PREDEFINED_LABEL.to_owned(), "true".to_owned());
    check(vec![bridge], NodeMode::Attached, &[]);
    check(
        vec![on(network("none", "null", false), &[])],
        NodeMode::Closed,
        &[],
    );
    let other = task(
        vec![on(network("lan", "ipvlan", false), &[])],
        ContainerSpec::default(),
    );
    let text = plan(&other).unwrap_err().to_string();
    assert_eq!(
        text,
        "network `lan` has driver `ipvlan`, which this node does not have"
    );
    let bare = task(
        vec![on(network("red", "overlay", false), &[])],
        ContainerSpec::default(),
    );
    assert_eq!(plan(&bare), Err(PlaceError::Unallocated("red".to_owned())));
}

#[test]
fn a_network_that_the_node_has_for_itself_is_the_way_out_unless_ports_are_published() {
    #[track_caller]
    fn check(task: &Task, mode: NodeMode, expected: &[(&str, bool)]) {
        let plan = plan(task).unwrap();
        let found = plan.local.iter();
        let found: Vec<_> = found
            .map(|wish| (wish.interface.as_str(), wish.is_way_out))
            .collect();
        assert_eq!((plan.mode, &found[..]), (mode, expected));
    }
    let lan = |is_internal| on(network("lan", "macvlan", is_internal), &[]);
    let red = || on(network("red", "overlay", false), &["10.0.1.5/24"]);
    let own = || on(network("own", "bridge", false), &[]);
    let of = |networks| task(networks, ContainerSpec::default());
    check(&of(vec![lan(false)]), NodeMode::Closed, &[("eth0", true)]);
    check(&of(vec![lan(true)]), NodeMode::Closed, &[("eth0", false)]);
    check(
        &of(vec![lan(true), red(), own()]),
        NodeMode::Closed,
        &[("eth0", false), ("eth2", true)],
    );
    check(
        &of(vec![lan(true), red()]),
        NodeMode::Attached,
        &[("eth2", false)],
    );
    let mut published = of(vec![own()]);
    published.endpoint = Some(Arc::new(Endpoint {
        ports: vec![PortConfig::default()],
        ..Endpoint::default()
    }));
    check(&published, NodeMode::Attached, &[("eth1", false)]);
}

#[test]
fn name_servers_and_hosts_must_be_addresses() {
    let with = |hosts: &[&str], servers: &[&str]| {
        let text = |list: &[&str]| list.iter().map(|&one| one.to_owned()).collect();
        let container = ContainerSpec {
            hosts: text(hosts),
            dns: Some(DnsConfig {
                nameservers: text(servers),
                ..DnsConfig::default()
            }),
            ..ContainerSpec::default()
        };
        plan(&task(Vec::new(), container))
    };
    let good = with(&["192.0.2.1 db db2", "host-gateway gw"], &["192.0.2.53"]).unwrap();
    assert_eq!(good.hosts[0].1, ["db", "db2"]);
    assert_eq!(good.dns.servers.len(), 1);
    assert_eq!(
        with(&[], &["dns"]),
        Err(PlaceError::Server("dns".to_owned()))
    );
    for line in ["", "192.0.2.1", "db 192.0.2.1"] {
        assert_eq!(with(&[line], &[]), Err(PlaceError::Host(line.to_owned())));
    }
}
