//! What a service waits for exists when it is said, and does not wait for the service in turn.

use std::collections::BTreeSet;

use skep_model::{
    Service, ServiceSpec,
    reserved::service::depends::{DEPENDS_ON, dependencies, names},
};
use skep_store::Store;

use crate::command::{Code, CommandError};

/// Checks what `spec` waits for, if `old` does not say the same: what was removed since keeps nobody
/// from changing something else.
pub(super) fn check(
    view: &Store,
    old: Option<&ServiceSpec>,
    spec: &ServiceSpec,
) -> Result<(), CommandError> {
    let label = |spec: &ServiceSpec| spec.annotations.labels.get(DEPENDS_ON).cloned();
    if old.is_some_and(|old| label(old) == label(spec)) {
        return Ok(());
    }
    let name = &spec.annotations.name;
    let wanted = dependencies(&spec.annotations.labels);
    let missing: Vec<&str> = wanted
        .keys()
        .filter(|on| !on.eq_ignore_ascii_case(name) && view.service_by_name(on).is_none())
        .map(String::as_str)
        .collect();
    let refusal = if !missing.is_empty() {
        format!(
            "it waits for services that do not exist: {}",
            missing.join(", ")
        )
    } else if wanted.keys().any(|on| on.eq_ignore_ascii_case(name))
        || is_waited_for(view, name) && waits_for_itself(view, spec)
    {
        "it would wait for itself".to_owned()
    } else {
        return Ok(());
    };
    let message = format!("label `{DEPENDS_ON}`: {refusal}");
    Err(CommandError::new(Code::InvalidArgument, message))
}

/// Whether any service waits for one of this name: else no way leads back to it. Of a stack's services each is made
/// after those it waits for, so a long chain is not walked for each of its links.
fn is_waited_for(view: &Store, name: &str) -> bool {
    let waits = |service: &Service| {
        let mut on = names(&service.spec.annotations.labels);
        on.any(|on| on.eq_ignore_ascii_case(name))
    };
    view.services().any(|service| waits(service))
}

/// Whether a way leads from what the service waits for back to it. A stack's chain is walked once for
/// each of its services, so a step is cheap.
fn waits_for_itself(view: &Store, spec: &ServiceSpec) -> bool {
    let name = &spec.annotations.name;
    let mut ahead: Vec<&str> = names(&spec.annotations.labels).collect();
    let mut seen = BTreeSet::new();
    while let Some(next) = ahead.pop() {
        if next.eq_ignore_ascii_case(name) {
            return true;
        }
        let Some(service) = view.service_by_name(next) else {
            continue;
        };
        if seen.insert(service.id) {
            ahead.extend(names(&service.spec.annotations.labels));
        }
    }
    false
}
