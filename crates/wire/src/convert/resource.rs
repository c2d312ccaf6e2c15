//! Extensions and resources.

use skep_model::object as model;

use crate::{
    convert::field::{At, id, or_default},
    error::Error,
    proto,
};

impl From<&model::Extension> for proto::Extension {
    fn from(value: &model::Extension) -> Self {
        Self {
            id: value.id.to_string(),
            meta: Some((&value.meta).into()),
            annotations: Some((&value.annotations).into()),
            description: value.description.clone(),
        }
    }
}

impl TryFrom<proto::Extension> for model::Extension {
    type Error = Error;

    fn try_from(value: proto::Extension) -> Result<Self, Error> {
        Ok(Self {
            id: id(&value.id).at("id")?,
            meta: value.meta.unwrap_or_default().into(),
            annotations: or_default(value.annotations).at("annotations")?,
            description: value.description,
        })
    }
}

impl From<&model::Resource> for proto::Resource {
    fn from(value: &model::Resource) -> Self {
        Self {
            id: value.id.to_string(),
            meta: Some((&value.meta).into()),
            annotations: Some((&value.annotations).into()),
            kind: value.kind.clone(),
            payload: value.payload.as_ref().map(|payload| prost_types::Any {
                type_url: payload.type_url.clone(),
                value: payload.value.clone(),
            }),
        }
    }
}

impl TryFrom<proto::Resource> for model::Resource {
    type Error = Error;

    fn try_from(value: proto::Resource) -> Result<Self, Error> {
        Ok(Self {
            id: id(&value.id).at("id")?,
            meta: value.meta.unwrap_or_default().into(),
            annotations: or_default(value.annotations).at("annotations")?,
            kind: value.kind,
            payload: value.payload.map(|payload| model::Payload {
                type_url: payload.type_url,
                value: payload.value,
            }),
        })
    }
}
