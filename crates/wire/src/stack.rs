//! Stacks and their revisions as Swarm's resources, and commands on them between managers.
//!
//! A stack's resource is named `stack/<name>`, a revision's `stack/<name>/<number>`, so that all of a
//! stack is a range of the index of names. Which are kept is the manager's decision. Design:
//! `docs/design/stacks.md`.

use std::sync::Arc;

use prost::Message;
use skep_model::{
    Annotations, ConfigSpec, Meta, NetworkSpec, SecretSpec, ServiceSpec,
    id::{ExtensionId, ResourceId},
    object::{Extension, Payload, Resource},
    stack::{
        Externals, Stack, StackAction, StackChange, StackObject, StackOutcome, StackRevision,
        StackSpec,
    },
};

use crate::{
    convert::{At, id},
    error::{Error, Problem},
    peer, proto,
};

/// Kind of the resources, and name of the extension that declares it.
pub const KIND: &str = "skep.stack";
/// Types of the payloads.
const STACK_URL: &str = "type.googleapis.com/skep.v1.Stack";
const REVISION_URL: &str = "type.googleapis.com/skep.v1.StackRevision";
/// Where the names of all resources of stacks begin.
pub const NAME_PREFIX: &str = "stack/";
/// Digits of a number in a name: enough for any, so that names sort as numbers do.
const NUMBER_DIGITS: usize = 20;

/// Declares the kind, as Swarm demands before there can be a resource of it.
pub fn extension(id: ExtensionId) -> Extension {
    Extension {
        id,
        meta: Meta::default(),
        annotations: Annotations {
            name: KIND.to_owned(),
            ..Annotations::default()
        },
        description: "stacks of Skep, and what they were".to_owned(),
    }
}

/// Name of a stack's resource.
pub fn resource_name(stack: &str) -> String {
    format!("{NAME_PREFIX}{stack}")
}

/// Where the names of a stack's revisions begin; no other name does.
pub fn revision_prefix(stack: &str) -> String {
    format!("{NAME_PREFIX}{stack}/")
}

/// The resource that keeps a stack.
pub fn resource(id: ResourceId, stack: &Stack) -> Resource {
    let payload = peer::Stack {
        name: stack.name.clone(),
        revision: stack.revision,
        leaving_networks: stack.leaving.iter().map(ToString::to_string).collect(),
        is_removed: stack.is_removed,
        previous: stack.previous,
    };
    keep(id, resource_name(&stack.name), STACK_URL, &payload)
}

/// The resource that keeps a revision of the stack its document names.
pub fn revision_resource(id: ResourceId, revision: &StackRevision) -> Resource {
    let payload = peer::StackRevision {
        number: revision.number,
        spec: Some((&*revision.spec).into()),
        secrets: revision.secrets.clone(),
        configs: revision.configs.clone(),
    };
    let prefix = revision_prefix(&revision.spec.name);
    let name = format!("{prefix}{:0NUMBER_DIGITS$}", revision.number);
    keep(id, name, REVISION_URL, &payload)
}

fn keep(id: ResourceId, name: String, type_url: &str, payload: &impl Message) -> Resource {
    Resource {
        id,
        meta: Meta::default(),
        annotations: Annotations {
            name,
            ..Annotations::default()
        },
        kind: KIND.to_owned(),
        payload: Some(Payload {
            type_url: type_url.to_owned(),
            value: payload.encode_to_vec(),
        }),
    }
}

/// Whether the resource keeps a stack, not a revision of one.
pub fn is_stack(resource: &Resource) -> bool {
    let url = resource.payload.as_ref().map(|payload| &*payload.type_url);
    resource.kind == KIND && url == Some(STACK_URL)
}

/// The stack a resource keeps.
pub fn stack(resource: &Resource) -> Result<Stack, Error> {
    let value = peer::Stack::decode(payload(resource, STACK_URL)?)?;
    let leaving = value.leaving_networks.iter().map(|text| id(text));
    Ok(Stack {
        leaving: leaving.collect::<Result<_, _>>().at("leaving_networks")?,
        name: value.name,
        revision: value.revision,
        is_removed: value.is_removed,
        previous: value.previous,
    })
}

/// The revision a resource keeps.
pub fn revision(resource: &Resource) -> Result<StackRevision, Error> {
    let value = peer::StackRevision::decode(payload(resource, REVISION_URL)?)?;
    Ok(StackRevision {
        number: value.number,
        created_at: resource.meta.created_at,
        spec: Arc::new(StackSpec::try_from(value.spec.at("spec")?).at("spec")?),
        secrets: value.secrets,
        configs: value.configs,
    })
}

fn payload<'a>(resource: &'a Resource, type_url: &str) -> Result<&'a [u8], Error> {
    let payload = resource.payload.as_ref().at("payload")?;
    if resource.kind != KIND || payload.type_url != type_url {
        return Err(Problem::Unsupported).at("payload");
    }
    Ok(&payload.value)
}

/// Whether two specs are one on the wire: what a manager read from its log may differ in form from
/// what a client sent, and not in meaning.
pub fn is_same_service(one: &ServiceSpec, other: &ServiceSpec) -> bool {
    one == other || proto::ServiceSpec::from(one) == proto::ServiceSpec::from(other)
}

/// Whether two documents are one on the wire.
pub fn is_same_spec(one: &StackSpec, other: &StackSpec) -> bool {
    one == other || peer::StackSpec::from(one) == peer::StackSpec::from(other)
}

impl From<&StackSpec> for peer::StackSpec {
    fn from(value: &StackSpec) -> Self {
        let networks = value.networks.iter().map(proto::NetworkSpec::from);
        let secrets = value.secrets.iter().map(proto::SecretSpec::from);
        let configs = value.configs.iter().map(proto::ConfigSpec::from);
        let services = value.services.iter().map(proto::ServiceSpec::from);
        Self {
            name: value.name.clone(),
            networks: networks.map(|spec| spec.encode_to_vec()).collect(),
            secrets: secrets.map(|spec| spec.encode_to_vec()).collect(),
            configs: configs.map(|spec| spec.encode_to_vec()).collect(),
            services: services.map(|spec| spec.encode_to_vec()).collect(),
            external_networks: value.external.networks.clone(),
            external_secrets: value.external.secrets.clone(),
            external_configs: value.external.configs.clone(),
            source: value.source.clone(),
        }
    }
}

impl TryFrom<peer::StackSpec> for StackSpec {
    type Error = Error;

    fn try_from(value: peer::StackSpec) -> Result<Self, Error> {
        Ok(Self {
            networks: specs::<proto::NetworkSpec, NetworkSpec>(&value.networks).at("networks")?,
            secrets: specs::<proto::SecretSpec, SecretSpec>(&value.secrets).at("secrets")?,
            configs: specs::<proto::ConfigSpec, ConfigSpec>(&value.configs).at("configs")?,
            services: specs::<proto::ServiceSpec, ServiceSpec>(&value.services).at("services")?,
            name: value.name,
            external: Externals {
                networks: value.external_networks,
                secrets: value.external_secrets,
                configs: value.external_configs,
            },
            source: value.source,
        })
    }
}

fn specs<W, T>(encoded: &[Vec<u8>]) -> Result<Vec<T>, Error>
where
    W: Message + Default,
    T: TryFrom<W, Error = Error>,
{
    let specs = encoded
        .iter()
        .map(|bytes| T::try_from(W::decode(&**bytes)?));
    specs.collect()
}

impl From<&StackOutcome> for peer::StackAnswer {
    fn from(value: &StackOutcome) -> Self {
        use peer::stack_change::{Action, Kind};
        let changes = value.changes.iter().map(|change| peer::StackChange {
            kind: match change.kind {
                StackObject::Network => Kind::Network,
                StackObject::Secret => Kind::Secret,
                StackObject::Config => Kind::Config,
                StackObject::Service => Kind::Service,
            }
            .into(),
            name: change.name.clone(),
            stored_as: change.stored_as.clone(),
            action: match change.action {
                StackAction::Unchanged => Action::Unchanged,
                StackAction::Create => Action::Create,
                StackAction::Update => Action::Update,
                StackAction::Remove => Action::Remove,
            }
            .into(),
        });
        Self {
            revision: value.revision,
            changes: changes.collect(),
        }
    }
}

impl From<peer::StackAnswer> for StackOutcome {
    fn from(value: peer::StackAnswer) -> Self {
        use peer::stack_change::{Action, Kind};
        let changes = value.changes.into_iter().map(|change| StackChange {
            kind: match change.kind() {
                Kind::Network => StackObject::Network,
                Kind::Secret => StackObject::Secret,
                Kind::Config => StackObject::Config,
                Kind::Service => StackObject::Service,
            },
            action: match change.action() {
                Action::Unchanged => StackAction::Unchanged,
                Action::Create => StackAction::Create,
                Action::Update => StackAction::Update,
                Action::Remove => StackAction::Remove,
            },
            name: change.name,
            stored_as: change.stored_as,
        });
        Self {
            revision: value.revision,
            changes: changes.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skep_model::{NetworkId, Redacted, Rng};

    use super::*;
    use crate::arbitrary::Draw;

    fn spec(seed: u64) -> StackSpec {
        StackSpec {
            name: "app".to_owned(),
            networks: vec![Draw::from_seed(seed).network_spec()],
            secrets: vec![SecretSpec {
                annotations: Annotations::default(),
                data: Redacted(b"hunter2".to_vec()),
                ..SecretSpec::default()
            }],
            configs: vec![ConfigSpec::default()],
            services: vec![Draw::from_seed(seed).service_spec()],
            external: Externals {
                networks: vec!["net".to_owned()],
                ..Externals::default()
            },
            source: "services: {}".to_owned(),
        }
    }

    proptest! {
        #[test]
        fn stacks_and_revisions_survive(seed: u64, number: u64) {
            let mut rng = Rng::from_seed(seed);
            let written = Stack {
                name: "app".to_owned(),
                revision: number,
                leaving: vec![NetworkId::random(&mut rng)],
                is_removed: seed % 2 == 0,
                previous: number / 2,
            };
            let kept = resource(ResourceId::random(&mut rng), &written);
            prop_assert!(is_stack(&kept));
            prop_assert_eq!(stack(&kept).unwrap(), written);
            let written = StackRevision {
                number,
                created_at: skep_model::Timestamp::ZERO,
                spec: Arc::new(spec(seed)),
                secrets: [("a".to_owned(), "a-01234567".to_owned())].into(),
                configs: std::collections::BTreeMap::new(),
            };
            let kept = revision_resource(ResourceId::random(&mut rng), &written);
            prop_assert!(!is_stack(&kept));
            prop_assert!(kept.annotations.name.starts_with(&revision_prefix("app")));
            prop_assert_eq!(revision(&kept).unwrap(), written);
        }
    }

    #[test]
    fn what_is_no_stack_is_refused() {
        let mut rng = Rng::from_seed(1);
        let mut kept = resource(ResourceId::random(&mut rng), &Stack::default());
        assert!(revision(&kept).is_err());
        kept.kind = "other".to_owned();
        assert!(stack(&kept).is_err());
        assert!(!is_stack(&kept));
    }

    #[test]
    fn a_printed_document_shows_no_secret() {
        let text = format!("{:?}", peer::StackSpec::from(&spec(1)));
        assert!(!text.contains("104, 117, 110"), "{text}");
    }
}
