//! What the actor tells: status, problems, what was carried. Leaves out when.

use std::sync::Arc;

use tracing::warn;

use super::{Actor, Chain};
use crate::dataplane::{Carried, Status};

// === impl Actor ===

impl Actor {
    /// What was carried, by name.
    pub(super) async fn carried(&self) -> Carried {
        let (Some(member), Some(plane)) = (&self.member, &self.plane) else {
            return Carried::default();
        };
        match plane.counters().await {
            Ok(counters) => Carried::new(&counters, &member.book),
            Err(error) => {
                warn!(error = %Chain(&error), "Counters not read");
                Carried::default()
            }
        }
    }

    /// Tells what works less well than it should: what the plane said, paths that carry too little, and nodes
    /// whose addresses networks have.
    pub(super) fn tell_problems(&self) {
        let Some(member) = &self.member else {
            return;
        };
        let mut problems = self.noted.clone();
        problems.extend(self.paths.problems(&member.book));
        problems.extend(member.book.nodes_inside());
        let paths = self.paths.found().clone();
        self.tell(|status| {
            status.problems = problems;
            status.paths = paths;
        });
    }

    /// Changes the status; problems are logged once, as long as they last.
    pub(super) fn tell(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_if_modified(|status| {
            let mut new = Status::clone(status);
            change(&mut new);
            if new == **status {
                return false;
            }
            for problem in new.problems.difference(&status.problems) {
                warn!(problem, "Data plane");
            }
            *status = Arc::new(new);
            true
        });
    }
}
