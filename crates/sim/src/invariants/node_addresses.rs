//! A node of Skep is sent a task with ports published on every node only with its address in the
//! node's slice, and a dockerd never one with such an address.

use ipnet::IpNet;
use skep_manager::event::ToAgent;
use skep_model::{NodeId, PublishMode, Task, TaskState, dispatch::AssignmentChange};
use skep_store::Store;

use crate::{
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct NodeAddresses;

impl Invariant for NodeAddresses {
    fn name(&self) -> &'static str {
        "node-addresses"
    }

    fn observe(&mut self, facts: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Sent {
            node,
            message: ToAgent::Assignments(message),
            index,
            next,
        } = observation
        else {
            return Ok(());
        };
        for change in &message.changes {
            if let AssignmentChange::UpdateTask(task) = change {
                // As of the store published last, or of the one published next.
                let check = |index| {
                    let store = facts.store_at(index);
                    store.map_or(Ok(()), |store| check_task(store, *node, task))
                };
                check(*index).or_else(|_| check(*next))?;
            }
        }
        Ok(())
    }
}

fn check_task(store: &Store, node: NodeId, task: &Task) -> Result<(), String> {
    // What runs already was sent before, perhaps before there were slices.
    let Some(node) = store
        .node(node)
        .filter(|_| task.status.state == TaskState::Assigned)
    else {
        return Ok(());
    };
    let addresses: Vec<_> = task.node_addresses().collect();
    let slice = node.slice().filter(|_| node.is_skep());
    let slice = slice.filter(|_| publishes(task));
    let is_right = match slice {
        None => addresses.is_empty(),
        Some(slice) => addresses
            .iter()
            .any(|address| IpNet::V4(slice.v4.trunc()).contains(&address.addr())),
    };
    if is_right {
        return Ok(());
    }
    let id = task.id;
    Err(format!(
        "task {id} is sent with {addresses:?}, the slice of its node is {slice:?}"
    ))
}

fn publishes(task: &Task) -> bool {
    let spec = task
        .endpoint
        .as_ref()
        .and_then(|endpoint| endpoint.spec.as_ref());
    let mut ports = spec.into_iter().flat_map(|spec| &spec.ports);
    ports.any(|port| port.publish_mode == PublishMode::Ingress)
}
