//! What Docker's services do not have and Skep's have as labels: `depends_on`, and how a container runs on its node.

use std::collections::BTreeMap;

use skep_model::reserved::service::run;

use super::{DEPENDS_ON, Stack};
use crate::project::{Condition, Service};

/// Adds to the labels of service `name` what its keys say. Labels of the file that say something else are problems.
pub(super) fn add(
    stack: &mut Stack<'_>,
    name: &str,
    service: &Service,
    labels: &mut BTreeMap<String, String>,
) {
    let said = [
        ("depends_on", DEPENDS_ON, depends_on(stack, service)),
        (
            "privileged",
            run::PRIVILEGED,
            service.is_privileged.then(|| "true".to_owned()),
        ),
        ("devices", run::DEVICES, devices(service)),
        (
            "shm_size",
            run::SHM_SIZE,
            service.shm_size.map(|bytes| bytes.to_string()),
        ),
        ("security_opt", run::SECURITY_OPT, security_opt(service)),
        ("pid", run::PID, service.pid.clone()),
        ("ipc", run::IPC, service.ipc.clone()),
        ("uts", run::UTS, service.uts.clone()),
    ];
    for (key, label, value) in said {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            continue;
        };
        let before = labels.insert(label.to_owned(), value.clone());
        if before.is_some_and(|before| before != value) {
            let text = format!("`{key}` and the label `{label}` contradict each other");
            stack.problem(name, key, &text);
        }
    }
    let restarted = service.depends_on.iter().filter(|(_, d)| d.is_restart);
    for (other, _) in restarted {
        let text = format!("`restart` of the dependency on `{other}` is left out");
        stack.warn(name, "depends_on", &text);
    }
}

fn depends_on(stack: &Stack<'_>, service: &Service) -> Option<String> {
    let one = |(name, condition): (&String, Condition)| {
        let condition = match condition {
            Condition::Started => "started",
            Condition::Healthy => "healthy",
            Condition::Completed => "completed",
        };
        format!("{}={condition}", stack.scoped(name))
    };
    let dependencies = service.depends_on.iter();
    let dependencies = dependencies.map(|(name, dependency)| (name, dependency.condition));
    let parts: Vec<String> = dependencies.map(one).collect();
    (!parts.is_empty()).then(|| parts.join(","))
}

fn devices(service: &Service) -> Option<String> {
    let devices = service.devices.iter().map(|device| {
        let (source, target) = (&device.source, &device.target);
        format!("{source}:{target}:{}", device.permissions)
    });
    let devices: Vec<String> = devices.collect();
    (!devices.is_empty()).then(|| devices.join(","))
}

/// Docker's options are written with a colon or an equals sign.
fn security_opt(service: &Service) -> Option<String> {
    let options = service.security_opt.iter().map(|option| {
        let end = option.find([':', '=']).unwrap_or(option.len());
        let (name, rest) = option.split_at(end);
        match rest.get(1..) {
            Some(value) => format!("{name}={value}"),
            None => name.to_owned(),
        }
    });
    let options: Vec<String> = options
        .filter(|option| option != "no-new-privileges=false")
        .collect();
    (!options.is_empty()).then(|| options.join(","))
}
