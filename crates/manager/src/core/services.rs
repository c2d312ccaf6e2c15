//! Commands on services: create, update, roll back, remove.

mod depends;

use std::{collections::BTreeSet, sync::Arc};

use skep_control::job;
use skep_model::{
    DEFAULT_DATA_PATH_PORT, NetworkId, PortConfig, Protocol, Rng, Service, ServiceId, ServiceSpec,
    UpdateState, UpdateStatus, Version, validate,
};
use skep_store::{Error, Transaction};

use super::{refuse_problems, refuse_store_error, revisions, secrets};
use crate::{
    command::{Answer, Code, CommandError, ServiceChange},
    group::Group,
};

/// Where managers listen unless they say otherwise.
const CONTROL_PORT: u16 = 2377;
/// Where the tunnels of encrypted networks end (`skep_network::tunnel::PORT`).
const TUNNEL_PORTS: [u16; 2] = [4796, 4797];

/// Adds a service.
pub(super) fn create(
    tx: &mut Transaction,
    group: &Group,
    rng: &mut Rng,
    spec: ServiceSpec,
) -> Result<Answer, CommandError> {
    refuse_problems(&validate::service_spec(&spec))?;
    check_networks(tx, &spec)?;
    secrets::check_references(tx, &spec)?;
    check_own_ports(tx, group, &spec)?;
    check_ports(tx, None, &spec)?;
    check_name_is_free(tx, &spec.annotations.name)?;
    depends::check(tx.view(), None, &spec)?;
    let id = ServiceId::random(rng);
    let (job_status, update_status) = job::begin(&spec, tx.now());
    let service = Service {
        id,
        meta: skep_model::Meta::default(),
        spec: Arc::new(spec),
        spec_version: Version(0),
        previous_spec: None,
        previous_spec_version: None,
        endpoint: None,
        update_status,
        job_status,
        is_pending_delete: false,
    };
    tx.create_service(service.clone())
        .map_err(|error| refuse_store_error(&error))?;
    revisions::record(tx, rng, &service);
    Ok(Answer::Service(id))
}

/// Replaces a service's spec, or returns to the previous one.
pub(super) fn update(
    tx: &mut Transaction,
    (rng, group): (&mut Rng, &Group),
    id: ServiceId,
    (version, change): (Version, ServiceChange),
) -> Result<Answer, CommandError> {
    let Some(stored) = tx.view().service(id) else {
        return Err(not_found(id));
    };
    let stored = Arc::clone(stored);
    if stored.meta.version == tx.version() {
        // Written in this entry: nobody can have read that yet, and a version guessed right would be
        // that of two specs.
        return Err(refuse_store_error(&Error::OutOfSequence));
    }
    let mut service = Service::clone(&stored);
    service.meta.version = version;
    match change {
        ServiceChange::Spec(spec) => {
            refuse_problems(&validate::service_spec(&spec))?;
            check_change(&service.spec, &spec)?;
            check_networks(tx, &spec)?;
            secrets::check_references(tx, &spec)?;
            check_own_ports(tx, group, &spec)?;
            check_ports(tx, Some(id), &spec)?;
            depends::check(tx.view(), Some(&service.spec), &spec)?;
            service.previous_spec = Some(std::mem::replace(&mut service.spec, (*spec).into()));
            service.previous_spec_version = Some(service.spec_version);
            service.spec_version = version;
            service.update_status = None;
        }
        ServiceChange::Rollback => {
            roll_back(&mut service, tx.now())?;
            check_networks(tx, &service.spec)?;
            check_ports(tx, Some(id), &service.spec)?;
            secrets::check_references(tx, &service.spec)?;
        }
        ServiceChange::RollbackTo(number) => {
            roll_back_to(tx, &mut service, number)?;
            secrets::check_references(tx, &service.spec)?;
        }
    }
    job::revise(&mut service, &stored, tx.now());
    tx.update_service(service.clone())
        .map_err(|error| refuse_store_error(&error))?;
    revisions::record(tx, rng, &service);
    Ok(Answer::Done)
}

/// Removes a service; its tasks follow through the orchestrators.
pub(super) fn remove(tx: &mut Transaction, id: ServiceId) -> Result<Answer, CommandError> {
    if tx.remove_service(id) {
        revisions::forget(tx, id);
        Ok(Answer::Done)
    } else {
        Err(not_found(id))
    }
}

/// Swaps the spec with the previous one, as `docker service rollback` asks.
fn roll_back(service: &mut Service, now: skep_model::Timestamp) -> Result<(), CommandError> {
    let Some(previous) = service.previous_spec.take() else {
        let message = format!("service {} does not have a previous spec", service.id);
        return Err(CommandError::new(Code::FailedPrecondition, message));
    };
    let previous_version = service.previous_spec_version.unwrap_or_default();
    service.previous_spec = Some(std::mem::replace(&mut service.spec, previous));
    service.previous_spec_version = Some(service.spec_version);
    service.spec_version = previous_version;
    service.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: Some(now),
        completed_at: None,
        message: "manually requested rollback".to_owned(),
    });
    Ok(())
}

/// Goes to the spec of a kept revision, which must still be possible: its networks may be gone and
/// its ports taken.
fn roll_back_to(tx: &Transaction, service: &mut Service, number: u64) -> Result<(), CommandError> {
    let kept = revisions::list(tx.view(), service.id);
    let Some(revision) = kept.iter().find(|revision| revision.number == number) else {
        let numbers: Vec<String> = kept.iter().map(|r| r.number.to_string()).collect();
        let message = format!(
            "service {} has no revision {number}: kept are {}",
            service.name(),
            numbers.join(", ")
        );
        return Err(CommandError::new(Code::NotFound, message));
    };
    if revision.spec_version == service.spec_version {
        let message = format!("service {} is at revision {number}", service.name());
        return Err(CommandError::new(Code::FailedPrecondition, message));
    }
    refuse_problems(&validate::service_spec(&revision.spec))?;
    check_change(&service.spec, &revision.spec)?;
    check_networks(tx, &revision.spec)?;
    check_ports(tx, Some(service.id), &revision.spec)?;
    let old = std::mem::replace(&mut service.spec, revision.spec.clone());
    service.previous_spec = Some(old);
    service.previous_spec_version = Some(service.spec_version);
    service.spec_version = revision.spec_version;
    service.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: Some(tx.now()),
        completed_at: None,
        message: format!("manually requested rollback to revision {number}"),
    });
    Ok(())
}

/// What an update may not change (SwarmKit answers the same).
fn check_change(old: &ServiceSpec, new: &ServiceSpec) -> Result<(), CommandError> {
    if old.annotations.name != new.annotations.name {
        let message = "renaming services is not supported";
        return Err(CommandError::new(Code::Unimplemented, message));
    }
    if std::mem::discriminant(&old.mode) != std::mem::discriminant(&new.mode) {
        let message = "service mode change is not allowed";
        return Err(CommandError::new(Code::Unimplemented, message));
    }
    Ok(())
}

fn check_name_is_free(tx: &Transaction, name: &str) -> Result<(), CommandError> {
    if tx.view().service_by_name(name).is_none() {
        return Ok(());
    }
    let message = format!("name conflicts with an existing object: service {name} already exists");
    Err(CommandError::new(Code::AlreadyExists, message))
}

/// Networks are named by id, exist, and are neither the one for published ports nor
/// the one between nodes.
fn check_networks(tx: &Transaction, spec: &ServiceSpec) -> Result<(), CommandError> {
    // The deprecated list is the task's again, or instead of it.
    for networks in [&spec.task.networks, &spec.networks] {
        let mut seen = BTreeSet::new();
        if let Some(twice) = networks.iter().find(|wanted| !seen.insert(&wanted.target)) {
            let id = twice.target.parse::<NetworkId>().ok();
            let network = id.and_then(|id| tx.view().networks().get(id));
            let name = network.map_or(twice.target.as_str(), |network| network.name());
            let message = format!("network {name:?} is specified multiple times");
            return Err(CommandError::new(Code::InvalidArgument, message));
        }
    }
    for wanted in spec.task.networks.iter().chain(&spec.networks) {
        let id = wanted.target.parse::<NetworkId>();
        let network = id.ok().and_then(|id| tx.view().networks().get(id));
        let Some(network) = network else {
            let message = format!("network {} not found", wanted.target);
            return Err(CommandError::new(Code::NotFound, message));
        };
        if network.spec.is_ingress {
            let message = format!(
                "Service cannot be explicitly attached to the ingress network {:?}",
                network.name()
            );
            return Err(CommandError::new(Code::InvalidArgument, message));
        }
        if network.spec.is_node_network() {
            let message = format!(
                "Service cannot be explicitly attached to the node network {:?}",
                network.name()
            );
            return Err(CommandError::new(Code::InvalidArgument, message));
        }
    }
    Ok(())
}

/// Ports the cluster lives on: a service that published one on every node would take its nodes' own
/// traffic, and the control plane with it. Swarm's, and the two of encrypted networks.
fn check_own_ports(
    tx: &Transaction,
    group: &Group,
    spec: &ServiceSpec,
) -> Result<(), CommandError> {
    let data_path = tx
        .view()
        .cluster()
        .map_or(0, |cluster| cluster.vxlan_udp_port);
    let data_path = if data_path == 0 {
        DEFAULT_DATA_PATH_PORT
    } else {
        data_path
    };
    let control = control_ports(group);
    let ports = spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let mut taken = ports.filter(|port| match port.protocol {
        Protocol::Tcp => control.contains(&port.published_port),
        Protocol::Udp => {
            port.published_port == data_path || TUNNEL_PORTS.contains(&port.published_port)
        }
        Protocol::Sctp => false,
    });
    match taken.next() {
        None => Ok(()),
        Some(port) => {
            let protocol = if port.protocol == Protocol::Tcp {
                "tcp"
            } else {
                "udp"
            };
            let message = format!(
                "port {}/{protocol} cannot be published: the nodes of the cluster use it themselves",
                port.published_port
            );
            Err(CommandError::new(Code::InvalidArgument, message))
        }
    }
}

/// Where managers listen. Workers reach managers there through the nodes they are on, so no node's
/// program may have them.
fn control_ports(group: &Group) -> BTreeSet<u16> {
    let addrs = group.members.values().map(|status| &status.member.addr);
    let ports: BTreeSet<u16> = addrs
        .filter_map(|addr| addr.rsplit_once(':')?.1.parse().ok())
        .collect();
    if ports.is_empty() {
        return BTreeSet::from([CONTROL_PORT]);
    }
    ports
}

/// Published ports no other service has. Only services with one of the numbers are looked at.
fn check_ports(
    tx: &Transaction,
    own: Option<ServiceId>,
    spec: &ServiceSpec,
) -> Result<(), CommandError> {
    let ports = spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let holders = ports.flat_map(|port: &PortConfig| {
        let tables = tx.view().networks();
        tables.services_with_port(port.protocol, port.published_port)
    });
    let holders: BTreeSet<ServiceId> = holders.map(|(_, id)| id).collect();
    let services = holders.into_iter().filter_map(|id| tx.view().service(id));
    refuse_problems(&validate::port_conflicts(
        spec,
        own,
        services.map(|service| &**service),
    ))
}

fn not_found(id: ServiceId) -> CommandError {
    CommandError::new(Code::NotFound, format!("service {id} not found"))
}
