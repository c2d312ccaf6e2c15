//! Subnets, addresses and settings, without the kernel.

use skep_model::{Driver, IpamConfig, IpamOptions, NetworkSpec, Timestamp};

use super::{
    addresses::{Claims, Taken},
    host::Host,
    *,
};

fn definition(name: &str, subnet: &str, options: &[(&str, &str)]) -> Definition {
    let options = options.iter();
    let configs = subnet.parse().ok().map(|subnet| IpamConfig {
        subnet: Some(subnet),
        ..IpamConfig::default()
    });
    let mut spec = NetworkSpec {
        driver: Some(Driver {
            name: "bridge".to_owned(),
            options: options
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        }),
        ipam: Some(IpamOptions {
            driver: None,
            configs: configs.into_iter().collect(),
        }),
        ..NetworkSpec::default()
    };
    spec.annotations.name = name.to_owned();
    Definition::of(&spec, (format!("{name:0<64}"), Timestamp(7)))
}

fn host() -> Host {
    Host {
        node_bridge: "skep0".to_owned(),
        addresses: vec![("eth0".to_owned(), "192.0.2.7".parse().unwrap())],
        routes: vec![
            ("eth0".to_owned(), "0.0.0.0/0".parse().unwrap()),
            ("eth0".to_owned(), "172.18.0.0/16".parse().unwrap()),
            ("skep0x".to_owned(), "10.252.4.0/22".parse().unwrap()),
        ],
        servers: vec!["172.19.0.53".parse().unwrap()],
    }
}

#[track_caller]
fn completed(others: &[Definition], mut new: Definition) -> Result<Definition, String> {
    let host = host();
    let taken = Taken::new(&host, others.iter());
    let completed = taken.complete(&mut new);
    completed.map(|()| new).map_err(|error| error.to_string())
}

#[test]
fn subnets_are_chosen_where_nothing_is() {
    let first = completed(&[], definition("a", "", &[])).unwrap();
    let subnet = &first.subnets[0];
    assert_eq!(subnet.subnet.to_string(), "172.20.0.0/16");
    assert_eq!(subnet.gateway.unwrap().to_string(), "172.20.0.1");
    let mut six = definition("b", "", &[]);
    six.has_ipv6 = true;
    let second = completed(&[first], six).unwrap();
    assert_eq!(second.subnets[0].subnet.to_string(), "172.21.0.0/16");
    let v6 = second.subnets[1].subnet;
    assert!(v6.to_string().starts_with("fd") && v6.prefix_len() == 64);
}

#[test]
fn networks_in_the_way_of_others_are_refused() {
    let other = completed(&[], definition("other", "10.9.0.0/24", &[])).unwrap();
    let text = "invalid pool request: Pool overlaps with other one on this address space";
    let named = ("com.docker.network.bridge.name", "br7");
    for (new, expected) in [
        (
            definition("a", "10.9.0.0/16", &[]),
            format!("{text}: 10.9.0.0/16 and 10.9.0.0/24 of network other"),
        ),
        (
            definition("a", "192.0.2.0/24", &[]),
            format!("{text}: 192.0.2.0/24 has address 192.0.2.7 of the node's link eth0"),
        ),
        (
            definition("a", "10.252.4.0/24", &[]),
            format!("{text}: 10.252.4.0/24 and 10.252.4.0/22 of the node network"),
        ),
    ] {
        assert_eq!(completed(std::slice::from_ref(&other), new), Err(expected));
    }
    let first = completed(&[], definition("one", "10.9.0.0/24", &[named])).unwrap();
    let refusal = completed(&[first], definition("two", "10.8.0.0/24", &[named])).unwrap_err();
    assert!(
        refusal.ends_with("networks have same bridge name"),
        "{refusal}"
    );
    let own = ("com.docker.network.bridge.name", "skep0");
    let refusal = completed(&[], definition("two", "10.8.0.0/24", &[own])).unwrap_err();
    assert!(
        refusal.ends_with("it is the bridge of the node network"),
        "{refusal}"
    );
}

#[test]
fn containers_get_addresses_nobody_has() {
    let mut network = definition("a", "10.9.0.0/29", &[]);
    network.subnets[0]
        .reserved
        .insert("host".to_owned(), "10.9.0.3".parse().unwrap());
    let network = completed(&[], network).unwrap();
    let mut claims = Claims::default();
    let mut next = |container: &str| {
        let chosen = claims.choose(container, &network)?;
        Some(chosen[0].to_string())
    };
    assert_eq!(next("a").unwrap(), "10.9.0.2/29");
    assert_eq!(next("a").unwrap(), "10.9.0.2/29");
    assert_eq!(next("b").unwrap(), "10.9.0.4/29");
    assert_eq!(next("c").unwrap(), "10.9.0.5/29");
    assert_eq!(next("d").unwrap(), "10.9.0.6/29");
    assert_eq!(next("e"), None);
    assert!(claims.remove("b") && !claims.remove("b"));
    let mut next = |container: &str| claims.choose(container, &network).map(|nets| nets[0]);
    assert_eq!(next("e").unwrap().to_string(), "10.9.0.4/29");
    assert_eq!(next("f"), None);
}

#[test]
fn settings_of_another_network_are_taken_over() {
    let mut state = State::default();
    let mut wanted = definition("lan", "", &[]);
    wanted.config_from = "cfg".to_owned();
    let missing = state.settle(&mut wanted).unwrap_err().to_string();
    assert_eq!(missing, "configuration network \"cfg\" does not exist");
    let mut settings = definition("cfg", "10.9.0.0/24", &[("parent", "eth0")]);
    settings.is_config_only = true;
    state
        .networks
        .insert(settings.id.clone(), Arc::new(settings));
    state.settle(&mut wanted).unwrap();
    assert_eq!(wanted.options["parent"], "eth0");
    assert_eq!(wanted.subnets[0].subnet.to_string(), "10.9.0.0/24");
    wanted.config_from.clear();
    let own = wanted.check_dependent().unwrap_err().to_string();
    assert!(
        own.starts_with("user specified configurations are not supported"),
        "{own}"
    );
}

/// What this version writes is read by all later ones.
#[test]
fn networks_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let network = completed(&[], definition("a", "10.9.0.0/24", &[])).unwrap();
    store::write(dir.path(), &network).unwrap();
    std::fs::write(dir.path().join("broken.json"), "{").unwrap();
    assert_eq!(
        store::read(dir.path()).unwrap(),
        std::slice::from_ref(&network)
    );
    let golden = r#"{"version":1,"id":"x","name":"lan","driver":"macvlan","scope":"swarm",
        "created_at_ns":7,"has_ipv6":false,"is_internal":false,"is_attachable":false,
        "is_config_only":false,"config_from":"cfg","labels":{},"options":{"parent":"eth0"},
        "subnets":[{"subnet":"10.9.0.0/24","gateway":"10.9.0.1"}]}"#;
    std::fs::write(dir.path().join("x.json"), golden).unwrap();
    store::remove(dir.path(), &network.id).unwrap();
    let read = store::read(dir.path()).unwrap();
    assert_eq!(read[0].config_from, "cfg");
    assert_eq!(read[0].scope, Scope::Swarm);
    assert_eq!(
        read[0].gateways(),
        ["10.9.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
}
