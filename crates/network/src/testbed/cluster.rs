//! Several nodes on one machine: a namespace each, joined by a bridge; containers are namespaces of nobody.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{inside, on_node, run};
use crate::config::{Config, Layout};
use crate::dns::{Upstream, Zone};
use crate::endpoint::Mac;
use crate::network::Network;
use crate::plane::{
    Container, DataPath, Desired, Health, Mesh, Overlay, Peer, Place, Plane, Published,
    PublishedPort, Remote, Report, Service,
};
use crate::ports::Protocol;

/// Networks of the tests: id, VXLAN id, subnets. `red` and `blue` have the same.
const NETWORKS: [(&str, u32, &[&str]); 4] = [
    ("red", 4097, &["10.0.1.0/24"]),
    ("blue", 4098, &["10.0.1.0/24"]),
    ("dual", 4099, &["10.0.3.0/24", "fd00:3::/64"]),
    ("wide", 4100, &["10.0.4.0/24", "10.0.5.0/24"]),
];

/// A cluster; node numbers count from 1.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) members: Vec<Member>,
    /// Services by network and id, the same on all nodes.
    pub(crate) services: BTreeMap<(&'static str, &'static str), Arc<Service>>,
    /// Names by network, the same on all nodes.
    pub(crate) zones: BTreeMap<&'static str, Arc<Zone>>,
    /// Servers of all containers for other names.
    pub(crate) upstreams: Vec<Upstream>,
    /// Published ports and what they lead to; with networks, the same on all nodes.
    pub(crate) ports: BTreeMap<PublishedPort, Published>,
    /// Node networks, once opened.
    pub(crate) networks: Vec<Network>,
    pub(crate) generation: u64,
}

/// One node: its namespace and its plane.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) netns: PathBuf,
    pub(crate) address: IpAddr,
    pub(crate) plane: Plane,
}

/// A container with its places: network and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) node: usize,
    pub(crate) id: &'static str,
    pub(crate) places: Vec<(&'static str, Vec<IpAddr>)>,
}

/// Runs a test with `count` nodes at 192.0.2.1, 192.0.2.2, … and the test's own namespace at 192.0.2.254; in IPv6 at
/// 2001:db8::1, 2001:db8::2, … and 2001:db8::fe.
pub(crate) fn on_cluster(count: usize, test: impl AsyncFnOnce(&mut Cluster) + Send + 'static) {
    on_node(async move |_| {
        run("ip link add lan0 mtu 1500 type bridge && ip link set lan0 up");
        run("ip addr del 192.0.2.1/24 dev up0 && ip addr add 192.0.2.254/24 dev lan0");
        run("ip addr del 2001:db8::1/64 dev up0 && ip addr add 2001:db8::fe/64 dev lan0 nodad");
        let mut nodes = Vec::new();
        for number in 1..=count {
            run(&format!("ip netns add node{number}"));
            run(&format!(
                "ip link add n{number} type veth peer name eth0 netns node{number}"
            ));
            run(&format!("ip link set n{number} master lan0 up"));
            let ip = format!("ip -n node{number}");
            // As if the interface had been up for long.
            run(&format!(
                "nsenter --net=/run/netns/node{number} busybox sysctl -w net.ipv6.conf.eth0.accept_dad=0"
            ));
            run(&format!("{ip} link set lo up && {ip} link set eth0 up"));
            run(&format!("{ip} addr add 192.0.2.{number}/24 dev eth0"));
            run(&format!(
                "{ip} addr add {}/64 dev eth0 nodad",
                node6(number)
            ));
            run(&format!("ip link show n{number} && {ip} link show eth0"));
            let netns = PathBuf::from(format!("/run/netns/node{number}"));
            let address = format!("192.0.2.{number}").parse().unwrap();
            let plane = open_plane(&netns, number).unwrap();
            nodes.push(Node {
                netns,
                address,
                plane,
            });
        }
        let mut cluster = Cluster {
            nodes,
            members: Vec::new(),
            services: BTreeMap::new(),
            zones: BTreeMap::new(),
            upstreams: Vec::new(),
            ports: BTreeMap::new(),
            networks: Vec::new(),
            generation: 0,
        };
        test(&mut cluster).await;
    });
}

/// Opens a node's plane from within its namespace.
pub(crate) fn open_plane(netns: &Path, number: usize) -> Result<Plane, crate::plane::Error> {
    inside(Some(netns), move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(Plane::open(format!("/run/plane{number}")))
    })
}

/// The Ethernet address the tests give the container with this address.
pub(crate) fn mac(address: IpAddr) -> Mac {
    Mac::from_ip(address)
}

/// Pings once, from a namespace.
pub(crate) fn can_ping(from: &Path, to: &str) -> bool {
    let command = format!("nsenter --net={} busybox ping -c1 -W1 {to}", from.display());
    let output = std::process::Command::new("sh")
        .args(["-c", &command])
        .output()
        .unwrap();
    output.status.success()
}

// === impl Cluster ===

impl Cluster {
    /// Adds a container's namespace, and the container to the value of the next [`Cluster::update`].
    pub(crate) fn add(
        &mut self,
        node: usize,
        id: &'static str,
        places: &[(&'static str, &str)],
    ) -> PathBuf {
        run(&format!("ip netns add {id} && ip -n {id} link set lo up"));
        let mut by_network: Vec<(&'static str, Vec<IpAddr>)> = Vec::new();
        for (network, address) in places {
            let address: IpAddr = address.parse().unwrap();
            match by_network.iter_mut().find(|(id, _)| id == network) {
                Some((_, addresses)) => addresses.push(address),
                None => by_network.push((network, vec![address])),
            }
        }
        self.members.push(Member {
            node,
            id,
            places: by_network,
        });
        netns_of(id)
    }

    /// Takes a container out of the value of the next update. Its namespace stays.
    pub(crate) fn drop(&mut self, id: &str) {
        self.members.retain(|member| member.id != id);
    }

    pub(crate) fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// What a node should be.
    pub(crate) fn desired(&self, number: usize) -> Desired {
        let data_path = DataPath {
            address: self.node(number).address,
            port: 4789,
        };
        let mut desired = Desired::new(self.generation, data_path);
        let (local, others): (Vec<&Member>, Vec<&Member>) = self
            .members
            .iter()
            .partition(|member| member.node == number);
        for (id, vni, subnets) in NETWORKS {
            let is_on = |member: &&&Member| member.places.iter().any(|(network, _)| *network == id);
            if !local.iter().any(|member| is_on(&member)) {
                continue;
            }
            let mut remotes = BTreeMap::new();
            for member in &others {
                for (_, addresses) in member.places.iter().filter(|(network, _)| *network == id) {
                    let remote = Remote {
                        node: self.node(member.node).address,
                        addresses: addresses.clone(),
                    };
                    remotes.insert(mac(addresses[0]), remote);
                }
            }
            let subnets = subnets.iter().map(|net| net.parse::<IpNet>().unwrap());
            let overlay = Overlay {
                vni,
                mtu: None,
                is_encrypted: false,
                subnets: subnets.collect(),
                remotes,
                services: self.services_on(id),
                names: self
                    .zones
                    .get(id)
                    .cloned()
                    .unwrap_or_else(|| Arc::new(Zone::new(id, Vec::new()))),
            };
            desired.networks.insert(id.to_owned(), Arc::new(overlay));
        }
        if !self.networks.is_empty() {
            desired.mesh = Some(Arc::new(self.mesh(number)));
        }
        for member in local {
            desired
                .containers
                .insert(member.id.to_owned(), Arc::new(self.container(member)));
        }
        desired
    }

    /// Makes a service for the next update, or changes it.
    pub(crate) fn serve(
        &mut self,
        network: &'static str,
        id: &'static str,
        vips: &[&str],
        backends: &[(&str, Health)],
    ) {
        let service = Service {
            vips: vips.iter().map(|ip| ip.parse().unwrap()).collect(),
            backends: backends
                .iter()
                .map(|(ip, health)| (ip.parse().unwrap(), *health))
                .collect(),
        };
        self.services.insert((network, id), Arc::new(service));
    }

    /// Opens the node network of every node: slice 10.255.<number>.0/24 on bridge `skep0`.
    pub(crate) fn open_networks(&mut self) {
        for (node, number) in self.nodes.iter().zip(1..) {
            let config = Config {
                layout: Layout {
                    v4: slice(number),
                    v6: Some(slice6(number)),
                    is_shared: true,
                    mtu: 1450,
                },
                ..Config::new(format!("/run/net{number}"))
            };
            let network = inside(Some(&node.netns), move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                runtime.block_on(Network::open(config)).unwrap()
            });
            self.networks.push(network);
        }
    }

    /// Publishes a TCP and a UDP port of that number for the next update.
    pub(crate) fn publish(&mut self, port: u16, backends: &[(&str, Health)]) {
        let backends = backends.iter();
        let backends = backends.map(|(backend, health)| (backend.parse().unwrap(), *health));
        let published = Published {
            backends: backends.collect(),
            is_local_first: false,
        };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let port = PublishedPort {
                protocol,
                port,
                address: None,
            };
            self.ports.insert(port, published.clone());
        }
    }

    fn mesh(&self, number: usize) -> Mesh {
        let others = (1..=self.nodes.len()).filter(|other| *other != number);
        let peers = others.map(|other| {
            let node = self.node(other).address;
            let peer = Peer {
                node,
                slice: slice(other),
                slice6: Some(slice6(other)),
                addresses: [node, node6(other)].into(),
            };
            (u16::try_from(other).unwrap(), peer)
        });
        Mesh {
            bridge: "skep0".to_owned(),
            number: u16::try_from(number).unwrap(),
            slice: slice(number),
            slice6: Some(slice6(number)),
            peers: peers.collect(),
            ports: self.ports.clone(),
        }
    }

    fn services_on(&self, network: &str) -> BTreeMap<String, Arc<Service>> {
        let services = self.services.iter().filter(|((on, _), _)| *on == network);
        services
            .map(|((_, id), service)| ((*id).to_owned(), Arc::clone(service)))
            .collect()
    }

    fn container(&self, member: &Member) -> Container {
        let attachments = member
            .places
            .iter()
            .zip(1..)
            .map(|((network, addresses), index)| {
                let place = Place {
                    interface: format!("eth{index}"),
                    mac: mac(addresses[0]),
                    addresses: addresses.clone(),
                };
                ((*network).to_owned(), place)
            });
        Container {
            netns_path: netns_of(member.id),
            attachments: attachments.collect(),
            upstreams: self.upstreams.clone(),
            zones: Vec::new(),
        }
    }

    /// Gives every node its value; nothing may fail.
    #[track_caller]
    pub(crate) fn update(&mut self) -> impl Future<Output = Vec<Report>> {
        self.generation += 1;
        let all: Vec<(Plane, Desired)> = (1..=self.nodes.len())
            .map(|number| (self.node(number).plane.clone(), self.desired(number)))
            .collect();
        async move {
            let mut reports = Vec::new();
            for (plane, desired) in all {
                let report = plane.update(desired).await.unwrap();
                let failures: Vec<String> = report
                    .failures
                    .iter()
                    .map(|failure| format!("{}: {:?}", failure.scope, failure.error))
                    .collect();
                assert!(failures.is_empty(), "{failures:?}");
                reports.push(report);
            }
            reports
        }
    }
}

fn slice(number: usize) -> Ipv4Net {
    format!("10.255.{number}.0/24").parse().unwrap()
}

fn slice6(number: usize) -> Ipv6Net {
    format!("fd00:255:0:{number}::/64").parse().unwrap()
}

/// A node's IPv6 address.
pub(crate) fn node6(number: usize) -> IpAddr {
    format!("2001:db8::{number}").parse().unwrap()
}

/// A container's namespace.
pub(crate) fn netns_of(id: &str) -> PathBuf {
    PathBuf::from(format!("/run/netns/{id}"))
}
