//! Rules of a network, with Swarm's texts where Swarm has the rule.

mod subnet;

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::spec::{
    BRIDGE_DRIVER, BridgeOptions, DEFAULT_IPAM_DRIVER, ENCRYPTED_OPTION, IpamOptions,
    MACVLAN_DRIVER, MTU_OPTION, MacvlanOptions, NetworkSpec, OVERLAY_DRIVER, VXLAN_IDS_OPTION,
};

use super::{Problem, Problems, check_name};

/// Subnets per network. Swarm has no limit; the data plane gives an interface as many addresses.
pub const SUBNETS_MAX: usize = 16;
/// First VXLAN id that is given out, as in Swarm; users may choose smaller ones.
pub const VXLAN_ID_START: u32 = 4096;
/// Largest VXLAN id: it has 24 bits.
pub const VXLAN_ID_MAX: u32 = (1 << 24) - 1;
/// Smallest VXLAN id: 0 is not usable and 1 is the node network's.
pub const VXLAN_ID_MIN: u32 = 2;
/// Least MTU: what every IPv6 link must carry (RFC 8200).
pub const MTU_MIN: u32 = 1280;
/// Largest MTU: of the largest Ethernet frames drivers know.
pub const MTU_MAX: u32 = 65_535;
/// Longest prefix of an IPv4 subnet: a gateway and one container need a /30.
pub const PREFIX_LEN_MAX_V4: u8 = 30;
/// Longest prefix of an IPv6 subnet.
pub const PREFIX_LEN_MAX_V6: u8 = 126;

/// Drivers of networks every node has for itself.
const NODE_LOCAL_DRIVERS: [&str; 4] = ["bridge", "host", "ipvlan", "macvlan"];

/// Everything wrong with driver options and addresses of a network of one node.
pub fn local_network_spec(spec: &NetworkSpec) -> Vec<Problem> {
    let mut found = Problems::default();
    check_options(spec, &mut found);
    if let Some(ipam) = &spec.ipam {
        check_ipam(spec, ipam, &mut found);
    }
    found.0
}

/// Everything wrong with the addresses that settings of other networks name.
pub fn ipam_of(spec: &NetworkSpec) -> Vec<Problem> {
    let mut found = Problems::default();
    if let Some(ipam) = &spec.ipam {
        check_ipam(spec, ipam, &mut found);
    }
    found.0
}

/// Everything wrong with a network spec on its own.
pub fn network_spec(spec: &NetworkSpec) -> Vec<Problem> {
    let mut found = Problems::default();
    if spec.is_attachable && spec.is_ingress {
        found.push("ingress network cannot be attachable");
    }
    check_name(&spec.annotations, &mut found);
    check_driver(spec, &mut found);
    check_options(spec, &mut found);
    if spec.config_from.is_some() {
        check_dependent(spec, &mut found);
    }
    if let Some(ipam) = &spec.ipam {
        check_ipam(spec, ipam, &mut found);
    }
    found.0
}

fn check_driver(spec: &NetworkSpec, found: &mut Problems) {
    let name = spec.driver_name();
    let is_known = name == OVERLAY_DRIVER || NODE_LOCAL_DRIVERS.contains(&name);
    if spec.is_ingress && name != OVERLAY_DRIVER {
        found.push("only overlay driver is currently supported for ingress network");
    } else if !is_known {
        found.push(format!("plugin {name} not supported"));
    }
}

/// Options of [`OVERLAY_DRIVER`]. Docker takes any other and ignores it.
const OVERLAY_OPTIONS: [&str; 3] = [ENCRYPTED_OPTION, MTU_OPTION, VXLAN_IDS_OPTION];
/// The option of [`DEFAULT_IPAM_DRIVER`]: addresses one after the other, as they are anyway.
const SERIAL_OPTION: &str = "com.docker.network.ipam.serial";

fn check_options(spec: &NetworkSpec, found: &mut Problems) {
    let Some(driver) = &spec.driver else {
        return;
    };
    let name = spec.driver_name();
    if !spec.is_overlay() {
        let problems = match name {
            BRIDGE_DRIVER => BridgeOptions::parse(&driver.options).err(),
            MACVLAN_DRIVER => MacvlanOptions::parse(&driver.options).err(),
            _ => None,
        };
        found.0.extend(problems.into_iter().flatten().map(Problem));
        return;
    }
    for option in driver.options.keys() {
        if !OVERLAY_OPTIONS.contains(&option.as_str()) {
            found.push(format!(
                "unknown option {option:?} of network driver {name}"
            ));
        }
    }
    if let Some(text) = driver.options.get(MTU_OPTION) {
        let mtu = text.parse::<u32>();
        if !mtu.is_ok_and(|mtu| (MTU_MIN..=MTU_MAX).contains(&mtu)) {
            found.push(format!(
                "invalid value for {MTU_OPTION}: {text:?} (must be {MTU_MIN}-{MTU_MAX})"
            ));
        }
    }
    let Some(list) = driver.options.get(VXLAN_IDS_OPTION) else {
        return;
    };
    let mut seen = BTreeSet::new();
    for text in list.split(',') {
        let id = text.trim().parse::<u32>();
        let is_valid =
            id.is_ok_and(|id| (VXLAN_ID_MIN..=VXLAN_ID_MAX).contains(&id) && seen.insert(id));
        if !is_valid {
            found.push(format!("invalid vxlan id value {text:?} in {list:?}"));
        }
    }
}

/// A network whose settings come from one of each node has none of its own. Docker says so on the
/// node, when a task comes there.
fn check_dependent(spec: &NetworkSpec, found: &mut Problems) {
    let has_addresses = spec.ipam.as_ref().is_some_and(|ipam| {
        let driver = ipam.driver.as_ref();
        let has_options = driver.is_some_and(|driver| !driver.options.is_empty());
        !ipam.configs.is_empty() || has_options
    });
    if has_addresses || spec.has_ipv6 || spec.is_overlay() {
        found.push(
            "user specified configurations are not supported if the network depends on a \
             configuration network",
        );
    }
    let driver = spec.driver.as_ref();
    if driver.is_some_and(|driver| !driver.options.is_empty()) {
        found.push(
            "network driver options are not supported if the network depends on a configuration \
             network",
        );
    }
}

fn check_ipam(spec: &NetworkSpec, ipam: &IpamOptions, found: &mut Problems) {
    let name = ipam.driver.as_ref().map_or("", |driver| &driver.name);
    if !["", DEFAULT_IPAM_DRIVER].contains(&name) {
        found.push(format!("plugin {name} not supported"));
    }
    let options = ipam.driver.iter().flat_map(|driver| driver.options.keys());
    for option in options.filter(|option| *option != SERIAL_OPTION) {
        found.push(format!(
            "unknown option {option:?} of address manager default"
        ));
    }
    if ipam.configs.len() > SUBNETS_MAX {
        found.push(format!("at most {SUBNETS_MAX} subnets are allowed"));
        return;
    }
    for config in &ipam.configs {
        found.0.extend(subnet::problems(config));
    }
    let subnets: Vec<_> = ipam.configs.iter().filter_map(|c| c.subnet).collect();
    for (index, subnet) in subnets.iter().enumerate() {
        let overlaps = |other: &&IpNet| subnet.contains(*other) || other.contains(subnet);
        if let Some(other) = subnets[index + 1..].iter().find(overlaps) {
            found.push(format!(
                "ipam configuration: subnets {subnet} and {other} overlap"
            ));
        }
    }
    let has_v6_subnet = subnets.iter().any(|subnet| subnet.addr().is_ipv6());
    if has_v6_subnet && !spec.has_ipv6 {
        found.push("ipam configuration: an IPv6 subnet needs a network with IPv6 enabled");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Driver, IpamConfig};

    fn spec() -> NetworkSpec {
        let mut spec = NetworkSpec::default();
        spec.annotations.name = "back".to_owned();
        spec
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut NetworkSpec), expected: &[&str]) {
        let mut spec = spec();
        change(&mut spec);
        let texts: Vec<String> = network_spec(&spec).into_iter().map(|p| p.0).collect();
        assert_eq!(texts, expected);
    }

    #[track_caller]
    fn check_config(change: impl FnOnce(&mut IpamConfig), expected: &[&str]) {
        let mut config = IpamConfig {
            subnet: Some("10.1.0.0/24".parse().unwrap()),
            ..IpamConfig::default()
        };
        change(&mut config);
        let configs = vec![config];
        check(
            |spec| {
                spec.ipam = Some(IpamOptions {
                    configs,
                    ..IpamOptions::default()
                })
            },
            expected,
        );
    }

    #[track_caller]
    fn check_option(name: &str, value: &str, expected: &[&str]) {
        let options = [(name.to_owned(), value.to_owned())].into();
        let driver = Driver {
            name: String::new(),
            options,
        };
        check(|spec| spec.driver = Some(driver), expected);
    }

    #[test]
    fn an_overlay_network_is_accepted() {
        check(|_| (), &[]);
        check_config(
            |config| config.range = Some("10.1.0.128/25".parse().unwrap()),
            &[],
        );
        check_option(MTU_OPTION, "1400", &[]);
        check_option(VXLAN_IDS_OPTION, "5000, 5001", &[]);
    }

    #[test]
    fn names_are_dns_names() {
        check(
            |spec| spec.annotations.name.clear(),
            &["meta: name must be provided"],
        );
        check(
            |spec| spec.annotations.name = "a b".to_owned(),
            &["name must be valid as a DNS name component"],
        );
    }

    #[test]
    fn an_ingress_network_is_an_overlay_for_services() {
        check(
            |spec| {
                spec.is_ingress = true;
                spec.is_attachable = true;
                spec.driver = Some(Driver {
                    name: "bridge".to_owned(),
                    ..Driver::default()
                });
            },
            &[
                "ingress network cannot be attachable",
                "only overlay driver is currently supported for ingress network",
            ],
        );
    }

    #[test]
    fn unknown_drivers_are_refused() {
        let driver = |name: &str| {
            Some(Driver {
                name: name.to_owned(),
                ..Driver::default()
            })
        };
        check(
            |spec| spec.driver = driver("weave"),
            &["plugin weave not supported"],
        );
        check(|spec| spec.driver = driver("macvlan"), &[]);
        let ipam = IpamOptions {
            driver: driver("own"),
            ..IpamOptions::default()
        };
        check(|spec| spec.ipam = Some(ipam), &["plugin own not supported"]);
    }

    #[test]
    fn a_network_that_depends_on_another_has_no_settings_of_its_own() {
        let addresses = "user specified configurations are not supported if the network depends \
                         on a configuration network";
        let options = "network driver options are not supported if the network depends on a \
                       configuration network";
        let macvlan = |spec: &mut NetworkSpec| {
            spec.config_from = Some("settings".to_owned());
            spec.driver = Some(Driver {
                name: "macvlan".to_owned(),
                ..Driver::default()
            });
        };
        check(macvlan, &[]);
        check(
            |spec| {
                macvlan(spec);
                spec.has_ipv6 = true;
            },
            &[addresses],
        );
        check(
            |spec| {
                macvlan(spec);
                let config = IpamConfig {
                    subnet: Some("10.1.0.0/24".parse().unwrap()),
                    ..IpamConfig::default()
                };
                spec.ipam = Some(IpamOptions {
                    driver: None,
                    configs: vec![config],
                });
            },
            &[addresses],
        );
        check(
            |spec| {
                macvlan(spec);
                let driver = spec.driver.as_mut().unwrap();
                driver
                    .options
                    .insert("parent".to_owned(), "eth0".to_owned());
            },
            &[options],
        );
        check(
            |spec| spec.config_from = Some("settings".to_owned()),
            &[addresses],
        );
    }

    #[test]
    fn options_have_values_that_work() {
        check_option(
            MTU_OPTION,
            "68",
            &["invalid value for com.docker.network.driver.mtu: \"68\" (must be 1280-65535)"],
        );
        check_option(
            VXLAN_IDS_OPTION,
            "7,7,x",
            &[
                "invalid vxlan id value \"7\" in \"7,7,x\"",
                "invalid vxlan id value \"x\" in \"7,7,x\"",
            ],
        );
    }

    #[test]
    fn addresses_lie_in_their_subnet() {
        check_config(
            |config| config.subnet = None,
            &["ipam configuration: invalid subnet "],
        );
        check_config(
            |config| config.range = Some("10.2.0.0/25".parse().unwrap()),
            &["ipam configuration: subnet 10.1.0.0/24 does not contain range 10.2.0.0/25"],
        );
        check_config(
            |config| config.gateway = Some("10.2.0.1".parse().unwrap()),
            &["ipam configuration: subnet 10.1.0.0/24 does not contain gateway 10.2.0.1"],
        );
        check_config(
            |config| {
                config
                    .reserved
                    .insert("printer".to_owned(), "10.2.0.9".parse().unwrap());
            },
            &[
                "ipam configuration: subnet 10.1.0.0/24 does not contain auxiliary address printer=10.2.0.9",
            ],
        );
        check_config(
            |config| config.subnet = Some("10.1.0.0/31".parse().unwrap()),
            &["ipam configuration: subnet 10.1.0.0/31 is too small: at most /30"],
        );
    }

    #[test]
    fn subnets_of_a_network_do_not_overlap() {
        let subnet = |text: &str| IpamConfig {
            subnet: Some(text.parse().unwrap()),
            ..IpamConfig::default()
        };
        let ipam = |texts: &[&str]| {
            let configs = texts.iter().map(|text| subnet(text)).collect();
            Some(IpamOptions {
                configs,
                ..IpamOptions::default()
            })
        };
        check(
            |spec| spec.ipam = ipam(&["10.1.0.0/16", "10.1.4.0/24"]),
            &["ipam configuration: subnets 10.1.0.0/16 and 10.1.4.0/24 overlap"],
        );
        check(
            |spec| spec.ipam = ipam(&["10.1.0.0/16", "fd00::/64"]),
            &["ipam configuration: an IPv6 subnet needs a network with IPv6 enabled"],
        );
    }
}
