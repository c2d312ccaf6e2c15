//! Takes out of a value what cannot be, so that one mistake does not spoil the rest. Pure.
//!
//! [`Desired::check`] says what is wrong; here it is removed, piece by piece, until nothing is: a remote, a service, a place, a
//! port, at worst a network or the mesh. What was followed before goes before what is new.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::desired::{Desired, DesiredError, Overlay, Place};
use super::mesh::Mesh;
use super::report::Scope;
use crate::endpoint::{Mac, check_id};

/// Each round removes all that was found; what is removed can show another mistake behind it at most once for each kind.
const ROUND_COUNT_MAX: usize = 8;

/// Something of a value that is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What cannot be as a whole; none where only a part is missing that containers can do without: a service's virtual
    /// address, a container elsewhere.
    pub(crate) scope: Option<Scope>,
    pub(crate) error: DesiredError,
}

/// Removes what is wrong and says what that was. Fails when nothing can be left: then the value is refused as a whole.
pub(crate) fn sift(
    desired: &mut Desired,
    before: Option<&Desired>,
) -> Result<Vec<Refusal>, Vec<DesiredError>> {
    let mut refusals: Vec<Refusal> = Vec::new();
    for _ in 0..ROUND_COUNT_MAX {
        let errors = desired.check();
        if errors.is_empty() {
            return Ok(refusals);
        }
        if errors.contains(&DesiredError::Port) {
            return Err(errors);
        }
        for error in errors {
            let containers = remove(desired, before, &error).into_iter();
            refusals.extend(containers.map(|id| Refusal {
                scope: Some(Scope::Container(id)),
                error: error.clone(),
            }));
            let scope = scope_of(&error);
            // A container whose network is refused has been told of that.
            let is_told = match &error {
                DesiredError::NoNetwork { network, .. } => {
                    let network = Some(Scope::Network(network.clone()));
                    refusals.iter().any(|refusal| refusal.scope == network)
                }
                _ => false,
            };
            if !is_told {
                refusals.push(Refusal { scope, error });
            }
        }
    }
    Err(desired.check())
}

fn scope_of(error: &DesiredError) -> Option<Scope> {
    match error {
        DesiredError::Id(_) | DesiredError::Port => Some(Scope::Node),
        DesiredError::Vni { network, .. } | DesiredError::Mtu { network, .. } => {
            Some(Scope::Network(network.clone()))
        }
        DesiredError::Vip { .. } | DesiredError::Mac { .. } => None,
        DesiredError::Slices | DesiredError::Number(_) | DesiredError::Published(_) => {
            Some(Scope::Mesh)
        }
        DesiredError::Tunnel { .. } => Some(Scope::Encryption),
        DesiredError::NoNetwork { container, .. }
        | DesiredError::Interface { container, .. }
        | DesiredError::Addresses { container, .. }
        | DesiredError::Overlap { container, .. } => Some(Scope::Container(container.clone())),
    }
}

/// Removes what is wrong. Returns containers that the error does not name and that lost a place.
fn remove(desired: &mut Desired, before: Option<&Desired>, error: &DesiredError) -> Vec<String> {
    match error {
        DesiredError::Id(_) => {
            desired.networks.retain(|id, _| check_id(id).is_ok());
            desired.containers.retain(|id, _| check_id(id).is_ok());
        }
        DesiredError::Vni { vni, .. } => remove_rivals(desired, before, *vni),
        DesiredError::Mtu { network, .. } => drop(desired.networks.remove(network)),
        DesiredError::Vip { network, vip } => {
            if let Some(network) = desired.networks.get_mut(network) {
                remove_vip(Arc::make_mut(network), *vip);
            }
        }
        DesiredError::Mac { network, mac } => return remove_mac(desired, network, *mac),
        DesiredError::Slices | DesiredError::Number(_) | DesiredError::Published(_) => {
            desired.mesh = desired.mesh.take().and_then(sift_mesh);
        }
        DesiredError::Tunnel { .. } => desired.tunnel = None,
        DesiredError::NoNetwork { container, network }
        | DesiredError::Addresses { container, network } => leave(desired, container, network),
        DesiredError::Overlap {
            container, second, ..
        } => leave(desired, container, second),
        DesiredError::Interface {
            container,
            interface,
        } => {
            let places = desired.containers.get(container).into_iter();
            let mut places = places.flat_map(|container| &container.attachments);
            let of_name = |(_, place): &(&String, &Place)| place.interface == *interface;
            // The later of two.
            if let Some((network, _)) = places.rfind(of_name) {
                let network = network.clone();
                leave(desired, container, &network);
            }
        }
        // Nothing can be followed then.
        DesiredError::Port => {}
    }
    Vec::new()
}

/// Of several networks with one VXLAN id the one that was there before stays, or the first.
fn remove_rivals(desired: &mut Desired, before: Option<&Desired>, vni: u32) {
    let was_there = |id: &String| {
        let network = before.and_then(|before| before.networks.get(id));
        network.is_some_and(|network| network.vni == vni)
    };
    let networks = desired.networks.iter();
    let rivals = networks.filter(|(_, network)| network.vni == vni);
    let mut rivals: Vec<String> = rivals.map(|(id, _)| id.clone()).collect();
    rivals.sort_by_key(|id| !was_there(id));
    let is_possible = super::desired::is_vni(vni);
    for id in rivals.iter().skip(usize::from(is_possible)) {
        desired.networks.remove(id);
    }
}

/// A virtual address belongs to the first service that has it once, if it can be there at all.
fn remove_vip(network: &mut Overlay, vip: IpAddr) {
    let mut is_free = network.subnets.iter().any(|net| net.contains(&vip));
    network.services.retain(|_, service| {
        let count = service.vips.iter().filter(|one| **one == vip).count();
        let is_good = count == 0 || (count == 1 && is_free);
        is_free &= count == 0;
        is_good
    });
}

/// An Ethernet address belongs to this node's first container that has it; then to nobody elsewhere.
fn remove_mac(desired: &mut Desired, id: &str, mac: Mac) -> Vec<String> {
    let is_group = mac.0[0] & 1 == 1;
    let places = desired.places(id);
    let mut local: Vec<String> = places
        .filter(|(_, _, place)| place.mac == mac)
        .map(|(container, _, _)| container.clone())
        .collect();
    let is_here = !local.is_empty();
    local.drain(..usize::from(is_here && !is_group));
    for container in &local {
        leave(desired, container, id);
    }
    if let Some(network) = desired.networks.get_mut(id)
        && (is_group || is_here)
    {
        Arc::make_mut(network).remotes.remove(&mac);
    }
    local
}

/// A container without one of its places. It keeps the others.
fn leave(desired: &mut Desired, container: &str, network: &str) {
    if let Some(container) = desired.containers.get_mut(container) {
        Arc::make_mut(container).attachments.remove(network);
    }
}

/// The mesh without nodes and ports that cannot be; none if this node cannot be in it.
fn sift_mesh(mesh: Arc<Mesh>) -> Option<Arc<Mesh>> {
    let mut mesh = Arc::unwrap_or_clone(mesh);
    let peers = std::mem::take(&mut mesh.peers);
    let ports = std::mem::take(&mut mesh.ports);
    let is_well = |mesh: &Mesh| {
        let mut errors = Vec::new();
        mesh.check(&mut errors);
        errors.is_empty()
    };
    if !is_well(&mesh) {
        return None;
    }
    let mut slices: Vec<IpNet> = nets(mesh.slice, mesh.slice6).collect();
    let mut good = BTreeMap::new();
    for (number, peer) in peers {
        // Beside this node alone, then beside all others.
        mesh.peers = BTreeMap::from([(number, peer.clone())]);
        let own: Vec<IpNet> = nets(peer.slice, peer.slice6).collect();
        let is_taken = |net: &IpNet| {
            let mut slices = slices.iter();
            slices.any(|other| other.contains(net) || net.contains(other))
        };
        if is_well(&mesh) && !own.iter().any(is_taken) {
            slices.extend(own);
            good.insert(number, peer);
        }
    }
    mesh.peers = good;
    for (port, mut published) in ports {
        let is_inside = |ip: IpAddr| slices.iter().any(|net| net.contains(&ip));
        published
            .backends
            .retain(|backend, _| is_inside(backend.ip()));
        if port.port != 0 {
            mesh.ports.insert(port, published);
        }
    }
    Some(Arc::new(mesh))
}

fn nets(v4: Ipv4Net, v6: Option<Ipv6Net>) -> impl Iterator<Item = IpNet> {
    let v6 = v6.map(|net| IpNet::from(net.trunc()));
    std::iter::once(v4.trunc().into()).chain(v6)
}

// === impl Refusal ===

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "{scope}: {}", self.error),
            None => fmt::Display::fmt(&self.error, f),
        }
    }
}

#[cfg(test)]
mod tests;
