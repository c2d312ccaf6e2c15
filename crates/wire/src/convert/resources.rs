//! Resources and platforms.

use skep_model as model;

use crate::{
    convert::field::{At, list, to_list},
    error::Error,
    proto::{self, generic_resource::Resource},
};

impl From<&model::GenericResource> for proto::GenericResource {
    fn from(value: &model::GenericResource) -> Self {
        let resource = match value {
            model::GenericResource::Named { kind, value } => {
                Resource::NamedResourceSpec(proto::NamedGenericResource {
                    kind: kind.clone(),
                    value: value.clone(),
                })
            }
            model::GenericResource::Discrete { kind, value } => {
                Resource::DiscreteResourceSpec(proto::DiscreteGenericResource {
                    kind: kind.clone(),
                    value: *value,
                })
            }
        };
        Self {
            resource: Some(resource),
        }
    }
}

impl TryFrom<proto::GenericResource> for model::GenericResource {
    type Error = Error;

    fn try_from(value: proto::GenericResource) -> Result<Self, Error> {
        Ok(match value.resource.at("resource")? {
            Resource::NamedResourceSpec(named) => Self::Named {
                kind: named.kind,
                value: named.value,
            },
            Resource::DiscreteResourceSpec(discrete) => Self::Discrete {
                kind: discrete.kind,
                value: discrete.value,
            },
        })
    }
}

impl From<&model::Resources> for proto::Resources {
    fn from(value: &model::Resources) -> Self {
        Self {
            nano_cpus: value.nano_cpus,
            memory_bytes: value.memory_bytes,
            generic: to_list(&value.generic),
        }
    }
}

impl TryFrom<proto::Resources> for model::Resources {
    type Error = Error;

    fn try_from(value: proto::Resources) -> Result<Self, Error> {
        Ok(Self {
            nano_cpus: value.nano_cpus,
            memory_bytes: value.memory_bytes,
            generic: list(value.generic).at("generic")?,
        })
    }
}

impl From<&model::Platform> for proto::Platform {
    fn from(value: &model::Platform) -> Self {
        Self {
            architecture: value.architecture.clone(),
            os: value.os.clone(),
        }
    }
}

impl TryFrom<proto::Platform> for model::Platform {
    type Error = Error;

    fn try_from(value: proto::Platform) -> Result<Self, Error> {
        Ok(Self {
            architecture: value.architecture,
            os: value.os,
        })
    }
}
