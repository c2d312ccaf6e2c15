//! Commands on networks, and the networks every cluster has.

use skep_control::network::{self, Allocation};
use skep_model::{
    Meta, Network, NetworkId, NetworkSpec, PREDEFINED_LABEL, PublishMode, Rng, Service, TaskState,
    validate,
};
use skep_store::{Holder, Transaction};

use super::refuse_problems;
use crate::command::{Answer, Code, CommandError};

/// Networks of one cluster: ten for each service of a large cluster's thousand. Each takes about
/// 2 KiB in every manager, and its state goes to every node that uses it.
const NETWORKS_MAX: usize = 10_000;

/// Adds a network with all it needs, or says why it cannot have it.
pub(super) fn create(
    tx: &mut Transaction,
    rng: &mut Rng,
    spec: NetworkSpec,
) -> Result<Answer, CommandError> {
    if spec.annotations.labels.contains_key(PREDEFINED_LABEL) {
        let message = format!(
            "label {PREDEFINED_LABEL} is for internally created predefined networks and cannot be \
             applied by users"
        );
        return Err(CommandError::new(Code::PermissionDenied, message));
    }
    refuse_problems(&validate::network_spec(&spec))?;
    let tables = tx.view().networks();
    if let Some(ingress) = tables.ingress().filter(|_| spec.is_ingress) {
        let message = format!("ingress network ({}) is already present", ingress.id);
        return Err(CommandError::new(Code::AlreadyExists, message));
    }
    let name = &spec.annotations.name;
    if tables.by_name(name).is_some() {
        let message =
            format!("name conflicts with an existing object: network {name} already exists");
        return Err(CommandError::new(Code::AlreadyExists, message));
    }
    if tables.count() >= NETWORKS_MAX {
        let message = format!("a cluster has at most {NETWORKS_MAX} networks");
        return Err(CommandError::new(Code::ResourceExhausted, message));
    }
    add(tx, rng, spec).map(Answer::Network)
}

/// Removes a network nobody uses.
pub(super) fn remove(tx: &mut Transaction, id: NetworkId) -> Result<Answer, CommandError> {
    let Some(network) = tx.view().networks().get(id) else {
        return Err(CommandError::new(
            Code::NotFound,
            format!("network {id} not found"),
        ));
    };
    let refusal = if network.spec.is_predefined() || network.spec.is_node_network() {
        Some(format!(
            "network {id} ({}) is a swarm predefined network and cannot be removed",
            network.name()
        ))
    } else if network.spec.is_ingress {
        let mut services = tx.view().services();
        let user = services.find(|service| needs_ingress(service));
        user.map(|service| {
            format!(
                "ingress network cannot be removed because service {} depends on it",
                service.id
            )
        })
    } else {
        user_of(tx, id).map(|user| format!("network {id} is in use by {user}"))
    };
    if let Some(message) = refusal {
        return Err(CommandError::new(Code::FailedPrecondition, message));
    }
    tx.remove_network(id);
    Ok(Answer::Done)
}

/// Gives a new cluster its networks, and an older one the node-local ones it lacks. A missing
/// ingress network was removed by somebody.
pub(super) fn ensure(tx: &mut Transaction, rng: &mut Rng, is_new: bool) {
    for spec in network::networks_of_a_new_cluster() {
        let is_wanted = is_new || !spec.is_ingress;
        let is_there = tx
            .view()
            .networks()
            .by_name(&spec.annotations.name)
            .is_some();
        if is_wanted && !is_there {
            // Only pools of the operator's choosing can be too small for one subnet. The
            // allocator then says so, and the cluster does without published ports.
            let _ = add(tx, rng, spec);
        }
    }
}

/// Gives a cluster the network between its nodes, in the wanted pool if nothing is in its way. A
/// swarm that was restored has none.
pub(super) fn ensure_node_network(
    tx: &mut Transaction,
    rng: &mut Rng,
    wanted: Option<ipnet::Ipv4Net>,
) {
    if tx.view().cluster().is_none() || tx.view().networks().node_network().is_some() {
        return;
    }
    let Some(spec) = network::node_network(tx.view(), wanted) else {
        tracing::warn!("No pool is left for the node network: published ports lead nowhere");
        return;
    };
    if let Err(error) = add(tx, rng, spec) {
        tracing::warn!(error = %error, "Node network not made: published ports lead nowhere");
    }
}

fn add(tx: &mut Transaction, rng: &mut Rng, spec: NetworkSpec) -> Result<NetworkId, CommandError> {
    let id = NetworkId::random(rng);
    let Allocation { driver_state, ipam } = network::allocate(tx.view(), id, &spec)
        .map_err(|refusal| CommandError::new(Code::FailedPrecondition, refusal.to_string()))?;
    let network = Network {
        id,
        meta: Meta::default(),
        spec,
        driver_state: Some(driver_state),
        ipam: Some(ipam),
        is_pending_delete: false,
    };
    tx.create_network(network)
        .map_err(|error| super::refuse_store_error(&error))?;
    Ok(id)
}

/// Who uses the network, as a text: a service that wants it, or a task that runs on it.
fn user_of(tx: &Transaction, id: NetworkId) -> Option<String> {
    let tables = tx.view().networks();
    if let Some(service) = tables.services_on(id).next() {
        return Some(format!("service {service}"));
    }
    let mut holders = tables.addresses().of_network(id).map(|(_, holder)| holder);
    holders.find_map(|holder| {
        let Holder::Task(task) = holder else {
            return None;
        };
        let task = tx.view().task(task)?;
        let is_user = task.desired_state <= TaskState::Complete;
        is_user.then(|| format!("task {}", task.id))
    })
}

fn needs_ingress(service: &Service) -> bool {
    let mut ports = service.spec.endpoint.iter().flat_map(|spec| &spec.ports);
    ports.any(|port| port.publish_mode == PublishMode::Ingress)
}
