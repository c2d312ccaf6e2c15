//! The owner's work for encrypted networks.

use std::collections::BTreeSet;

use tracing::debug;

use super::{OVERHEAD_V4, Owner};
use crate::plane::Error;
use crate::plane::desired::{Desired, MTU_MIN, Overlay};
use crate::plane::encryption::{self, Action, Wanted};
use crate::plane::hands::ActionError;
use crate::plane::report::{Report, Scope, Step};
use crate::plane::sandbox::{Action as SandboxAction, VXLAN};
use crate::tunnel::Launch;

// === impl Owner ===

impl Owner {
    /// The largest MTU of a network. Tunnels in the tunnels' namespace have IPv4 addresses, whatever the data path has.
    pub(super) fn mtu_of(&self, network: &Overlay) -> u32 {
        if network.is_encrypted {
            let mtu = self
                .link_mtu
                .saturating_sub(encryption::OVERHEAD + OVERHEAD_V4);
            mtu.max(MTU_MIN)
        } else {
            self.mtu_max
        }
    }

    /// Follows what a value wants of tunnels, unless it is believed to be there.
    pub(super) fn follow_encryption(&mut self, desired: &Desired, report: &mut Report) {
        report.warnings.extend(encryption::warnings(desired));
        let wanted = Wanted::new(desired, self.link_mtu);
        // What nobody needs goes last, after the networks that left through it.
        if wanted == Wanted::Nothing || self.tunnels.as_ref() == Some(&wanted) {
            return;
        }
        self.tunnels = None;
        match self.perform_encryption(desired, &wanted, report) {
            Ok(()) => self.tunnels = Some(wanted),
            Err(error) => report.fail(Scope::Encryption, error),
        }
    }

    /// Removes tunnels that no network needs.
    pub(super) fn finish_encryption(&mut self, report: &mut Report) {
        let Some(desired) = self.desired.clone() else {
            return;
        };
        let wanted = Wanted::new(&desired, self.link_mtu);
        if wanted != Wanted::Nothing || self.tunnels.as_ref() == Some(&wanted) {
            return;
        }
        self.tunnels = None;
        match self.perform_encryption(&desired, &wanted, report) {
            Ok(()) => self.tunnels = Some(wanted),
            Err(error) => report.fail(Scope::Encryption, error),
        }
    }

    /// The steps a repair would take, and what no repair of this node can change.
    pub(super) fn examine_encryption(
        &mut self,
        desired: &Desired,
    ) -> Result<(Vec<Step>, Vec<String>), Error> {
        let wanted = Wanted::new(desired, self.link_mtu);
        let state = self.hands.observe_tunnels().map_err(std::sync::Arc::new)?;
        let actions = encryption::plan(&wanted, &state);
        let mut findings = encryption::warnings(desired);
        if let Wanted::Devices(wish) = &wanted {
            let silent = wish.silent(&state).into_iter();
            findings.extend(
                silent.map(|node| format!("node {node} does not answer the encrypted tunnel")),
            );
        }
        Ok((
            actions.into_iter().map(Step::Encryption).collect(),
            findings,
        ))
    }

    fn perform_encryption(
        &mut self,
        desired: &Desired,
        wanted: &Wanted,
        report: &mut Report,
    ) -> Result<(), ActionError> {
        let state = self.hands.observe_tunnels()?;
        let config = desired.tunnel.as_deref();
        let launch = config.map_or_else(Launch::default, |config| config.launch.clone());
        for action in encryption::plan(wanted, &state) {
            debug!(%action, "Encryption action");
            if action == Action::CreateNamespace {
                self.cut_encrypted(desired);
            }
            self.hands.perform_tunnels(&action, &launch)?;
            report.steps.push(Step::Encryption(action));
        }
        Ok(())
    }

    /// Takes away tunnels that leave in a namespace that is about to be replaced: they would vanish with it, at some later moment.
    fn cut_encrypted(&mut self, desired: &Desired) {
        let networks = desired.networks.iter();
        let encrypted = networks.filter(|(_, network)| network.is_encrypted);
        for (id, _) in encrypted {
            self.beliefs.remove(id);
            let links = BTreeSet::from([VXLAN.to_owned()]);
            // Most often there is no sandbox either.
            let _ = self.hands.perform(id, &SandboxAction::DeleteLinks(links));
        }
    }
}
