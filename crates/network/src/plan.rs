//! The decision: which steps lead from what is observed to what is desired.
//!
//! Pure: no IO and no clock. `observe` fills [`Observed`], `apply` performs [`Step`]s. When both sides agree the plan is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use crate::config::{Config, Layout};
use crate::endpoint::Mac;
use crate::ports::HostPort;
use crate::rules::{PortRule, Ruleset};

/// The bridge's link-local address, where it speaks IPv6: without one it finds no neighbour for what it forwards, and the one the
/// kernel makes is of no use for a second, in which duplicates are looked for.
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 64);

/// What the node network should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Name of the bridge.
    pub bridge: String,
    /// The node's addresses.
    pub layout: Layout,
    /// Endpoints by id.
    pub endpoints: BTreeMap<String, DesiredEndpoint>,
}

/// What one endpoint should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredEndpoint {
    /// Address on the node network; none for a namespace with a loopback interface only.
    pub address: Option<IpAddr>,
    /// IPv6 address; none without the other.
    pub address6: Option<Ipv6Addr>,
    /// Published ports, none of them 0; empty without an address.
    pub ports: Vec<HostPort>,
}

/// What netlink, nft, `/proc/sys` and the run directory say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// `net.ipv4.ip_forward`.
    pub is_forwarding: bool,
    /// `net.ipv6.conf.all.forwarding`.
    pub is_forwarding6: bool,
    /// `net.bridge.bridge-nf-call-iptables`, and the same of IPv6 where there is any: IP rules see what the bridge forwards.
    pub is_bridge_filtered: bool,
    /// The bridge, if it exists.
    pub bridge: Option<ObservedBridge>,
    /// Links called like those of our endpoints, by name.
    pub links: BTreeMap<String, ObservedLink>,
    /// Entries of the namespace directory, and whether a namespace is mounted there.
    pub netns: BTreeMap<String, bool>,
    /// Our nft table of IPv4, if it exists.
    pub rules: Option<ObservedRules>,
    /// Our nft table of IPv6, if it exists.
    pub rules6: Option<ObservedRules>,
}

/// The state of the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedBridge {
    /// Whether it is up.
    pub is_up: bool,
    /// Its address, none if the kernel reports none.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// IP addresses.
    pub addresses: BTreeSet<IpNet>,
    /// Subnets routed straight to it.
    pub routes: BTreeSet<IpNet>,
    /// `route_localnet` of the bridge.
    pub is_localhost_routed: bool,
}

/// The state of an endpoint's link on the node's side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedLink {
    /// The alias, which names the endpoint once it is configured.
    pub alias: Option<String>,
    /// Whether it is a port of the bridge.
    pub is_in_bridge: bool,
    /// Whether the port is isolated from other isolated ports.
    pub is_isolated: bool,
    /// Whether it is up.
    pub is_up: bool,
}

/// The state of one of our nft tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedRules {
    /// Digest of the rule set it was made from; empty if something of that is missing.
    pub digest: String,
    /// Elements of the port maps.
    pub ports: BTreeSet<PortRule>,
}

/// One idempotent change of the kernel's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sets `net.ipv4.ip_forward`.
    EnableForwarding,
    /// Sets `net.ipv6.conf.all.forwarding`, and keeps interfaces that listen to routers listening.
    EnableForwarding6,
    /// Makes the bridge and puts it up.
    CreateBridge {
        /// Interface name.
        name: String,
        /// Ethernet address, fixed so that containers' ARP entries stay right.
        mac: Mac,
        /// MTU in bytes.
        mtu: u32,
    },
    /// Corrects an existing bridge and puts it up.
    SetBridge {
        /// Interface name.
        name: String,
        /// Ethernet address.
        mac: Mac,
        /// MTU in bytes.
        mtu: u32,
    },
    /// Takes an address of another subnet from the bridge.
    RemoveBridgeAddress {
        /// Interface name.
        bridge: String,
        /// The stale address.
        address: IpNet,
    },
    /// Gives the bridge the gateway's address of one family.
    AddBridgeAddress {
        /// Interface name.
        bridge: String,
        /// Gateway with the subnet's prefix length.
        address: IpNet,
    },
    /// Routes a subnet to the bridge, as its address did before somebody took the route away.
    AddBridgeRoute {
        /// Interface name.
        bridge: String,
        /// The subnet.
        subnet: IpNet,
    },
    /// Sets `route_localnet` on the bridge, so that 127.0.0.1 reaches published ports.
    RouteLocalhost {
        /// Interface name.
        bridge: String,
    },
    /// Replaces our nft table of one family, atomically, with all ports.
    ReplaceRules {
        /// The rules.
        ruleset: Ruleset,
        /// The elements.
        ports: BTreeSet<PortRule>,
    },
    /// Removes our nft table of IPv6.
    RemoveRules6,
    /// Changes elements of the port maps in one transaction.
    ChangePorts {
        /// Elements to remove; they exist.
        remove: BTreeSet<PortRule>,
        /// Elements to add.
        add: BTreeSet<PortRule>,
    },
    /// Deletes links, in one request.
    DeleteLinks {
        /// Interface names.
        names: BTreeSet<String>,
    },
    /// Unmounts a namespace and removes its mount point.
    DeleteNetns {
        /// Endpoint id.
        id: String,
    },
    /// Makes a namespace whose loopback interface is up, and mounts it.
    CreateNetns {
        /// Endpoint id.
        id: String,
    },
    /// Makes a veth pair: a port of the bridge, and `eth0` in the endpoint's namespace. The port is up.
    CreateVeth(Veth),
    /// Gives `eth0` its addresses and the namespace its default routes.
    ConfigureNetns {
        /// Endpoint id.
        id: String,
        /// One for each family.
        ways: Vec<Way>,
    },
    /// Sets the port's isolation, names its endpoint in its alias, waits until it forwards: the endpoint is complete.
    ActivateLink {
        /// Endpoint id.
        id: String,
        /// Interface name on the node's side.
        link: String,
        /// The bridge, if the link must become its port first.
        enslave_to: Option<String>,
        /// Whether the port is isolated from other isolated ports.
        is_isolated: bool,
    },
}

/// An address of `eth0` and the default route of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Address with the subnet's prefix length.
    pub address: IpNet,
    /// Default route.
    pub gateway: IpAddr,
}

/// A veth pair to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth {
    /// Endpoint id.
    pub id: String,
    /// Interface name on the node's side.
    pub link: String,
    /// Bridge the link becomes a port of.
    pub bridge: String,
    /// Ethernet address of `eth0`.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether the port is isolated from other isolated ports.
    pub is_isolated: bool,
}

/// The steps from `observed` to `desired`, in order.
pub fn plan(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    if !observed.is_forwarding {
        steps.push(Step::EnableForwarding);
    }
    if desired.layout.v6.is_some() && !observed.is_forwarding6 {
        steps.push(Step::EnableForwarding6);
    }
    plan_bridge(desired, observed.bridge.as_ref(), &mut steps);
    plan_rules(desired, observed, &mut steps);
    plan_orphans(desired, observed, &mut steps);
    for (id, endpoint) in &desired.endpoints {
        let link = endpoint
            .address
            .and_then(|ip| observed.links.get(&desired.link_name(ip)));
        let is_mounted = observed.netns.get(id).copied().unwrap_or(false);
        plan_endpoint(
            desired,
            id,
            &ObservedEndpoint {
                is_mounted,
                link,
                is_bridge_filtered: observed.is_bridge_filtered,
            },
            &mut steps,
        );
    }
    steps
}

/// What is observed of one endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ObservedEndpoint<'a> {
    pub(crate) is_mounted: bool,
    pub(crate) link: Option<&'a ObservedLink>,
    pub(crate) is_bridge_filtered: bool,
}

/// The steps for one endpoint, without its ports. Does nothing for an id that is not desired.
pub(crate) fn plan_endpoint(
    desired: &Desired,
    id: &str,
    observed: &ObservedEndpoint<'_>,
    steps: &mut Vec<Step>,
) {
    let Some(endpoint) = desired.endpoints.get(id) else {
        return;
    };
    let id = id.to_owned();
    let Some(address) = endpoint.address else {
        if !observed.is_mounted {
            steps.push(Step::CreateNetns { id });
        }
        return;
    };
    let link = desired.link_name(address);
    let alias = alias(&id);
    // Where IP rules see bridged packets they keep containers apart, and must: there a packet to a published port of the node
    // is sent on by the bridge itself, which isolation would forbid.
    let is_isolated = !observed.is_bridge_filtered;
    match observed.link {
        // Configured: only what happens on the node's side can need repair. That holds without a mount point too: the
        // container may still run in its namespace, which nobody can mount again.
        Some(port) if port.alias.as_ref() == Some(&alias) => {
            if !(port.is_in_bridge && port.is_isolated == is_isolated && port.is_up) {
                let enslave_to = (!port.is_in_bridge).then(|| desired.bridge.clone());
                steps.push(Step::ActivateLink {
                    id,
                    link,
                    enslave_to,
                    is_isolated,
                });
            }
            return;
        }
        // Half made, or made for another endpoint: its peer may be anywhere.
        Some(_) => steps.push(Step::DeleteLinks {
            names: BTreeSet::from([link.clone()]),
        }),
        None => {}
    }
    if !observed.is_mounted {
        steps.push(Step::CreateNetns { id: id.clone() });
    }
    steps.push(Step::CreateVeth(Veth {
        id: id.clone(),
        link: link.clone(),
        bridge: desired.bridge.clone(),
        mac: Mac::from_ip(address),
        mtu: desired.layout.mtu,
        is_isolated,
    }));
    let address6 = endpoint.address6.map(IpAddr::V6);
    let way = |(address, gateway)| Way {
        address: desired.layout.in_subnet(address),
        gateway,
    };
    let ways = [
        Some((address, desired.layout.gateway())),
        address6.zip(desired.layout.gateway6()),
    ];
    steps.push(Step::ConfigureNetns {
        id: id.clone(),
        ways: ways.into_iter().flatten().map(way).collect(),
    });
    steps.push(Step::ActivateLink {
        id,
        link,
        enslave_to: None,
        is_isolated,
    });
}

/// The alias of a configured endpoint's link.
pub(crate) fn alias(id: &str) -> String {
    format!("skep:{id}")
}

fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

fn plan_bridge(desired: &Desired, observed: Option<&ObservedBridge>, steps: &mut Vec<Step>) {
    let name = desired.bridge.clone();
    let Layout { mtu, .. } = desired.layout;
    let mac = Mac::from_ip(desired.layout.gateway());
    let addresses = [Some(desired.layout.gateway()), desired.layout.gateway6()];
    let wanted: BTreeSet<IpNet> = addresses
        .into_iter()
        .flatten()
        .map(|ip| desired.layout.in_subnet(ip))
        .chain(desired.layout.v6.map(|_| LINK_LOCAL.into()))
        .collect();
    match observed {
        None => steps.push(Step::CreateBridge { name, mac, mtu }),
        Some(bridge) if !bridge.is_up || bridge.mac != Some(mac) || bridge.mtu != mtu => {
            steps.push(Step::SetBridge { name, mac, mtu });
        }
        Some(_) => {}
    }
    let addresses = observed.map(|bridge| &bridge.addresses);
    for &stale in addresses
        .into_iter()
        .flatten()
        .filter(|stale| !wanted.contains(*stale) && !is_link_local(stale))
    {
        steps.push(Step::RemoveBridgeAddress {
            bridge: desired.bridge.clone(),
            address: stale,
        });
    }
    let is_missing = |net: &&IpNet| !addresses.is_some_and(|addresses| addresses.contains(*net));
    for &address in wanted.iter().filter(is_missing) {
        steps.push(Step::AddBridgeAddress {
            bridge: desired.bridge.clone(),
            address,
        });
    }
    // A new address, or a bridge that is put up, brings its route.
    if let Some(bridge) = observed.filter(|bridge| bridge.is_up) {
        let routed = wanted.intersection(&bridge.addresses);
        let routed = routed.filter(|net| !is_link_local(net)).map(IpNet::trunc);
        for subnet in routed.filter(|net| !bridge.routes.contains(net)) {
            steps.push(Step::AddBridgeRoute {
                bridge: desired.bridge.clone(),
                subnet,
            });
        }
    }
    if !observed.is_some_and(|bridge| bridge.is_localhost_routed) {
        steps.push(Step::RouteLocalhost {
            bridge: desired.bridge.clone(),
        });
    }
}

fn plan_rules(desired: &Desired, observed: &Observed, steps: &mut Vec<Step>) {
    let (mut remove, mut add) = (BTreeSet::new(), BTreeSet::new());
    for (is_v6, observed) in [(false, &observed.rules), (true, &observed.rules6)] {
        let Some(ruleset) = Ruleset::new(&desired.bridge, &desired.layout, is_v6) else {
            if observed.is_some() {
                steps.push(Step::RemoveRules6);
            }
            continue;
        };
        let mut ports = desired.port_rules();
        ports.retain(|rule| rule.is_v6() == is_v6);
        match observed {
            Some(rules) if rules.digest == ruleset.digest() => {
                remove.extend(rules.ports.difference(&ports).copied());
                add.extend(ports.difference(&rules.ports).copied());
            }
            Some(_) | None => steps.push(Step::ReplaceRules { ruleset, ports }),
        }
    }
    if !(remove.is_empty() && add.is_empty()) {
        steps.push(Step::ChangePorts { remove, add });
    }
}

fn plan_orphans(desired: &Desired, observed: &Observed, steps: &mut Vec<Step>) {
    let wanted: BTreeSet<String> = desired
        .endpoints
        .values()
        .filter_map(|endpoint| endpoint.address)
        .map(|address| desired.link_name(address))
        .collect();
    let names: BTreeSet<String> = observed
        .links
        .keys()
        .filter(|name| !wanted.contains(*name))
        .cloned()
        .collect();
    if !names.is_empty() {
        steps.push(Step::DeleteLinks { names });
    }
    for id in observed
        .netns
        .keys()
        .filter(|id| !desired.endpoints.contains_key(*id))
    {
        steps.push(Step::DeleteNetns { id: id.clone() });
    }
}

// === impl Desired ===

impl Desired {
    /// A node network without endpoints.
    pub fn new(config: &Config) -> Desired {
        Desired {
            bridge: config.bridge.clone(),
            layout: config.layout,
            endpoints: BTreeMap::new(),
        }
    }

    /// The name of the link of the endpoint with this IPv4 address: the bridge's and the address's place in the subnet.
    pub fn link_name(&self, address: IpAddr) -> String {
        let offset = match address {
            IpAddr::V4(ip) => u32::from(ip).wrapping_sub(u32::from(self.layout.v4.network())),
            IpAddr::V6(_) => 0,
        };
        format!("{}-{offset:x}", self.bridge)
    }

    /// The elements of the port maps.
    pub fn port_rules(&self) -> BTreeSet<PortRule> {
        self.endpoints
            .values()
            .flat_map(DesiredEndpoint::port_rules)
            .collect()
    }
}

// === impl DesiredEndpoint ===

impl DesiredEndpoint {
    /// The elements of the port maps for this endpoint.
    pub(crate) fn port_rules(&self) -> impl Iterator<Item = PortRule> {
        let addresses = [self.address, self.address6.map(IpAddr::V6)];
        let addresses = addresses.into_iter().flatten();
        addresses.flat_map(|address| {
            let ports = self.ports.iter();
            ports.filter_map(move |port| PortRule::new(address, port))
        })
    }
}

// === impl Step ===

impl Step {
    /// The endpoint a step belongs to, if it builds one.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        match self {
            Step::CreateNetns { id }
            | Step::CreateVeth(Veth { id, .. })
            | Step::ConfigureNetns { id, .. }
            | Step::ActivateLink { id, .. } => Some(id),
            Step::EnableForwarding
            | Step::EnableForwarding6
            | Step::RemoveRules6
            | Step::CreateBridge { .. }
            | Step::SetBridge { .. }
            | Step::RemoveBridgeAddress { .. }
            | Step::AddBridgeAddress { .. }
            | Step::AddBridgeRoute { .. }
            | Step::RouteLocalhost { .. }
            | Step::ReplaceRules { .. }
            | Step::ChangePorts { .. }
            | Step::DeleteLinks { .. }
            | Step::DeleteNetns { .. } => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::EnableForwarding => write!(f, "enable IP forwarding"),
            Step::EnableForwarding6 => write!(f, "enable IPv6 forwarding"),
            Step::RemoveRules6 => write!(f, "remove rules of IPv6"),
            Step::CreateBridge { name, mac, mtu } => {
                write!(f, "create bridge {name} mac {mac} mtu {mtu}")
            }
            Step::SetBridge { name, mac, mtu } => {
                write!(f, "set bridge {name} mac {mac} mtu {mtu}")
            }
            Step::RemoveBridgeAddress { bridge, address } => {
                write!(f, "remove address {address} from {bridge}")
            }
            Step::AddBridgeAddress { bridge, address } => {
                write!(f, "add address {address} to {bridge}")
            }
            Step::AddBridgeRoute { bridge, subnet } => write!(f, "route {subnet} to {bridge}"),
            Step::RouteLocalhost { bridge } => write!(f, "route localhost on {bridge}"),
            Step::ReplaceRules { ruleset, ports } => {
                write!(
                    f,
                    "replace rules of {} by {} with ports [{}]",
                    ruleset.table(),
                    ruleset.digest(),
                    Listed(ports)
                )
            }
            Step::ChangePorts { remove, add } => {
                write!(
                    f,
                    "change ports: remove [{}], add [{}]",
                    Listed(remove),
                    Listed(add)
                )
            }
            Step::DeleteLinks { names } => write!(f, "delete links [{}]", Listed(names)),
            Step::DeleteNetns { id } => write!(f, "delete namespace {id}"),
            Step::CreateNetns { id } => write!(f, "create namespace {id}"),
            Step::CreateVeth(Veth {
                id,
                link,
                bridge,
                mac,
                mtu,
                is_isolated,
            }) => write!(
                f,
                "create {}link {link} in {bridge}, peer eth0 in namespace {id} mac {mac} mtu {mtu}",
                isolated(*is_isolated)
            ),
            Step::ConfigureNetns { id, ways } => {
                write!(f, "configure namespace {id} with")?;
                let mut ways = ways.iter();
                ways.try_for_each(|way| write!(f, " {} via {}", way.address, way.gateway))
            }
            Step::ActivateLink {
                id,
                link,
                enslave_to,
                is_isolated,
            } => {
                write!(f, "activate {}link {link} for {id}", isolated(*is_isolated))?;
                enslave_to
                    .iter()
                    .try_for_each(|bridge| write!(f, " in {bridge}"))
            }
        }
    }
}

fn isolated(is_isolated: bool) -> &'static str {
    if is_isolated { "isolated " } else { "" }
}

/// Prints a set with commas.
struct Listed<'a, T>(&'a BTreeSet<T>);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{item}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
