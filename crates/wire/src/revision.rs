//! Kept specs of services as Swarm's resources: the number and version in labels, the spec as payload.
//!
//! A resource is named `<service id>.<number>`, so that those of a service are found by name.
//! Which are kept and which go is the manager's decision. Design: `docs/design/revisions.md`.

use std::sync::Arc;

use prost::Message;
use skep_model::{
    Annotations, Meta, ServiceId, ServiceSpec, Version,
    id::{ExtensionId, ResourceId},
    object::{Extension, Payload, Resource, ServiceRevision},
};

use crate::{
    convert::At,
    error::{Error, Problem},
    proto,
};

/// Kind of the resources, and name of the extension that declares it.
pub const KIND: &str = "skep.service-revision";
/// Label: id of the service.
const SERVICE: &str = "skep.service";
/// Label: the number.
const NUMBER: &str = "skep.revision";
/// Label: version of the spec.
const SPEC_VERSION: &str = "skep.spec-version";
/// Label: number of the revision in force before, if there was one.
const PREVIOUS: &str = "skep.previous-revision";
/// Type of the payload.
const TYPE_URL: &str = "type.googleapis.com/docker.swarmkit.v1.ServiceSpec";
/// Digits of a number in a name: enough for any, so that names sort as numbers do.
const NUMBER_DIGITS: usize = 20;

/// What a resource says without its spec being decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevisionKey {
    /// The number.
    pub number: u64,
    /// Version of the spec.
    pub spec_version: Version,
}

/// Declares the kind, as Swarm demands before there can be a resource of it.
pub fn extension(id: ExtensionId) -> Extension {
    Extension {
        id,
        meta: Meta::default(),
        annotations: Annotations {
            name: KIND.to_owned(),
            ..Annotations::default()
        },
        description: "specs that services of Skep had, to return to".to_owned(),
    }
}

/// Where the names of a service's revisions begin; no other name does.
pub fn name_prefix(service: ServiceId) -> String {
    format!("{service}.")
}

/// The resource that keeps `revision`.
pub fn resource(id: ResourceId, revision: &ServiceRevision) -> Resource {
    let number = revision.number;
    let labels = [
        Some((SERVICE, revision.service.to_string())),
        Some((NUMBER, number.to_string())),
        Some((SPEC_VERSION, revision.spec_version.to_string())),
        revision.previous.map(|it| (PREVIOUS, it.to_string())),
    ];
    Resource {
        id,
        meta: Meta::default(),
        annotations: Annotations {
            name: format!("{}.{number:0NUMBER_DIGITS$}", revision.service),
            labels: labels
                .into_iter()
                .flatten()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        },
        kind: KIND.to_owned(),
        payload: Some(Payload {
            type_url: TYPE_URL.to_owned(),
            value: proto::ServiceSpec::from(&*revision.spec).encode_to_vec(),
        }),
    }
}

/// Number and version; `None` for what is no revision.
pub fn key(resource: &Resource) -> Option<RevisionKey> {
    let number = |label| resource.annotations.labels.get(label)?.parse().ok();
    let key = RevisionKey {
        number: number(NUMBER)?,
        spec_version: Version(number(SPEC_VERSION)?),
    };
    Some(key).filter(|_| resource.kind == KIND)
}

/// The revision a resource keeps.
pub fn revision(resource: &Resource) -> Result<ServiceRevision, Error> {
    let labels = &resource.annotations.labels;
    let key = key(resource).at("labels")?;
    let service = labels.get(SERVICE).and_then(|id| id.parse().ok());
    let payload = resource.payload.as_ref().at("payload")?;
    if payload.type_url != TYPE_URL {
        return Err(Problem::Unsupported).at("payload");
    }
    let spec = proto::ServiceSpec::decode(&*payload.value)?;
    Ok(ServiceRevision {
        service: service.at("labels")?,
        number: key.number,
        spec_version: key.spec_version,
        created_at: resource.meta.created_at,
        previous: labels.get(PREVIOUS).and_then(|text| text.parse().ok()),
        spec: Arc::new(ServiceSpec::try_from(spec).at("payload")?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skep_model::Rng;

    use super::*;
    use crate::arbitrary::Draw;

    proptest! {
        #[test]
        fn revisions_survive(seed: u64, number: u64, version: u64, previous: Option<u64>) {
            let mut rng = Rng::from_seed(seed);
            let written = ServiceRevision {
                service: ServiceId::random(&mut rng),
                number,
                spec_version: Version(version),
                created_at: skep_model::Timestamp::ZERO,
                previous,
                spec: Arc::new(Draw::from_seed(seed).service_spec()),
            };
            let resource = resource(ResourceId::random(&mut rng), &written);
            prop_assert!(resource.annotations.name.starts_with(&name_prefix(written.service)));
            prop_assert_eq!(
                key(&resource),
                Some(RevisionKey { number, spec_version: Version(version) })
            );
            prop_assert_eq!(revision(&resource).unwrap(), written);
        }
    }

    #[test]
    fn a_resource_of_others_is_no_revision() {
        let mut rng = Rng::from_seed(1);
        let mut resource = resource(
            ResourceId::random(&mut rng),
            &ServiceRevision {
                service: ServiceId::random(&mut rng),
                number: 1,
                spec_version: Version(0),
                created_at: skep_model::Timestamp::ZERO,
                previous: None,
                spec: Arc::default(),
            },
        );
        resource.kind = "other".to_owned();
        assert_eq!(key(&resource), None);
        assert!(revision(&resource).is_err());
    }
}
