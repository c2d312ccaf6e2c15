//! Addresses from which a node balances load, one on each overlay network it has tasks on, and
//! always one on ingress. A dockerd refuses a task until it has them.

use std::{collections::BTreeMap, sync::Arc};

use skep_model::{Network, NetworkAttachment, NetworkId, Node, NodeId};
use skep_store::Store;

use crate::{
    key::Key,
    network::address,
    plan::{Change, Plan, Wait},
};

pub(crate) fn reconcile(view: &Store, id: NodeId) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = view.node(id) else {
        // Its slice is free now that its tasks are over, too.
        plan.follow_up.push(Key::Slice(None));
        return plan;
    };
    if node.is_skep() {
        // A task ended or came: another may have waited for its address in the slice.
        plan.follow_up.push(Key::Slice(Some(id)));
    }
    // A slice is not this one's business.
    let slices = node.attachments.iter().filter(|place| is_slice(place));
    let mut attachments: Vec<NetworkAttachment> = slices.cloned().collect();
    for network in wanted(view, node) {
        let mut held = node.attachments.iter();
        let held = held.find(|held| held.network.id == network.id && has_place(held));
        if let Some(held) = held {
            attachments.push(held.clone());
            continue;
        }
        match address::choose(view.networks(), network, true) {
            Some(address) => attachments.push(NetworkAttachment {
                network: Arc::clone(network),
                addresses: vec![address],
                aliases: Vec::new(),
                driver_options: BTreeMap::new(),
            }),
            None => plan.report.push(Wait::no_address(network)),
        }
    }
    if attachments != node.attachments {
        let node = Node {
            attachments,
            ..Node::clone(node)
        };
        plan.changes.push(Change::UpdateNode(Box::new(node)));
    }
    plan
}

fn is_slice(place: &NetworkAttachment) -> bool {
    place.network.spec.is_node_network()
}

fn has_place(held: &NetworkAttachment) -> bool {
    let mut addresses = held.addresses.iter();
    addresses.any(|address| address::fits(&held.network, *address))
}

/// Ingress first, then the other networks by id.
fn wanted<'a>(view: &'a Store, node: &Node) -> Vec<&'a Arc<Network>> {
    if !node.needs_load_balancers() {
        return Vec::new();
    }
    let tables = view.networks();
    let ingress = tables.ingress().filter(|network| network.is_complete());
    let mut others: BTreeMap<NetworkId, &Arc<Network>> = BTreeMap::new();
    for task in view
        .tasks_on_node(node.id)
        .filter(|task| task.holds_addresses())
    {
        let networks = task.networks.iter().map(|attachment| &attachment.network);
        for network in networks.filter(|network| network.spec.is_overlay()) {
            let stored = tables.get(network.id).unwrap_or(network);
            others.insert(network.id, stored);
        }
    }
    if let Some(ingress) = ingress {
        others.remove(&ingress.id);
    }
    ingress.into_iter().chain(others.into_values()).collect()
}
