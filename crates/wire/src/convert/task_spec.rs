//! The template of tasks: container, resources, restart policy, placement, networks.

use std::time::Duration;

use skep_model as model;

use crate::{
    convert::{
        container::to_container,
        field::{At, enum_pair, known, list, or_default, to_list, unless_default, unsupported},
        time::{duration_or, to_duration},
    },
    error::{Error, Problem},
    proto::{
        self, placement_preference::Preference, restart_policy::RestartCondition,
        task_spec::Runtime,
    },
};

enum_pair!(
    model::RestartCondition,
    RestartCondition {
        None,
        OnFailure,
        Any
    }
);

impl From<&model::TaskSpec> for proto::TaskSpec {
    fn from(value: &model::TaskSpec) -> Self {
        let container = to_container(&value.container, value.resources.pids_limit);
        Self {
            runtime: Some(Runtime::Container(container)),
            resources: to_requirements(&value.resources),
            restart: Some((&value.restart).into()),
            placement: unless_default(&value.placement),
            log_driver: value.log_driver.as_ref().map(Into::into),
            networks: to_list(&value.networks),
            force_update: value.force_update,
            resource_references: Vec::new(),
        }
    }
}

impl TryFrom<proto::TaskSpec> for model::TaskSpec {
    type Error = Error;

    fn try_from(value: proto::TaskSpec) -> Result<Self, Error> {
        unsupported(value.resource_references.is_empty()).at("resource_references")?;
        let container = match value.runtime {
            Some(Runtime::Container(container)) => container,
            Some(Runtime::Attachment(_)) => Err(Problem::Unsupported).at("attachment")?,
            Some(Runtime::Generic(_)) => Err(Problem::Unsupported).at("generic")?,
            None => Err(Problem::Missing).at("container")?,
        };
        let pids_limit = container.pids_limit;
        Ok(Self {
            container: model::ContainerSpec::try_from(container).at("container")?,
            resources: requirements(value.resources, pids_limit).at("resources")?,
            restart: or_default(value.restart).at("restart")?,
            placement: or_default(value.placement).at("placement")?,
            log_driver: value.log_driver.map(Into::into),
            networks: value.networks.into_iter().map(Into::into).collect(),
            force_update: value.force_update,
        })
    }
}

/// `value` on the wire without `pids_limit`, which has its place in the container.
fn to_requirements(value: &model::ResourceRequirements) -> Option<proto::ResourceRequirements> {
    let wire = proto::ResourceRequirements {
        limits: unless_default(&value.limits),
        reservations: unless_default(&value.reservations),
        swap_bytes: value.swap_bytes,
        memory_swappiness: value.memory_swappiness,
    };
    (wire != proto::ResourceRequirements::default()).then_some(wire)
}

fn requirements(
    value: Option<proto::ResourceRequirements>,
    pids_limit: i64,
) -> Result<model::ResourceRequirements, Error> {
    let value = value.unwrap_or_default();
    Ok(model::ResourceRequirements {
        limits: or_default(value.limits).at("limits")?,
        reservations: or_default(value.reservations).at("reservations")?,
        swap_bytes: value.swap_bytes,
        memory_swappiness: value.memory_swappiness,
        pids_limit,
    })
}

impl From<&model::RestartPolicy> for proto::RestartPolicy {
    fn from(value: &model::RestartPolicy) -> Self {
        Self {
            condition: RestartCondition::from(value.condition).into(),
            delay: Some(to_duration(value.delay)),
            max_attempts: value.max_attempts,
            window: (!value.window.is_zero()).then(|| to_duration(value.window)),
        }
    }
}

impl TryFrom<proto::RestartPolicy> for model::RestartPolicy {
    type Error = Error;

    fn try_from(value: proto::RestartPolicy) -> Result<Self, Error> {
        Ok(Self {
            condition: known::<RestartCondition, _>(value.condition).at("condition")?,
            delay: duration_or(value.delay, model::DEFAULT_RESTART_DELAY).at("delay")?,
            max_attempts: value.max_attempts,
            window: duration_or(value.window, Duration::ZERO).at("window")?,
        })
    }
}

impl From<&model::Placement> for proto::Placement {
    fn from(value: &model::Placement) -> Self {
        let spread = |descriptor: &String| {
            let spread = proto::SpreadOver {
                spread_descriptor: descriptor.clone(),
            };
            proto::PlacementPreference {
                preference: Some(Preference::Spread(spread)),
            }
        };
        Self {
            constraints: value.constraints.clone(),
            preferences: value.spread_over.iter().map(spread).collect(),
            platforms: to_list(&value.platforms),
            max_replicas: value.max_replicas,
        }
    }
}

impl TryFrom<proto::Placement> for model::Placement {
    type Error = Error;

    fn try_from(value: proto::Placement) -> Result<Self, Error> {
        let spread_over = value.preferences.into_iter().map(|preference| {
            let Preference::Spread(spread) = preference.preference.at("preference")?;
            Ok(spread.spread_descriptor)
        });
        Ok(Self {
            constraints: value.constraints,
            spread_over: spread_over
                .collect::<Result<_, Error>>()
                .at("preferences")?,
            platforms: list(value.platforms).at("platforms")?,
            max_replicas: value.max_replicas,
        })
    }
}

impl From<&model::NetworkAttachmentConfig> for proto::NetworkAttachmentConfig {
    fn from(value: &model::NetworkAttachmentConfig) -> Self {
        Self {
            target: value.target.clone(),
            aliases: value.aliases.clone(),
            addresses: value.addresses.clone(),
            driver_attachment_opts: value.driver_options.clone(),
        }
    }
}

impl From<proto::NetworkAttachmentConfig> for model::NetworkAttachmentConfig {
    fn from(value: proto::NetworkAttachmentConfig) -> Self {
        Self {
            target: value.target,
            aliases: value.aliases,
            addresses: value.addresses,
            driver_options: value.driver_attachment_opts,
        }
    }
}
