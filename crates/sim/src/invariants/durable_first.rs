//! Agents and clients are told nothing but what is committed, and agents exactly that.

use std::collections::BTreeMap;

use skep_manager::event::ToAgent;
use skep_model::{NodeId, Task, TaskId, dispatch::AssignmentChange};

use crate::{
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct DurableFirst;

impl Invariant for DurableFirst {
    fn name(&self) -> &'static str {
        "durable-first"
    }

    fn observe(&mut self, facts: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Replied { index, .. } | Observation::Sent { index, .. }
                if *index > facts.index() =>
            {
                let committed = facts.index();
                Err(format!("sent at entry {index}, committed is {committed}"))
            }
            Observation::Sent {
                node,
                message: ToAgent::Assignments(message),
                index,
                next,
            } => {
                let mut last: BTreeMap<TaskId, Option<&Task>> = BTreeMap::new();
                for change in &message.changes {
                    match change {
                        AssignmentChange::UpdateTask(task) => last.insert(task.id, Some(task)),
                        AssignmentChange::RemoveTask(id) => last.insert(*id, None),
                        // The invariant `supplies` looks at these.
                        AssignmentChange::UpdateSecret(_)
                        | AssignmentChange::RemoveSecret(_)
                        | AssignmentChange::UpdateConfig(_)
                        | AssignmentChange::RemoveConfig(_) => None,
                    };
                }
                // What is sent is as of the store published last or of the one published next.
                let check = |index| {
                    let mut tasks = last.iter();
                    tasks.try_for_each(|(id, sent)| check_task(facts, index, *node, (*id, *sent)))
                };
                check(*index).or_else(|_| check(*next))
            }
            _ => Ok(()),
        }
    }
}

fn check_task(
    facts: &Facts,
    index: u64,
    node: NodeId,
    (id, sent): (TaskId, Option<&Task>),
) -> Result<(), String> {
    let stored = facts.store_at(index).and_then(|store| store.task(id));
    match (stored, sent) {
        (None, None) => Ok(()),
        (Some(_), None) => Err(format!("agent is told to forget task {id}, which exists")),
        (None, Some(_)) => Err(format!("agent is sent task {id}, which does not exist")),
        (Some(stored), Some(sent)) => {
            if sent.node_id != Some(node) {
                return Err(format!("task {id} is sent to a node that it is not on"));
            }
            if sent.desired_state != stored.desired_state || sent.spec != stored.spec {
                return Err(format!("task {id} is sent otherwise than it is stored"));
            }
            Ok(())
        }
    }
}
