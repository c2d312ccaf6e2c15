//! Performs actions on the tunnels' namespace and reads it. Each is idempotent; the only decision is whether the kernel can do WireGuard.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use rtnetlink::packet_route::link::{InfoKind, LinkInfo};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader};

use super::encryption::{Action, Configuration, Kind, Link, Routes, State};
use super::hands::{ActionError, Hands};
use super::observe;
use super::sandbox::LinkState;
use crate::netlink::{self, RouteSocket};
use crate::netns;
use crate::sysctl;
use crate::tunnel::{DIR, DeviceState, Launch, NETNS, Process, Slot, WireguardSocket};

/// Packets come in through either device, whatever the way back is; and nothing may ask where they came from.
const OPEN_FILTERS: [&str; 2] = ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"];

/// What is open of the tunnels' namespace.
#[derive(Debug)]
pub(crate) struct Tunnels {
    dir: PathBuf,
    /// Inside. It keeps the namespace alive, so it goes first.
    route: Option<RouteSocket>,
    /// None while the kernel does not do it.
    kernel: Option<WireguardSocket>,
    process: Process,
}

/// A device's link as it is.
#[derive(Debug)]
struct TunnelLink {
    index: u32,
    state: LinkState,
    addresses: BTreeSet<IpNet>,
    is_wireguard: bool,
}

// === impl Tunnels ===

impl Tunnels {
    pub(crate) fn new(run_dir: &Path) -> Tunnels {
        let dir = run_dir.join(DIR);
        Tunnels {
            process: Process::new(dir.clone()),
            dir,
            route: None,
            kernel: None,
        }
    }

    fn netns(&self) -> PathBuf {
        self.dir.join(NETNS)
    }
}

// === impl Hands ===

impl Hands {
    /// What is there of tunnels.
    pub(crate) fn observe_tunnels(&mut self) -> Result<State, ActionError> {
        // Another namespace may be mounted by now.
        (self.tunnels.route, self.tunnels.kernel) = (None, None);
        let mut state = State {
            has_namespace: netns::is_mounted(&self.tunnels.netns()),
            ..State::default()
        };
        if let Some(devices) = self.tunnels.process.state()? {
            state.kind = Some(Kind::Process);
            state.devices = devices;
        }
        if !state.has_namespace {
            return Ok(state);
        }
        let socket = self.tunnels_socket()?;
        let mut indexes = BTreeMap::new();
        for (slot, link) in links(socket)? {
            indexes.insert(link.index, slot);
            state.links.insert(slot, (link.state, link.addresses));
            if link.is_wireguard {
                state.kind = Some(Kind::Kernel);
            }
        }
        state.routes = routes(socket, &indexes)?;
        if state.kind == Some(Kind::Kernel) {
            let links: Vec<Slot> = state.links.keys().copied().collect();
            for slot in links {
                let device: DeviceState = self.wireguard()?.state(slot.link())?;
                state.devices.insert(slot, device);
            }
        }
        Ok(state)
    }

    /// Performs one action on the tunnels.
    pub(crate) fn perform_tunnels(
        &mut self,
        action: &Action,
        launch: &Launch,
    ) -> Result<(), ActionError> {
        self.count_action()?;
        match action {
            Action::CreateNamespace => self.create_tunnels_namespace(),
            Action::Start => self.start_tunnels(launch),
            Action::Configure(configuration) => self.configure_tunnel(configuration),
            Action::SetLink(link) => self.set_tunnel_link(*link),
            Action::ChangeRoutes(routes) => self.change_tunnel_routes(routes),
            Action::Remove => self.remove_tunnels(),
        }
    }

    /// Removes tunnels and the keys: the node leaves its cluster.
    pub(crate) fn forget_tunnels(&mut self) -> Result<(), ActionError> {
        self.remove_tunnels()?;
        match fs::remove_dir_all(&self.tunnels.dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ActionError::Open {
                path: self.tunnels.dir.clone(),
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Ends the process and removes the namespace. The keys stay.
    pub(crate) fn remove_tunnels(&mut self) -> Result<(), ActionError> {
        self.tunnels.process.stop()?;
        let path = self.tunnels.netns();
        if netns::is_mounted(&path) {
            // The namespace's end is not waited for, and until then its ports would be taken.
            let socket = self.tunnels_socket()?;
            for slot in Slot::ALL {
                socket.delete_link(slot.link())?;
            }
        }
        (self.tunnels.route, self.tunnels.kernel) = (None, None);
        Ok(netns::delete(&path)?)
    }

    /// A socket inside the tunnels' namespace: links made by it have their packets leave there.
    pub(crate) fn tunnels_socket(&mut self) -> Result<&mut RouteSocket, ActionError> {
        if self.tunnels.route.is_none() {
            let path = self.tunnels.netns();
            self.tunnels.route = Some(self.netns.inside(&path, RouteSocket::open)??);
        }
        let socket = self.tunnels.route.as_mut();
        Ok(socket.expect("a socket was opened if there was none"))
    }

    fn wireguard(&mut self) -> Result<&mut WireguardSocket, ActionError> {
        if self.tunnels.kernel.is_none() {
            let path = self.tunnels.netns();
            self.tunnels.kernel = Some(self.netns.inside(&path, WireguardSocket::open)??);
        }
        let socket = self.tunnels.kernel.as_mut();
        Ok(socket.expect("a socket was opened if there was none"))
    }

    pub(crate) fn create_tunnels_namespace(&mut self) -> Result<(), ActionError> {
        (self.tunnels.route, self.tunnels.kernel) = (None, None);
        let path = self.tunnels.netns();
        if netns::is_mounted(&path) {
            return Ok(());
        }
        // It has the devices of the namespace that is gone.
        self.tunnels.process.stop()?;
        fs::create_dir_all(&self.tunnels.dir).map_err(|source| ActionError::Open {
            path: self.tunnels.dir.clone(),
            source,
        })?;
        self.netns.create(&path)?;
        let open = || {
            OPEN_FILTERS
                .iter()
                .try_for_each(|key| sysctl::set(key, "0"))
        };
        self.netns.inside(&path, open)??;
        Ok(())
    }

    /// The kernel if it can, else the process.
    fn start_tunnels(&mut self, launch: &Launch) -> Result<(), ActionError> {
        if !launch.is_always {
            let netns = open(&self.tunnels.netns())?;
            let mut is_made = true;
            for slot in Slot::ALL {
                match self.node.create_wireguard(slot.link(), netns.as_fd()) {
                    Ok(()) => {}
                    Err(error) if error.is_unsupported() => is_made = false,
                    Err(error) => return Err(error.into()),
                }
            }
            if is_made {
                return Ok(());
            }
        }
        Ok(self.tunnels.process.start(launch)?)
    }

    fn configure_tunnel(&mut self, configuration: &Configuration) -> Result<(), ActionError> {
        let Configuration { device, changes } = configuration;
        let links = links(self.tunnels_socket()?)?;
        if links.iter().any(|(_, link)| link.is_wireguard) {
            self.wireguard()?.configure(device, changes)?;
        } else {
            self.tunnels.process.configure(device)?;
        }
        Ok(())
    }

    fn set_tunnel_link(&mut self, link: Link) -> Result<(), ActionError> {
        let name = link.slot.link();
        let socket = self.tunnels_socket()?;
        let index = socket.link_index(name)?;
        let wanted = IpNet::from(IpAddr::V4(link.address));
        let seen = links(socket)?
            .into_iter()
            .find(|(slot, _)| *slot == link.slot);
        let seen: BTreeSet<IpNet> = seen.map(|(_, link)| link.addresses).unwrap_or_default();
        for stale in seen.into_iter().filter(|net| *net != wanted) {
            socket.remove_address(index, stale)?;
        }
        socket.add_unique_address(index, wanted)?;
        Ok(socket.set_mtu_and_up(name, link.mtu)?)
    }

    fn change_tunnel_routes(&mut self, routes: &Routes) -> Result<(), ActionError> {
        let socket = self.tunnels_socket()?;
        let net = |ip: &Ipv4Addr| IpNet::from(IpAddr::V4(*ip));
        for (ip, slot) in &routes.set {
            let index = socket.link_index(slot.link())?;
            // Replaces the one through the other device, in one step.
            socket.add_direct_route(index, net(ip))?;
        }
        for (ip, slot) in &routes.remove {
            let index = socket.link_index(slot.link())?;
            socket.remove_direct_route(index, net(ip))?;
        }
        Ok(())
    }
}

/// Our devices' links.
fn links(socket: &mut RouteSocket) -> Result<Vec<(Slot, TunnelLink)>, ActionError> {
    let addresses = socket.addresses()?;
    let links = socket.links()?;
    let ours = links.iter().filter_map(|link| {
        let name = observe::name(link)?;
        let slot = Slot::ALL.into_iter().find(|slot| slot.link() == name)?;
        let index = link.header.index;
        let kind = LinkInfo::Kind(InfoKind::Wireguard);
        let seen = TunnelLink {
            index,
            state: observe::link_state(link, netlink::is_up(link)),
            addresses: addresses
                .iter()
                .filter_map(|message| observe::address(message, index))
                .collect(),
            is_wireguard: observe::infos(link).any(|info| *info == kind),
        };
        Some((slot, seen))
    });
    Ok(ours.collect())
}

/// Routes to single addresses through our devices.
fn routes(
    socket: &mut RouteSocket,
    indexes: &BTreeMap<u32, Slot>,
) -> Result<BTreeMap<Ipv4Addr, Slot>, ActionError> {
    let mut routes = BTreeMap::new();
    for route in socket.routes()? {
        let (mut to, mut slot) = (None, None);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(*ip),
                RouteAttribute::Oif(index) => slot = indexes.get(index).copied(),
                _ => {}
            }
        }
        let is_host = route.header.destination_prefix_length == 32;
        // Our own addresses have routes in the table for local ones.
        let is_main = route.header.table == RouteHeader::RT_TABLE_MAIN;
        if let (Some(to), Some(slot), true, true) = (to, slot, is_host, is_main) {
            routes.insert(to, slot);
        }
    }
    Ok(routes)
}

fn open(path: &Path) -> Result<File, ActionError> {
    File::open(path).map_err(|source: io::Error| ActionError::Open {
        path: path.to_owned(),
        source,
    })
}
