//! Words of a script that change a node.

use skep_model::{Availability, Node, NodeState, Plugin, Role};

use super::World;
use crate::spec;

impl World {
    /// A new leader, who does not know of any node until it registers anew.
    pub(super) fn change_leader_unheard(&mut self) -> String {
        for state in [NodeState::Unknown, NodeState::Ready] {
            let nodes: Vec<Node> = self.store.nodes().map(|n| Node::clone(n)).collect();
            self.write(|tx| {
                for mut node in nodes {
                    if node.status.state != NodeState::Down {
                        node.status.state = state;
                        tx.note_node(node).unwrap();
                    }
                }
            });
        }
        self.change_leader()
    }
}

/// Changes `node` as `args` say.
pub(super) fn change_node(node: &mut Node, args: &[&str]) {
    let description = node.description.as_mut().unwrap();
    let resources = &mut description.resources;
    for arg in args {
        let (key, value) = arg.split_once('=').unwrap();
        match key {
            "cpu" => resources.nano_cpus = spec::nano_cpus(value),
            "mem" => resources.memory_bytes = spec::bytes(value),
            "gpu" => {
                let terms: Vec<String> = value.split(',').map(|v| format!("gpu={v}")).collect();
                resources.generic = skep_model::parse_generic(&terms).unwrap();
            }
            "arch" => description.platform.architecture = value.to_owned(),
            "os" => description.platform.os = value.to_owned(),
            "addr" => node.status.addr = value.to_owned(),
            "role" if value == "manager" => node.role = Role::Manager,
            "plugin" => {
                let (kind, name) = value.split_once('/').unwrap();
                description.engine.plugins.push(Plugin {
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                });
            }
            "availability" => {
                node.spec.availability = match value {
                    "active" => Availability::Active,
                    "pause" => Availability::Pause,
                    "drain" => Availability::Drain,
                    other => panic!("unknown availability `{other}`"),
                }
            }
            _ => {
                let label = key.strip_prefix("label.").unwrap();
                let labels = &mut node.spec.annotations.labels;
                labels.insert(label.to_owned(), value.to_owned());
            }
        }
    }
}
