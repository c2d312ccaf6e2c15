//! Task templates.

use skep_model::{
    GenericResource, Placement, Platform, ResourceRequirements, Resources, RestartCondition,
    RestartPolicy, TaskSpec,
};

use crate::{
    convert::{duration, nanos},
    dto::{meta, task as dto},
    error::{ApiError, Result},
};

/// `types.docker.com`-free name of the only runtime.
const CONTAINER_RUNTIME: &str = "container";

/// The template as a service shows it; tasks show the same without `Runtime`.
pub(crate) fn template(spec: &TaskSpec, in_service: bool) -> dto::TaskSpec {
    dto::TaskSpec {
        container_spec: Some((&spec.container).into()),
        plugin_spec: None,
        network_attachment_spec: None,
        resources: Some((&spec.resources).into()),
        restart_policy: Some((&spec.restart).into()),
        placement: Some((&spec.placement).into()),
        networks: spec.networks.iter().map(Into::into).collect(),
        log_driver: spec.log_driver.as_ref().map(Into::into),
        force_update: spec.force_update,
        runtime: if in_service {
            CONTAINER_RUNTIME.to_owned()
        } else {
            String::new()
        },
    }
}

impl TryFrom<dto::TaskSpec> for TaskSpec {
    type Error = ApiError;

    fn try_from(spec: dto::TaskSpec) -> Result<Self> {
        match spec.runtime.as_str() {
            "" | CONTAINER_RUNTIME => {}
            _ => return Err(ApiError::invalid("unsupported runtime")),
        }
        let container = spec
            .container_spec
            .ok_or_else(|| ApiError::invalid("mismatched Runtime and *Spec fields"))?;
        Ok(Self {
            container: container.try_into()?,
            resources: spec
                .resources
                .map(TryInto::try_into)
                .transpose()?
                .unwrap_or_default(),
            restart: spec
                .restart_policy
                .map(TryInto::try_into)
                .transpose()?
                .unwrap_or_default(),
            placement: spec.placement.map(Into::into).unwrap_or_default(),
            log_driver: spec.log_driver.map(Into::into),
            networks: spec.networks.into_iter().map(Into::into).collect(),
            force_update: spec.force_update,
        })
    }
}

impl From<&GenericResource> for meta::GenericResource {
    fn from(resource: &GenericResource) -> Self {
        match resource.clone() {
            GenericResource::Named { kind, value } => Self {
                named_resource_spec: Some(meta::NamedResource { kind, value }),
                discrete_resource_spec: None,
            },
            GenericResource::Discrete { kind, value } => Self {
                named_resource_spec: None,
                discrete_resource_spec: Some(meta::DiscreteResource { kind, value }),
            },
        }
    }
}

impl TryFrom<meta::GenericResource> for GenericResource {
    type Error = ApiError;

    fn try_from(resource: meta::GenericResource) -> Result<Self> {
        match (
            resource.named_resource_spec,
            resource.discrete_resource_spec,
        ) {
            (Some(meta::NamedResource { kind, value }), None) => Ok(Self::Named { kind, value }),
            (None, Some(meta::DiscreteResource { kind, value })) => {
                Ok(Self::Discrete { kind, value })
            }
            (None, None) | (Some(_), Some(_)) => Err(ApiError::invalid(
                "a generic resource is either a NamedResourceSpec or a DiscreteResourceSpec",
            )),
        }
    }
}

/// Generic resources as Docker shows them.
pub(crate) fn generic(resources: &[GenericResource]) -> Vec<meta::GenericResource> {
    resources.iter().map(Into::into).collect()
}

/// Resources as Docker shows them.
pub(crate) fn resources(resources: &Resources) -> dto::Resources {
    dto::Resources {
        nano_cpus: resources.nano_cpus,
        memory_bytes: resources.memory_bytes,
        generic_resources: generic(&resources.generic),
    }
}

impl From<&ResourceRequirements> for dto::ResourceRequirements {
    fn from(requirements: &ResourceRequirements) -> Self {
        Self {
            limits: Some(dto::Limits {
                nano_cpus: requirements.limits.nano_cpus,
                memory_bytes: requirements.limits.memory_bytes,
                pids: requirements.pids_limit,
            }),
            reservations: Some(resources(&requirements.reservations)),
            swap_bytes: requirements.swap_bytes,
            memory_swappiness: requirements.memory_swappiness,
        }
    }
}

impl TryFrom<dto::ResourceRequirements> for ResourceRequirements {
    type Error = ApiError;

    fn try_from(requirements: dto::ResourceRequirements) -> Result<Self> {
        let limits = requirements.limits.unwrap_or_default();
        let reservations = requirements.reservations.unwrap_or_default();
        if requirements.swap_bytes.is_some() && limits.memory_bytes == 0 {
            return Err(ApiError::invalid(
                "memory swap provided, but no memory-limit was set",
            ));
        }
        let generic = reservations.generic_resources.into_iter();
        Ok(Self {
            limits: Resources {
                nano_cpus: limits.nano_cpus,
                memory_bytes: limits.memory_bytes,
                generic: Vec::new(),
            },
            reservations: Resources {
                nano_cpus: reservations.nano_cpus,
                memory_bytes: reservations.memory_bytes,
                generic: generic.map(TryInto::try_into).collect::<Result<_>>()?,
            },
            swap_bytes: requirements.swap_bytes,
            memory_swappiness: requirements.memory_swappiness,
            pids_limit: limits.pids,
        })
    }
}

impl From<&RestartPolicy> for dto::RestartPolicy {
    fn from(policy: &RestartPolicy) -> Self {
        Self {
            condition: match policy.condition {
                RestartCondition::None => "none",
                RestartCondition::OnFailure => "on-failure",
                RestartCondition::Any => "any",
            }
            .to_owned(),
            delay: Some(nanos(policy.delay)),
            max_attempts: Some(policy.max_attempts),
            window: (!policy.window.is_zero()).then(|| nanos(policy.window)),
        }
    }
}

impl TryFrom<dto::RestartPolicy> for RestartPolicy {
    type Error = ApiError;

    fn try_from(policy: dto::RestartPolicy) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            condition: match policy.condition.as_str() {
                "none" => RestartCondition::None,
                "on-failure" => RestartCondition::OnFailure,
                "any" | "" => RestartCondition::Any,
                other => {
                    return Err(ApiError::invalid(format!(
                        "invalid RestartCondition: {other:?}"
                    )));
                }
            },
            delay: match policy.delay {
                Some(nanos) => duration(nanos, "TaskSpec: restart-delay")?,
                None => default.delay,
            },
            max_attempts: policy.max_attempts.unwrap_or(default.max_attempts),
            window: match policy.window {
                Some(nanos) => duration(nanos, "TaskSpec: restart-window")?,
                None => default.window,
            },
        })
    }
}

impl From<&Placement> for dto::Placement {
    fn from(placement: &Placement) -> Self {
        let preference = |label: &String| dto::PlacementPreference {
            spread: Some(dto::SpreadOver {
                spread_descriptor: label.clone(),
            }),
        };
        let platform = |platform: &Platform| meta::Platform {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
        };
        Self {
            constraints: placement.constraints.clone(),
            preferences: placement.spread_over.iter().map(preference).collect(),
            max_replicas: placement.max_replicas,
            platforms: placement.platforms.iter().map(platform).collect(),
        }
    }
}

impl From<dto::Placement> for Placement {
    fn from(placement: dto::Placement) -> Self {
        let spread = placement
            .preferences
            .into_iter()
            .filter_map(|preference| preference.spread);
        let platforms = placement.platforms.into_iter();
        Self {
            constraints: placement.constraints,
            spread_over: spread.map(|spread| spread.spread_descriptor).collect(),
            platforms: platforms
                .map(|meta::Platform { architecture, os }| Platform { architecture, os })
                .collect(),
            max_replicas: placement.max_replicas,
        }
    }
}
