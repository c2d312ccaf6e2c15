//! Settings of services that only Skep has, kept as labels of the service.

pub mod depends;
pub mod placement;
pub mod readiness;
pub mod rollout;
pub mod run;
pub mod schedule;

use std::{net::IpAddr, time::Duration};

use super::{FAMILY, Labels, text};
use crate::{object::Task, spec::Annotations, state::TaskState};

/// `true`: a published port leads to tasks of the node asked as long as it has ready ones.
pub const PUBLISH_LOCAL_FIRST: &str = "skep.publish.local-first";
/// The only address of a node that published ports are answered on.
pub const PUBLISH_ADDRESS: &str = "skep.publish.address";
/// How long a task that is to end may keep the connections it serves, as a Go duration (`30s`).
pub const DRAIN: &str = "skep.drain";

/// [`DRAIN`] where nothing is said. Docker waits a fixed 2 s, whether or not there are connections.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);
/// Longest [`DRAIN`]: a task that takes longer is not being replaced.
pub const DRAIN_MAX: Duration = Duration::from_secs(3600);

const KNOWN: [&str; 3] = [PUBLISH_LOCAL_FIRST, PUBLISH_ADDRESS, DRAIN];

/// All labels of services that mean something; a topic with a file of its own adds its own.
fn known() -> Vec<&'static str> {
    [
        &KNOWN[..],
        &depends::KNOWN,
        &placement::KNOWN,
        &readiness::KNOWN,
        &rollout::KNOWN,
        &run::KNOWN,
        &schedule::KNOWN,
    ]
    .concat()
}

/// A reserved label that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// No such label.
    #[error("unknown label `{0}`: known are {known}", known = known().join(", "))]
    Unknown(String),
    /// Neither `true` nor `false`.
    #[error("label `{PUBLISH_LOCAL_FIRST}`: `{0}` is neither `true` nor `false`")]
    Bool(String),
    /// Not an address.
    #[error("label `{PUBLISH_ADDRESS}`: `{0}` is not an IP address")]
    Address(String),
    /// Not a duration up to [`DRAIN_MAX`].
    #[error("label `{DRAIN}`: `{0}` is not a duration like `30s` of at most 1h")]
    Duration(String),
    /// About what is waited for.
    #[error(transparent)]
    Depends(#[from] depends::InvalidDepends),
    /// About how containers run.
    #[error(transparent)]
    Run(#[from] run::InvalidRun),
    /// About updates and restarts.
    #[error(transparent)]
    Rollout(#[from] rollout::InvalidRollout),
    /// About when tasks take load.
    #[error(transparent)]
    Readiness(#[from] readiness::InvalidReadiness),
    /// About where tasks go.
    #[error(transparent)]
    Placement(#[from] placement::InvalidPlacement),
}

/// What the reserved labels of a service say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePolicy {
    /// See [`PUBLISH_LOCAL_FIRST`].
    pub is_local_first: bool,
    /// See [`PUBLISH_ADDRESS`].
    pub publish_address: Option<IpAddr>,
    /// See [`DRAIN`].
    pub drain: Duration,
}

impl Default for ServicePolicy {
    fn default() -> Self {
        Self {
            is_local_first: false,
            publish_address: None,
            drain: DRAIN_DEFAULT,
        }
    }
}

// === impl ServicePolicy ===

impl ServicePolicy {
    /// What is said, with the default for what is not said or cannot be read.
    pub fn of(annotations: &Annotations) -> Self {
        Self::read(&annotations.labels).0
    }

    /// Whether two services may publish one port, as each has an address of its own for it.
    pub fn are_apart(one: &Annotations, other: &Annotations) -> bool {
        let address = |annotations| Self::of(annotations).publish_address;
        match (address(one), address(other)) {
            (Some(one), Some(other)) => one != other,
            (None, _) | (_, None) => false,
        }
    }

    /// Everything wrong with the reserved labels among `labels`.
    pub fn problems(labels: &Labels) -> Vec<InvalidPolicy> {
        let known = known();
        let unknown = labels
            .keys()
            .filter(|key| key.starts_with(FAMILY) && !known.contains(&key.as_str()))
            .map(|key| InvalidPolicy::Unknown(key.clone()));
        let mut found: Vec<_> = unknown.chain(Self::read(labels).1).collect();
        found.extend(run::RunPolicy::problems(labels).into_iter().map(Into::into));
        found.extend(
            rollout::RolloutPolicy::problems(labels)
                .into_iter()
                .map(Into::into),
        );
        found.extend(depends::problems(labels).into_iter().map(Into::into));
        let placement = placement::PlacementPolicy::problems(labels);
        found.extend(placement.into_iter().map(Into::into));
        let readiness = readiness::ReadinessPolicy::problems(labels);
        found.extend(readiness.into_iter().map(Into::into));
        found
    }

    fn read(labels: &Labels) -> (Self, Vec<InvalidPolicy>) {
        let mut policy = Self::default();
        let mut problems = Vec::new();
        match labels.get(PUBLISH_LOCAL_FIRST).map(String::as_str) {
            None | Some("false") => {}
            Some("true") => policy.is_local_first = true,
            Some(other) => problems.push(InvalidPolicy::Bool(other.to_owned())),
        }
        if let Some(value) = labels.get(PUBLISH_ADDRESS) {
            match value.parse() {
                Ok(address) => policy.publish_address = Some(address),
                Err(_) => problems.push(InvalidPolicy::Address(value.clone())),
            }
        }
        if let Some(value) = labels.get(DRAIN) {
            match text::duration(value).filter(|drain| *drain <= DRAIN_MAX) {
                Some(drain) => policy.drain = drain,
                None => problems.push(InvalidPolicy::Duration(value.clone())),
            }
        }
        (policy, problems)
    }
}

/// How long a task that was told to stop goes on serving the connections it has, at most; `None`: it
/// stops at once, as nobody reaches it through published ports or virtual addresses.
///
/// The leader sets the time of tasks whose service is removed to nothing.
pub fn drain_limit(task: &Task) -> Option<Duration> {
    let limit = ServicePolicy::of(&task.service_annotations).drain;
    if limit.is_zero() || task.desired_state < TaskState::Shutdown {
        return None;
    }
    let endpoint = task.endpoint.as_ref()?;
    let is_reached = !endpoint.virtual_ips.is_empty() || !endpoint.ports.is_empty();
    is_reached.then_some(limit)
}

/// Why a task that was told to stop still runs on a node that is there; `None` for all others.
pub fn stopping_text(task: &Task) -> Option<String> {
    if task.desired_state < TaskState::Shutdown || task.status.state != TaskState::Running {
        return None;
    }
    let grace = text::shown(task.spec.container.stop_grace_period());
    Some(match drain_limit(task) {
        Some(limit) => format!(
            "draining: at most {} for open connections, then {grace} to stop",
            text::shown(limit)
        ),
        None => format!("stopping: at most {grace}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: Result<ServicePolicy, &str>) {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let annotations = Annotations {
            labels: pairs.collect(),
            ..Annotations::default()
        };
        let problems = ServicePolicy::problems(&annotations.labels);
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        match expected {
            Ok(policy) => {
                assert_eq!(problems, [""; 0]);
                assert_eq!(ServicePolicy::of(&annotations), policy);
            }
            Err(problem) => assert_eq!(problems, [problem]),
        }
    }

    #[test]
    fn every_label_is_explained_to_users() {
        let text = include_str!("../../../../docs/labels.md");
        let own = [run::ALLOW].into_iter().chain(super::super::known());
        let missing: Vec<&str> = own
            .chain(known())
            .filter(|label| !text.contains(&format!("`{label}`")))
            .collect();
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        check(&[("app", "web")], Ok(ServicePolicy::default()));
        let said = ServicePolicy {
            is_local_first: true,
            publish_address: Some([192, 0, 2, 7].into()),
            drain: Duration::ZERO,
        };
        let labels = [
            (PUBLISH_LOCAL_FIRST, "true"),
            (PUBLISH_ADDRESS, "192.0.2.7"),
            (DRAIN, "0s"),
        ];
        check(&labels, Ok(said));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        check(
            &[(DRAIN, "soon")],
            Err("label `skep.drain`: `soon` is not a duration like `30s` of at most 1h"),
        );
        check(
            &[(DRAIN, "2h")],
            Err("label `skep.drain`: `2h` is not a duration like `30s` of at most 1h"),
        );
        check(
            &[(PUBLISH_ADDRESS, "eth0")],
            Err("label `skep.publish.address`: `eth0` is not an IP address"),
        );
        check(
            &[(PUBLISH_LOCAL_FIRST, "yes")],
            Err("label `skep.publish.local-first`: `yes` is neither `true` nor `false`"),
        );
        check(
            &[("skep.drian", "1s")],
            Err(&format!(
                "unknown label `skep.drian`: known are {}",
                known().join(", ")
            )),
        );
    }
}
