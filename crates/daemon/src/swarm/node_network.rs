//! The node network as this node has it: alone, or a slice of its cluster's.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use skep_docker_api::error::{ApiError, Result};
use skep_executor::engine::{Engine, SliceState};
use skep_model::{
    Node,
    directory::{Pools, Slice},
};
use skep_network::Layout;

use super::address;
use crate::{config::Config, subnet};

/// What a tunnel adds to each packet, over IPv4 and over IPv6.
const OVERHEAD_V4: u32 = 50;
/// See above.
const OVERHEAD_V6: u32 = 70;
/// Of a data path whose interface is not there (yet).
const MTU_FALLBACK: u32 = 1500;
/// Least MTU of a link that carries IPv6.
const MTU_MIN: u32 = 1280;
/// Size of the cluster's subnets when nobody says, as in Swarm.
const DEFAULT_SUBNET_SIZE: u8 = 24;
/// Period in which a slice that is in others' way is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// What the operator and the host leave to choose from.
#[derive(Debug, Clone)]
pub(crate) struct NodeNetwork {
    /// The bridge.
    pub(crate) bridge: String,
    /// The pool that the operator wants of a cluster made here.
    named: Option<Ipv4Net>,
    /// What the daemon starts from: an existing bridge keeps its addresses, since containers may have
    /// some of them.
    pub(crate) at_start: Layout,
    /// Of this node after it left a cluster.
    pub(crate) alone: Layout,
}

/// Follows what the cluster says of this node's slice.
pub(super) struct SliceFollower {
    engine: Arc<Engine>,
    data_path: IpAddr,
    /// The cluster's last word: the slice, and the data-path port.
    wanted: Mutex<Option<(Option<Slice>, u16)>>,
}

// === impl NodeNetwork ===

impl NodeNetwork {
    /// What the configuration says; `None` when nothing is free.
    pub(crate) fn choose(config: &Config) -> Option<Self> {
        let existing = subnet::of_bridge(&config.bridge);
        let pool = config
            .bridge_subnet
            .or_else(|| subnet::choose_pool(&config.bridge));
        let layout = |v4| Layout {
            v4,
            ..Layout::default()
        };
        let alone = pool.map(subnet::first_slice);
        Some(Self {
            bridge: config.bridge.clone(),
            named: config.bridge_subnet,
            at_start: layout(existing.or(alone)?),
            alone: layout(alone.or(existing)?),
        })
    }

    /// The pool of a cluster made here, beside the pools its overlay networks are from.
    pub(super) fn pool(&self, others: &[IpNet], subnet_size: u32) -> Result<Option<Ipv4Net>> {
        match self.named {
            Some(named) => check_pool(named, others, subnet_size).map(|()| Some(named)),
            None => Ok(subnet::choose_pool(&self.bridge)),
        }
    }
}

/// Refuses a pool that the cluster could not have. Swarm's own pool holds all of 10.0.0.0/8, of which
/// the network for published ports takes the first subnet at once; the rest keeps clear of the node
/// network.
fn check_pool(named: Ipv4Net, others: &[IpNet], subnet_size: u32) -> Result<()> {
    let refuse = |reason: String| {
        Err(ApiError::invalid(format!(
            "node network {named} (--bridge-subnet of the daemon) {reason}"
        )))
    };
    if named.prefix_len() > Pools::PREFIX_LEN_MAX {
        let length = Pools::PREFIX_LEN_MAX;
        return refuse(format!("is too small for a cluster: at most /{length}"));
    }
    let net = IpNet::V4(named);
    let overlaps = |other: &&IpNet| other.contains(&net) || net.contains(*other);
    if let Some(other) = others.iter().find(overlaps) {
        return refuse(format!("overlaps address pool {other}"));
    }
    let size = u8::try_from(subnet_size)
        .ok()
        .filter(|size| (8..=30).contains(size));
    let first = Ipv4Net::new([10, 0, 0, 0].into(), size.unwrap_or(DEFAULT_SUBNET_SIZE));
    let first = IpNet::V4(first.expect("a size up to 30 is a prefix length"));
    if others.is_empty() && overlaps(&&first) {
        return refuse(format!(
            "overlaps {first}, the first subnet of address pool 10.0.0.0/8"
        ));
    }
    Ok(())
}

// === impl SliceFollower ===

impl SliceFollower {
    pub(super) fn new(engine: Arc<Engine>, data_path: IpAddr) -> Self {
        Self {
            engine,
            data_path,
            wanted: Mutex::default(),
        }
    }

    /// What an earlier daemon had, before the cluster says anything.
    pub(super) async fn resume(&self, slice: Slice) {
        self.engine.set_slice(Some(slice), self.layout(slice)).await;
    }

    /// The cluster's word.
    pub(super) async fn configure(&self, node: &Node) {
        let wanted = (node.slice(), node.vxlan_udp_port);
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
        self.follow().await;
    }

    /// Tries again as long as something is in the way. Ends only with the membership.
    pub(super) async fn run(&self) {
        let slice = self.engine.slice();
        loop {
            tokio::time::sleep(RETRY).await;
            let is_blocked = matches!(*slice.borrow(), SliceState::Blocked(_));
            if is_blocked {
                self.follow().await;
            }
        }
    }

    async fn follow(&self) {
        let wanted = *self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((slice, port)) = wanted else { return };
        let layout = slice.map(|slice| self.layout(slice));
        let is_ours = self
            .engine
            .set_slice(slice, layout.unwrap_or_default())
            .await;
        let slice = slice.filter(|_| is_ours);
        self.engine.dataplane().configure(port, slice).await;
    }

    fn layout(&self, slice: Slice) -> Layout {
        let overhead = if self.data_path.is_ipv4() {
            OVERHEAD_V4
        } else {
            OVERHEAD_V6
        };
        let carried = address::mtu_towards(self.data_path).unwrap_or(MTU_FALLBACK);
        Layout {
            v4: slice.v4,
            v6: slice.v6,
            is_shared: true,
            mtu: carried.saturating_sub(overhead).max(MTU_MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(named: &str, others: &[&str], expected: &str) {
        let others: Vec<IpNet> = others.iter().map(|net| net.parse().unwrap()).collect();
        let checked = check_pool(named.parse().unwrap(), &others, 0);
        let message = checked.map_or_else(|error| error.message, |()| String::new());
        assert!(message.ends_with(expected), "{message}");
        assert_eq!(message.is_empty(), expected.is_empty(), "{message}");
    }

    #[test]
    fn a_pool_in_the_way_of_others_is_refused() {
        check("10.252.0.0/14", &[], "");
        check("172.28.0.0/14", &["10.20.0.0/16"], "");
        check("10.0.0.0/16", &["10.20.0.0/16"], "");
        check(
            "10.20.4.0/24",
            &["10.20.0.0/16"],
            "overlaps address pool 10.20.0.0/16",
        );
        check(
            "10.0.0.0/16",
            &[],
            "overlaps 10.0.0.0/24, the first subnet of address pool 10.0.0.0/8",
        );
        check(
            "10.0.0.0/8",
            &[],
            "overlaps 10.0.0.0/24, the first subnet of address pool 10.0.0.0/8",
        );
        check(
            "10.252.0.0/28",
            &[],
            "is too small for a cluster: at most /27",
        );
    }
}
