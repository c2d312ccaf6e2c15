//! Entries of the raft log: `InternalRaftRequest`, a list of whole objects and what becomes of
//! them. A removal carries the object as it was; a receiver needs no more than its id.

use prost::Message;
use skep_model::{Cluster, Config, Secret};
use skep_store::{Action, ActionKind, Object};

use crate::{
    convert::At,
    error::{Error, Problem},
    framing::{Fields, Value, put_bytes, put_bytes_header, put_varint},
    object_codec::{
        ObjectEncoder, decode_extension, decode_network, decode_node, decode_resource,
        decode_service, decode_task,
    },
    proto,
    spec_cache::SpecCache,
};

/// `InternalRaftRequest.id`.
const REQUEST_ID: usize = 1;
/// `InternalRaftRequest.action`.
const REQUEST_ACTION: usize = 2;
/// `StoreAction.action`.
const ACTION_KIND: usize = 1;
/// `StoreAction.node`.
const ACTION_NODE: usize = 2;
/// `StoreAction.service`.
const ACTION_SERVICE: usize = 3;
/// `StoreAction.task`.
const ACTION_TASK: usize = 4;
/// `StoreAction.network`.
const ACTION_NETWORK: usize = 5;
/// `StoreAction.cluster`.
const ACTION_CLUSTER: usize = 6;
/// `StoreAction.secret`.
const ACTION_SECRET: usize = 7;
/// `StoreAction.config`.
const ACTION_CONFIG: usize = 10;
/// `StoreAction.resource`.
const ACTION_RESOURCE: usize = 8;
/// `StoreAction.extension`.
const ACTION_EXTENSION: usize = 9;

/// What an object's encoding usually takes; only a first guess at a buffer's size.
const OBJECT_BYTES_GUESS: usize = 512;

/// The bytes of a log entry. `request_id` lets the proposer recognise its own entry.
pub fn encode_actions(request_id: u64, actions: &[Action]) -> Vec<u8> {
    let mut encoder = ObjectEncoder::default();
    let mut entry = Vec::with_capacity(16 + actions.len() * OBJECT_BYTES_GUESS);
    let mut object = Vec::with_capacity(OBJECT_BYTES_GUESS);
    if request_id != 0 {
        put_varint(&mut entry, REQUEST_ID, request_id);
    }
    for action in actions {
        object.clear();
        encoder.encode(&action.object, &mut object);
        // Two bytes for the kind, one for the object's key, and the object behind its length.
        let length = 3 + prost::length_delimiter_len(object.len()) + object.len();
        put_bytes_header(&mut entry, REQUEST_ACTION, length);
        put_varint(&mut entry, ACTION_KIND, kind_number(action.kind));
        put_bytes(&mut entry, target_number(&action.object), &object);
    }
    entry
}

/// The request id and the actions of a log entry.
pub fn decode_actions(entry: &[u8], cache: &mut SpecCache) -> Result<(u64, Vec<Action>), Error> {
    let mut request_id = 0;
    let mut actions = Vec::new();
    for field in Fields::of(entry) {
        let field = field?;
        match (field.number, field.value) {
            (REQUEST_ID, Value::Varint(id)) => request_id = id,
            (REQUEST_ACTION, Value::Bytes(action)) => {
                actions.push(decode_action(action, cache).at("action")?);
            }
            _ => {}
        }
    }
    Ok((request_id, actions))
}

fn decode_action(action: &[u8], cache: &mut SpecCache) -> Result<Action, Error> {
    let mut kind = None;
    let mut object = None;
    for field in Fields::of(action) {
        let field = field?;
        match (field.number, field.value) {
            (ACTION_KIND, Value::Varint(number)) => kind = Some(action_kind(number).at("action")?),
            (number, Value::Bytes(bytes)) => {
                object = decode_target(number, bytes, cache)?.or(object);
            }
            _ => {}
        }
    }
    Ok(Action {
        kind: kind.at("action")?,
        object: object.at("target")?,
    })
}

/// The object in field `number` of a `StoreAction`; `None` for numbers no release has.
fn decode_target(
    number: usize,
    bytes: &[u8],
    cache: &mut SpecCache,
) -> Result<Option<Object>, Error> {
    let object = match number {
        ACTION_NODE => Object::Node(decode_node(bytes, cache).at("node")?.into()),
        ACTION_SERVICE => Object::Service(decode_service(bytes, cache).at("service")?.into()),
        ACTION_TASK => Object::Task(decode_task(bytes, cache).at("task")?.into()),
        ACTION_CLUSTER => {
            let cluster = Cluster::try_from(proto::Cluster::decode(bytes)?);
            Object::Cluster(cluster.at("cluster")?.into())
        }
        ACTION_NETWORK => Object::Network(decode_network(bytes, cache).at("network")?),
        ACTION_RESOURCE => Object::Resource(decode_resource(bytes).at("resource")?),
        ACTION_EXTENSION => Object::Extension(decode_extension(bytes).at("extension")?),
        ACTION_SECRET => {
            let secret = Secret::try_from(proto::Secret::decode(bytes)?);
            Object::Secret(secret.at("secret")?.into())
        }
        ACTION_CONFIG => {
            let config = Config::try_from(proto::Config::decode(bytes)?);
            Object::Config(config.at("config")?.into())
        }
        11 => return Err(Problem::Unsupported).at("volume"),
        _ => return Ok(None),
    };
    Ok(Some(object))
}

/// SwarmKit's number of `kind`; all fit one byte of varint.
fn kind_number(kind: ActionKind) -> u64 {
    match kind {
        ActionKind::Create => 1,
        ActionKind::Update => 2,
        ActionKind::Remove => 3,
    }
}

fn action_kind(number: u64) -> Result<ActionKind, Problem> {
    match number {
        1 => Ok(ActionKind::Create),
        2 => Ok(ActionKind::Update),
        3 => Ok(ActionKind::Remove),
        _ => Err(Problem::UnknownValue(
            i32::try_from(number).unwrap_or(i32::MAX),
        )),
    }
}

fn target_number(object: &Object) -> usize {
    match object {
        Object::Node(_) => ACTION_NODE,
        Object::Service(_) => ACTION_SERVICE,
        Object::Task(_) => ACTION_TASK,
        Object::Network(_) => ACTION_NETWORK,
        Object::Cluster(_) => ACTION_CLUSTER,
        Object::Resource(_) => ACTION_RESOURCE,
        Object::Extension(_) => ACTION_EXTENSION,
        Object::Secret(_) => ACTION_SECRET,
        Object::Config(_) => ACTION_CONFIG,
    }
}

#[cfg(test)]
mod tests;
