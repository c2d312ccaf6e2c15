//! What a task's processes may do.

use skep_model::{
    self as model, Task,
    reserved::service::run::{Device, RunPolicy},
};

use super::Error;
use crate::runtime::config::{self, Namespaces, Seccomp, Security, SharedNamespace};

/// How the task's service wants its containers to run.
pub(super) fn run_policy(task: &Task) -> Result<RunPolicy, Error> {
    let policy = RunPolicy::of(&task.service_annotations.labels).map_err(|problems| {
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Error::Run(texts.join("; "))
    })?;
    if policy.is_uts_host && !task.spec.container.hostname.is_empty() {
        return Err(Error::Run(
            "conflicting options: hostname and the UTS mode".to_owned(),
        ));
    }
    Ok(policy)
}

/// The namespaces a container shares with its node; the network is decided elsewhere.
pub(super) fn namespaces(run: &RunPolicy) -> Namespaces {
    let shared = |is_host| match is_host {
        true => SharedNamespace::Host,
        false => SharedNamespace::Private,
    };
    Namespaces {
        pid: shared(run.is_pid_host),
        ipc: shared(run.is_ipc_host),
        uts: shared(run.is_uts_host),
        ..Namespaces::default()
    }
}

/// A device as the runtime takes it.
pub(super) fn device(device: &Device) -> config::Device {
    config::Device {
        host_path: device.source.clone().into(),
        container_path: device.target.clone(),
        permissions: device.permissions.clone(),
    }
}

/// The privileges of a container spec and of its service's labels.
pub(super) fn of(spec: &model::ContainerSpec, run: &RunPolicy) -> Result<Security, Error> {
    let open = || run.is_system_unconfined.then(Vec::new);
    let mut security = Security {
        is_privileged: run.is_privileged,
        is_no_new_privileges: run.is_no_new_privileges,
        masked_paths: open(),
        readonly_paths: open(),
        capabilities_add: spec.capability_add.clone(),
        capabilities_drop: spec.capability_drop.clone(),
        oom_score_adj: i32::try_from(spec.oom_score_adj)
            .ok()
            .filter(|adj| *adj != 0),
        ..Security::default()
    };
    if let Some(privileges) = &spec.privileges {
        security.is_no_new_privileges |= privileges.no_new_privileges;
        if let Some(seccomp) = &privileges.seccomp {
            security.seccomp = filter(seccomp)?;
        }
    }
    if run.is_seccomp_unconfined {
        security.seccomp = Seccomp::Unconfined;
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
