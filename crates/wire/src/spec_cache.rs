//! Sharing of equal values between decoded objects.
//!
//! A task holds its service's whole spec on the wire. In memory a million tasks must not hold a
//! million specs, so decoding goes through a [`SpecCache`]: equal bytes give one `Arc`.

use std::{collections::HashMap, fmt, sync::Arc};

use prost::Message;
use skep_model::{Annotations, Endpoint, Network, Node, Service, ServiceSpec, TaskSpec};

use crate::{error::Error, proto};

/// Values remembered of each kind. At the limit a kind starts over: equal values met before and
/// after are then two. It bounds what a long-lived cache keeps of specs nobody uses any more.
const ENTRIES_MAX: usize = 65_536;

/// Remembers the specs, annotations, endpoints and networks met while decoding.
///
/// Use one for a snapshot; a follower may keep one over many log entries.
#[derive(Debug, Default)]
pub struct SpecCache {
    specs: Shared<TaskSpec>,
    annotations: Shared<Annotations>,
    endpoints: Shared<Endpoint>,
    networks: Shared<Network>,
}

/// Values by encoding. Two encodings of one value (fields or map entries in another order) lead to
/// the same `Arc`.
struct Shared<T> {
    by_encoding: HashMap<Box<[u8]>, Arc<T>>,
}

// === impl SpecCache ===

impl SpecCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `service` share its task template and annotations with the tasks decoded by this
    /// cache.
    pub fn share_service(&mut self, service: &mut Service) {
        self.share_service_spec(&mut service.spec);
        if let Some(spec) = &mut service.previous_spec {
            self.share_service_spec(spec);
        }
    }

    /// Makes `node` share the networks of its places with the tasks decoded by this cache.
    pub fn share_node(&mut self, node: &mut Node) {
        for attachment in &mut node.attachments {
            let network = Arc::clone(&attachment.network);
            attachment.network = self.networks.share::<proto::Network>(network);
        }
    }

    /// `network`, or the equal one met before in a task or node.
    pub fn share_network(&mut self, network: Network) -> Arc<Network> {
        self.networks.share::<proto::Network>(Arc::new(network))
    }

    fn share_service_spec(&mut self, spec: &mut Arc<ServiceSpec>) {
        let spec = Arc::make_mut(spec);
        spec.task = self.specs.share::<proto::TaskSpec>(Arc::clone(&spec.task));
        spec.annotations = self
            .annotations
            .share::<proto::Annotations>(Arc::clone(&spec.annotations));
    }

    pub(crate) fn task_spec(&mut self, bytes: &[u8]) -> Result<Arc<TaskSpec>, Error> {
        self.specs.decode::<proto::TaskSpec>(bytes)
    }

    pub(crate) fn annotations(&mut self, bytes: &[u8]) -> Result<Arc<Annotations>, Error> {
        self.annotations.decode::<proto::Annotations>(bytes)
    }

    pub(crate) fn endpoint(&mut self, bytes: &[u8]) -> Result<Arc<Endpoint>, Error> {
        self.endpoints.decode::<proto::Endpoint>(bytes)
    }

    pub(crate) fn network(&mut self, bytes: &[u8]) -> Result<Arc<Network>, Error> {
        self.networks.decode::<proto::Network>(bytes)
    }
}

// === impl Shared ===

impl<T> Shared<T> {
    /// The value `bytes` encode, decoded only when they were not met before.
    fn decode<P>(&mut self, bytes: &[u8]) -> Result<Arc<T>, Error>
    where
        P: Message + Default + for<'a> From<&'a T>,
        T: TryFrom<P, Error = Error>,
    {
        if let Some(value) = self.by_encoding.get(bytes) {
            return Ok(Arc::clone(value));
        }
        let value = self.share::<P>(Arc::new(P::decode(bytes)?.try_into()?));
        self.remember(bytes, &value);
        Ok(value)
    }

    /// The remembered value equal to `value`, or `value`, which is then remembered.
    fn share<P>(&mut self, value: Arc<T>) -> Arc<T>
    where
        P: Message + for<'a> From<&'a T>,
    {
        let encoding = P::from(&*value).encode_to_vec();
        if let Some(known) = self.by_encoding.get(&*encoding) {
            return Arc::clone(known);
        }
        self.remember(&encoding, &value);
        value
    }

    fn remember(&mut self, encoding: &[u8], value: &Arc<T>) {
        if self.by_encoding.len() >= ENTRIES_MAX {
            self.by_encoding.clear();
        }
        self.by_encoding.insert(encoding.into(), Arc::clone(value));
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            by_encoding: HashMap::new(),
        }
    }
}

impl<T> fmt::Debug for Shared<T> {
    /// The number of entries: the keys are encodings that may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries", self.by_encoding.len())
    }
}

#[cfg(test)]
mod tests;
