//! What a node must have to take a task: `check` and `explain` side by side, with Swarm's texts.

use std::collections::BTreeMap;

use skep_model::{
    MountKind, Node, Platform, Plugin, Protocol, Resources, Task,
    constraint::{self, Constraint},
};

use super::fleet::{Candidate, Fleet, host_ports};
use crate::network;

/// A reason not to take a task, in the order they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    Ready,
    Resources,
    Plugin,
    Constraint,
    Platform,
    HostPort,
    NodeAddress,
    MaxReplicas,
}

/// What the tasks of a group ask of a node, parsed once.
pub(super) struct Needs<'a> {
    task: &'a Task,
    reserved: &'a Resources,
    volume_drivers: Vec<&'a str>,
    log_driver: Option<&'a str>,
    constraints: Vec<Constraint>,
    ports: Vec<(Protocol, u16)>,
    /// Ports published on every node lead to it, at an address of its node's slice.
    wants_node_address: bool,
    max_replicas: u64,
}

/// How many nodes failed each filter.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<Filter, u32>);

// === impl Needs ===

impl<'a> Needs<'a> {
    pub(super) fn of(task: &'a Task) -> Self {
        let spec = &task.spec;
        let mounts = spec.container.mounts.iter();
        let volume_drivers = mounts
            .filter(|mount| mount.kind == MountKind::Volume)
            .filter_map(|mount| mount.volume.as_ref()?.driver.as_ref())
            .map(|driver| driver.name.as_str())
            .filter(|name| !name.is_empty() && *name != "local");
        // The task's own choice only: the cluster's default must not exclude nodes.
        let log_driver = spec.log_driver.as_ref().map(|driver| driver.name.as_str());
        Self {
            task,
            reserved: &spec.resources.reservations,
            volume_drivers: volume_drivers.collect(),
            log_driver: log_driver.filter(|name| !name.is_empty() && *name != "none"),
            // Checked before the service was stored; what cannot be read excludes nothing.
            constraints: constraint::parse(&spec.placement.constraints).unwrap_or_default(),
            ports: host_ports(task).collect(),
            wants_node_address: network::wants_address(task),
            max_replicas: spec.placement.max_replicas,
        }
    }

    /// Labels to spread over, outermost first.
    pub(super) fn preferences(&self) -> &'a [String] {
        &self.task.spec.placement.spread_over
    }

    /// True when sums of CPU and memory do not suffice to judge a node.
    pub(super) fn wants_details(&self) -> bool {
        !self.ports.is_empty() || !self.reserved.generic.is_empty()
    }

    /// True when the number of tasks of the service on a node matters.
    pub(super) fn counts_replicas(&self) -> bool {
        self.max_replicas > 0
    }

    /// The first reason why a node does not take a task; `count` is how many of the service it
    /// has.
    pub(super) fn check(&self, fleet: &Fleet<'_>, index: usize, count: u32) -> Option<Filter> {
        let candidate = fleet.get(index);
        let node = candidate.node;
        if !candidate.is_ready {
            Some(Filter::Ready)
        } else if !self.fits_resources(candidate) {
            Some(Filter::Resources)
        } else if !self.has_plugins(node) {
            Some(Filter::Plugin)
        } else if !constraint::matches(&self.constraints, node) {
            Some(Filter::Constraint)
        } else if !self.fits_platform(node) {
            Some(Filter::Platform)
        } else if !self.has_free_ports(candidate) {
            Some(Filter::HostPort)
        } else if !self.has_node_address(fleet, index) {
            Some(Filter::NodeAddress)
        } else if !self.is_below_max_replicas(count) {
            Some(Filter::MaxReplicas)
        } else {
            None
        }
    }

    /// The part of [`Needs::check`] that placing tasks of the same group can change.
    pub(super) fn still_fits(&self, fleet: &Fleet<'_>, index: usize, count: u32) -> bool {
        let candidate = fleet.get(index);
        self.fits_resources(candidate)
            && self.has_free_ports(candidate)
            && self.has_node_address(fleet, index)
            && self.is_below_max_replicas(count)
    }

    fn fits_resources(&self, candidate: &Candidate<'_>) -> bool {
        let Resources {
            nano_cpus,
            memory_bytes,
            generic,
        } = self.reserved;
        if *nano_cpus == 0 && *memory_bytes == 0 && generic.is_empty() {
            return true;
        }
        let details = candidate.details.as_ref();
        *nano_cpus <= candidate.nano_cpus
            && *memory_bytes <= candidate.memory_bytes
            && (generic.is_empty() || details.is_some_and(|d| d.pool.has_generic(generic)))
    }

    fn has_plugins(&self, node: &Node) -> bool {
        if self.volume_drivers.is_empty() && self.log_driver.is_none() {
            return true;
        }
        // A node that has not described its engine is not judged by it.
        let Some(description) = &node.description else {
            return true;
        };
        let plugins = &description.engine.plugins;
        let mut volumes = self.volume_drivers.iter();
        let reports_logs = plugins.iter().any(|plugin| plugin.kind == "Log");
        volumes.all(|name| has_plugin(plugins, "Volume", name))
            // An engine that names no log drivers at all is too old to name them.
            && self.log_driver.is_none_or(|name| {
                !reports_logs || has_plugin(plugins, "Log", name)
            })
    }

    fn fits_platform(&self, node: &Node) -> bool {
        let wanted = &self.task.spec.placement.platforms;
        wanted.is_empty()
            || node.description.as_ref().is_some_and(|description| {
                wanted
                    .iter()
                    .any(|wanted| is_platform(wanted, &description.platform))
            })
    }

    fn has_free_ports(&self, candidate: &Candidate<'_>) -> bool {
        let details = candidate.details.as_ref();
        let is_free = |port| details.is_none_or(|details| !details.used_ports.contains(port));
        self.ports.iter().all(is_free)
    }

    fn has_node_address(&self, fleet: &Fleet<'_>, index: usize) -> bool {
        !self.wants_node_address || fleet.has_node_address(index)
    }

    fn is_below_max_replicas(&self, count: u32) -> bool {
        self.max_replicas == 0 || u64::from(count) < self.max_replicas
    }
}

/// Managed plugins are listed with their tag.
fn has_plugin(plugins: &[Plugin], kind: &str, name: &str) -> bool {
    plugins.iter().any(|plugin| {
        plugin.kind == kind
            && plugin
                .name
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest == ":latest")
    })
}

/// Nodes say `x86_64` where images say `amd64`; an image may leave either part open.
fn is_platform(wanted: &Platform, actual: &Platform) -> bool {
    let is_open = |wanted: &str, actual: &str| wanted.is_empty() || wanted == actual;
    is_open(go_arch(&wanted.architecture), go_arch(&actual.architecture))
        && is_open(&wanted.os, &actual.os)
}

fn go_arch(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

// === impl Filter ===

impl Filter {
    fn explain(self, nodes: u32) -> String {
        let text = match self {
            Self::Ready if nodes == 1 => return "1 node not available for new tasks".to_owned(),
            Self::Ready => return format!("{nodes} nodes not available for new tasks"),
            Self::MaxReplicas => return "max replicas per node limit exceed".to_owned(),
            Self::Resources => "insufficient resources on",
            Self::Plugin => "missing plugin on",
            Self::Constraint => "scheduling constraints not satisfied on",
            Self::Platform => "unsupported platform on",
            Self::NodeAddress => "no address for published ports left on",
            Self::HostPort => "host-mode port already in use on",
        };
        let plural = if nodes == 1 { "" } else { "s" };
        format!("{text} {nodes} node{plural}")
    }
}

// === impl Tally ===

impl Tally {
    pub(super) fn add(&mut self, failed: Filter) {
        *self.0.entry(failed).or_default() += 1;
    }

    /// The failures, most frequent first, then in the order they are asked.
    pub(super) fn explain(&self) -> String {
        let mut failures: Vec<(Filter, u32)> = self.0.iter().map(|(f, n)| (*f, *n)).collect();
        failures.sort_by_key(|(filter, count)| (std::cmp::Reverse(*count), *filter));
        let texts: Vec<String> = failures
            .into_iter()
            .map(|(filter, count)| filter.explain(count))
            .collect();
        texts.join("; ")
    }

    /// The failures as the error of a task that no node takes.
    pub(super) fn no_suitable_node(&self) -> String {
        if self.0.is_empty() {
            "no suitable node".to_owned()
        } else {
            format!("no suitable node ({})", self.explain())
        }
    }
}
