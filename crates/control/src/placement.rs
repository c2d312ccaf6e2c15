//! Resources of a node as tasks take them: CPU, memory, and generic resources by name or count.

use skep_model::{GenericResource, Node, Resources, Task};

/// What is left of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    pub(crate) nano_cpus: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) generic: Vec<GenericResource>,
}

impl Pool {
    /// All of a node. A node that has not described itself has nothing.
    pub(crate) fn whole(node: &Node) -> Self {
        let resources = node.description.as_ref().map(|d| d.resources.clone());
        let resources = resources.unwrap_or_default();
        Self {
            nano_cpus: resources.nano_cpus,
            memory_bytes: resources.memory_bytes,
            generic: resources.generic,
        }
    }

    /// Whether what a placed task holds is there.
    pub(crate) fn holds(&self, task: &Task) -> bool {
        let reserved = &task.spec.resources.reservations;
        let is_there = |wanted: &GenericResource| match wanted {
            GenericResource::Named { .. } => self.generic.contains(wanted),
            // A count is not made good by items: nobody could say which.
            GenericResource::Discrete { kind, value } => self.generic.iter().any(|has| match has {
                GenericResource::Discrete {
                    kind: had,
                    value: left,
                } => had == kind && left >= value,
                GenericResource::Named { .. } => false,
            }),
        };
        reserved.memory_bytes <= self.memory_bytes.max(0)
            && reserved.nano_cpus <= self.nano_cpus.max(0)
            && task.assigned_generic_resources.iter().all(is_there)
    }

    /// Takes what a placed task holds.
    pub(crate) fn take(&mut self, task: &Task) {
        let reserved = &task.spec.resources.reservations;
        self.memory_bytes = self.memory_bytes.saturating_sub(reserved.memory_bytes);
        self.nano_cpus = self.nano_cpus.saturating_sub(reserved.nano_cpus);
        self.take_generic(&task.assigned_generic_resources);
    }

    /// Whether a reservation of generic resources can be met. Reservations are counts; they are
    /// met by a count or by so many named items.
    pub(crate) fn has_generic(&self, wanted: &[GenericResource]) -> bool {
        wanted.iter().all(|wanted| match wanted {
            GenericResource::Discrete { kind, value } => self.count(kind) >= *value,
            GenericResource::Named { .. } => false,
        })
    }

    /// Chooses the items that meet a reservation and takes them.
    pub(crate) fn claim(&mut self, reserved: &Resources) -> Vec<GenericResource> {
        let mut claimed = Vec::new();
        for wanted in &reserved.generic {
            if let GenericResource::Discrete { kind, value } = wanted {
                self.choose(kind, *value, &mut claimed);
            }
        }
        self.take_generic(&claimed);
        claimed
    }

    fn choose(&self, wanted_kind: &str, wanted: i64, claimed: &mut Vec<GenericResource>) {
        let mut missing = wanted;
        for item in &self.generic {
            match item {
                GenericResource::Named { kind, .. } if kind == wanted_kind && missing > 0 => {
                    claimed.push(item.clone());
                    missing -= 1;
                }
                GenericResource::Discrete { kind, .. } if kind == wanted_kind && wanted > 0 => {
                    claimed.push(GenericResource::Discrete {
                        kind: kind.clone(),
                        value: wanted,
                    });
                    return;
                }
                GenericResource::Named { .. } | GenericResource::Discrete { .. } => {}
            }
        }
    }

    fn take_generic(&mut self, taken: &[GenericResource]) {
        for taken in taken {
            match taken {
                GenericResource::Named { .. } => {
                    if let Some(at) = self.generic.iter().position(|item| item == taken) {
                        self.generic.remove(at);
                    }
                }
                GenericResource::Discrete { kind, value } => self.reduce(kind, *value),
            }
        }
    }

    fn reduce(&mut self, taken_kind: &str, taken: i64) {
        for item in &mut self.generic {
            if let GenericResource::Discrete { kind, value } = item
                && kind == taken_kind
            {
                *value = value.saturating_sub(taken);
            }
        }
    }

    /// How many of a kind are left.
    fn count(&self, wanted_kind: &str) -> i64 {
        self.generic
            .iter()
            .map(|item| match item {
                GenericResource::Named { kind, .. } => i64::from(kind == wanted_kind),
                GenericResource::Discrete { kind, value } if kind == wanted_kind => *value,
                GenericResource::Discrete { .. } => 0,
            })
            .sum()
    }
}
