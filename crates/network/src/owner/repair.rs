//! Repair and removal: reconciliation, the reaper of detached endpoints, and the end of the node network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tracing::warn;

use super::{Error, ErrorChain, Owner, Report};
use crate::apply::ApplyError;
use crate::config::Layout;
use crate::conntrack::Forget;
use crate::doctor;
use crate::nft;
use crate::observe::observe;
use crate::plan::{Step, plan};
use crate::pool::Pool;
use crate::rules;

// === impl Owner ===

impl Owner {
    /// Compares everything with the kernel and performs the plan. A failed step of one endpoint leaves the others alone.
    pub(super) fn reconcile(&mut self) -> Result<Report, Arc<ApplyError>> {
        self.reap();
        self.reserve_adopted_ports();
        let netns_dir = self.kernel.netns_dir().to_owned();
        let observed = observe(&self.desired, &mut self.kernel.route, &netns_dir)?;
        let steps = plan(&self.desired, &observed);
        let mut failures = BTreeMap::new();
        for step in &steps {
            let endpoint = step.endpoint();
            if endpoint.is_some_and(|id| failures.contains_key(id)) {
                continue;
            }
            if let Err(error) = self.kernel.perform(step) {
                let Some(id) = endpoint else {
                    return Err(Arc::new(error));
                };
                failures.insert(id.to_owned(), Arc::new(error));
            }
        }
        let obstacles = nft::obstacles().map_err(ApplyError::from)?;
        if obstacles != self.known_obstacles {
            if !obstacles.is_empty() {
                warn!(chains = ?obstacles, "Chains of others drop forwarded packets by policy");
            }
            self.known_obstacles.clone_from(&obstacles);
        }
        Ok(Report {
            steps,
            failures,
            obstacles,
        })
    }

    /// Says what a reconciliation would do, without doing it.
    pub(super) fn doctor(&mut self) -> Result<Vec<String>, Arc<ApplyError>> {
        self.reap();
        let netns_dir = self.kernel.netns_dir().to_owned();
        let observed = observe(&self.desired, &mut self.kernel.route, &netns_dir)?;
        let obstacles = nft::obstacles().map_err(ApplyError::from)?;
        Ok(doctor::findings(
            &plan(&self.desired, &observed),
            &obstacles,
        ))
    }

    /// Removes links and namespaces of detached endpoints, all links by one request, and gives their addresses back.
    ///
    /// What fails is logged; reconciliation finds it again, because no endpoint claims it. An address is given back even so:
    /// a link that is still there has the name the next one would need.
    pub(super) fn reap(&mut self) {
        let dying = std::mem::take(&mut self.dying);
        if dying.is_empty() {
            return;
        }
        let addresses = dying.values().filter_map(|dying| dying.address);
        let names: BTreeSet<String> = addresses
            .map(|address| self.desired.link_name(address))
            .collect();
        let delete_netns = dying.keys().map(|id| Step::DeleteNetns { id: id.clone() });
        for step in [Step::DeleteLinks { names }]
            .into_iter()
            .chain(delete_netns)
        {
            if let Err(error) = self.kernel.perform(&step) {
                warn!(%step, error = %ErrorChain(&error), "Remains of an endpoint not removed");
            }
        }
        let has_udp = dying.values().filter(|dying| dying.has_udp);
        let addresses = has_udp.flat_map(|dying| [dying.address, dying.address6.map(IpAddr::V6)]);
        let forget = Forget {
            addresses: addresses.flatten().collect(),
            ..Forget::default()
        };
        self.forget_flows(&forget);
        for address in dying.into_values().filter_map(|dying| dying.address) {
            self.pool.release(address);
        }
    }

    /// Forgets flows of endpoints.
    pub(super) fn forget_flows(&mut self, forget: &Forget) {
        let has_v6 = self.desired.layout.v6.is_some();
        forget.perform(&mut self.kernel.flows, has_v6);
    }

    /// Gives the node network another layout.
    pub(super) fn resize(&mut self, layout: Layout) -> Result<(), Error> {
        let mistakes = layout.check();
        if !mistakes.is_empty() {
            return Err(Error::Config(mistakes));
        }
        let (layout, old) = (super::usable(layout), self.desired.layout);
        if layout == old {
            return Ok(());
        }
        let old_pool = self.pool.clone();
        if layout.has_addresses_of(&old) {
            self.pool.share(layout.is_shared);
        } else {
            self.reap();
            let endpoints = self.desired.endpoints.values();
            let count = endpoints.filter(|one| one.address.is_some()).count();
            if count > 0 {
                return Err(Error::InUse { count });
            }
            self.pool = Pool::new(layout.v4, layout.is_shared);
        }
        self.desired.layout = layout;
        if let Err(error) = self.save() {
            (self.desired.layout, self.pool) = (old, old_pool);
            return Err(error.into());
        }
        self.reconcile()?;
        Ok(())
    }

    /// Takes everything away. Continues past failures and returns the first.
    pub(super) fn remove(&mut self) -> Result<(), Error> {
        let ids: Vec<String> = self.desired.endpoints.keys().cloned().collect();
        for id in ids {
            self.forget(&id);
        }
        let saved = self.save().map_err(Error::from);
        self.reap();
        let bridge = self.kernel.route.delete_link(&self.desired.bridge);
        let tables = [rules::TABLE, rules::TABLE6].map(rules::remove_script);
        let table = nft::run(&tables.concat());
        let files = self
            .dir
            .remove()
            .map_err(|error| Error::State(Arc::new(error)));
        let as_error = |error| Error::Apply(Arc::new(error));
        saved
            .and(bridge.map_err(|error| as_error(ApplyError::from(error))))
            .and(table.map_err(|error| as_error(ApplyError::from(error))))
            .and(files)
    }
}
