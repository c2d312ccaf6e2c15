//! Swarm's objects for data of others: an extension names a kind, a resource is one object of it.
//!
//! No command of Docker's shows them. Skep keeps the revisions of services in resources, see
//! `docs/design/revisions.md`; others, of a Swarm that was taken over, are carried along.

use std::{fmt, sync::Arc};

use crate::{
    id::{ExtensionId, ResourceId, ServiceId, SpecVersion},
    object::Meta,
    spec::{Annotations, ServiceSpec},
    time::Timestamp,
};

/// Declares a kind of resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its id.
    pub id: ExtensionId,
    /// Bookkeeping.
    pub meta: Meta,
    /// The name is the kind.
    pub annotations: Annotations,
    /// What it is for.
    pub description: String,
}

/// One object of a kind declared by an extension. Names are unique without regard to case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its id.
    pub id: ResourceId,
    /// Bookkeeping.
    pub meta: Meta,
    /// Name and labels.
    pub annotations: Annotations,
    /// Name of the extension.
    pub kind: String,
    /// What it holds.
    pub payload: Option<Payload>,
}

/// An encoded message.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// Names its type, as protobuf's `Any` does.
    pub type_url: String,
    /// Its encoding.
    pub value: Vec<u8>,
}

/// A spec a service had, kept to return to.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceRevision {
    /// Whose.
    pub service: ServiceId,
    /// Counts the specs of the service, from 1; never used twice.
    pub number: u64,
    /// `Service::spec_version` while this spec is the service's.
    pub spec_version: SpecVersion,
    /// When it was first stored.
    pub created_at: Timestamp,
    /// The revision that was in force before it was stored; `None` for the first, and where it was
    /// not noted.
    pub previous: Option<u64>,
    /// The spec.
    pub spec: Arc<ServiceSpec>,
}

impl fmt::Debug for Payload {
    /// Without the value, in which there may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("type_url", &self.type_url)
            .field("length", &self.value.len())
            .finish()
    }
}
