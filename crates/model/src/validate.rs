//! Rules a spec must satisfy before it is stored, with Swarm's texts.
//!
//! Each rule is a function that pushes what it finds, so that a user sees all mistakes at once;
//! the first problem is the one Swarm would have reported. Rules that need stored objects take
//! them as arguments. What Skep merely does not support yet is refused at the API edge, not here.

mod generic;
mod image;
mod names;
pub mod network;
mod secret;

use std::{collections::BTreeMap, collections::BTreeSet, fmt, time::Duration};

use crate::{
    constraint,
    id::ServiceId,
    object::Service,
    reserved::{
        self,
        service::{
            ServicePolicy,
            run::{ALLOW, Power},
            schedule::JobPolicy,
        },
    },
    spec::{
        Annotations, ClusterSpec, ConfigTarget, ContainerSpec, CredentialSpec, EndpointSpec,
        HealthConfig, Mount, NodeSpec, PortConfig, Protocol, PublishMode, ResolutionMode,
        Resources, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig,
    },
    template::{self, Context},
};

/// Replicas of one service: ten tasks on each node of the largest cluster aimed at. Swarm has no
/// limit; a slip of the finger then fills the managers' memory with tasks. Each takes about 1 KiB.
pub const REPLICAS_MAX: u64 = 100_000;

/// Least CPU that can be asked for: a thousandth of a core, as in Swarm.
pub const NANO_CPUS_MIN: i64 = 1_000_000;
/// Least memory that can be asked for, as in Swarm; less and no process starts.
pub const MEMORY_BYTES_MIN: i64 = 4 * 1024 * 1024;
/// Longest name of a service or node: one DNS label.
pub const NAME_LENGTH_MAX: usize = 63;
/// Least duration in a health check.
pub const HEALTH_DURATION_MIN: Duration = Duration::from_millis(1);
/// Least life of a node certificate.
pub const CERT_EXPIRY_MIN: Duration = Duration::from_secs(3600);
/// The only name a cluster object has.
pub const CLUSTER_NAME: &str = "default";
/// Constraints per service. Swarm has no limit; without one a spec could make every placement slow.
pub const CONSTRAINTS_MAX: usize = 1000;
/// Placement preferences per service, each a level of the tree its tasks are spread over. Swarm has no limit.
pub const PREFERENCES_MAX: usize = 32;
/// Restarts within a window that can be counted: as many ended tasks are kept of each slot. Swarm has no limit.
pub const WINDOW_ATTEMPTS_MAX: u64 = 1000;

pub use self::{
    network::{ipam_of, local_network_spec, network_spec},
    secret::{SUPPLY_NAME_BYTES_MAX, config_spec, secret_spec},
};

/// One thing wrong with a spec: the text a client is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(pub String);

/// Everything wrong with a service spec on its own.
pub fn service_spec(spec: &ServiceSpec) -> Vec<Problem> {
    let mut found = Problems::default();
    check_name(&spec.annotations, &mut found);
    task_spec(&spec.task, &spec.annotations.labels, &mut found);
    check_mode(spec.mode, &mut found);
    match spec.mode {
        ServiceMode::Replicated { .. } | ServiceMode::Global => {
            check_update("update", spec.update.as_ref(), &mut found);
            check_update("rollback", spec.rollback.as_ref(), &mut found);
        }
        ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => {
            check_job_has_no_update(spec, &mut found);
        }
    }
    if let Some(endpoint) = &spec.endpoint {
        check_ingress_needs_vip(endpoint, &mut found);
        check_ports_are_unique(endpoint, &mut found);
    }
    for problem in ServicePolicy::problems(&spec.annotations.labels) {
        found.push(problem.to_string());
    }
    for problem in JobPolicy::problems(&spec.annotations.labels, spec.mode) {
        found.push(problem.to_string());
    }
    found.0
}

/// Everything wrong with replacing `old` by `new`, beyond what is wrong with `new` itself.
pub fn service_update(old: &ServiceSpec, new: &ServiceSpec) -> Vec<Problem> {
    let mut found = Problems::default();
    check_mode_is_kept(old, new, &mut found);
    check_name_is_kept(old, new, &mut found);
    check_networks_migrated(old, new, &mut found);
    found.0
}

/// Ports of `spec` that other services hold; `own` is the service being updated. Services that are
/// published on different addresses do not meet.
pub fn port_conflicts<'a>(
    spec: &ServiceSpec,
    own: Option<ServiceId>,
    services: impl Iterator<Item = &'a Service>,
) -> Vec<Problem> {
    let mut found = Problems::default();
    let wanted: Vec<&PortConfig> = published(spec.endpoint.as_ref()).collect();
    if wanted.is_empty() {
        return found.0;
    }
    for service in services.filter(|service| Some(service.id) != own) {
        let is_elsewhere = ServicePolicy::are_apart(&spec.annotations, &service.spec.annotations);
        let allocated = service.endpoint.iter().flat_map(|e| &e.ports);
        let held = published(service.spec.endpoint.as_ref()).chain(allocated);
        for held in held.filter(|_| !is_elsewhere) {
            check_port_is_free(&wanted, held, service, &mut found);
        }
    }
    found.0.dedup();
    found.0
}

/// Everything wrong with a node spec. Swarm only asks that it exists; names are optional.
pub fn node_spec(spec: &NodeSpec) -> Vec<Problem> {
    let mut found = Problems::default();
    if !spec.annotations.name.is_empty() {
        check_name(&spec.annotations, &mut found);
    }
    let labels = &spec.annotations.labels;
    for key in labels.keys() {
        if key.starts_with(reserved::FAMILY) && key != ALLOW {
            found.push(format!("unknown label `{key}`: known of nodes is {ALLOW}"));
        }
    }
    let powers = Power::ALL.map(Power::name).join(", ");
    for name in Power::unknown(labels) {
        found.push(format!("label `{ALLOW}`: `{name}` is none of {powers}"));
    }
    found.0
}

/// Everything wrong with a cluster spec.
pub fn cluster_spec(spec: &ClusterSpec) -> Vec<Problem> {
    let mut found = Problems::default();
    check_cert_expiry(spec, &mut found);
    check_cluster_name(spec, &mut found);
    for problem in reserved::problems(&spec.annotations.labels) {
        found.push(problem.to_string());
    }
    found.0
}

/// Collects problems; a newtype so that rules read as sentences.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn push(&mut self, text: impl Into<String>) {
        self.0.push(Problem(text.into()));
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === rules of a task ===

/// `labels`: those of the service, which templates may ask for.
fn task_spec(spec: &TaskSpec, labels: &BTreeMap<String, String>, found: &mut Problems) {
    check_resources(&spec.resources.limits, found);
    check_resources(&spec.resources.reservations, found);
    check_constraints(&spec.placement.constraints, found);
    if spec.placement.spread_over.len() > PREFERENCES_MAX {
        found.push(format!(
            "at most {PREFERENCES_MAX} placement preferences are allowed"
        ));
    }
    if !spec.restart.window.is_zero() && spec.restart.max_attempts > WINDOW_ATTEMPTS_MAX {
        found.push(format!(
            "RestartPolicy: at most {WINDOW_ATTEMPTS_MAX} attempts can be counted within a window"
        ));
    }
    check_secrets(&spec.container, found);
    check_configs(&spec.container, found);
    check_credential_spec(&spec.container, found);
    match template::container(&Context::imagined(labels), &spec.container) {
        Ok(expanded) => check_mounts(&expanded.mounts, found),
        Err(error) => found.push(error.to_string()),
    }
    check_image(&spec.container.image, found);
    names::check_names(&spec.container, found);
    if let Some(health) = &spec.container.health {
        check_health(health, found);
    }
}

fn check_resources(resources: &Resources, found: &mut Problems) {
    let cpus = resources.nano_cpus;
    if cpus != 0 && cpus < NANO_CPUS_MIN {
        found.push(format!(
            "invalid cpu value {}: Must be at least 0.001",
            go_float(cpus)
        ));
    }
    let memory = resources.memory_bytes;
    if memory != 0 && memory < MEMORY_BYTES_MIN {
        found.push(format!(
            "invalid memory value {memory}: Must be at least 4MiB"
        ));
    }
    generic::check(&resources.generic, found);
}

/// Billionths in the shortest form, as Go's `%g` prints a float: `0.0005`, `1e-09`.
fn go_float(nanos: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "only printed, and small")]
    let value = nanos as f64 / 1e9;
    if value != 0.0 && value.abs() < 1e-4 {
        let text = format!("{value:e}");
        match text.split_once("e-") {
            Some((digits, power)) => format!("{digits}e-{power:0>2}"),
            None => text,
        }
    } else {
        format!("{value}")
    }
}

fn check_constraints(constraints: &[String], found: &mut Problems) {
    if constraints.len() > CONSTRAINTS_MAX {
        found.push(format!(
            "at most {CONSTRAINTS_MAX} placement constraints are allowed"
        ));
        return;
    }
    for text in constraints {
        if let Err(error) = constraint::parse(std::slice::from_ref(text)) {
            found.push(error.to_string());
        }
    }
}

fn check_secrets(container: &ContainerSpec, found: &mut Problems) {
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for secret in &container.secrets {
        if secret.secret_id.is_empty() || secret.secret_name.is_empty() {
            found.push("malformed secret reference");
            continue;
        }
        let Some(file) = &secret.file else {
            found.push("malformed secret reference, no target provided");
            continue;
        };
        if file.name.is_empty() {
            found.push("malformed file secret reference, invalid target file name provided");
        } else if let Some(other) = targets.insert(&file.name, &secret.secret_name) {
            found.push(format!(
                "secret references '{other}' and '{}' have a conflicting target: '{}'",
                secret.secret_name, file.name
            ));
        }
    }
}

fn check_configs(container: &ContainerSpec, found: &mut Problems) {
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for config in &container.configs {
        if config.config_id.is_empty() || config.config_name.is_empty() {
            found.push("malformed config reference");
            continue;
        }
        let file = match &config.target {
            None => {
                found.push("malformed config reference, no target provided");
                continue;
            }
            Some(ConfigTarget::Runtime) => continue,
            Some(ConfigTarget::File(file)) => file,
        };
        if file.name.is_empty() {
            found.push("malformed file config reference, invalid target file name provided");
        } else if let Some(other) = targets.insert(&file.name, &config.config_name) {
            found.push(format!(
                "config references '{other}' and '{}' have a conflicting target: '{}'",
                config.config_name, file.name
            ));
        }
    }
}

fn check_credential_spec(container: &ContainerSpec, found: &mut Problems) {
    let credential = container
        .privileges
        .as_ref()
        .and_then(|privileges| privileges.credential_spec.as_ref());
    let Some(CredentialSpec::Config(id)) = credential.filter(|c| **c != no_config()) else {
        return;
    };
    let is_found = container.configs.iter().any(|config| {
        config.config_id == *id && matches!(config.target, Some(ConfigTarget::Runtime))
    });
    if !is_found {
        found.push(format!(
            "CredentialSpec references config '{id}', but that config isn't in config references with RuntimeTarget"
        ));
    }
}

fn no_config() -> CredentialSpec {
    CredentialSpec::Config(String::new())
}

fn check_image(image: &str, found: &mut Problems) {
    if image.is_empty() {
        found.push("ContainerSpec: image reference must be provided");
    } else if !image::is_reference(image) {
        found.push(format!(
            "ContainerSpec: {image:?} is not a valid repository/tag"
        ));
    }
}

fn check_mounts(mounts: &[Mount], found: &mut Problems) {
    let mut targets = BTreeSet::new();
    for mount in mounts {
        if !targets.insert(&mount.target) {
            found.push(format!(
                "ContainerSpec: duplicate mount point: {}",
                mount.target
            ));
        }
    }
}

fn check_health(health: &HealthConfig, found: &mut Problems) {
    for (name, duration) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if !duration.is_zero() && duration < HEALTH_DURATION_MIN {
            found.push(format!(
                "ContainerSpec: {name} in HealthConfig cannot be less than 1ms"
            ));
        }
    }
    if health.retries < 0 {
        found.push("ContainerSpec: Retries in HealthConfig cannot be negative");
    }
    // Docker takes anything and then probes nothing.
    let is_known = match health.test.first().map(String::as_str) {
        None | Some("NONE") => true,
        Some("CMD" | "CMD-SHELL") => health.test.len() > 1,
        Some(_) => false,
    };
    if !is_known {
        found.push(
            "ContainerSpec: Test in HealthConfig must be NONE, or CMD or CMD-SHELL and a command",
        );
    }
}

// === rules of a service ===

fn check_name(annotations: &Annotations, found: &mut Problems) {
    let name = &annotations.name;
    if name.is_empty() {
        found.push("meta: name must be provided");
    } else if !is_dns_name(name) {
        found.push("name must be valid as a DNS name component");
    } else if name.len() > NAME_LENGTH_MAX {
        found.push("name must be 63 characters or fewer");
    }
}

/// Letters and digits, with `-` and `_` anywhere but at the ends.
fn is_dns_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    is_end(bytes.first())
        && is_end(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
}

fn check_mode(mode: ServiceMode, found: &mut Problems) {
    let is_negative = |count: u64| i64::try_from(count).is_err();
    match mode {
        ServiceMode::Replicated { replicas } => {
            if is_negative(replicas) {
                found.push("Number of replicas must be non-negative");
            } else if replicas > REPLICAS_MAX {
                found.push(format!("Number of replicas must be at most {REPLICAS_MAX}"));
            }
        }
        ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions,
        } => {
            if is_negative(max_concurrent) {
                found.push("Maximum concurrent jobs must not be negative");
            }
            if is_negative(total_completions) {
                found.push("Total completed jobs must not be negative");
            }
            if [max_concurrent, total_completions]
                .iter()
                .any(|n| (REPLICAS_MAX + 1..=i64::MAX.unsigned_abs()).contains(n))
            {
                found.push(format!(
                    "Total and concurrent jobs must be at most {REPLICAS_MAX}"
                ));
            }
        }
        ServiceMode::Global | ServiceMode::GlobalJob => {}
    }
}

fn check_update(which: &str, config: Option<&UpdateConfig>, found: &mut Problems) {
    let Some(config) = config else { return };
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        found.push(format!(
            "TaskSpec: {which}-maxfailureratio cannot be less than 0 or bigger than 1"
        ));
    }
}

fn check_job_has_no_update(spec: &ServiceSpec, found: &mut Problems) {
    if spec.update.is_some() {
        found.push("Jobs may not have an update config");
    }
}

fn check_ingress_needs_vip(endpoint: &EndpointSpec, found: &mut Problems) {
    let has_ingress = endpoint
        .ports
        .iter()
        .any(|port| port.publish_mode == PublishMode::Ingress);
    if endpoint.mode == ResolutionMode::DnsRr && has_ingress {
        found.push("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
    }
}

fn check_ports_are_unique(endpoint: &EndpointSpec, found: &mut Problems) {
    let mut seen: BTreeSet<(u16, Protocol)> = BTreeSet::new();
    let mut ports = endpoint
        .ports
        .iter()
        .filter(|port| port.published_port != 0);
    if ports.any(|port| !seen.insert((port.published_port, port.protocol))) {
        found.push("EndpointSpec: duplicate published ports provided");
    }
}

// === rules of an update ===

fn check_mode_is_kept(old: &ServiceSpec, new: &ServiceSpec, found: &mut Problems) {
    if std::mem::discriminant(&old.mode) != std::mem::discriminant(&new.mode) {
        found.push("service mode change is not allowed");
    }
}

fn check_name_is_kept(old: &ServiceSpec, new: &ServiceSpec, found: &mut Problems) {
    if old.annotations.name != new.annotations.name {
        found.push("renaming services is not supported");
    }
}

fn check_networks_migrated(old: &ServiceSpec, new: &ServiceSpec, found: &mut Problems) {
    if old.networks != new.networks && old.task.networks == new.task.networks {
        found.push("networks must be migrated to TaskSpec before being changed");
    }
}

fn published(endpoint: Option<&EndpointSpec>) -> impl Iterator<Item = &PortConfig> {
    let ports = endpoint.into_iter().flat_map(|endpoint| &endpoint.ports);
    ports.filter(|port| port.published_port != 0)
}

/// Host-mode ports may meet on different nodes; an ingress port is taken everywhere.
fn check_port_is_free(
    wanted: &[&PortConfig],
    held: &PortConfig,
    holder: &Service,
    found: &mut Problems,
) {
    if held.published_port == 0 {
        return;
    }
    let conflicts = |port: &&&PortConfig| {
        (port.published_port, port.protocol) == (held.published_port, held.protocol)
            && (port.publish_mode == PublishMode::Ingress
                || held.publish_mode == PublishMode::Ingress)
    };
    if wanted.iter().any(|port| conflicts(&port)) {
        let kind = match held.publish_mode {
            PublishMode::Host => "a host-published port",
            PublishMode::Ingress => "an ingress port",
        };
        found.push(format!(
            "port '{}' is already in use by service '{}' ({}) as {kind}",
            held.published_port,
            holder.name(),
            holder.id
        ));
    }
}

// === rules of a cluster ===

fn check_cert_expiry(spec: &ClusterSpec, found: &mut Problems) {
    if spec.ca.node_cert_expiry < CERT_EXPIRY_MIN {
        found.push("minimum certificate expiry time is: 1h0m0s");
    }
}

fn check_cluster_name(spec: &ClusterSpec, found: &mut Problems) {
    if spec.annotations.name != CLUSTER_NAME {
        found.push("modification of cluster name is not allowed");
    }
}

#[cfg(test)]
mod tests;
