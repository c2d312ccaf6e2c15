//! What a node must have to take a task: `check` and `explain` side by side, with Swarm's texts.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{
    MountKind, Node, OVERLAY_DRIVER, Platform, Plugin, Protocol, Resources, Task,
    constraint::{self, Constraint},
    reserved::service::run::{Power, RunPolicy},
};

use super::{
    fleet::{Candidate, Fleet, host_ports},
    relation::Relations,
};
use crate::network;

/// A reason not to take a task, in the order they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    Ready,
    Resources,
    Plugin,
    Constraint,
    Allowance,
    Platform,
    HostPort,
    NodeAddress,
    MaxReplicas,
    Affinity,
    AntiAffinity,
}

/// What the tasks of a group ask of a node, parsed once.
pub(super) struct Needs<'a> {
    task: &'a Task,
    reserved: &'a Resources,
    volume_drivers: Vec<&'a str>,
    log_driver: Option<&'a str>,
    network_drivers: BTreeSet<&'a str>,
    constraints: Vec<Constraint>,
    /// What its containers may do on nodes that allow it.
    powers: BTreeSet<Power>,
    ports: Vec<(Protocol, u16)>,
    /// Ports published on every node lead to it, at an address of its node's slice.
    wants_node_address: bool,
    max_replicas: u64,
    /// What the group has to do with other tasks.
    pub(super) relations: Relations,
}

/// How many nodes failed each filter.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<Filter, u32>);

// === impl Needs ===

impl<'a> Needs<'a> {
    pub(super) fn of(task: &'a Task, relations: Relations) -> Self {
        let spec = &task.spec;
        let mounts = spec.container.mounts.iter();
        let volume_drivers = mounts
            .filter(|mount| mount.kind == MountKind::Volume)
            .filter_map(|mount| mount.volume.as_ref()?.driver.as_ref())
            .map(|driver| driver.name.as_str())
            .filter(|name| !name.is_empty() && *name != "local");
        // The task's own choice only: the cluster's default must not exclude nodes.
        let log_driver = spec.log_driver.as_ref().map(|driver| driver.name.as_str());
        let networks = task.networks.iter().map(|place| &place.network);
        let network_drivers = networks
            .filter_map(|network| network.driver_state.as_ref())
            .map(|driver| driver.name.as_str())
            .filter(|name| !name.is_empty());
        Self {
            task,
            reserved: &spec.resources.reservations,
            volume_drivers: volume_drivers.collect(),
            log_driver: log_driver.filter(|name| !name.is_empty() && *name != "none"),
            network_drivers: network_drivers.collect(),
            // Checked before the service was stored; what cannot be read excludes nothing.
            constraints: constraint::parse(&spec.placement.constraints).unwrap_or_default(),
            powers: RunPolicy::of(&task.service_annotations.labels)
                .map(|policy| policy.powers())
                .unwrap_or_default(),
            ports: host_ports(task).collect(),
            wants_node_address: network::wants_address(task),
            max_replicas: spec.placement.max_replicas,
            relations,
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
        } else if !Power::missing(&self.powers, &node.spec.annotations.labels).is_empty() {
            Some(Filter::Allowance)
        } else if !self.fits_platform(node) {
            Some(Filter::Platform)
        } else if !self.has_free_ports(candidate) {
            Some(Filter::HostPort)
        } else if !self.has_node_address(fleet, index) {
            Some(Filter::NodeAddress)
        } else if !self.is_below_max_replicas(count) {
            Some(Filter::MaxReplicas)
        } else if !self.relations.is_near(index) {
            Some(Filter::Affinity)
        } else if !self.relations.is_apart(index) {
            Some(Filter::AntiAffinity)
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
            && self.relations.is_near(index)
            && self.relations.is_apart(index)
    }

    /// How full the node would be with one more task, as classic Swarm weighs nodes: percents of CPU and of memory,
    /// added; what the task does not reserve counts as full.
    pub(super) fn fullness(&self, fleet: &Fleet<'_>, index: usize) -> u32 {
        let candidate = fleet.get(index);
        let description = candidate.node.description.as_ref();
        let whole = description.map(|description| &description.resources);
        let percent = |wanted: i64, free: i64, whole: i64| {
            if wanted == 0 || whole <= 0 {
                return 100;
            }
            let used = i128::from(whole) - i128::from(free) + i128::from(wanted);
            u32::try_from(used * 100 / i128::from(whole)).unwrap_or(0)
        };
        let (cpus, memory) = whole.map_or((0, 0), |whole| (whole.nano_cpus, whole.memory_bytes));
        percent(self.reserved.nano_cpus, candidate.nano_cpus, cpus)
            + percent(self.reserved.memory_bytes, candidate.memory_bytes, memory)
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
        if self.volume_drivers.is_empty()
            && self.log_driver.is_none()
            && self.network_drivers.is_empty()
        {
            return true;
        }
        // A node that has not described its engine is not judged by it.
        let Some(description) = &node.description else {
            return true;
        };
        let plugins = &description.engine.plugins;
        let mut volumes = self.volume_drivers.iter();
        let mut networks = self.network_drivers.iter();
        // An engine that names no drivers of a kind at all is too old to name them.
        let reports = |kind: &str| plugins.iter().any(|plugin| plugin.kind == kind);
        volumes.all(|name| has_plugin(plugins, "Volume", name))
            && self
                .log_driver
                .is_none_or(|name| !reports("Log") || has_plugin(plugins, "Log", name))
            && networks.all(|name| {
                let is_ours = *name == OVERLAY_DRIVER && node.is_skep();
                is_ours || !reports("Network") || has_plugin(plugins, "Network", name)
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
            Self::Allowance => "run options not allowed by node label skep.allow on",
            Self::Platform => "unsupported platform on",
            Self::NodeAddress => "no address for published ports left on",
            Self::HostPort => "host-mode port already in use on",
            Self::Affinity => "affinity not satisfied on",
            Self::AntiAffinity => "anti-affinity not satisfied on",
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
