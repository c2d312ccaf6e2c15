//! Every write gives an object a higher version, and none beyond the log.

use crate::{
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct VersionsGrow;

impl Invariant for VersionsGrow {
    fn name(&self) -> &'static str {
        "versions-grow"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Some(Applied {
            index,
            changes,
            before,
            ..
        }) = observation.committed()
        else {
            return Ok(());
        };
        for change in changes {
            let Some(new) = &change.new else { continue };
            let version = new.meta().version.0;
            if version >= *index {
                return Err(format!("{:?} has version {version} in {index}", new.id()));
            }
            // Within one entry an object may be written twice with one version.
            if let Some(old) = before.object(new.id())
                && old.meta().version.0 >= version
            {
                let old = old.meta().version;
                return Err(format!("{:?} went from {old} to {version}", new.id()));
            }
        }
        Ok(())
    }
}
