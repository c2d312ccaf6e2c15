//! A task is placed only where what it reserves is free, counting tasks that have yet to stop; and
//! nodes are stored with the capacity they said they have.

use std::collections::BTreeMap;

use skep_model::{Node, NodeDescription, NodeId, Task, TaskState};
use skep_store::{Object, Store};

use crate::{
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    described: BTreeMap<NodeId, Vec<NodeDescription>>,
}

impl Invariant for Reservations {
    fn name(&self) -> &'static str {
        "reservations"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        if let Observation::Described { node, description } = observation {
            let known = self.described.entry(*node).or_default();
            known.push((*description).clone());
        }
        let Some(Applied { changes, after, .. }) = observation.committed() else {
            return Ok(());
        };
        for change in changes {
            match (&change.old, &change.new) {
                (old, Some(Object::Task(new))) => {
                    let was_placed = matches!(
                        old,
                        Some(Object::Task(old)) if old.status.state >= TaskState::Assigned
                    );
                    if !was_placed
                        && new.status.state == TaskState::Assigned
                        && let Some(node) = new.node_id.and_then(|id| after.node(id))
                    {
                        check_capacity(after, node, new)?;
                    }
                }
                (_, Some(Object::Node(node))) => self.check_description(node)?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Reservations {
    fn check_description(&self, node: &Node) -> Result<(), String> {
        let Some(stored) = &node.description else {
            return Ok(());
        };
        let known = self.described.get(&node.id);
        if known.is_some_and(|known| known.iter().any(|d| d.resources == stored.resources)) {
            return Ok(());
        }
        Err(format!("node {} never had what is stored of it", node.id))
    }
}

/// A node that shrank may be full of tasks that have yet to stop; a task that reserves nothing
/// comes in all the same.
fn check_capacity(store: &Store, node: &Node, placed: &Task) -> Result<(), String> {
    let wanted = &placed.spec.resources.reservations;
    let (mut cpus, mut memory) = (0, 0);
    let mut held = String::new();
    for task in store.tasks_on_node(node.id) {
        if !(TaskState::Assigned..=TaskState::Running).contains(&task.status.state) {
            continue;
        }
        let reserved = &task.spec.resources.reservations;
        cpus += reserved.nano_cpus;
        memory += reserved.memory_bytes;
        let (state, desired) = (task.status.state, task.desired_state);
        held.push_str(&format!(" {} {state}, shall be {desired};", task.id));
    }
    let has = node.description.as_ref().map(|d| &d.resources);
    let (cpus_max, memory_max) = has.map_or((0, 0), |has| (has.nano_cpus, has.memory_bytes));
    let is_over =
        wanted.nano_cpus > 0 && cpus > cpus_max || wanted.memory_bytes > 0 && memory > memory_max;
    if is_over {
        return Err(format!(
            "node {} has {cpus_max} and {memory_max}, reserved are {cpus} and {memory}:{held}",
            node.id
        ));
    }
    Ok(())
}
