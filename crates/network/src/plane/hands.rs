//! Performs actions on sandboxes. Each is idempotent; none decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::desired::DesiredError;
use super::encryption_hands::Tunnels;
use super::observe;
use super::sandbox::{Action, BRIDGE, Port, Remotes, State, Tunnel, VXLAN};
use crate::apply::{await_carrier, await_local};
use crate::dns::Server;
use crate::netlink::{NetlinkError, RouteSocket, TunnelRequest, VethRequest};
use crate::netns::{self, NetnsError, NetnsThread};
use crate::nfnl::{NetfilterError, NetfilterSocket};
use crate::nft::NftError;
use crate::sysctl::{self, SysctlError};
use crate::tunnel::ControlError;
use crate::watch::{Interest, Watch};

/// How often a tunnel whose id is taken is tried again: a sandbox somebody unmounted keeps it until the kernel has taken the
/// namespace apart, some tens of milliseconds. Another program's tunnel keeps it for good, and then this delays the rest.
const TUNNEL_ATTEMPT_COUNT_MAX: u32 = 50;

/// Pause between two attempts.
const TUNNEL_ATTEMPT_INTERVAL: Duration = Duration::from_millis(10);

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActionError {
    /// The value has something that cannot be; it was left out.
    #[error(transparent)]
    Refused(DesiredError),
    /// A netlink request failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A namespace cannot be made or entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// nft refused.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// A netfilter request failed.
    #[error(transparent)]
    Netfilter(#[from] NetfilterError),
    /// A container has no namespace.
    #[error("no namespace is mounted at `{}`", .0.display())]
    NoNetns(PathBuf),
    /// The name server cannot be started, or cannot listen in a container.
    #[error("failed to serve names")]
    Names(#[source] io::Error),
    /// A sysctl cannot be set.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The tunnel's process fails.
    #[error(transparent)]
    Tunnel(#[from] ControlError),
    /// A file cannot be used.
    #[error("failed to open `{}`", .path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A test made the program die here.
    #[cfg(test)]
    #[error("killed by a test")]
    Killed,
}

/// Sockets of the node's namespace and of sandboxes, and the thread that enters namespaces.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) node: RouteSocket,
    pub(crate) netns: NetnsThread,
    netns_dir: PathBuf,
    /// Sockets inside sandboxes, by network id. One keeps its namespace alive, so it goes first.
    sandboxes: BTreeMap<String, RouteSocket>,
    /// What happens inside sandboxes, by network id.
    pub(super) watches: BTreeMap<String, Watch>,
    /// Sockets inside containers, by endpoint id.
    pub(super) clients: BTreeMap<String, NetfilterSocket>,
    /// The last transaction inside containers, if it was ours.
    pub(super) generations: BTreeMap<String, u32>,
    /// What happens in the node's namespace.
    pub(super) watch: Watch,
    /// Networks whose sandbox the last command changed, and whether it changed the node.
    pub(super) touched: BTreeSet<String>,
    pub(super) is_node_touched: bool,
    pub(super) names: Server,
    /// The node's tables and flows.
    pub(super) flows: NetfilterSocket,
    pub(super) tunnels: Tunnels,
    /// Actions until a test kills the program.
    #[cfg(test)]
    pub(crate) actions_left: Option<u32>,
}

// === impl Hands ===

impl Hands {
    /// Opens sockets in the calling thread's namespace.
    pub(crate) fn open(run_dir: &Path) -> Result<Hands, ActionError> {
        let netns_dir = run_dir.join("netns");
        let netns = NetnsThread::spawn().map_err(|source| ActionError::Open {
            path: netns_dir.clone(),
            source,
        })?;
        Ok(Hands {
            node: RouteSocket::open()?,
            netns,
            netns_dir,
            sandboxes: BTreeMap::new(),
            watches: BTreeMap::new(),
            clients: BTreeMap::new(),
            generations: BTreeMap::new(),
            watch: Watch::open(Interest::default()).map_err(NetlinkError::Socket)?,
            touched: BTreeSet::new(),
            is_node_touched: false,
            flows: NetfilterSocket::open()?,
            names: Server::start().map_err(ActionError::Names)?,
            tunnels: Tunnels::new(run_dir),
            #[cfg(test)]
            actions_left: None,
        })
    }

    /// Ids of networks with a sandbox, whole or not.
    pub(crate) fn sandboxes(&self) -> Result<BTreeSet<String>, ActionError> {
        let open = |source| ActionError::Open {
            path: self.netns_dir.clone(),
            source,
        };
        let entries = std::fs::read_dir(&self.netns_dir).map_err(open)?;
        // A name that is not UTF-8 is not ours.
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
        let names: Result<Vec<Option<String>>, io::Error> = names.collect();
        Ok(names.map_err(open)?.into_iter().flatten().collect())
    }

    /// What a sandbox holds, none if it does not exist.
    pub(crate) fn observe(&mut self, network: &str) -> Result<Option<State>, ActionError> {
        if !netns::is_mounted(&self.netns_path(network)) {
            // What is open of a hidden one is needed to end it.
            return Ok(None);
        }
        // Another namespace may be mounted by now.
        self.leave_sandbox(network);
        Ok(Some(observe::sandbox(self.sandbox(network)?)?))
    }

    /// What every interface of a container has.
    pub(crate) fn observe_container(
        &self,
        path: &Path,
    ) -> Result<BTreeMap<String, observe::Inside>, ActionError> {
        let seen = self.netns.inside(path, || {
            RouteSocket::open().and_then(|mut socket| observe::container(&mut socket))
        });
        Ok(seen??)
    }

    /// The MTU of the link that has an address of the node.
    pub(crate) fn mtu_of(&mut self, address: IpAddr) -> Result<Option<u32>, ActionError> {
        Ok(observe::mtu_of(&mut self.node, address)?)
    }

    /// What the containers on a network carried, by the name of their port. Nothing without a sandbox.
    pub(crate) fn count_ports_of(
        &mut self,
        network: &str,
    ) -> Result<BTreeMap<String, [u64; 4]>, ActionError> {
        if !netns::is_mounted(&self.netns_path(network)) {
            return Ok(BTreeMap::new());
        }
        Ok(observe::traffic(self.sandbox(network)?)?)
    }

    /// Performs one action on a network's sandbox.
    pub(crate) fn perform(&mut self, network: &str, action: &Action) -> Result<(), ActionError> {
        self.count_action()?;
        self.touched.insert(network.to_owned());
        match action {
            Action::CreateSandbox => self.create_sandbox(network)?,
            Action::DeleteSandbox => self.delete_sandbox(network)?,
            Action::EnsureBridge { mtu } => {
                let socket = self.sandbox(network)?;
                socket.create_sandbox_bridge(BRIDGE, *mtu)?;
                socket.set_mtu_and_up(BRIDGE, *mtu)?;
            }
            Action::CreateTunnel { tunnel, mtu } => self.create_tunnel(network, *tunnel, *mtu)?,
            Action::SetTunnel { mtu } => {
                let socket = self.sandbox(network)?;
                let bridge = socket.link_index(BRIDGE)?;
                socket.enslave(VXLAN, bridge)?;
                let index = socket.link_index(VXLAN)?;
                socket.set_static_port(index, true)?;
                socket.set_mtu_and_up(VXLAN, *mtu)?;
                await_carrier(socket, index)?;
            }
            Action::DeleteLinks(names) | Action::DeleteOrphans(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.sandbox(network)?.delete_links(&names)?;
            }
            Action::ChangeRemotes(remotes) => {
                if remotes.resolve.keys().any(IpAddr::is_ipv6) {
                    // Namespaces are made with IPv6 off, and a link without it takes no IPv6 neighbours.
                    let path = self.netns_path(network);
                    let key = sysctl::disable_ipv6(VXLAN);
                    self.netns.inside(&path, move || sysctl::set(&key, "0"))??;
                }
                let socket = self.sandbox(network)?;
                let index = socket.link_index(VXLAN)?;
                change_remotes(socket, index, remotes)?;
            }
            Action::CreatePort { link, port } => self.create_port(network, link, port)?,
            Action::ConfigurePort { link, port } => self.configure_port(network, link, port)?,
            Action::ActivatePort { link, port } => {
                let socket = self.sandbox(network)?;
                let bridge = socket.link_index(BRIDGE)?;
                socket.enslave(link, bridge)?;
                let index = socket.link_index(link)?;
                socket.set_static_port(index, false)?;
                socket.add_port_forwarding(index, port.mac)?;
                socket.set_alias_and_up(index, &port.alias())?;
                await_carrier(socket, index)?;
                // A port that was down took the other end's carrier with it.
                let interface = port.interface.clone();
                self.netns.inside(&port.netns_path, move || {
                    let mut socket = RouteSocket::open()?;
                    let index = socket.link_index(&interface)?;
                    await_carrier(&mut socket, index)
                })??;
            }
        }
        Ok(())
    }

    /// Counts an action, in tests that kill the program between two.
    #[cfg_attr(
        not(test),
        expect(
            clippy::unnecessary_wraps,
            clippy::unused_self,
            reason = "fails in tests only"
        )
    )]
    pub(crate) fn count_action(&mut self) -> Result<(), ActionError> {
        #[cfg(test)]
        match &mut self.actions_left {
            Some(0) => return Err(ActionError::Killed),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    pub(super) fn netns_path(&self, network: &str) -> PathBuf {
        self.netns_dir.join(network)
    }

    /// The socket inside a sandbox.
    fn sandbox(&mut self, network: &str) -> Result<&mut RouteSocket, ActionError> {
        if !self.sandboxes.contains_key(network) {
            let path = self.netns_path(network);
            let interest = Interest {
                has_neighbours: true,
                is_everything: true,
                ..Interest::default()
            };
            let opened = self.netns.inside(&path, || {
                let watch = Watch::open(interest).map_err(NetlinkError::Socket)?;
                Ok::<_, NetlinkError>((watch, RouteSocket::open()?))
            });
            let (watch, socket) = opened??;
            self.watches.insert(network.to_owned(), watch);
            self.sandboxes.insert(network.to_owned(), socket);
        }
        let socket = self.sandboxes.get_mut(network);
        Ok(socket.expect("a socket was inserted if there was none"))
    }

    /// Lets go of a sandbox: a socket inside would keep it alive.
    fn leave_sandbox(&mut self, network: &str) {
        self.sandboxes.remove(network);
        self.watches.remove(network);
    }

    fn create_sandbox(&mut self, network: &str) -> Result<(), ActionError> {
        let path = self.netns_path(network);
        if let Some(socket) = self.sandboxes.get_mut(network)
            && !netns::is_mounted(&path)
        {
            empty(socket)?;
        }
        self.leave_sandbox(network);
        self.netns.create(&path)?;
        // Where the module is loaded every bridged packet would otherwise go through IP hooks, for nothing. A kernel without
        // it has no such files.
        self.netns.inside(&path, || {
            for key in sysctl::BRIDGE_FILTERS {
                let _ = sysctl::set(key, "0");
            }
        })?;
        Ok(())
    }

    fn delete_sandbox(&mut self, network: &str) -> Result<(), ActionError> {
        let path = self.netns_path(network);
        if netns::is_mounted(&path) {
            // The namespace's end is not waited for, and until then containers would keep their interfaces, and its VXLAN id
            // would be taken.
            empty(self.sandbox(network)?)?;
        } else if let Some(socket) = self.sandboxes.get_mut(network) {
            empty(socket)?;
        }
        self.leave_sandbox(network);
        Ok(netns::delete(&path)?)
    }

    fn create_tunnel(
        &mut self,
        network: &str,
        tunnel: Tunnel,
        mtu: u32,
    ) -> Result<(), ActionError> {
        if self.sandbox(network)?.link_index(VXLAN).is_ok() {
            return Ok(());
        }
        let netns = open(&self.netns_path(network))?;
        let request = TunnelRequest {
            name: VXLAN,
            tunnel,
            mtu,
            mac: None,
            netns: Some(netns.as_fd()),
            is_proxy: true,
        };
        // Where a tunnel's packets leave is where the socket is.
        let socket = if tunnel.is_encrypted() {
            self.create_tunnels_namespace()?;
            self.tunnels_socket()?
        } else {
            &mut self.node
        };
        for _ in 0..TUNNEL_ATTEMPT_COUNT_MAX {
            match socket.create_tunnel(&request) {
                Err(error) if error.is_taken() => std::thread::sleep(TUNNEL_ATTEMPT_INTERVAL),
                outcome => return Ok(outcome?),
            }
        }
        Ok(socket.create_tunnel(&request)?)
    }

    fn create_port(&mut self, network: &str, link: &str, port: &Port) -> Result<(), ActionError> {
        let netns = open(&port.netns_path)?;
        let socket = self.sandbox(network)?;
        let bridge_index = socket.link_index(BRIDGE)?;
        socket.create_veth(&VethRequest {
            link,
            bridge_index,
            peer: &port.interface,
            peer_mac: port.mac,
            peer_netns: netns.as_fd(),
            mtu: port.mtu,
        })?;
        Ok(())
    }

    fn configure_port(
        &mut self,
        network: &str,
        link: &str,
        port: &Port,
    ) -> Result<(), ActionError> {
        self.sandbox(network)?.set_mtu_and_up(link, port.mtu)?;
        let inner = port.clone();
        self.netns
            .inside(&port.netns_path, move || configure(&inner))??;
        let socket = self.sandbox(network)?;
        let index = socket.link_index(link)?;
        Ok(await_carrier(socket, index)?)
    }
}

/// Deletes what is in a sandbox. One whose mount is gone may live on, in the mounts of another process, and keep its VXLAN id.
fn empty(socket: &mut RouteSocket) -> Result<(), ActionError> {
    let names = observe::link_names(socket)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(socket.delete_links(&names)?)
}

/// Runs in the container's namespace.
fn configure(port: &Port) -> Result<(), ActionError> {
    let has_v6 = port.addresses.iter().any(|net| net.addr().is_ipv6());
    let disable_v6 = sysctl::disable_ipv6(&port.interface);
    if has_v6 {
        sysctl::set(&disable_v6, "0")?;
    }
    let mut socket = RouteSocket::open()?;
    let index = socket.link_index(&port.interface)?;
    let seen = observe::container(&mut socket)?;
    let (addresses, _) = seen.get(&port.interface).cloned().unwrap_or_default();
    for stale in addresses.difference(&port.addresses) {
        socket.remove_address(index, *stale)?;
    }
    for &address in &port.addresses {
        socket.add_unique_address(index, address)?;
    }
    socket.set_mtu_and_up(&port.interface, port.mtu)?;
    for &route in &port.routes {
        socket.add_direct_route(index, route)?;
    }
    for address in &port.addresses {
        await_local(&mut socket, address.addr())?;
    }
    Ok(())
}

/// Changes the tables of a tunnel.
pub(crate) fn change_remotes(
    socket: &mut RouteSocket,
    index: u32,
    remotes: &Remotes,
) -> Result<(), ActionError> {
    for (&mac, &node) in &remotes.forward {
        socket.add_forwarding(index, mac, node)?;
    }
    for (&address, &mac) in &remotes.resolve {
        socket.add_neighbour(index, address, mac)?;
    }
    for &address in &remotes.forget {
        socket.remove_neighbour(index, address)?;
    }
    for (&mac, &node) in &remotes.drop {
        socket.remove_forwarding(index, mac, node)?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, ActionError> {
    File::open(path).map_err(|source| ActionError::Open {
        path: path.to_owned(),
        source,
    })
}
