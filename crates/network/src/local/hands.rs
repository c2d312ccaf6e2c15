//! Kernel work of networks of this node. Everything is idempotent; nothing is decided here.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;

use ipnet::{IpNet, Ipv6Net};
use rtnetlink::packet_route::link::MacVlanMode;

use super::{Kind, LocalError, LocalNetwork, LocalPlace, Mode};
use crate::apply::{await_carrier, await_local};
use crate::digest::fnv1a;
use crate::endpoint::Mac;
use crate::netlink::{MacvlanRequest, NetlinkError, RouteSocket, VethRequest};
use crate::netns::NetnsThread;
use crate::sysctl;

/// Alias of links that are there for a network of ours alone; its id follows.
const NETWORK_ALIAS: &str = "skep-net:";
/// Alias of a container's end on a bridge; the container's id follows.
const PLACE_ALIAS: &str = "skep-local:";
/// MTU when nobody wishes for one.
const MTU: u32 = 1500;
/// A bridge needs a link-local address at once to find neighbours for what it forwards.
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 64);
/// What a container's interface needs for IPv6, in order: no addresses of its own making, no routers but the one it is given, and
/// IPv6 at all.
const V6_SWITCHES: [(&str, &str); 3] = [
    ("addr_gen_mode", "1"),
    ("accept_ra", "0"),
    ("disable_ipv6", "0"),
];

/// A socket of the node's namespace, and the thread that enters others.
#[derive(Debug)]
pub(super) struct Hands {
    node: RouteSocket,
    netns: NetnsThread,
}

// === impl Hands ===

impl Hands {
    pub(super) fn open() -> Result<Hands, LocalError> {
        Ok(Hands {
            node: RouteSocket::open()?,
            netns: NetnsThread::spawn().map_err(LocalError::Thread)?,
        })
    }

    /// Lets the node forward packets.
    pub(super) fn forward(has_v6: bool) -> Result<(), LocalError> {
        sysctl::turn_on(sysctl::IP_FORWARD)?;
        if has_v6 && sysctl::has_ipv6() {
            sysctl::forward_ipv6()?;
        }
        Ok(())
    }

    /// Removes links of networks of ours that are not among `networks`.
    pub(super) fn sweep(
        &mut self,
        networks: &BTreeMap<String, LocalNetwork>,
    ) -> Result<(), LocalError> {
        let links = self.node.aliases()?.into_iter();
        let stale = links.filter(|(_, alias)| {
            let id = alias.strip_prefix(NETWORK_ALIAS);
            id.is_some_and(|id| !networks.contains_key(id))
        });
        for (name, _) in stale {
            self.node.delete_link(&name)?;
        }
        Ok(())
    }

    pub(super) fn ensure_network(
        &mut self,
        id: &str,
        network: &LocalNetwork,
    ) -> Result<(), LocalError> {
        match &network.kind {
            Kind::Bridge { name, .. } => self.ensure_bridge(id, name, network),
            Kind::Macvlan {
                parent, is_dummy, ..
            } => self.ensure_parent(id, parent, *is_dummy).map(drop),
        }
    }

    fn ensure_bridge(
        &mut self,
        id: &str,
        name: &str,
        network: &LocalNetwork,
    ) -> Result<(), LocalError> {
        let index = match self.node.link_index(name) {
            Ok(index) => {
                if !self.node.is_bridge(index)? {
                    return Err(LocalError::NoBridge(name.to_owned()));
                }
                index
            }
            Err(NetlinkError::NoLink(_)) => {
                let mac = mac_of(id, network);
                self.node
                    .create_bridge(name, mac, network.mtu.unwrap_or(MTU))?;
                let index = self.node.link_index(name)?;
                let alias = format!("{NETWORK_ALIAS}{id}");
                self.node.set_alias_and_up(index, &alias)?;
                index
            }
            Err(error) => return Err(error.into()),
        };
        self.node.set_up(name)?;
        let has_v6 = has_v6(network) && sysctl::has_ipv6();
        if has_v6 {
            sysctl::set(&sysctl::disable_ipv6(name), "0")?;
            self.node.add_unique_address(index, LINK_LOCAL.into())?;
        }
        for (subnet, gateway) in &network.subnets {
            let Some(gateway) = gateway.filter(|ip| ip.is_ipv4() || has_v6) else {
                continue;
            };
            let address = with_prefix(gateway, *subnet);
            self.node.add_unique_address(index, address)?;
        }
        Ok(())
    }

    /// The link that macvlans are on.
    fn ensure_parent(&mut self, id: &str, parent: &str, is_dummy: bool) -> Result<u32, LocalError> {
        match self.node.link_index(parent) {
            Ok(index) => return Ok(index),
            Err(NetlinkError::NoLink(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let alias = format!("{NETWORK_ALIAS}{id}");
        if is_dummy {
            self.node.create_dummy(parent)?;
            return self.name_link(parent, &alias);
        }
        let missing = || LocalError::NoParent(parent.to_owned());
        let (base, vlan) = parent.rsplit_once('.').ok_or_else(missing)?;
        let vlan = vlan.parse::<u16>().ok().filter(|id| (1..4095).contains(id));
        let vlan = vlan.ok_or_else(missing)?;
        let base = self.node.link_index(base).map_err(|_| missing())?;
        self.node.create_vlan(parent, base, vlan)?;
        self.name_link(parent, &alias)
    }

    /// Marks a link as ours. The kernel takes no alias of a link that is being made.
    fn name_link(&mut self, name: &str, alias: &str) -> Result<u32, LocalError> {
        let index = self.node.link_index(name)?;
        self.node.set_alias_and_up(index, alias)?;
        Ok(index)
    }

    /// Removes what was made for the network alone.
    pub(super) fn remove_network(
        &mut self,
        id: &str,
        network: &LocalNetwork,
    ) -> Result<(), LocalError> {
        let name = link_of(network);
        let alias = format!("{NETWORK_ALIAS}{id}");
        let links = self.node.aliases()?;
        if links.iter().any(|(link, of)| link == name && *of == alias) {
            self.node.delete_link(name)?;
        } else if let Ok(index) = self.node.link_index(name)
            && matches!(network.kind, Kind::Bridge { .. })
        {
            // Somebody else's bridge loses only what we gave it.
            for (subnet, gateway) in &network.subnets {
                if let Some(gateway) = gateway {
                    let address = with_prefix(*gateway, *subnet);
                    self.node.remove_address(index, address)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn ensure_place(
        &mut self,
        container: &str,
        network: &LocalNetwork,
        place: &LocalPlace,
    ) -> Result<(), LocalError> {
        match &network.kind {
            Kind::Bridge { name, has_icc, .. } => {
                let bridge_index = self.node.link_index(name)?;
                let link = host_link(container, place);
                let index = match self.node.link_index(&link) {
                    Ok(index) => index,
                    Err(NetlinkError::NoLink(_)) => {
                        self.create_veth(&link, bridge_index, network, place)?
                    }
                    Err(error) => return Err(error.into()),
                };
                self.node.enslave(&link, bridge_index)?;
                self.node.set_isolated(index, !has_icc)?;
                self.configure(place)?;
                let alias = format!("{PLACE_ALIAS}{container}");
                self.node.set_alias_and_up(index, &alias)?;
                await_carrier(&mut self.node, index)?;
                Ok(())
            }
            Kind::Macvlan { parent, mode, .. } => {
                if !self.has_interface(place)? {
                    let netns = open(place)?;
                    let parent_index = self.node.link_index(parent)?;
                    self.node.create_macvlan(&MacvlanRequest {
                        name: &place.interface,
                        parent_index,
                        mode: (*mode).into(),
                        mac: place.mac,
                        mtu: network.mtu,
                        netns: netns.as_fd(),
                    })?;
                }
                self.configure(place)
            }
        }
    }

    fn create_veth(
        &mut self,
        link: &str,
        bridge_index: u32,
        network: &LocalNetwork,
        place: &LocalPlace,
    ) -> Result<u32, LocalError> {
        let netns = open(place)?;
        self.node.create_veth(&VethRequest {
            link,
            bridge_index,
            peer: &place.interface,
            peer_mac: place.mac,
            peer_netns: netns.as_fd(),
            mtu: network.mtu.unwrap_or(MTU),
        })?;
        Ok(self.node.link_index(link)?)
    }

    fn has_interface(&self, place: &LocalPlace) -> Result<bool, LocalError> {
        let interface = place.interface.clone();
        let found = self.netns.inside(&place.netns_path, move || {
            let mut socket = RouteSocket::open()?;
            match socket.link_index(&interface) {
                Ok(_) => Ok(true),
                Err(NetlinkError::NoLink(_)) => Ok(false),
                Err(error) => Err(error),
            }
        })?;
        Ok(found?)
    }

    /// Addresses and routes inside the container.
    fn configure(&self, place: &LocalPlace) -> Result<(), LocalError> {
        let inside = place.clone();
        self.netns.inside(&place.netns_path, move || {
            let LocalPlace {
                interface,
                addresses,
                gateways,
                ..
            } = inside;
            let has_v6 = addresses.iter().any(|net| net.addr().is_ipv6());
            for (key, value) in V6_SWITCHES.iter().filter(|_| has_v6) {
                sysctl::set(&format!("ipv6/conf/{interface}/{key}"), value)?;
            }
            let mut socket = RouteSocket::open()?;
            let index = socket.link_index(&interface)?;
            for &address in &addresses {
                socket.add_unique_address(index, address)?;
            }
            socket.set_up(&interface)?;
            for &gateway in &gateways {
                socket.set_default_route(index, gateway)?;
            }
            for address in &addresses {
                await_local(&mut socket, address.addr())?;
            }
            Ok::<_, LocalError>(())
        })?
    }

    /// Takes a container off a bridge. A macvlan goes with its namespace.
    pub(super) fn remove_place(
        &mut self,
        container: &str,
        network: &LocalNetwork,
        place: &LocalPlace,
    ) -> Result<(), LocalError> {
        match network.kind {
            Kind::Bridge { .. } => Ok(self.node.delete_link(&host_link(container, place))?),
            Kind::Macvlan { .. } => Ok(()),
        }
    }

    /// What a network lacks, in words.
    pub(super) fn examine_network(&mut self, id: &str, network: &LocalNetwork) -> Vec<String> {
        let name = link_of(network);
        let Ok(index) = self.node.link_index(name) else {
            return vec![format!("link {name} of network {id} is missing")];
        };
        if let Kind::Macvlan { .. } = network.kind {
            return Vec::new();
        }
        let there = self.node.addresses_of(index).unwrap_or_default();
        let has_v6 = sysctl::has_ipv6();
        let gateways = network.subnets.iter().filter_map(|(_, gateway)| *gateway);
        let missing = gateways.filter(|ip| (ip.is_ipv4() || has_v6) && !there.contains(ip));
        missing
            .map(|ip| format!("bridge {name} of network {id} lacks its address {ip}"))
            .collect()
    }

    /// What a container's place lacks, in words.
    pub(super) fn examine_place(
        &mut self,
        (container, id): (&str, &str),
        network: &LocalNetwork,
        place: &LocalPlace,
    ) -> Option<String> {
        let is_right = match &network.kind {
            Kind::Bridge { name, .. } => {
                let bridge = self.node.link_index(name).ok();
                let link = self.node.link_index(&host_link(container, place));
                let carrier = link.and_then(|index| self.node.carrier(index));
                carrier.is_ok_and(|(_, of)| of.is_some() && of == bridge)
            }
            Kind::Macvlan { .. } => self.has_interface(place).unwrap_or(false),
        };
        let interface = &place.interface;
        (!is_right).then(|| format!("{interface} of container {container} is not on network {id}"))
    }
}

impl From<Mode> for MacVlanMode {
    fn from(mode: Mode) -> MacVlanMode {
        match mode {
            Mode::Bridge => MacVlanMode::Bridge,
            Mode::Private => MacVlanMode::Private,
            Mode::Vepa => MacVlanMode::Vepa,
            Mode::Passthru => MacVlanMode::Passthrough,
        }
    }
}

/// The link of the node that a network is.
fn link_of(network: &LocalNetwork) -> &str {
    match &network.kind {
        Kind::Bridge { name, .. } => name,
        Kind::Macvlan { parent, .. } => parent,
    }
}

fn has_v6(network: &LocalNetwork) -> bool {
    let mut subnets = network.subnets.iter();
    subnets.any(|(subnet, _)| subnet.addr().is_ipv6())
}

/// Made of the gateway, so that containers' neighbour entries stay right when the bridge is made again.
fn mac_of(id: &str, network: &LocalNetwork) -> Mac {
    let gateway = network.subnets.iter().find_map(|(_, gateway)| *gateway);
    gateway.map_or_else(
        || {
            let [a, b, c, d, ..] = fnv1a(id.as_bytes()).to_be_bytes();
            Mac([0x02, 0x42, a, b, c, d])
        },
        Mac::from_ip,
    )
}

/// Name of the node's end of a container's pair.
fn host_link(container: &str, place: &LocalPlace) -> String {
    let key = format!("{container}/{}", place.interface);
    let hash = format!("{:016x}", fnv1a(key.as_bytes()));
    format!("skl{}", &hash[..12])
}

fn with_prefix(ip: IpAddr, subnet: IpNet) -> IpNet {
    IpNet::new(ip, subnet.prefix_len()).unwrap_or_else(|_| ip.into())
}

fn open(place: &LocalPlace) -> Result<File, LocalError> {
    let path = &place.netns_path;
    File::open(path).map_err(|source| LocalError::Open(path.clone(), source))
}
