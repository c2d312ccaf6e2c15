//! Swarm events of `docker events`, made of committed changes. A pure function.

use std::collections::{BTreeMap, BTreeSet};

use skep_docker_api::event::{Event, EventScope};
use skep_manager::group::Group;
use skep_model::{
    Availability, ManagerStatus, Network, Node, NodeId, NodeState, Reachability, Role, Service,
    ServiceMode, Slot, Task, Timestamp, UpdateState, reserved::service::rollout,
};
use skep_store::{Change, Object, Store};

use crate::backend::view::manager_status;

/// The event a change is worth; most changes are worth none. `now` is when a removal is said to
/// have happened: what was removed knows only when it was last written.
pub(crate) fn event(change: &Change, now: Timestamp) -> Option<Event> {
    match (&change.old, &change.new) {
        (None, Some(Object::Service(new))) => Some(service("create", new, BTreeMap::new())),
        (Some(Object::Service(old)), Some(Object::Service(new))) => {
            let attributes = service_differences(old, new);
            let is_news = old.spec != new.spec || !attributes.is_empty();
            is_news.then(|| service("update", new, attributes))
        }
        (Some(Object::Service(old)), None) => Some(Event {
            time: now,
            ..service("remove", old, BTreeMap::new())
        }),
        (None, Some(Object::Node(new))) => Some(node("create", new, BTreeMap::new())),
        (Some(Object::Node(old)), Some(Object::Node(new))) => {
            let attributes = node_differences(old, new);
            let is_news = old.spec != new.spec || !attributes.is_empty();
            is_news.then(|| node("update", new, attributes))
        }
        (Some(Object::Node(old)), None) => Some(Event {
            time: now,
            ..node("remove", old, BTreeMap::new())
        }),
        (old, Some(Object::Task(new))) => task(old.as_ref(), new),
        (None, Some(Object::Network(new))) => network("create", new, new.meta.created_at),
        (Some(Object::Network(old)), None) => network("remove", old, now),
        (old, new) => supply(old.as_ref(), new.as_ref(), now),
    }
}

/// Of tasks what says that their service does not work: a crash loop begins, or a slot is given up.
fn task(old: Option<&Object>, new: &Task) -> Option<Event> {
    let old = match old {
        Some(Object::Task(old)) => Some(old),
        _ => None,
    };
    let is_new_loop = old.is_none()
        && rollout::is_crash_looping(new)
        && rollout::failures_before(new) == rollout::QUICK_FAILURES_FREE + 1;
    let is_given_up =
        rollout::is_exhausted(new) && !old.is_some_and(|old| rollout::is_exhausted(old));
    let action = match (is_new_loop, is_given_up) {
        (true, _) => "crash-loop",
        (false, true) => "restart-exhausted",
        (false, false) => return None,
    };
    let place = match new.slot()? {
        Slot::Number(number) => ("slot".to_owned(), number.to_string()),
        Slot::Node(id) => ("node".to_owned(), id.to_string()),
    };
    let task = ("task".to_owned(), new.id.to_string());
    let service = (
        new.service_id?.to_string(),
        new.service_annotations.name.as_str(),
    );
    let mut attributes = BTreeMap::from([place, task]);
    let error = match is_new_loop {
        true => rollout::cause_before(new).to_owned(),
        false => rollout::cause(new),
    };
    if !error.is_empty() {
        attributes.insert("error".to_owned(), error);
    }
    let time = new.meta.updated_at;
    Some(swarm_event("service", action, service, attributes, time))
}

/// Secrets and configs.
fn supply(old: Option<&Object>, new: Option<&Object>, now: Timestamp) -> Option<Event> {
    let action = match (old, new) {
        (None, _) => "create",
        (Some(_), Some(_)) => "update",
        (Some(_), None) => "remove",
    };
    let (kind, id, name, meta) = match new.or(old)? {
        Object::Secret(secret) => ("secret", secret.id.to_string(), secret.name(), &secret.meta),
        Object::Config(config) => ("config", config.id.to_string(), config.name(), &config.meta),
        _ => return None,
    };
    let time = new.map_or(now, |_| meta.updated_at);
    Some(swarm_event(kind, action, (id, name), BTreeMap::new(), time))
}

/// The node network is none of the users'.
fn network(action: &str, network: &Network, time: Timestamp) -> Option<Event> {
    if network.spec.is_node_network() {
        return None;
    }
    let actor = (network.id.to_string(), network.name());
    Some(swarm_event("network", action, actor, BTreeMap::new(), time))
}

fn service(action: &str, service: &Service, attributes: BTreeMap<String, String>) -> Event {
    swarm_event(
        "service",
        action,
        (service.id.to_string(), service.name()),
        attributes,
        service.meta.updated_at,
    )
}

fn node(action: &str, node: &Node, attributes: BTreeMap<String, String>) -> Event {
    swarm_event(
        "node",
        action,
        (node.id.to_string(), node.hostname()),
        attributes,
        node.meta.updated_at,
    )
}

fn swarm_event(
    kind: &'static str,
    action: &str,
    (actor_id, name): (String, &str),
    mut attributes: BTreeMap<String, String>,
    time: Timestamp,
) -> Event {
    attributes.insert("name".to_owned(), name.to_owned());
    Event {
        kind,
        action: action.to_owned(),
        actor_id,
        attributes,
        scope: EventScope::Swarm,
        time,
    }
}

/// Adds `key.old` and `key.new` when the values differ.
fn note(into: &mut BTreeMap<String, String>, key: &str, old: String, new: String) {
    if old != new {
        into.insert(format!("{key}.old"), old);
        into.insert(format!("{key}.new"), new);
    }
}

fn service_differences(old: &Service, new: &Service) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let image = |service: &Service| service.spec.task.container.image.clone();
    note(&mut found, "image", image(old), image(new));
    let replicas = |service: &Service| match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas.to_string(),
        ServiceMode::Global | ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => {
            String::new()
        }
    };
    note(&mut found, "replicas", replicas(old), replicas(new));
    note(
        &mut found,
        "updatestate",
        update_state(old),
        update_state(new),
    );
    found.retain(|_, value| !value.is_empty());
    if let Some(reason) = update_failure(new).filter(|_| found.contains_key("updatestate.new")) {
        found.insert("updatestate.reason".to_owned(), reason);
    }
    found
}

/// Why an update stopped or was taken back.
fn update_failure(service: &Service) -> Option<String> {
    let status = service.update_status.as_ref()?;
    match status.state {
        UpdateState::Paused
        | UpdateState::RollbackStarted
        | UpdateState::RollbackPaused
        | UpdateState::RollbackCompleted => Some(status.message.clone()),
        UpdateState::Unknown | UpdateState::Updating | UpdateState::Completed => None,
    }
}

fn update_state(service: &Service) -> String {
    let state = service.update_status.as_ref().map(|status| status.state);
    match state {
        None | Some(UpdateState::Unknown) => "",
        Some(UpdateState::Updating) => "updating",
        Some(UpdateState::Paused) => "paused",
        Some(UpdateState::Completed) => "completed",
        Some(UpdateState::RollbackStarted) => "rollback_started",
        Some(UpdateState::RollbackPaused) => "rollback_paused",
        Some(UpdateState::RollbackCompleted) => "rollback_completed",
    }
    .to_owned()
}

fn node_differences(old: &Node, new: &Node) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let availability = |node: &Node| match node.spec.availability {
        Availability::Active => "active".to_owned(),
        Availability::Pause => "pause".to_owned(),
        Availability::Drain => "drain".to_owned(),
    };
    note(
        &mut found,
        "availability",
        availability(old),
        availability(new),
    );
    let role = |node: &Node| match node.spec.desired_role {
        Role::Worker => "worker".to_owned(),
        Role::Manager => "manager".to_owned(),
    };
    note(&mut found, "role", role(old), role(new));
    let state = |node: &Node| match node.status.state {
        NodeState::Unknown => "unknown".to_owned(),
        NodeState::Down => "down".to_owned(),
        NodeState::Ready => "ready".to_owned(),
        NodeState::Disconnected => "disconnected".to_owned(),
    };
    note(&mut found, "state", state(old), state(new));
    found
}

/// The events of a change of leader or of who can be reached: about the nodes of the managers.
pub(crate) fn group_events(old: &Group, new: &Group, store: &Store) -> Vec<Event> {
    let ids: BTreeSet<NodeId> = [old, new]
        .into_iter()
        .flat_map(|group| group.members.values())
        .map(|status| status.member.node_id)
        .collect();
    let events = ids.into_iter().filter_map(|id| {
        let subject = store.node(id)?;
        let was = manager_status(old, id).unwrap_or_default();
        let is = manager_status(new, id).unwrap_or_default();
        let mut found = BTreeMap::new();
        let leads = |status: &ManagerStatus| status.is_leader.to_string();
        note(&mut found, "leader", leads(&was), leads(&is));
        note(
            &mut found,
            "reachability",
            reachability(&was),
            reachability(&is),
        );
        (!found.is_empty()).then(|| node("update", subject, found))
    });
    events.collect()
}

fn reachability(status: &ManagerStatus) -> String {
    match status.reachability {
        Reachability::Unknown => "unknown".to_owned(),
        Reachability::Unreachable => "unreachable".to_owned(),
        Reachability::Reachable => "reachable".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use skep_manager::{bootstrap::NewCluster, event::Bootstrap};
    use skep_model::{ClusterId, ClusterSpec, Rng, RootCa};
    use skep_store::Object;
    use skep_wire::member::Member;

    use super::*;

    fn manager(raft_id: u64) -> Node {
        let mut rng = Rng::from_seed(raft_id);
        let new = NewCluster {
            cluster_id: ClusterId::random(&mut rng),
            node_id: NodeId::random(&mut rng),
            spec: ClusterSpec::default(),
            root_ca: RootCa::default(),
            certificate: Vec::new(),
            availability: Availability::Active,
            data_path_port: 0,
            default_address_pool: Vec::new(),
            subnet_size: 0,
            node_pool: None,
        };
        *Bootstrap::from(new).node
    }

    fn group(leader: Option<u64>, reachability: Reachability) -> Group {
        let members = [1, 2, 9].map(|raft_id| Member {
            raft_id,
            node_id: manager(raft_id).id,
            addr: String::new(),
        });
        let mut group = Group::new(1, members.to_vec());
        group.leader = leader;
        for status in group.members.values_mut() {
            status.reachability = reachability;
        }
        group
    }

    #[test]
    fn a_change_of_leader_is_told_of_both_managers() {
        // The third is in the group, but its node is unknown yet.
        let nodes = [1, 2].map(|raft_id| Object::Node(manager(raft_id).into()));
        let store = Store::from_objects(nodes).unwrap();
        let old = group(Some(1), Reachability::Reachable);
        let new = group(Some(2), Reachability::Reachable);
        assert!(group_events(&old, &old, &store).is_empty());
        let events = group_events(&old, &new, &store);
        assert_eq!(events.len(), 2);
        for event in &events {
            assert_eq!((event.kind, event.action.as_str()), ("node", "update"));
            let now_leads = event.actor_id == manager(2).id.to_string();
            assert_eq!(event.attributes["leader.new"], now_leads.to_string());
            assert_eq!(event.attributes["leader.old"], (!now_leads).to_string());
            assert!(!event.attributes.contains_key("reachability.new"));
        }
        let lost = group(Some(2), Reachability::Unreachable);
        let events = group_events(&new, &lost, &store);
        let told = |event: &Event| event.attributes["reachability.new"].clone();
        assert_eq!(
            events.iter().map(told).collect::<Vec<_>>(),
            ["unreachable"; 2]
        );
    }
}
