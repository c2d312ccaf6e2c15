//! SwarmKit's filters of lists: values of one field are alternatives, fields must all agree, nothing given lets all through.

use std::collections::BTreeMap;

use skep_model::{Cluster, Config, Network, Node, Secret, Service, Task};
use skep_store::Store;
use skep_wire::proto::{
    self, NodeRole, list_clusters_request, list_configs_request, list_networks_request,
    list_nodes_request, list_secrets_request, list_services_request, list_tasks_request,
    node_spec::Membership,
};

type Labels = BTreeMap<String, String>;

pub(super) fn node(filters: &list_nodes_request::Filters, node: &Node) -> bool {
    let spec = &node.spec;
    let engine = node.description.as_ref().map(|it| &it.engine.labels);
    let role = NodeRole::from(node.role).into();
    let membership = Membership::from(spec.membership).into();
    has_name(&filters.names, &filters.name_prefixes, node.hostname())
        && has_prefix(&filters.id_prefixes, node.id.as_str())
        && engine.map_or(filters.labels.is_empty(), |it| {
            has_labels(&filters.labels, it)
        })
        && has_labels(&filters.node_labels, &spec.annotations.labels)
        && is_one_of(&filters.roles, &role)
        && is_one_of(&filters.memberships, &membership)
}

pub(super) fn task(filters: &list_tasks_request::Filters, task: &Task, store: &Store) -> bool {
    let wanted = proto::TaskState::from(task.desired_state).into();
    let service = task.service_id.map(|id| id.to_string()).unwrap_or_default();
    let node = task.node_id.map(|id| id.to_string()).unwrap_or_default();
    let current = || task.service_id.and_then(|id| store.service(id));
    let is_current = || current().is_some_and(|it| Some(it.spec_version) == task.spec_version);
    has_prefix(&filters.id_prefixes, task.id.as_str())
        && is_one_of(&filters.service_ids, &service)
        && is_one_of(&filters.node_ids, &node)
        && is_one_of(&filters.desired_states, &wanted)
        && has_name(
            &filters.names,
            &filters.name_prefixes,
            &task.service_annotations.name,
        )
        && has_labels(&filters.labels, &task.service_annotations.labels)
        && (!filters.up_to_date || is_current())
}

pub(super) fn service(filters: &list_services_request::Filters, service: &Service) -> bool {
    let annotations = &service.spec.annotations;
    has_name(&filters.names, &filters.name_prefixes, &annotations.name)
        && has_prefix(&filters.id_prefixes, service.id.as_str())
        && has_labels(&filters.labels, &annotations.labels)
}

pub(super) fn network(filters: &list_networks_request::Filters, network: &Network) -> bool {
    let annotations = &network.spec.annotations;
    has_name(&filters.names, &filters.name_prefixes, &annotations.name)
        && has_prefix(&filters.id_prefixes, network.id.as_str())
        && has_labels(&filters.labels, &annotations.labels)
}

pub(super) fn secret(filters: &list_secrets_request::Filters, secret: &Secret) -> bool {
    let annotations = &secret.spec.annotations;
    !secret.is_internal
        && has_name(&filters.names, &filters.name_prefixes, &annotations.name)
        && has_prefix(&filters.id_prefixes, secret.id.as_str())
        && has_labels(&filters.labels, &annotations.labels)
}

pub(super) fn config(filters: &list_configs_request::Filters, config: &Config) -> bool {
    let annotations = &config.spec.annotations;
    has_name(&filters.names, &filters.name_prefixes, &annotations.name)
        && has_prefix(&filters.id_prefixes, config.id.as_str())
        && has_labels(&filters.labels, &annotations.labels)
}

pub(super) fn cluster(filters: &list_clusters_request::Filters, cluster: &Cluster) -> bool {
    let annotations = &cluster.spec.annotations;
    has_name(&filters.names, &filters.name_prefixes, &annotations.name)
        && has_prefix(&filters.id_prefixes, cluster.id.as_str())
        && has_labels(&filters.labels, &annotations.labels)
}

fn is_one_of<T: PartialEq>(wanted: &[T], value: &T) -> bool {
    wanted.is_empty() || wanted.contains(value)
}

fn has_prefix(prefixes: &[String], text: &str) -> bool {
    prefixes.is_empty() || prefixes.iter().any(|prefix| text.starts_with(&**prefix))
}

fn has_name(names: &[String], prefixes: &[String], name: &str) -> bool {
    (names.is_empty() && prefixes.is_empty())
        || names.iter().any(|wanted| wanted == name)
        || prefixes.iter().any(|prefix| name.starts_with(&**prefix))
}

/// An empty value asks for the key only.
fn has_labels(wanted: &Labels, labels: &Labels) -> bool {
    wanted.iter().all(|(key, value)| {
        let found = labels.get(key);
        found.is_some_and(|found| value.is_empty() || found == value)
    })
}
