//! What a task's processes may do.

use skep_model as model;

use super::Error;
use crate::runtime::config::{Seccomp, Security};

/// The privileges of a container spec.
pub(super) fn of(spec: &model::ContainerSpec) -> Result<Security, Error> {
    let mut security = Security {
        capabilities_add: spec.capability_add.clone(),
        capabilities_drop: spec.capability_drop.clone(),
        oom_score_adj: i32::try_from(spec.oom_score_adj)
            .ok()
            .filter(|adj| *adj != 0),
        ..Security::default()
    };
    if let Some(privileges) = &spec.privileges {
        security.is_no_new_privileges = privileges.no_new_privileges;
        if let Some(seccomp) = &privileges.seccomp {
            security.seccomp = filter(seccomp)?;
        }
    }
    Ok(security)
}

fn filter(options: &model::SeccompOptions) -> Result<Seccomp, Error> {
    match options.mode {
        model::SeccompMode::Default => Ok(Seccomp::Default),
        model::SeccompMode::Unconfined => Ok(Seccomp::Unconfined),
        model::SeccompMode::Custom => {
            let profile = serde_json::from_slice(&options.profile);
            let profile = profile.map_err(|error| Error::Seccomp(error.to_string()))?;
            Ok(Seccomp::Custom(profile))
        }
    }
}
