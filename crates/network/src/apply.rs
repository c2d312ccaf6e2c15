//! Performs steps. Each is idempotent; none decides anything.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::debug;

use crate::netlink::{NetlinkError, RouteSocket, VethRequest};
use crate::netns::{self, CONTAINER_INTERFACE, NetnsError, NetnsThread};
use crate::nfnl::{NetfilterError, NetfilterSocket};
use crate::nft::{self, NftError};
use crate::plan::{Step, Veth, alias};
use crate::rules;
use crate::sysctl::{self, SysctlError};

/// How often a new link is asked whether it is up. The kernel's link watch takes a millisecond, and at most a second; an
/// endpoint whose own side was put down never gets there, and must not hold up the others for long.
const CARRIER_ATTEMPT_COUNT_MAX: u32 = 50;

/// How often the kernel is asked whether an address is local. It takes one turn of a work queue, and longer under load.
const LOCAL_ATTEMPT_COUNT_MAX: u32 = 300;

/// Pause between two such questions, on kernels that need any.
const CARRIER_ATTEMPT_INTERVAL: Duration = Duration::from_millis(1);

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A netlink request failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A namespace cannot be made.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// nft refused.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// A netfilter request failed.
    #[error(transparent)]
    Netfilter(#[from] NetfilterError),
    /// A sysctl cannot be set.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The namespace directory cannot be read.
    #[error("failed to list `{}`", .path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A namespace cannot be opened.
    #[error("failed to open namespace `{}`", .path.display())]
    OpenNetns {
        /// The mount point.
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

/// The hands: sockets of the node's namespace and the thread that enters others.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) route: RouteSocket,
    /// The node's flows.
    pub(crate) flows: NetfilterSocket,
    netns: NetnsThread,
    netns_dir: PathBuf,
    /// Steps until a test kills the program.
    #[cfg(test)]
    pub(crate) steps_left: Option<u32>,
}

// === impl Kernel ===

impl Kernel {
    /// Opens sockets in the calling thread's namespace.
    pub(crate) fn open(run_dir: &Path) -> Result<Kernel, ApplyError> {
        let netns_dir = run_dir.join("netns");
        let netns = NetnsThread::spawn().map_err(|source| NetnsError::System {
            operation: "start a thread",
            path: netns_dir.clone(),
            source,
        })?;
        Ok(Kernel {
            route: RouteSocket::open()?,
            flows: NetfilterSocket::open()?,
            netns,
            netns_dir,
            #[cfg(test)]
            steps_left: None,
        })
    }

    /// The directory of mount points.
    pub(crate) fn netns_dir(&self) -> &Path {
        &self.netns_dir
    }

    /// The mount point of an endpoint's namespace.
    pub(crate) fn netns_path(&self, id: &str) -> PathBuf {
        self.netns_dir.join(id)
    }

    /// Counts a step, in tests that kill the program between two.
    #[cfg_attr(
        not(test),
        expect(
            clippy::unnecessary_wraps,
            clippy::unused_self,
            reason = "fails in tests only"
        )
    )]
    pub(crate) fn count_step(&mut self) -> Result<(), ApplyError> {
        #[cfg(test)]
        match &mut self.steps_left {
            Some(0) => return Err(ApplyError::Killed),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    /// Performs one step.
    pub(crate) fn perform(&mut self, step: &Step) -> Result<(), ApplyError> {
        self.count_step()?;
        match step {
            Step::EnableForwarding => sysctl::turn_on(sysctl::IP_FORWARD)?,
            Step::EnableForwarding6 => sysctl::forward_ipv6()?,
            Step::CreateBridge { name, mac, mtu } => self.route.create_bridge(name, *mac, *mtu)?,
            Step::SetBridge { name, mac, mtu } => {
                self.route.set_link(name, *mac, *mtu)?;
                let index = self.route.link_index(name)?;
                await_carrier(&mut self.route, index)?;
            }
            Step::RemoveBridgeAddress { bridge, address } => {
                let index = self.route.link_index(bridge)?;
                self.route.remove_address(index, *address)?;
            }
            Step::AddBridgeAddress { bridge, address } => {
                if address.addr().is_ipv6() {
                    sysctl::set(&sysctl::disable_ipv6(bridge), "0")?;
                }
                let index = self.route.link_index(bridge)?;
                self.route.add_unique_address(index, *address)?;
                await_local(&mut self.route, address.addr())?;
            }
            Step::AddBridgeRoute { bridge, subnet } => {
                let index = self.route.link_index(bridge)?;
                self.route.add_direct_route(index, *subnet)?;
            }
            Step::RouteLocalhost { bridge } => sysctl::turn_on(&sysctl::route_localnet(bridge))?,
            Step::ReplaceRules { ruleset, ports } => nft::run(&ruleset.replace_script(ports))?,
            Step::RemoveRules6 => nft::run(&rules::remove_script(rules::TABLE6))?,
            Step::ChangePorts { remove, add } => nft::run(&rules::change_script(remove, add))?,
            Step::DeleteLinks { names } => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.route.delete_links(&names)?;
            }
            Step::DeleteNetns { id } => netns::delete(&self.netns_path(id))?,
            Step::CreateNetns { id } => self.netns.create(&self.netns_path(id))?,
            Step::CreateVeth(veth) => self.create_veth(veth)?,
            Step::ConfigureNetns { id, ways } => {
                self.netns.configure(&self.netns_path(id), ways.clone())?;
            }
            Step::ActivateLink {
                id,
                link,
                enslave_to,
                is_isolated,
            } => {
                if let Some(bridge) = enslave_to {
                    let bridge_index = self.route.link_index(bridge)?;
                    self.route.enslave(link, bridge_index)?;
                }
                let index = self.route.link_index(link)?;
                self.route.set_isolated(index, *is_isolated)?;
                self.route.set_alias_and_up(index, &alias(id))?;
                await_carrier(&mut self.route, index)?;
            }
        }
        Ok(())
    }

    fn create_veth(&mut self, veth: &Veth) -> Result<(), ApplyError> {
        let path = self.netns_path(&veth.id);
        let netns = File::open(&path).map_err(|source| ApplyError::OpenNetns { path, source })?;
        let bridge_index = self.route.link_index(&veth.bridge)?;
        self.route.create_veth(&VethRequest {
            link: &veth.link,
            bridge_index,
            peer: CONTAINER_INTERFACE,
            peer_mac: veth.mac,
            peer_netns: netns.as_fd(),
            mtu: veth.mtu,
        })?;
        let index = self.route.link_index(&veth.link)?;
        Ok(self.route.set_isolated(index, veth.is_isolated)?)
    }
}

/// Waits until the namespace takes an IPv6 address for its own. The kernel answers before it does, and drops until then what
/// neighbours say to the address, who then wait a second before they say it again.
pub(crate) fn await_local(socket: &mut RouteSocket, address: IpAddr) -> Result<(), NetlinkError> {
    for _ in 0..LOCAL_ATTEMPT_COUNT_MAX {
        if address.is_ipv4() || socket.is_local(address)? {
            return Ok(());
        }
        std::thread::sleep(CARRIER_ATTEMPT_INTERVAL);
    }
    debug!(%address, "Address does not become local");
    Ok(())
}

/// Waits until a link and its bridge have noticed that the link's peer is up. Both drop packets before, among them the
/// first ARP request, which would delay a first connection by a second.
pub(crate) fn await_carrier(socket: &mut RouteSocket, mut index: u32) -> Result<(), NetlinkError> {
    for _ in 0..CARRIER_ATTEMPT_COUNT_MAX {
        // Since Linux 6.8 asking is enough: the kernel catches up before it answers.
        match socket.carrier(index)? {
            (true, Some(bridge)) => index = bridge,
            (true, None) => return Ok(()),
            (false, _) => std::thread::sleep(CARRIER_ATTEMPT_INTERVAL),
        }
    }
    debug!(link.index = index, "Link does not come up");
    Ok(())
}
