//! A cluster that rebalances all the time is even in the end: no service has two tasks more on one node than on another that
//! would take one.

use std::collections::BTreeMap;

use skep_model::{
    NodeId, RestartCondition, Service, ServiceMode, Task, TaskState,
    reserved::{
        rebalance::{Mode, RebalancePolicy},
        task::moved_by,
    },
};
use skep_store::Store;

use super::{fits, is_paused};

pub(super) fn check(store: &Store, unmet: &mut Vec<String>) {
    let labels = store
        .cluster()
        .map(|cluster| &cluster.spec.annotations.labels);
    let is_on = labels.is_some_and(|labels| RebalancePolicy::of(labels).mode == Mode::Continuous);
    for service in store.services().filter(|_| is_on) {
        if let Some(uneven) = uneven(store, service) {
            unmet.push(format!(
                "{} could be spread better: {uneven}",
                service.name()
            ));
        }
    }
}

fn uneven(store: &Store, service: &Service) -> Option<String> {
    let ServiceMode::Replicated { replicas } = service.spec.mode else {
        return None;
    };
    let spec = &service.spec.task;
    // Zones come before nodes; a task its policy leaves ended is not missed by anybody.
    let is_judged = spec.placement.spread_over.is_empty()
        && spec.restart.condition != RestartCondition::None
        && !is_paused(service);
    let tasks: Vec<&Task> = store
        .tasks_of_service(service.id)
        .map(|task| task.as_ref())
        .collect();
    let is_serving = |task: &&&Task| {
        task.status.state == TaskState::Running && task.desired_state == TaskState::Running
    };
    let serving: Vec<&Task> = tasks.iter().filter(is_serving).copied().collect();
    if !is_judged || u64::try_from(serving.len()) != Ok(replicas) {
        return None;
    }
    let mut counts: BTreeMap<NodeId, u32> = BTreeMap::new();
    for task in &serving {
        *counts.entry(task.node_id?).or_default() += 1;
    }
    // Nodes that failed the service are left alone for a while.
    let has_failed = |node: NodeId| {
        tasks.iter().any(|task| {
            let is_failure = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
            let is_vain = moved_by(task).is_some() && task.desired_state > TaskState::Running;
            task.node_id == Some(node) && (is_failure || is_vain)
        })
    };
    for task in serving {
        let from = task.node_id?;
        let mut waiting = task.clone();
        waiting.node_id = None;
        waiting.spec = std::sync::Arc::clone(spec);
        for node in store.nodes().filter(|node| !has_failed(node.id)) {
            let (more, less) = (counts[&from], counts.get(&node.id).copied().unwrap_or(0));
            if less + 2 <= more && fits(store, node, &waiting) {
                return Some(format!("{more} on {from}, {less} on {}", node.id));
            }
        }
    }
    None
}
