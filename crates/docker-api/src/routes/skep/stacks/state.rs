//! How stacks stand, read off their services; those of Docker's CLI, which are labels only, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;
use skep_model::{
    Service, UpdateState,
    stack::{NAMESPACE_LABEL, Stack},
};

use crate::{
    backend::ClusterView,
    error::{ApiError, Result},
    http::timestamp::now,
    routes::{jobs, skep::services},
};

/// A stack in short.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Summary {
    name: String,
    services: usize,
    /// 0: none.
    revision: u64,
    state: &'static str,
}

/// A stack.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Detail {
    name: String,
    revision: u64,
    state: &'static str,
    /// Why it is not as it should be.
    reasons: Vec<String>,
    /// Services that went back by themselves, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rolled_back: BTreeMap<String, String>,
    services: Vec<services::Summary>,
    networks: Vec<String>,
    secrets: Vec<String>,
    configs: Vec<String>,
}

/// All stacks, by name.
pub(super) fn list(view: &dyn ClusterView) -> Vec<Summary> {
    let stored = view.stacks();
    let labelled = view.services();
    let labelled = labelled.iter().filter_map(|service| of(service));
    let names = stored.iter().map(|stack| stack.name.as_str());
    let names: BTreeSet<&str> = names.chain(labelled).collect();
    let summaries = names.into_iter().map(|name| {
        let stack = stored.iter().find(|stack| stack.name == name);
        let detail = described(view, name, stack);
        Summary {
            name: detail.name,
            services: detail.services.len(),
            revision: detail.revision,
            state: detail.state,
        }
    });
    summaries.collect()
}

/// One stack.
pub(super) fn detail(view: &dyn ClusterView, name: &str) -> Result<Detail> {
    check_exists(view, name)?;
    let stored = view.stacks();
    let stack = stored.iter().find(|stack| stack.name == name);
    Ok(described(view, name, stack))
}

/// Refuses what is no stack.
pub(super) fn check_exists(view: &dyn ClusterView, name: &str) -> Result<()> {
    let is_stored = view.stacks().iter().any(|stack| stack.name == name);
    let is_labelled = || {
        view.services()
            .iter()
            .any(|service| of(service) == Some(name))
    };
    if is_stored || is_labelled() {
        return Ok(());
    }
    Err(ApiError::not_found(format!("stack {name} not found")))
}

/// The stack as stored; `None` when it is made of labels only.
pub(super) fn stored(view: &dyn ClusterView, name: &str) -> Option<Stack> {
    let mut stored = view.stacks().into_iter();
    stored.find(|stack| stack.name == name)
}

/// Number of the stack's revision in force; 0 when there is none.
pub(super) fn revision_in_force(view: &dyn ClusterView, name: &str) -> u64 {
    stored(view, name).map_or(0, |stack| stack.revision)
}

/// Services that went back by themselves from what the revision in force says, and why.
pub(super) fn rolled_back(view: &dyn ClusterView, name: &str) -> BTreeMap<String, String> {
    let services = view.services();
    let own = services.iter().filter(|service| of(service) == Some(name));
    let mut found: BTreeMap<String, String> = own
        .filter_map(|service| Some((service.name().to_owned(), went_back(service)?)))
        .collect();
    // The comparison is costly, and most stacks need none.
    if !found.is_empty() && stored(view, name).is_some() {
        let astray = view.services_astray(name);
        found.retain(|service, _| astray.contains(service));
    }
    found
}

/// Services whose update or rollback paused, and why.
pub(super) fn paused(view: &dyn ClusterView, name: &str) -> BTreeMap<String, String> {
    let services = view.services();
    let own = services.iter().filter(|service| of(service) == Some(name));
    let paused = own.filter_map(|service| {
        let status = service.update_status.as_ref()?;
        let is_paused = matches!(
            status.state,
            UpdateState::Paused | UpdateState::RollbackPaused
        );
        is_paused.then(|| (service.name().to_owned(), status.message.clone()))
    });
    paused.collect()
}

/// Why an update failed after which the service returned to its spec before, or is on its way. One that
/// was asked to return could be asked again: its other spec is kept.
fn went_back(service: &Service) -> Option<String> {
    let status = service.update_status.as_ref()?;
    let is_back = matches!(
        status.state,
        UpdateState::RollbackStarted | UpdateState::RollbackPaused | UpdateState::RollbackCompleted
    );
    let message = status.message.as_str();
    let message = message
        .strip_prefix("rollback completed: ")
        .unwrap_or(message);
    let cause = message.strip_prefix("update rolled back due to ");
    (is_back && service.previous_spec.is_none()).then(|| cause.unwrap_or(message).to_owned())
}

fn of(service: &Service) -> Option<&str> {
    let labels = &service.spec.annotations.labels;
    labels.get(NAMESPACE_LABEL).map(String::as_str)
}

fn described(view: &dyn ClusterView, name: &str, stack: Option<&Stack>) -> Detail {
    let is_of = |labels: &BTreeMap<String, String>| {
        labels.get(NAMESPACE_LABEL).is_some_and(|of| of == name)
    };
    let mut all = view.services();
    all.retain(|service| of(service) == Some(name));
    all.sort_by(|a, b| a.name().cmp(b.name()));
    let mut reasons = Vec::new();
    let rolled_back = rolled_back(view, name);
    let (mut is_failed, mut is_converging) = (false, false);
    let mut summaries = Vec::new();
    for service in &all {
        let summary = services::summary(view, service, now());
        let (failed, converging) = standing(view, service, &summary);
        is_failed |= failed;
        is_converging |= converging;
        let waits = summary.waits.iter().filter(|_| converging);
        let texts = summary.conditions.iter().chain(waits);
        reasons.extend(texts.map(|text| format!("{}: {text}", summary.name)));
        if let Some(cause) = rolled_back.get(&summary.name).filter(|_| !converging) {
            reasons.push(format!("{}: it was rolled back: {cause}", summary.name));
        }
        summaries.push(summary);
    }
    let missing = missing(view, name, stack, &all);
    is_failed |= !missing.is_empty();
    reasons.extend(missing);
    let is_removed = stack.is_some_and(|stack| stack.is_removed);
    let leaving = stack.map(|stack| stack.leaving.clone()).unwrap_or_default();
    let leaving = leaving.into_iter().filter_map(|id| view.network(id));
    reasons.extend(leaving.map(|network| format!("network {} is still in use", network.name())));
    let state = if is_removed && all.is_empty() {
        "removing"
    } else if is_failed {
        "failed"
    } else if is_converging {
        "converging"
    } else if !rolled_back.is_empty() {
        "rolled back"
    } else {
        "running"
    };
    let networks = view.networks();
    let networks = networks
        .iter()
        .filter(|n| is_of(&n.spec.annotations.labels));
    let secrets = view.secrets();
    let secrets = secrets.iter().filter(|s| is_of(&s.spec.annotations.labels));
    let configs = view.configs();
    let configs = configs.iter().filter(|c| is_of(&c.spec.annotations.labels));
    Detail {
        name: name.to_owned(),
        revision: stack.map_or(0, |stack| stack.revision),
        state,
        reasons,
        rolled_back,
        services: summaries,
        networks: networks.map(|network| network.name().to_owned()).collect(),
        secrets: secrets.map(|secret| secret.name().to_owned()).collect(),
        configs: configs.map(|config| config.name().to_owned()).collect(),
    }
}

/// Services of the revision in force that somebody removed one by one.
fn missing(
    view: &dyn ClusterView,
    name: &str,
    stack: Option<&Stack>,
    all: &[Arc<Service>],
) -> Vec<String> {
    let revision = stack.map_or(0, |stack| stack.revision);
    let kept = view.revisions_of_stack(name);
    let Some(current) = kept.iter().find(|kept| kept.number == revision) else {
        return Vec::new();
    };
    let wanted = current.spec.services.iter();
    let wanted = wanted.map(|spec| spec.annotations.name.as_str());
    let is_there = |wanted: &&str| all.iter().any(|service| service.name() == *wanted);
    wanted
        .filter(|wanted| !is_there(wanted))
        .map(|wanted| format!("{wanted}: it was removed"))
        .collect()
}

/// Whether a service has failed, and whether it is on its way to what is wanted.
fn standing(
    view: &dyn ClusterView,
    service: &Service,
    summary: &services::Summary,
) -> (bool, bool) {
    if jobs::is_job(service) {
        let run = jobs::last_run(view, service);
        let is_short = run.completed < run.wanted;
        let has_begun = service
            .job_status
            .as_ref()
            .is_some_and(|status| status.last_execution.is_some());
        return (has_begun && is_short && !run.is_under_way, run.is_under_way);
    }
    let state = service.update_status.as_ref().map(|status| status.state);
    let is_paused = matches!(
        state,
        Some(UpdateState::Paused | UpdateState::RollbackPaused)
    );
    let is_updating = matches!(
        state,
        Some(UpdateState::Updating | UpdateState::RollbackStarted)
    );
    let is_short = (summary.running as u64) < summary.desired;
    let has_stuck = is_short && !summary.conditions.is_empty() && !is_updating;
    (is_paused || has_stuck, is_short || is_updating)
}
