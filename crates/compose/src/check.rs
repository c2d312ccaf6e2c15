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
                    None => missing(name, "depends on service", other, &names),
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
    let mut say = |key: &str, what: &str, other: &str, known: &BTreeSet<String>| {
        let place = document.place(&["services", name, key, other]);
        problems.push(Some(place), missing(name, what, other, known));
    };
    let networks: BTreeSet<String> = project.networks.keys().cloned().collect();
    for other in service.networks.keys() {
        if !networks.contains(other) && other != "default" {
            say("networks", "is on network", other, &networks);
        }
    }
    let volumes: BTreeSet<String> = project.volumes.keys().cloned().collect();
    let mounts = service
        .mounts
        .iter()
        .filter(|mount| mount.kind == MountKind::Volume);
    for other in mounts.filter_map(|mount| mount.source.as_ref()) {
        if !volumes.contains(other) {
            say("volumes", "mounts volume", other, &volumes);
        }
    }
    let secrets: BTreeSet<String> = project.secrets.keys().cloned().collect();
    for reference in service
        .secrets
        .iter()
        .filter(|reference| !reference.source.is_empty())
    {
        if !secrets.contains(&reference.source) {
            say("secrets", "has secret", &reference.source, &secrets);
        }
    }
    let configs: BTreeSet<String> = project.configs.keys().cloned().collect();
    let references = service.configs.iter().map(|reference| &reference.source);
    let spec = service
        .credential_spec
        .as_ref()
        .and_then(|spec| spec.config.as_ref());
    for other in references.chain(spec).filter(|other| !other.is_empty()) {
        if !configs.contains(other) {
            say("configs", "has config", other, &configs);
        }
    }
}

fn missing(name: &str, what: &str, other: &str, known: &BTreeSet<String>) -> String {
    let hint = nearest(other, known.iter().map(String::as_str))
        .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
    format!("service `{name}` {what} `{other}`, which is not in the file{hint}")
}

/// Services that depend on each other, the first one again at the end.
fn cycle(project: &Project) -> Option<Vec<String>> {
    // Services leave once all they depend on has left; what stays is on a cycle or depends on one.
    let mut open: BTreeMap<&str, BTreeSet<&str>> = project
        .services
        .iter()
        .map(|(name, service)| {
            let others = service.depends_on.keys().map(String::as_str);
            (name.as_str(), others.collect())
        })
        .collect();
    loop {
        let free: Vec<&str> = open
            .iter()
            .filter(|(_, others)| others.is_empty())
            .map(|(&name, _)| name)
            .collect();
        if free.is_empty() {
            break;
        }
        for name in &free {
            open.remove(name);
        }
        for others in open.values_mut() {
            others.retain(|other| !free.contains(other));
        }
    }
    let mut walk: Vec<&str> = vec![*open.keys().next()?];
    loop {
        let next = *open.get(walk.last()?)?.iter().next()?;
        if let Some(at) = walk.iter().position(|&name| name == next) {
            let mut names: Vec<String> = walk[at..].iter().map(|&name| name.to_owned()).collect();
            names.push(next.to_owned());
            return Some(names);
        }
        walk.push(next);
    }
}
