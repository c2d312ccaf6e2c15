//! What the caller wants of a node's data plane: one value, made by whoever knows the cluster. Pure.
//!
//! Everything is allocated elsewhere (addresses, MACs, VXLAN ids); here it is only checked. Networks and containers are behind
//! `Arc`, so that a new generation costs the caller and the comparison only what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use super::balance::Backends;
use super::mesh::Mesh;
use crate::dns::{Upstream, Zone};
use crate::endpoint::{EndpointIdError, Mac, check_id};
use crate::tunnel;

/// VXLAN ids have 24 bits; 1 is the node network's.
const VNI_MIN: u32 = 2;
const VNI_MAX: u32 = (1 << 24) - 1;

/// Smallest MTU of an overlay: what every IPv6 link must carry (RFC 8200), enough for IPv4 too.
pub(crate) const MTU_MIN: u32 = 1280;

/// Longest interface name, in bytes (`IFNAMSIZ` without the end mark).
const INTERFACE_BYTES_MAX: usize = 15;

/// Addresses of one interface. Swarm gives one, dual stack two; the rest is for networks of several subnets.
const ADDRESS_COUNT_MAX: usize = 16;

/// What a node's data plane should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Grows with every change; an older value than the last is refused.
    pub generation: u64,
    /// Where tunnels start.
    pub data_path: DataPath,
    /// Overlay networks with a container on this node, by network id.
    pub networks: BTreeMap<String, Arc<Overlay>>,
    /// This node's containers with a place on an overlay network, by endpoint id.
    pub containers: BTreeMap<String, Arc<Container>>,
    /// The routing mesh; none for a node without a node network.
    pub mesh: Option<Arc<Mesh>>,
    /// What encrypted networks need; none for a node without a part of the node network.
    pub tunnel: Option<Arc<tunnel::Config>>,
}

/// This node's end of all tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataPath {
    /// An address of this node; the MTU of overlays follows from its interface's.
    pub address: IpAddr,
    /// UDP port of VXLAN, the same on all nodes (4789).
    pub port: u16,
}

/// An overlay network, as far as this node needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// VXLAN id, unique in the cluster.
    pub vni: u32,
    /// The user's wish (`com.docker.network.driver.mtu`); none for the largest the data path carries.
    pub mtu: Option<u32>,
    /// Whether its packets between nodes are encrypted. Never changes in a network's life.
    pub is_encrypted: bool,
    /// Subnets, IPv4 or IPv6. Containers reach all of them directly.
    pub subnets: Vec<IpNet>,
    /// Containers of other nodes, by their MAC.
    pub remotes: BTreeMap<Mac, Remote>,
    /// Services with a virtual address on the network, by service id.
    pub services: BTreeMap<String, Arc<Service>>,
    /// The network's names.
    pub names: Arc<Zone>,
}

/// A service's virtual addresses on one network, and where they lead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Virtual addresses, each in one of the network's subnets: one, or one of each family.
    pub vips: Vec<IpAddr>,
    /// Its tasks' addresses. A task that is neither ready nor leaving is left out: it has no connections left to keep, and
    /// those it had are cut, so that clients notice.
    pub backends: BTreeMap<IpAddr, Health>,
}

/// What a backend gets, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// As `Leaving`, but what it has not answered by now goes elsewhere: its node is down, perhaps without its daemon alone.
    Silent,
    /// No new connections, but it keeps those it has. Datagrams go elsewhere at once.
    Leaving,
    /// New connections.
    Ready,
}

/// A container of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Data-path address of its node.
    pub node: IpAddr,
    /// Its addresses on the network.
    pub addresses: Vec<IpAddr>,
}

/// A container of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its namespace, as `Network::attach` or `attach_none` made it. A container on internal networks only gets the latter: it
    /// then has no way out.
    pub netns_path: PathBuf,
    /// Its places, by network id.
    pub attachments: BTreeMap<String, Place>,
    /// Servers for names that are not the cluster's; none to be asked for a container on internal networks only.
    pub upstreams: Vec<Upstream>,
    /// Names of its networks that are none of the plane's, after those of its places.
    pub zones: Vec<Arc<Zone>>,
}

/// A container's place on an overlay network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the interface in the container: `eth1`, `eth2`, … (`eth0` is the node network's).
    pub interface: String,
    /// Ethernet address, unique in the network.
    pub mac: Mac,
    /// Addresses, each in one of the network's subnets.
    pub addresses: Vec<IpAddr>,
}

/// A mistake in a [`Desired`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DesiredError {
    /// An id cannot be a file name.
    #[error(transparent)]
    Id(#[from] EndpointIdError),
    /// A VXLAN id is out of range or taken.
    #[error("network `{network}` has VXLAN id {vni}, which is taken or not in {VNI_MIN}-{VNI_MAX}")]
    Vni {
        /// Network id.
        network: String,
        /// VXLAN id.
        vni: u32,
    },
    /// An MTU is too small.
    #[error("network `{network}` has MTU {mtu}, less than {MTU_MIN}")]
    Mtu {
        /// Network id.
        network: String,
        /// MTU in bytes.
        mtu: u32,
    },
    /// The data path has no port.
    #[error("the data-path port is 0")]
    Port,
    /// A virtual address lies in no subnet of its network, or is another service's too.
    #[error("network `{network}` cannot have the virtual address {vip}")]
    Vip {
        /// Network id.
        network: String,
        /// The address.
        vip: IpAddr,
    },
    /// Slices of the node network overlap, or are not IPv4.
    #[error("slices of the node network overlap, are too small or not IPv4")]
    Slices,
    /// A node's number is 0 or taken.
    #[error("node number {0} is taken, or a node has number 0")]
    Number(u16),
    /// A published port is 0, or leads out of the node network.
    #[error("published port {0} leads out of the node network, or is 0")]
    Published(u16),
    /// The tunnel's number or port is impossible.
    #[error("the tunnel has number {number} and port {port}: 0, or ports of something else")]
    Tunnel {
        /// The node's number.
        number: u16,
        /// The first port.
        port: u16,
    },
    /// A container is on a network the value does not have.
    #[error("container `{container}` is on network `{network}`, which is not given")]
    NoNetwork {
        /// Endpoint id.
        container: String,
        /// Network id.
        network: String,
    },
    /// An interface name cannot be used.
    #[error("container `{container}` cannot have an interface `{interface}`")]
    Interface {
        /// Endpoint id.
        container: String,
        /// Name.
        interface: String,
    },
    /// An address lies in no subnet of its network, or there are too many or none.
    #[error("container `{container}` has addresses that network `{network}` does not have")]
    Addresses {
        /// Endpoint id.
        container: String,
        /// Network id.
        network: String,
    },
    /// Two networks of a container share addresses: it could reach only one of them.
    #[error("networks `{first}` and `{second}` of container `{container}` overlap")]
    Overlap {
        /// Endpoint id.
        container: String,
        /// Network id.
        first: String,
        /// Network id.
        second: String,
    },
    /// An Ethernet address is used twice in a network, or is a group's.
    #[error("network `{network}` has Ethernet address {mac} twice, or it is a group address")]
    Mac {
        /// Network id.
        network: String,
        /// The address.
        mac: Mac,
    },
}

// === impl Desired ===

impl Desired {
    /// A node without overlays.
    pub fn new(generation: u64, data_path: DataPath) -> Desired {
        Desired {
            generation,
            data_path,
            networks: BTreeMap::new(),
            containers: BTreeMap::new(),
            mesh: None,
            tunnel: None,
        }
    }

    /// All mistakes, none if the value is usable.
    pub fn check(&self) -> Vec<DesiredError> {
        let mut errors = Vec::new();
        if self.data_path.port == 0 {
            errors.push(DesiredError::Port);
        }
        let mut vnis = BTreeSet::new();
        for (id, network) in &self.networks {
            errors.extend(check_id(id).err().map(DesiredError::from));
            let vni = network.vni;
            if !is_vni(vni) || !vnis.insert(vni) {
                let network = id.clone();
                errors.push(DesiredError::Vni { network, vni });
            }
            if let Some(mtu) = network.mtu.filter(|&mtu| mtu < MTU_MIN) {
                let network = id.clone();
                errors.push(DesiredError::Mtu { network, mtu });
            }
            self.check_macs(id, network, &mut errors);
            check_vips(id, network, &mut errors);
        }
        if let Some(mesh) = &self.mesh {
            mesh.check(&mut errors);
        }
        if let Some(tunnel) = &self.tunnel {
            let (number, port) = (tunnel.number, tunnel.port);
            let is_taken = [port, port.saturating_add(1)].contains(&self.data_path.port);
            if number == 0 || port == 0 || port == u16::MAX || is_taken {
                errors.push(DesiredError::Tunnel { number, port });
            }
        }
        for (id, container) in &self.containers {
            errors.extend(check_id(id).err().map(DesiredError::from));
            self.check_container(id, container, &mut errors);
        }
        errors
    }

    /// Containers with a place on a network, and the place.
    pub(crate) fn places<'a>(
        &'a self,
        network: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a Arc<Container>, &'a Place)> {
        self.containers.iter().filter_map(move |(id, container)| {
            let place = container.attachments.get(network)?;
            Some((id, container, place))
        })
    }

    fn check_macs(&self, id: &str, network: &Overlay, errors: &mut Vec<DesiredError>) {
        let mut macs = BTreeSet::new();
        let local = self.places(id).map(|(_, _, place)| place.mac);
        for mac in network.remotes.keys().copied().chain(local) {
            let is_group = mac.0[0] & 1 == 1;
            if is_group || !macs.insert(mac) {
                let network = id.to_owned();
                errors.push(DesiredError::Mac { network, mac });
            }
        }
    }

    fn check_container(&self, id: &str, container: &Container, errors: &mut Vec<DesiredError>) {
        let mut interfaces = BTreeSet::new();
        let mut seen: Vec<(&String, IpNet)> = Vec::new();
        for (network_id, place) in &container.attachments {
            let Some(network) = self.networks.get(network_id) else {
                errors.push(DesiredError::NoNetwork {
                    container: id.to_owned(),
                    network: network_id.clone(),
                });
                continue;
            };
            let name = &place.interface;
            if !is_interface_name(name) || !interfaces.insert(name) {
                errors.push(DesiredError::Interface {
                    container: id.to_owned(),
                    interface: name.clone(),
                });
            }
            let is_inside = |ip: &IpAddr| network.subnets.iter().any(|net| net.contains(ip));
            let count = place.addresses.len();
            if count == 0 || count > ADDRESS_COUNT_MAX || !place.addresses.iter().all(is_inside) {
                errors.push(DesiredError::Addresses {
                    container: id.to_owned(),
                    network: network_id.clone(),
                });
            }
            for &net in &network.subnets {
                let overlaps = |other: &IpNet| other.contains(&net) || net.contains(other);
                let clash = seen
                    .iter()
                    .find(|(other_id, other)| *other_id != network_id && overlaps(other));
                if let Some((first, _)) = clash {
                    errors.push(DesiredError::Overlap {
                        container: id.to_owned(),
                        first: (*first).clone(),
                        second: network_id.clone(),
                    });
                }
                seen.push((network_id, net));
            }
        }
    }
}

/// Whether a network may have the VXLAN id.
pub(crate) fn is_vni(vni: u32) -> bool {
    (VNI_MIN..=VNI_MAX).contains(&vni)
}

fn check_vips(id: &str, network: &Overlay, errors: &mut Vec<DesiredError>) {
    let mut seen = BTreeSet::new();
    for &vip in network.services.values().flat_map(|service| &service.vips) {
        let is_inside = network.subnets.iter().any(|net| net.contains(&vip));
        if !is_inside || !seen.insert(vip) {
            let network = id.to_owned();
            errors.push(DesiredError::Vip { network, vip });
        }
    }
}

/// Interfaces are `eth1` and above: `lo` and `eth0` are taken.
fn is_interface_name(name: &str) -> bool {
    let is_free = |digits: &str| !digits.starts_with('0') && digits.parse::<u16>().is_ok();
    name.len() <= INTERFACE_BYTES_MAX && name.strip_prefix("eth").is_some_and(is_free)
}

// === impl Service ===

impl Service {
    pub(crate) fn backends(&self) -> Backends {
        let of = |wanted: Health| {
            let backends = self.backends.iter();
            let backends = backends.filter(move |(_, health)| **health == wanted);
            backends.map(|(&ip, _)| ip).collect()
        };
        Backends {
            ready: of(Health::Ready),
            leaving: of(Health::Leaving),
            silent: of(Health::Silent),
        }
    }
}

// === impl Overlay ===

impl Overlay {
    /// An address with the prefix length of its subnet; its own if it is in none.
    pub(crate) fn in_subnet(&self, address: IpAddr) -> IpNet {
        let subnet = self.subnets.iter().find(|net| net.contains(&address));
        subnet
            .and_then(|net| IpNet::new(address, net.prefix_len()).ok())
            .unwrap_or_else(|| IpNet::from(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired() -> Desired {
        let network = |vni, subnet: &str| {
            Arc::new(Overlay {
                vni,
                mtu: None,
                is_encrypted: false,
                subnets: vec![subnet.parse().unwrap()],
                remotes: BTreeMap::new(),
                services: BTreeMap::new(),
                names: Arc::new(Zone::new("net", Vec::new())),
            })
        };
        let place = |interface: &str, last, ip: &str| Place {
            interface: interface.to_owned(),
            mac: Mac([2, 0, 0, 0, 0, last]),
            addresses: vec![ip.parse().unwrap()],
        };
        let container = Container {
            netns_path: "/run/x".into(),
            attachments: [
                ("a".to_owned(), place("eth1", 1, "10.0.1.2")),
                ("b".to_owned(), place("eth2", 2, "10.0.2.2")),
            ]
            .into(),
            upstreams: Vec::new(),
            zones: Vec::new(),
        };
        let data_path = DataPath {
            address: [192, 0, 2, 1].into(),
            port: 4789,
        };
        let mut desired = Desired::new(1, data_path);
        desired.networks = [
            ("a".to_owned(), network(4097, "10.0.1.0/24")),
            ("b".to_owned(), network(4098, "10.0.2.0/24")),
        ]
        .into();
        desired.containers = [("c".to_owned(), Arc::new(container))].into();
        desired
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Desired), expect: &str) {
        let mut desired = desired();
        change(&mut desired);
        let errors: Vec<String> = desired.check().iter().map(ToString::to_string).collect();
        assert_eq!(errors.join("; "), expect);
    }

    fn network<'a>(desired: &'a mut Desired, id: &str) -> &'a mut Overlay {
        Arc::make_mut(desired.networks.get_mut(id).unwrap())
    }

    fn place<'a>(desired: &'a mut Desired, id: &str) -> &'a mut Place {
        let container = Arc::make_mut(desired.containers.get_mut("c").unwrap());
        container.attachments.get_mut(id).unwrap()
    }

    #[test]
    fn a_good_value_has_no_mistakes() {
        check(|_| (), "");
    }

    #[test]
    fn mistakes_of_networks_are_named() {
        check(
            |desired| network(desired, "b").vni = 4097,
            "network `b` has VXLAN id 4097, which is taken or not in 2-16777215",
        );
        check(
            |desired| network(desired, "a").mtu = Some(500),
            "network `a` has MTU 500, less than 1280",
        );
        let service = |vip: [u8; 4], count| Service {
            vips: vec![vip.into(); count],
            backends: BTreeMap::new(),
        };
        for (vip, count) in [([10, 0, 2, 9], 1), ([10, 0, 1, 9], 2)] {
            let service = Arc::new(service(vip, count));
            let vip = IpAddr::from(vip);
            check(
                |desired| {
                    let services = &mut network(desired, "a").services;
                    services.insert("s".to_owned(), service);
                },
                &format!("network `a` cannot have the virtual address {vip}"),
            );
        }
        let remote = Remote {
            node: [192, 0, 2, 2].into(),
            addresses: Vec::new(),
        };
        check(
            |desired| {
                let mac = Mac([2, 0, 0, 0, 0, 1]);
                network(desired, "a").remotes.insert(mac, remote);
            },
            "network `a` has Ethernet address 02:00:00:00:00:01 twice, or it is a group address",
        );
    }

    #[test]
    fn mistakes_of_containers_are_named() {
        check(
            |desired| drop(desired.networks.remove("b")),
            "container `c` is on network `b`, which is not given",
        );
        for name in ["eth0", "eth1", "eth01", "lo", "eth99999", "eth2/../x"] {
            check(
                |desired| place(desired, "b").interface = name.to_owned(),
                &format!("container `c` cannot have an interface `{name}`"),
            );
        }
        check(
            |desired| place(desired, "a").addresses = vec![[10, 0, 2, 9].into()],
            "container `c` has addresses that network `a` does not have",
        );
        check(
            |desired| network(desired, "b").subnets = vec!["10.0.0.0/16".parse().unwrap()],
            "networks `a` and `b` of container `c` overlap",
        );
    }
}
