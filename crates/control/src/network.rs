//! What the leader hands out for networks: subnets, VXLAN ids, addresses, published ports.
//!
//! Decided from the store alone, whose indexes ([`skep_store::NetworkTables`]) say what is taken:
//! nothing is remembered here, so a new leader decides as the old one would have, and whatever
//! stored objects hold is reserved before anything new is given out. An address goes back when the
//! object that held it ends or is removed. Numbers grow while there are larger ones left, so that
//! one just given back is the last to be given out again. See `docs/design/allocation.md`.

mod address;
mod attachment;
mod balancer;
mod creation;
mod endpoint;
mod hosts;
mod pool;
mod port;
mod slice;

pub(crate) use self::{
    attachment::attach,
    endpoint::endpoint,
    port::is_ingress,
    slice::{NodeAddresses, slice_for_tasks, wants_address},
};
pub use self::{
    creation::{Allocation, Refusal, allocate, networks_of_a_new_cluster},
    pool::{NODE_POOLS, node_network},
    slice::{NO_SLICE_MESSAGE, lacks_node_address},
};

use skep_model::{Network, NetworkId, NodeId, ServiceId};
use skep_store::Store;

use crate::{
    key::Key,
    plan::{Change, Plan, Wait},
};

/// A network stored without what nodes need of it, as a swarm's state may hold one.
pub(crate) fn reconcile(view: &Store, id: NetworkId) -> Plan {
    let mut plan = Plan::default();
    let networks = view.networks();
    let Some(network) = networks.get(id).filter(|network| !network.is_complete()) else {
        return plan;
    };
    match allocate(view, id, &network.spec) {
        Ok(Allocation { driver_state, ipam }) => {
            plan.changes.push(Change::UpdateNetwork(Box::new(Network {
                driver_state: Some(driver_state),
                ipam: Some(ipam),
                ..Network::clone(network)
            })));
        }
        Err(refusal) => plan.report.push(Wait::Network {
            network: id,
            reason: refusal.to_string(),
        }),
    }
    plan
}

/// Something went back: whoever waits may look again, one task of each service first.
pub(crate) fn retry(view: &Store) -> Plan {
    let mut plan = Plan::default();
    for (service, task) in view.networks().first_tasks_to_allocate() {
        let lacks_some = |id: &ServiceId| {
            view.service(*id).is_some_and(|service| {
                let (wanted, waits) = endpoint(view, service);
                wanted != service.endpoint || !waits.is_empty()
            })
        };
        // Looking at a service is looking at all of its tasks.
        plan.follow_up
            .extend(service.filter(lacks_some).map(Key::Service));
        plan.follow_up.push(Key::Task(task));
    }
    plan
}

/// A node's slice of the node network, or every node's.
pub(crate) fn slice(view: &Store, id: Option<NodeId>) -> Plan {
    slice::reconcile(view, id)
}

/// The addresses of a node's load balancers.
pub(crate) fn balance(view: &Store, id: NodeId) -> Plan {
    balancer::reconcile(view, id)
}
