//! A container's networks, carried out: the node network, then the places on overlay networks; and
//! the way back, in the opposite order.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use skep_model::directory::Slice;
use skep_network::{HostPort, Layout};
use tokio::sync::watch;
use tracing::warn;

use super::{
    Container, Engine,
    creation::CreateError,
    files,
    local_places::bound,
    places::{DnsRecord, NetworkPlan, NodeMode},
    record::{LocalPlaceRecord, NetworkRecord, Record},
};
use crate::{
    dataplane::{LocalContainer, Place},
    runtime::ContainerId,
};

/// How long a task waits to be told of the node's slice: it comes with the first words of the first
/// session, before any task.
const SLICE_WITHIN: Duration = Duration::from_secs(5);

/// What is known of the node's part of the cluster's node network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SliceState {
    /// No manager has said anything since the membership or the daemon began.
    #[default]
    Unknown,
    /// The cluster has none for this node.
    None,
    /// The bridge has it.
    Ours(Slice),
    /// The cluster gave one, but containers with other addresses are still there.
    Blocked(Slice),
}

/// What a container got.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) network: Option<NetworkRecord>,
    /// Places on networks that the node has for itself.
    pub(super) local: Vec<LocalPlaceRecord>,
    /// `None`: the node's own.
    pub(super) netns_path: Option<PathBuf>,
}

impl Attached {
    /// The container's own addresses, for `/etc/hosts`.
    pub(super) fn addresses(&self, places: &[Place]) -> Vec<IpAddr> {
        let network = self.network.iter();
        let node = network.flat_map(|network| [&network.address, &network.address6]);
        let node = node.filter_map(|text| text.split('/').next()?.parse().ok());
        let own = self.local.iter().flat_map(|place| &place.addresses);
        let overlays = places.iter().filter(|place| !place.network.is_ingress);
        let overlays = overlays.flat_map(Place::ips);
        node.chain(overlays).chain(own.map(IpNet::addr)).collect()
    }
}

impl Engine {
    /// Where the node network stands.
    pub fn slice(&self) -> watch::Receiver<SliceState> {
        self.slice.subscribe()
    }

    /// Takes up what the cluster says of this node's slice; `layout` is what the bridge then has.
    /// True when the bridge has it.
    pub async fn set_slice(&self, slice: Option<Slice>, layout: Layout) -> bool {
        let Some(slice) = slice else {
            self.slice.send_replace(SliceState::None);
            return false;
        };
        let resized = self.network().resize(layout).await;
        let state = match &resized {
            Ok(()) => SliceState::Ours(slice),
            Err(error) => {
                if *self.slice.borrow() != SliceState::Blocked(slice) {
                    warn!(error = %error, "This node's slice of the node network is not in use yet");
                }
                SliceState::Blocked(slice)
            }
        };
        self.slice.send_replace(state);
        resized.is_ok()
    }

    /// What differs from what should be in the node's networks, in words; changes nothing.
    pub async fn examine_networks(&self) -> Vec<String> {
        let mut findings = Vec::new();
        if let SliceState::Blocked(slice) = *self.slice.borrow() {
            findings.push(format!(
                "this node's slice {} of the node network waits until containers with other \
                 addresses have ended",
                slice.v4
            ));
        }
        match self.network().doctor().await {
            Ok(found) => {
                let found = found.into_iter();
                findings.extend(found.map(|text| format!("node network: {text}")));
            }
            Err(error) => findings.push(format!("node network: {error}")),
        }
        findings.extend(self.dataplane().doctor().await);
        findings.extend(self.local_networks().doctor().await);
        findings
    }

    /// What was repaired in the last minutes without anybody asking, in words, with when.
    pub async fn repaired_networks(&self) -> Vec<String> {
        self.dataplane().repairs().await
    }

    /// Repairs what can be repaired; what was found before and is not any more.
    pub async fn heal_networks(&self) -> Vec<String> {
        let before = self.examine_networks().await;
        if let Err(error) = self.network().reconcile().await {
            warn!(error = %error, "Failed to repair the node network");
        }
        self.dataplane().heal().await;
        self.local_networks().heal().await;
        let after = self.examine_networks().await;
        before
            .into_iter()
            .filter(|text| !after.contains(text))
            .collect()
    }

    /// The node is in no cluster any more.
    pub fn forget_slice(&self) {
        self.slice.send_replace(SliceState::Unknown);
    }

    /// Gives a container its networks. When this returns it can be reached on all of them.
    pub(super) async fn attach(
        &self,
        (id, name): (&ContainerId, &str),
        (plan, ports): (&NetworkPlan, &[HostPort]),
    ) -> Result<Attached, CreateError> {
        let joined = self.join_local(id, plan).await?;
        let ports = &bound(ports, &joined);
        let mut attached = match plan.mode {
            NodeMode::Host => {
                return Ok(Attached {
                    network: None,
                    local: Vec::new(),
                    netns_path: None,
                });
            }
            NodeMode::Closed => Attached {
                network: None,
                local: Vec::new(),
                netns_path: Some(self.network().attach_none(id.as_str()).await?),
            },
            NodeMode::Attached => {
                self.await_slice(plan).await?;
                let network = self.network();
                let attachment = network.attach(id.as_str(), ports, plan.given).await?;
                let text = |ip: Option<String>| ip.unwrap_or_default();
                let record = NetworkRecord {
                    address: attachment.address.to_string(),
                    gateway: attachment.gateway.to_string(),
                    address6: text(attachment.address6.map(|ip| ip.to_string())),
                    gateway6: text(attachment.gateway6.map(|ip| ip.to_string())),
                    mac: attachment.mac.to_string(),
                    netns_path: attachment.netns_path.display().to_string(),
                    ports: attachment.ports,
                };
                Attached {
                    network: Some(record),
                    local: Vec::new(),
                    netns_path: Some(attachment.netns_path),
                }
            }
        };
        let is_on_some = !plan.places.is_empty() || !plan.local.is_empty();
        if let Some(path) = attached.netns_path.clone().filter(|_| is_on_some) {
            attached.local = self.attach_local(id, &path, joined).await?;
            let places = (plan.places.as_slice(), attached.local.as_slice());
            let container =
                local_container((id.as_str(), name), &path, places, plan.mode, &plan.dns);
            self.dataplane().attach(id.as_str(), container).await?;
        }
        Ok(attached)
    }

    /// A task with an address from the leader needs the slice it is from, and one without must not
    /// be in the way of the slice.
    async fn await_slice(&self, plan: &NetworkPlan) -> Result<(), CreateError> {
        let mut slice = self.slice.subscribe();
        let is_enough = |state: &SliceState| match (state, plan.given) {
            (SliceState::Unknown, _) => false,
            (SliceState::Ours(slice), Some(given)) => slice.v4.contains(&given.v4),
            (SliceState::None | SliceState::Blocked(_), Some(_)) => false,
            (SliceState::None | SliceState::Blocked(_) | SliceState::Ours(_), None) => true,
        };
        let waited = tokio::time::timeout(SLICE_WITHIN, slice.wait_for(is_enough)).await;
        if waited.is_err() && plan.given.is_some() {
            return Err(CreateError::NoSlice);
        }
        Ok(())
    }

    /// Tells the data plane of a container that was found running.
    pub(super) async fn adopt_networks(&self, record: &Record) {
        let is_on_some = !record.places.is_empty() || !record.local_places.is_empty();
        let Some(path) = record.netns_path().filter(|_| is_on_some) else {
            return;
        };
        self.adopt_local(record, path).await;
        let name = (record.id.as_str(), record.name.as_str());
        let places = (record.places.as_slice(), record.local_places.as_slice());
        let container = local_container(name, path, places, record.node_mode, &record.dns);
        self.dataplane().adopt(record.id.as_str(), container).await;
    }

    /// Gives back the networks of a container that has ended: nobody is led to it any more, then
    /// its ports and its address go.
    pub(super) async fn release_network(&self, container: &Container) {
        let id = &container.record().id;
        self.note_places(container.record(), "disconnect");
        if let Err(error) = self.detach(id).await {
            warn!(container.id = %id, error = %error, "Failed to give back a container's network");
        }
    }

    /// The same, by the container's id.
    pub(super) async fn detach(&self, id: &ContainerId) -> Result<(), skep_network::Error> {
        self.dataplane().detach(id.as_str()).await;
        self.local_networks().leave(id.as_str()).await;
        self.network().detach(id.as_str()).await
    }
}

fn local_container(
    (id, name): (&str, &str),
    path: &Path,
    (places, local): (&[Place], &[LocalPlaceRecord]),
    mode: NodeMode,
    dns: &DnsRecord,
) -> LocalContainer {
    let has_way_out = mode == NodeMode::Attached || local.iter().any(|place| place.is_way_out);
    LocalContainer {
        netns_path: path.to_owned(),
        places: places
            .iter()
            .filter(|place| !place.network.is_ingress)
            .cloned()
            .collect(),
        // Without a way out there is nobody to ask.
        upstreams: match has_way_out {
            true => files::upstreams(&dns.settings()),
            false => Vec::new(),
        },
        local: local.iter().map(|place| place.names(id, name)).collect(),
    }
}
