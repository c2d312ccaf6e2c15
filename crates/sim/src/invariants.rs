//! What must never happen. One invariant per file; each sees every observation.

mod acknowledged;
mod availability;
mod certificates;
mod directory;
mod durable_first;
mod jobs;
mod node_addresses;
mod one_container;
mod one_leader;
mod one_task_per_slot;
mod one_vote;
mod placement;
mod redeploys;
mod reports_grow;
mod reservations;
mod rollouts;
mod same_group;
mod same_store;
mod slices_stay;
mod stacks;
mod states_grow;
mod stored_state;
mod supplies;
mod versions_grow;

use std::fmt;

pub(crate) use self::acknowledged::MARKER;
use crate::facts::{Facts, Observation};

/// Something that must always hold.
pub(crate) trait Invariant: fmt::Debug {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Looks at what happened; an error says how it broke.
    fn observe(&mut self, facts: &Facts, observation: &Observation<'_>) -> Result<(), String>;
}

/// All invariants.
pub(crate) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(stored_state::StoredState),
        Box::<states_grow::StatesGrow>::default(),
        Box::new(versions_grow::VersionsGrow),
        Box::new(one_task_per_slot::OneTaskPerSlot),
        Box::<reservations::Reservations>::default(),
        Box::new(placement::Placement),
        Box::<acknowledged::Acknowledged>::default(),
        Box::new(durable_first::DurableFirst),
        Box::<jobs::Jobs>::default(),
        Box::<one_container::OneContainer>::default(),
        Box::<reports_grow::ReportsGrow>::default(),
        Box::new(same_store::SameStore),
        Box::<one_leader::OneLeader>::default(),
        Box::<one_vote::OneVote>::default(),
        Box::new(same_group::SameGroup),
        Box::<certificates::Certificates>::default(),
        Box::new(slices_stay::SlicesStay),
        Box::new(supplies::Supplies),
        Box::new(node_addresses::NodeAddresses),
        Box::<directory::Directory>::default(),
        Box::<rollouts::Rollouts>::default(),
        Box::new(stacks::Stacks),
        Box::new(redeploys::Redeploys),
        Box::<availability::Availability>::default(),
    ]
}
