//! Secrets and configs as stored.

use skep_model as model;

use crate::{
    convert::field::{At, id, or_default},
    error::Error,
    proto,
};

impl From<&model::Secret> for proto::Secret {
    fn from(value: &model::Secret) -> Self {
        Self {
            id: value.id.to_string(),
            meta: Some((&value.meta).into()),
            spec: Some((&value.spec).into()),
            internal: value.is_internal,
        }
    }
}

impl TryFrom<proto::Secret> for model::Secret {
    type Error = Error;

    fn try_from(value: proto::Secret) -> Result<Self, Error> {
        Ok(Self {
            id: id(&value.id).at("id")?,
            meta: value.meta.unwrap_or_default().into(),
            spec: or_default(value.spec).at("spec")?,
            is_internal: value.internal,
        })
    }
}

impl From<&model::SecretSpec> for proto::SecretSpec {
    fn from(value: &model::SecretSpec) -> Self {
        Self {
            annotations: Some((&value.annotations).into()),
            data: value.data.0.clone(),
            templating: value.templating.as_ref().map(Into::into),
            driver: value.driver.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::SecretSpec> for model::SecretSpec {
    type Error = Error;

    fn try_from(value: proto::SecretSpec) -> Result<Self, Error> {
        Ok(Self {
            annotations: or_default(value.annotations).at("annotations")?,
            data: model::Redacted(value.data),
            templating: value.templating.map(Into::into),
            driver: value.driver.map(Into::into),
        })
    }
}

impl From<&model::Config> for proto::Config {
    fn from(value: &model::Config) -> Self {
        Self {
            id: value.id.to_string(),
            meta: Some((&value.meta).into()),
            spec: Some((&value.spec).into()),
        }
    }
}

impl TryFrom<proto::Config> for model::Config {
    type Error = Error;

    fn try_from(value: proto::Config) -> Result<Self, Error> {
        Ok(Self {
            id: id(&value.id).at("id")?,
            meta: value.meta.unwrap_or_default().into(),
            spec: or_default(value.spec).at("spec")?,
        })
    }
}

impl From<&model::ConfigSpec> for proto::ConfigSpec {
    fn from(value: &model::ConfigSpec) -> Self {
        Self {
            annotations: Some((&value.annotations).into()),
            data: value.data.0.clone(),
            templating: value.templating.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::ConfigSpec> for model::ConfigSpec {
    type Error = Error;

    fn try_from(value: proto::ConfigSpec) -> Result<Self, Error> {
        Ok(Self {
            annotations: or_default(value.annotations).at("annotations")?,
            data: model::Redacted(value.data),
            templating: value.templating.map(Into::into),
        })
    }
}
