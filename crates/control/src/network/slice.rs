//! The node network: each node's slice of it, and in the slice the addresses of tasks with ports
//! published on every node.
//!
//! Only nodes of Skep have slices; they lead published ports to a task's address in the slice of
//! its node. A node keeps its slice as long as it is in the cluster. A task gets its address in
//! the plan that places it; one that was placed before its node had a slice, later, as long as its
//! node has not begun with it: a container that was made without the address never gets it, and
//! nobody must be led to where nobody is.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use skep_model::{
    Network, NetworkAttachment, Node, NodeId, NodeState, Task, TaskId, TaskState,
    directory::{Pools, Slice},
};
use skep_store::{Addresses, Holder, NetworkTables, Store};

use crate::{
    key::Key,
    network::{address, is_ingress},
    plan::{Change, Plan, Wait},
};

/// What the status of a node says for which there is no slice.
pub const NO_SLICE_MESSAGE: &str =
    "no slice of the node network is left: published ports do not lead through this node";

/// Addresses of tasks on the node network, with those given out by the plan in the making.
pub(crate) struct NodeAddresses<'a> {
    tables: &'a NetworkTables,
    network: &'a Arc<Network>,
    taken: Addresses,
}

/// One node's slice and the addresses its tasks lack, or a look at every node.
pub(crate) fn reconcile(view: &Store, id: Option<NodeId>) -> Plan {
    let mut plan = Plan::default();
    match id.map(|id| view.node(id)) {
        None => {
            let concerned = view
                .nodes()
                .filter(|node| node.is_skep() || node.attachments.iter().any(is_on_node_network));
            let keys = concerned.map(|node| Key::Slice(Some(node.id)));
            plan.follow_up.extend(keys);
        }
        Some(Some(node)) => plan_node(view, node, &mut plan),
        Some(None) => {}
    }
    plan
}

/// Whether a task must have an address in its node's slice and has none yet.
pub fn lacks_node_address(view: &Store, task: &Task) -> bool {
    let has_slice = || {
        let node = task.node_id.and_then(|id| view.node(id));
        node.is_some_and(|node| slice_for_tasks(node).is_some())
    };
    wants_address(task) && !task.networks.iter().any(is_on_node_network) && has_slice()
}

/// The slice in which tasks of the node get addresses. One that went back to a dockerd keeps its
/// slice and makes no use of it.
pub(crate) fn slice_for_tasks(node: &Node) -> Option<Slice> {
    node.slice().filter(|_| node.is_skep())
}

/// Whether published ports are to lead to the task.
pub(crate) fn wants_address(task: &Task) -> bool {
    let endpoint = task.endpoint.as_ref();
    is_ingress(endpoint.and_then(|endpoint| endpoint.spec.as_ref()))
}

fn is_on_node_network(place: &NetworkAttachment) -> bool {
    place.network.spec.is_node_network()
}

fn plan_node(view: &Store, node: &Arc<Node>, plan: &mut Plan) {
    let addresses = NodeAddresses::of(view);
    let place = addresses
        .as_ref()
        .and_then(|addresses| addresses.slice_of(node));
    let is_left_out = node.is_skep() && addresses.is_some() && place.is_none();
    if is_left_out {
        plan.report.push_with(|| Wait::NoSlice { node: node.id });
    }
    let held = node
        .attachments
        .iter()
        .find(|held| is_on_node_network(held));
    let message = message(node, is_left_out);
    if held != place.as_ref() || message != node.status.message {
        let node = with_slice(node, place.clone(), message.to_owned());
        plan.changes.push(Change::UpdateNode(Box::new(node)));
    }
    let slice = place.as_ref().and_then(Slice::of);
    let slice = slice.filter(|_| node.is_skep());
    if let (Some(slice), Some(mut addresses)) = (slice, addresses) {
        plan_tasks(view, node.id, &slice, &mut addresses, plan);
    }
}

/// What the node's status is to say.
fn message(node: &Node, is_left_out: bool) -> &str {
    let message = node.status.message.as_str();
    if is_left_out && node.status.state == NodeState::Ready {
        NO_SLICE_MESSAGE
    } else if message == NO_SLICE_MESSAGE {
        ""
    } else {
        message
    }
}

fn with_slice(node: &Node, place: Option<NetworkAttachment>, message: String) -> Node {
    let mut node = node.clone();
    node.attachments.retain(|held| !is_on_node_network(held));
    node.attachments.splice(0..0, place);
    node.status.message = message;
    node
}

/// Addresses for tasks that were placed before their node had a slice.
fn plan_tasks(
    view: &Store,
    node: NodeId,
    slice: &Slice,
    addresses: &mut NodeAddresses<'_>,
    plan: &mut Plan,
) {
    let lacks = |task: &&Arc<Task>| {
        task.status.state == TaskState::Assigned
            && wants_address(task)
            && !task.networks.iter().any(is_on_node_network)
    };
    for task in view.tasks_on_node(node).filter(lacks) {
        let Some(place) = addresses.take(slice, task.id) else {
            plan.report
                .push_with(|| Wait::no_address(addresses.network));
            return;
        };
        let mut task = Task::clone(task);
        task.networks.push(place);
        plan.changes.push(Change::UpdateTask(Arc::new(task)));
    }
}

// === impl NodeAddresses ===

impl<'a> NodeAddresses<'a> {
    /// What is taken now; `None` without a node network.
    pub(crate) fn of(view: &'a Store) -> Option<Self> {
        let tables = view.networks();
        let network = tables
            .node_network()
            .filter(|network| network.is_complete())?;
        Some(Self {
            tables,
            network,
            taken: tables.addresses().clone(),
        })
    }

    /// Whether a slice has an address for one more task.
    pub(crate) fn has_room(&self, slice: &Slice) -> bool {
        let (first, last) = slice.tasks_v4();
        let free = self
            .taken
            .first_free(self.network.id, first.into(), last.into());
        free.is_some()
    }

    /// A place for a task in a slice; `None` when all are taken.
    pub(crate) fn take(&mut self, slice: &Slice, task: TaskId) -> Option<NetworkAttachment> {
        let (first, last) = slice.tasks_v4();
        let v4 = self.choose(first.into(), last.into())?;
        let mut addresses = vec![IpNet::new(v4, slice.v4.prefix_len()).ok()?];
        let v6 = slice.tasks_v6().and_then(|(first, last)| {
            let prefix_len = slice.v6?.prefix_len();
            IpNet::new(self.choose(first.into(), last.into())?, prefix_len).ok()
        });
        addresses.extend(v6);
        for address in &addresses {
            let holder = Holder::Task(task);
            self.taken.insert(self.network.id, address.addr(), holder);
        }
        Some(self.place(addresses))
    }

    fn choose(&self, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
        address::choose_between(self.tables, &self.taken, self.network.id, (first, last))
    }

    /// The node's place on the network: the one it has, or, if it is one of Skep, the next.
    fn slice_of(&self, node: &Node) -> Option<NetworkAttachment> {
        let is_current =
            |place: &&NetworkAttachment| place.network.id == self.network.id && is_slice(place);
        if let Some(held) = node.attachments.iter().find(is_current) {
            return Some(held.clone());
        }
        if !node.is_skep() {
            return None;
        }
        let Slice { v4, v6, .. } = self.next_slice()?;
        let v6 = v6.map(IpNet::V6);
        Some(self.place([IpNet::V4(v4)].into_iter().chain(v6).collect()))
    }

    /// The slice behind all in use; at the end of the pool, the first of which nothing is.
    fn next_slice(&self) -> Option<Slice> {
        let pools = Pools::of(self.network)?;
        let (first, last) = (pools.v4().network(), pools.v4().broadcast());
        let held = self
            .taken
            .last_held(self.network.id, first.into(), last.into());
        let highest = match held {
            Some(IpAddr::V4(held)) => pools.number_of(held).unwrap_or(0),
            Some(IpAddr::V6(_)) | None => 0,
        };
        let behind = highest.checked_add(1);
        behind
            .and_then(|number| pools.slice(number))
            .or_else(|| self.first_free_slice(&pools))
    }

    fn first_free_slice(&self, pools: &Pools) -> Option<Slice> {
        let mut slices = (1..=pools.number_max()).filter_map(|number| pools.slice(number));
        slices.find(|slice| {
            let (first, last) = (slice.v4.network(), slice.v4.broadcast());
            let held = self
                .taken
                .last_held(self.network.id, first.into(), last.into());
            held.is_none()
        })
    }

    fn place(&self, addresses: Vec<IpNet>) -> NetworkAttachment {
        NetworkAttachment {
            network: Arc::clone(self.network),
            addresses,
            aliases: Vec::new(),
            driver_options: BTreeMap::new(),
        }
    }
}

fn is_slice(place: &NetworkAttachment) -> bool {
    Slice::of(place).is_some()
}
