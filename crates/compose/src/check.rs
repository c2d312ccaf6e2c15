//! What must hold between the parts of a project: names exist, dependencies have an order.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    document::Document,
    problem::Problems,
    project::{MountKind, Project, Service},
    word::nearest,
};

/// Says what does not hold, and takes away dependencies on what is not there and need not be.
pub(crate) fn check(
    project: &mut Project,
    document: &Document,
    inactive: &BTreeMap<String, String>,
    problems: &mut Problems,
) {
    dependencies_exist(project, document, inactive, problems);
    for (name, service) in &project.services {
        references_exist(project, name, service, document, problems);
        targets_differ(name, service, document, problems);
    }
    if let Some(cycle) = cycle(project) {
        let place = document.place(&["services", &cycle[0], "depends_on"]);
        let names: Vec<String> = cycle.iter().map(|name| format!("`{name}`")).collect();
        problems.push(
            Some(place),
            format!("services depend on each other: {}", names.join(" → ")),
        );
    }
}

fn dependencies_exist(
    project: &mut Project,
    document: &Document,
    inactive: &BTreeMap<String, String>,
    problems: &mut Problems,
) {
    let names: BTreeSet<String> = project.services.keys().cloned().collect();
    for (name, service) in &mut project.services {
        service.depends_on.retain(|other, dependency| {
            if names.contains(other) {
                return true;
            }
            if dependency.is_required {
                let place = document.place(&["services", name, "depends_on", other]);
                let text = match inactive.get(other) {
                    Some(profiles) => format!("service `{name}` depends on `{other}`, whose profile `{profiles}` is not active"),
                    None => missing(name, "depends on service", other, names.iter().map(String::as_str)),
                };
                problems.push(Some(place), text);
            }
            false
        });
    }
}

fn references_exist(
    project: &Project,
    name: &str,
    service: &Service,
    document: &Document,
    problems: &mut Problems,
) {
    let mut say = |key: &str, what: &str, other: &str, known: &mut dyn Iterator<Item = &str>| {
        let place = document.place(&["services", name, key, other]);
        problems.push(Some(place), missing(name, what, other, known));
    };
    for other in service.networks.keys() {
        if !project.networks.contains_key(other) && other != "default" {
            say(
                "networks",
                "is on network",
                other,
                &mut names(&project.networks),
            );
        }
    }
    let mounts = service
        .mounts
        .iter()
        .filter(|mount| mount.kind == MountKind::Volume);
    for other in mounts.filter_map(|mount| mount.source.as_ref()) {
        if !project.volumes.contains_key(other) {
            say(
                "volumes",
                "mounts volume",
                other,
                &mut names(&project.volumes),
            );
        }
    }
    for other in service.secrets.iter().map(|reference| &reference.source) {
        if !project.secrets.contains_key(other) && !other.is_empty() {
            say("secrets", "has secret", other, &mut names(&project.secrets));
        }
    }
    let spec = service
        .credential_spec
        .as_ref()
        .and_then(|spec| spec.config.as_ref());
    let references = service.configs.iter().map(|reference| &reference.source);
    for other in references.chain(spec) {
        if !project.configs.contains_key(other) && !other.is_empty() {
            say("configs", "has config", other, &mut names(&project.configs));
        }
    }
}

/// Says which paths of the container something is mounted at twice.
fn targets_differ(name: &str, service: &Service, document: &Document, problems: &mut Problems) {
    let mounts = service
        .mounts
        .iter()
        .map(|mount| (mount.target.as_str(), "volumes"));
    let tmpfs = service
        .tmpfs
        .iter()
        .map(|tmpfs| (tmpfs.target.as_str(), "tmpfs"));
    let mut seen = BTreeSet::new();
    for (target, key) in mounts.chain(tmpfs).filter(|(target, _)| !target.is_empty()) {
        let trimmed = target.trim_end_matches('/');
        if !seen.insert(trimmed) {
            let place = document.place(&["services", name, key]);
            problems.push(
                Some(place),
                format!("service `{name}` has two mounts at `{target}`"),
            );
        }
    }
}

fn names<T>(map: &BTreeMap<String, T>) -> impl Iterator<Item = &str> {
    map.keys().map(String::as_str)
}

fn missing<'a>(
    name: &str,
    what: &str,
    other: &str,
    known: impl Iterator<Item = &'a str>,
) -> String {
    let hint =
        nearest(other, known).map_or(String::new(), |known| format!("; did you mean `{known}`?"));
    format!("service `{name}` {what} `{other}`, which is not in the file{hint}")
}

/// Services that depend on each other, the first one again at the end.
fn cycle(project: &Project) -> Option<Vec<String>> {
    // Services leave once all they depend on has left; what stays is on a cycle or depends on one.
    let mut open: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut waiting: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, service) in &project.services {
        let others = service.depends_on.keys().map(String::as_str);
        open.insert(name, others.clone().collect());
        others.for_each(|other| waiting.entry(other).or_default().push(name));
    }
    let mut free: Vec<&str> = open
        .iter()
        .filter(|(_, others)| others.is_empty())
        .map(|(&name, _)| name)
        .collect();
    while let Some(name) = free.pop() {
        open.remove(name);
        for waiting in waiting.remove(name).unwrap_or_default() {
            if let Some(others) = open.get_mut(waiting) {
                others.remove(name);
                if others.is_empty() {
                    free.push(waiting);
                }
            }
        }
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut walk: Vec<&str> = vec![*open.keys().next()?];
    loop {
        let next = *open.get(walk.last()?)?.iter().next()?;
        seen.insert(walk.last()?, walk.len() - 1);
        if let Some(&at) = seen.get(next) {
            let mut names: Vec<String> = walk[at..].iter().map(|&name| name.to_owned()).collect();
            names.push(next.to_owned());
            return Some(names);
        }
        walk.push(next);
    }
}
