//! What an operator decides about a node.

use skep_model as model;

use crate::{
    convert::field::{At, enum_pair, known, or_default},
    error::Error,
    proto::{
        self, NodeRole,
        node_spec::{Availability, Membership},
    },
};

enum_pair!(model::Role, NodeRole { Worker, Manager });
enum_pair!(model::Membership, Membership { Pending, Accepted });
enum_pair!(
    model::Availability,
    Availability {
        Active,
        Pause,
        Drain
    }
);

impl From<&model::NodeSpec> for proto::NodeSpec {
    fn from(value: &model::NodeSpec) -> Self {
        Self {
            annotations: Some((&value.annotations).into()),
            desired_role: NodeRole::from(value.desired_role).into(),
            membership: Membership::from(value.membership).into(),
            availability: Availability::from(value.availability).into(),
        }
    }
}

impl TryFrom<proto::NodeSpec> for model::NodeSpec {
    type Error = Error;

    fn try_from(value: proto::NodeSpec) -> Result<Self, Error> {
        Ok(Self {
            annotations: or_default(value.annotations).at("annotations")?,
            desired_role: known::<NodeRole, _>(value.desired_role).at("desired_role")?,
            membership: known::<Membership, _>(value.membership).at("membership")?,
            availability: known::<Availability, _>(value.availability).at("availability")?,
        })
    }
}
