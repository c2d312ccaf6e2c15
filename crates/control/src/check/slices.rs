//! What must always hold of the node network: slices are cut as agreed, each node has one of its
//! own, and each task with published ports an address in the right one.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use skep_model::{
    NetworkAttachment, Node, PublishMode, Task, TaskState,
    directory::{Pools, Slice},
};
use skep_store::Store;

use super::NetworkViolation;

/// Everything that is wrong with slices and tasks' addresses in them.
pub(super) fn check(view: &Store, found: &mut Vec<NetworkViolation>) {
    let networks = view.networks().all();
    if networks.filter(|n| n.spec.is_node_network()).count() > 1 {
        found.push(NetworkViolation::ManyNodeNetworks);
    }
    let mut seen = BTreeMap::new();
    for node in view.nodes() {
        let slices: Vec<_> = on_node_network(&node.attachments).collect();
        let has_one = match slices.as_slice() {
            [] => continue,
            [place] => is_well_cut(place),
            _ => false,
        };
        let number = node.slice().map(|slice| slice.number);
        if !has_one || seen.insert(number, node.id).is_some() {
            found.push(NetworkViolation::WrongSlice { node: node.id });
        }
    }
    for task in view.tasks().filter(|task| !has_its_place(view, task)) {
        found.push(NetworkViolation::WrongNodeAddress { task: task.id });
    }
}

fn on_node_network(places: &[NetworkAttachment]) -> impl Iterator<Item = &NetworkAttachment> {
    let is_one = |place: &&NetworkAttachment| place.network.spec.is_node_network();
    places.iter().filter(is_one)
}

/// Whether a place is a whole slice, in both families if the network has both.
fn is_well_cut(place: &NetworkAttachment) -> bool {
    let slice = Slice::of(place);
    let pools = Pools::of(&place.network);
    pools.zip(slice).is_some_and(|(pools, slice)| {
        let addresses = [Some(IpNet::V4(slice.v4)), slice.v6.map(IpNet::V6)];
        let is_whole = addresses
            .into_iter()
            .flatten()
            .eq(place.addresses.iter().copied());
        is_whole && pools.slice(slice.number) == Some(slice)
    })
}

fn has_its_place(view: &Store, task: &Task) -> bool {
    let is_placed = (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
    if !is_placed {
        return true;
    }
    let places: Vec<_> = on_node_network(&task.networks).collect();
    let node = task.node_id.and_then(|id| view.node(id));
    let slice = node.and_then(|node| node.slice());
    match (places.as_slice(), slice) {
        ([], Some(slice)) => {
            let is_skep = node.is_some_and(|node| Node::is_skep(node));
            // A container that was made without an address goes on without.
            let is_begun = task.status.state > TaskState::Assigned;
            is_begun || !is_skep || !publishes(task) || !has_room(view, &slice)
        }
        ([], None) => true,
        ([place], Some(slice)) => publishes(task) && is_inside(place, &slice),
        // The slice went with the node.
        ([_], None) => publishes(task) && node.is_none(),
        _ => false,
    }
}

fn publishes(task: &Task) -> bool {
    let spec = task.endpoint.as_ref().and_then(|e| e.spec.as_ref());
    let mut ports = spec.into_iter().flat_map(|spec| &spec.ports);
    ports.any(|port| port.publish_mode == PublishMode::Ingress)
}

fn is_inside(place: &NetworkAttachment, slice: &Slice) -> bool {
    let (first, last) = slice.tasks_v4();
    let v4: IpNet = match place.addresses.first() {
        Some(v4) => *v4,
        None => return false,
    };
    let is_v4 = (IpAddr::V4(first)..=IpAddr::V4(last)).contains(&v4.addr())
        && v4.prefix_len() == slice.v4.prefix_len();
    let v6 = place.addresses.get(1).map(IpNet::addr);
    let is_v6 = match (v6, slice.tasks_v6()) {
        (Some(v6), Some((first, last))) => (IpAddr::V6(first)..=IpAddr::V6(last)).contains(&v6),
        (None, None) => true,
        _ => false,
    };
    is_v4 && is_v6 && place.addresses.len() <= 2
}

fn has_room(view: &Store, slice: &Slice) -> bool {
    let Some(network) = view.networks().node_network() else {
        return false;
    };
    let (first, last) = slice.tasks_v4();
    let range = IpAddr::V4(first)..=IpAddr::V4(last);
    let addresses = view.networks().addresses().of_network(network.id);
    let taken = addresses.filter(|(ip, _)| range.contains(ip)).count();
    taken < usize::try_from(last.to_bits() - first.to_bits()).map_or(0, |count| count + 1)
}
