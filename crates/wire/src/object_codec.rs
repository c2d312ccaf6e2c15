//! Encoding and decoding of whole objects, with the parts that tasks share handled once.
//!
//! A task's `spec`, `service_annotations` and `endpoint`, and the networks it is on, are encoded once per distinct `Arc` and
//! written behind the other fields; protobuf lets fields come in any order.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use prost::Message;
use skep_model::{
    Annotations, Endpoint, Network, NetworkAttachment, Node, Service, Task, TaskSpec,
    object::{Extension, Resource},
};
use skep_store::Object;

use crate::{
    convert::{At, TaskParts},
    error::Error,
    framing::{Fields, Value, put_bytes, put_bytes_header},
    proto,
    spec_cache::SpecCache,
};

/// `Task.spec`.
const TASK_SPEC: usize = 3;
/// `Task.annotations`.
const TASK_ANNOTATIONS: usize = 7;
/// `Task.service_annotations`.
const TASK_SERVICE_ANNOTATIONS: usize = 8;
/// `Task.networks`.
const TASK_NETWORKS: usize = 11;
/// `NetworkAttachment.network`.
const ATTACHMENT_NETWORK: usize = 1;
/// `Task.endpoint`.
const TASK_ENDPOINT: usize = 12;

/// Encodes objects that live as long as `'a`, so that an address names one value throughout.
#[derive(Default)]
pub(crate) struct ObjectEncoder<'a> {
    specs: HashMap<*const TaskSpec, (&'a TaskSpec, Vec<u8>)>,
    annotations: HashMap<*const Annotations, (&'a Annotations, Vec<u8>)>,
    endpoints: HashMap<*const Endpoint, (&'a Endpoint, Vec<u8>)>,
    networks: HashMap<*const Network, (&'a Network, Vec<u8>)>,
}

// === impl ObjectEncoder ===

impl<'a> ObjectEncoder<'a> {
    /// Appends the encoding of `object` to `buffer`.
    pub(crate) fn encode(&mut self, object: &'a Object, buffer: &mut Vec<u8>) {
        match object {
            Object::Node(node) => append(&proto::Node::from(&**node), buffer),
            Object::Service(service) => append(&proto::Service::from(&**service), buffer),
            Object::Task(task) => self.encode_task(task, buffer),
            Object::Network(network) => append(&proto::Network::from(&**network), buffer),
            Object::Cluster(cluster) => append(&proto::Cluster::from(&**cluster), buffer),
            Object::Extension(extension) => append(&proto::Extension::from(&**extension), buffer),
            Object::Resource(resource) => append(&proto::Resource::from(&**resource), buffer),
            Object::Secret(secret) => append(&proto::Secret::from(&**secret), buffer),
            Object::Config(config) => append(&proto::Config::from(&**config), buffer),
        }
    }

    /// Appends the encoding of `task` to `buffer`.
    pub(crate) fn encode_task(&mut self, task: &'a Task, buffer: &mut Vec<u8>) {
        append(&proto::Task::without_shared_parts(task), buffer);
        let spec = once::<_, proto::TaskSpec>(&mut self.specs, &task.spec);
        put_bytes(buffer, TASK_SPEC, spec);
        let annotations =
            once::<_, proto::Annotations>(&mut self.annotations, &task.service_annotations);
        put_bytes(buffer, TASK_SERVICE_ANNOTATIONS, annotations);
        if let Some(endpoint) = &task.endpoint {
            let endpoint = once::<_, proto::Endpoint>(&mut self.endpoints, endpoint);
            put_bytes(buffer, TASK_ENDPOINT, endpoint);
        }
        for attachment in &task.networks {
            let network = once::<_, proto::Network>(&mut self.networks, &attachment.network);
            let rest = proto::NetworkAttachment::without_network(attachment);
            // One byte for the network's key, and the network behind its length.
            let length = 1 + prost::length_delimiter_len(network.len()) + network.len();
            put_bytes_header(buffer, TASK_NETWORKS, length + rest.encoded_len());
            put_bytes(buffer, ATTACHMENT_NETWORK, network);
            append(&rest, buffer);
        }
    }
}

/// The encoding of `value`, made when its address was not met before.
fn once<'c, 'a, T, P>(
    encodings: &'c mut HashMap<*const T, (&'a T, Vec<u8>)>,
    value: &'a Arc<T>,
) -> &'c [u8]
where
    P: Message + From<&'a T>,
{
    let value: &'a T = value;
    let encode = || (value, P::from(value).encode_to_vec());
    &encodings
        .entry(std::ptr::from_ref(value))
        .or_insert_with(encode)
        .1
}

fn append(message: &impl Message, buffer: &mut Vec<u8>) {
    message.encode(buffer).expect("a vector grows as needed");
}

/// The service `bytes` encode; it shares its parts with the other objects `cache` has seen.
pub(crate) fn decode_service(bytes: &[u8], cache: &mut SpecCache) -> Result<Service, Error> {
    let mut service: Service = proto::Service::decode(bytes)?.try_into()?;
    cache.share_service(&mut service);
    Ok(service)
}

/// The node `bytes` encode; it shares the networks it is on with the other objects `cache` has seen.
pub(crate) fn decode_node(bytes: &[u8], cache: &mut SpecCache) -> Result<Node, Error> {
    let mut node: Node = proto::Node::decode(bytes)?.try_into()?;
    cache.share_node(&mut node);
    Ok(node)
}

/// The network `bytes` encode.
pub(crate) fn decode_network(bytes: &[u8], cache: &mut SpecCache) -> Result<Arc<Network>, Error> {
    let network = proto::Network::decode(bytes)?.try_into()?;
    Ok(cache.share_network(network))
}

/// The extension `bytes` encode.
pub(crate) fn decode_extension(bytes: &[u8]) -> Result<Arc<Extension>, Error> {
    Ok(Arc::new(proto::Extension::decode(bytes)?.try_into()?))
}

/// The resource `bytes` encode.
pub(crate) fn decode_resource(bytes: &[u8]) -> Result<Arc<Resource>, Error> {
    Ok(Arc::new(proto::Resource::decode(bytes)?.try_into()?))
}

/// The place on a network `bytes` encode.
fn decode_attachment(bytes: &[u8], cache: &mut SpecCache) -> Result<NetworkAttachment, Error> {
    let mut network: Option<Cow<'_, [u8]>> = None;
    let mut rest = Vec::new();
    for field in Fields::of(bytes) {
        let field = field?;
        match (field.number, field.value) {
            (ATTACHMENT_NETWORK, Value::Bytes(bytes)) => match &mut network {
                None => network = Some(Cow::Borrowed(bytes)),
                Some(network) => network.to_mut().extend_from_slice(bytes),
            },
            _ => rest.extend_from_slice(field.raw),
        }
    }
    let network = cache.network(&network.at("network")?).at("network")?;
    proto::NetworkAttachment::decode(&*rest)?.into_model_on(network)
}

/// The task `bytes` encode; it shares its parts with the other objects `cache` has seen.
pub(crate) fn decode_task(bytes: &[u8], cache: &mut SpecCache) -> Result<Task, Error> {
    let split = SplitTask::split(bytes)?;
    let spec = split.spec.as_deref().at("spec")?;
    let annotations = split.annotations.as_deref().unwrap_or_default();
    let service_annotations = split.service_annotations.as_deref().unwrap_or_default();
    let endpoint = split
        .endpoint
        .as_deref()
        .map(|bytes| cache.endpoint(bytes))
        .transpose();
    let networks = split.networks.iter();
    let networks: Result<Vec<_>, _> = networks
        .map(|bytes| decode_attachment(bytes, cache))
        .collect();
    let parts = TaskParts {
        networks: networks.at("networks")?,
        endpoint: endpoint.at("endpoint")?,
        spec: cache.task_spec(spec).at("spec")?,
        annotations: cache.annotations(annotations).at("annotations")?,
        service_annotations: cache
            .annotations(service_annotations)
            .at("service_annotations")?,
    };
    proto::Task::decode(&*split.rest)?.into_model_with(parts)
}

/// The encoding of a task, taken apart.
#[derive(Default)]
struct SplitTask<'a> {
    spec: Option<Cow<'a, [u8]>>,
    annotations: Option<Cow<'a, [u8]>>,
    service_annotations: Option<Cow<'a, [u8]>>,
    endpoint: Option<Cow<'a, [u8]>>,
    networks: Vec<&'a [u8]>,
    /// All other fields.
    rest: Vec<u8>,
}

impl<'a> SplitTask<'a> {
    fn split(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut split = Self {
            rest: Vec::with_capacity(bytes.len()),
            ..Self::default()
        };
        for field in Fields::of(bytes) {
            let field = field?;
            let part = match field.number {
                TASK_SPEC => &mut split.spec,
                TASK_ANNOTATIONS => &mut split.annotations,
                TASK_SERVICE_ANNOTATIONS => &mut split.service_annotations,
                TASK_ENDPOINT => &mut split.endpoint,
                TASK_NETWORKS => {
                    match field.value {
                        Value::Bytes(bytes) => split.networks.push(bytes),
                        Value::Varint(_) | Value::Fixed => split.rest.extend_from_slice(field.raw),
                    }
                    continue;
                }
                _ => {
                    split.rest.extend_from_slice(field.raw);
                    continue;
                }
            };
            match (field.value, part) {
                (Value::Bytes(bytes), part @ None) => *part = Some(Cow::Borrowed(bytes)),
                // A message that comes twice is merged, which is what its bytes in a row mean.
                (Value::Bytes(bytes), Some(part)) => part.to_mut().extend_from_slice(bytes),
                // The wrong type; decoding the rest will say so.
                (Value::Varint(_) | Value::Fixed, _) => split.rest.extend_from_slice(field.raw),
            }
        }
        Ok(split)
    }
}
