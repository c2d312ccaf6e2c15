//! Values every object uses: annotations, drivers, versions, bookkeeping.

use skep_model as model;

use crate::{
    convert::{
        field::{At, unsupported},
        time::{timestamp_or_zero, to_timestamp_unless_zero},
    },
    error::Error,
    proto,
};

impl From<&model::Annotations> for proto::Annotations {
    fn from(value: &model::Annotations) -> Self {
        Self {
            name: value.name.clone(),
            labels: value.labels.clone(),
            indices: Vec::new(),
        }
    }
}

impl TryFrom<proto::Annotations> for model::Annotations {
    type Error = Error;

    fn try_from(value: proto::Annotations) -> Result<Self, Error> {
        unsupported(value.indices.is_empty()).at("indices")?;
        Ok(Self {
            name: value.name,
            labels: value.labels,
        })
    }
}

impl From<&model::Driver> for proto::Driver {
    fn from(value: &model::Driver) -> Self {
        Self {
            name: value.name.clone(),
            options: value.options.clone(),
        }
    }
}

impl From<proto::Driver> for model::Driver {
    fn from(value: proto::Driver) -> Self {
        Self {
            name: value.name,
            options: value.options,
        }
    }
}

impl From<model::Version> for proto::Version {
    fn from(value: model::Version) -> Self {
        Self { index: value.0 }
    }
}

impl From<proto::Version> for model::Version {
    fn from(value: proto::Version) -> Self {
        Self(value.index)
    }
}

impl From<&model::Meta> for proto::Meta {
    fn from(value: &model::Meta) -> Self {
        Self {
            version: Some(value.version.into()),
            created_at: to_timestamp_unless_zero(value.created_at),
            updated_at: to_timestamp_unless_zero(value.updated_at),
        }
    }
}

impl From<proto::Meta> for model::Meta {
    fn from(value: proto::Meta) -> Self {
        Self {
            version: value.version.unwrap_or_default().into(),
            created_at: timestamp_or_zero(value.created_at),
            updated_at: timestamp_or_zero(value.updated_at),
        }
    }
}
