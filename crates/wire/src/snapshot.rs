//! Snapshots of the replicated state: SwarmKit's `Snapshot`, version 0. Read and written object by
//! object, so that no second copy of the store is ever built.

use prost::Message;
use skep_model::{Cluster, Config, Secret};
use skep_store::Object;

use crate::{
    convert::At,
    error::{Error, Problem},
    framing::{Fields, Value, put_bytes, put_bytes_header},
    member::Member,
    object_codec::{
        ObjectEncoder, decode_extension, decode_network, decode_node, decode_resource,
        decode_service, decode_task,
    },
    proto,
    spec_cache::SpecCache,
};

/// `Snapshot.version`; its only value is 0, which is not written.
const SNAPSHOT_VERSION: usize = 1;
/// `Snapshot.membership`.
const SNAPSHOT_MEMBERSHIP: usize = 2;
/// `Snapshot.store`.
const SNAPSHOT_STORE: usize = 3;
/// `StoreSnapshot.nodes`.
const STORE_NODES: usize = 1;
/// `StoreSnapshot.services`.
const STORE_SERVICES: usize = 2;
/// `StoreSnapshot.networks`.
const STORE_NETWORKS: usize = 3;
/// `StoreSnapshot.tasks`.
const STORE_TASKS: usize = 4;
/// `StoreSnapshot.clusters`.
const STORE_CLUSTERS: usize = 5;
/// `StoreSnapshot.resources`.
const STORE_RESOURCES: usize = 7;
/// `StoreSnapshot.extensions`.
const STORE_EXTENSIONS: usize = 8;
/// `StoreSnapshot.secrets`.
const STORE_SECRETS: usize = 6;
/// `StoreSnapshot.configs`.
const STORE_CONFIGS: usize = 9;

/// What an object's encoding usually takes; only a first guess at a buffer's size.
const OBJECT_BYTES_GUESS: usize = 512;

/// The raft group when a snapshot was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Its members.
    pub members: Vec<Member>,
    /// Raft ids of former members; none is ever used again.
    pub removed: Vec<u64>,
}

/// A snapshot read back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The raft group.
    pub membership: Membership,
    /// The store's objects, in the order they were written.
    pub objects: Vec<Object>,
}

/// The bytes of a snapshot. Objects keep their order; SwarmKit does not mind it.
pub fn encode_snapshot(membership: &Membership, objects: &[Object]) -> Vec<u8> {
    let mut encoder = ObjectEncoder::default();
    let mut store = Vec::with_capacity(objects.len() * OBJECT_BYTES_GUESS);
    let mut bytes = Vec::with_capacity(OBJECT_BYTES_GUESS);
    for object in objects {
        bytes.clear();
        encoder.encode(object, &mut bytes);
        put_bytes(&mut store, table_number(object), &bytes);
    }

    let membership = proto::ClusterSnapshot::from(membership).encode_to_vec();
    let mut snapshot = Vec::with_capacity(store.len() + membership.len() + 32);
    put_bytes(&mut snapshot, SNAPSHOT_MEMBERSHIP, &membership);
    put_bytes_header(&mut snapshot, SNAPSHOT_STORE, store.len());
    snapshot.extend_from_slice(&store);
    snapshot
}

/// The snapshot `bytes` encode. Objects decoded through one `cache` share equal specs.
pub fn decode_snapshot(bytes: &[u8], cache: &mut SpecCache) -> Result<Snapshot, Error> {
    let mut membership = proto::ClusterSnapshot::default();
    let mut objects = Vec::new();
    for field in Fields::of(bytes) {
        let field = field?;
        match (field.number, field.value) {
            (SNAPSHOT_VERSION, Value::Varint(version)) => check_version(version).at("version")?,
            (SNAPSHOT_MEMBERSHIP, Value::Bytes(bytes)) => membership.merge(bytes)?,
            (SNAPSHOT_STORE, Value::Bytes(store)) => {
                decode_store(store, cache, &mut objects).at("store")?;
            }
            _ => {}
        }
    }
    Ok(Snapshot {
        membership: Membership::try_from(membership).at("membership")?,
        objects,
    })
}

fn check_version(version: u64) -> Result<(), Problem> {
    match version {
        0 => Ok(()),
        _ => Err(Problem::UnknownValue(
            i32::try_from(version).unwrap_or(i32::MAX),
        )),
    }
}

fn decode_store(
    store: &[u8],
    cache: &mut SpecCache,
    objects: &mut Vec<Object>,
) -> Result<(), Error> {
    for field in Fields::of(store) {
        let field = field?;
        if let Value::Bytes(bytes) = field.value {
            objects.extend(decode_object(field.number, bytes, cache)?);
        }
    }
    Ok(())
}

/// The object in field `number` of a `StoreSnapshot`; `None` for numbers no release has.
fn decode_object(
    number: usize,
    bytes: &[u8],
    cache: &mut SpecCache,
) -> Result<Option<Object>, Error> {
    let object = match number {
        STORE_NODES => Object::Node(decode_node(bytes, cache).at("nodes")?.into()),
        STORE_SERVICES => Object::Service(decode_service(bytes, cache).at("services")?.into()),
        STORE_TASKS => Object::Task(decode_task(bytes, cache).at("tasks")?.into()),
        STORE_CLUSTERS => {
            let cluster = Cluster::try_from(proto::Cluster::decode(bytes)?);
            Object::Cluster(cluster.at("clusters")?.into())
        }
        STORE_NETWORKS => Object::Network(decode_network(bytes, cache).at("networks")?),
        STORE_RESOURCES => Object::Resource(decode_resource(bytes).at("resources")?),
        STORE_EXTENSIONS => Object::Extension(decode_extension(bytes).at("extensions")?),
        STORE_SECRETS => {
            let secret = Secret::try_from(proto::Secret::decode(bytes)?);
            Object::Secret(secret.at("secrets")?.into())
        }
        STORE_CONFIGS => {
            let config = Config::try_from(proto::Config::decode(bytes)?);
            Object::Config(config.at("configs")?.into())
        }
        10 => return Err(Problem::Unsupported).at("volumes"),
        _ => return Ok(None),
    };
    Ok(Some(object))
}

fn table_number(object: &Object) -> usize {
    match object {
        Object::Node(_) => STORE_NODES,
        Object::Service(_) => STORE_SERVICES,
        Object::Task(_) => STORE_TASKS,
        Object::Network(_) => STORE_NETWORKS,
        Object::Cluster(_) => STORE_CLUSTERS,
        Object::Resource(_) => STORE_RESOURCES,
        Object::Extension(_) => STORE_EXTENSIONS,
        Object::Secret(_) => STORE_SECRETS,
        Object::Config(_) => STORE_CONFIGS,
    }
}

impl From<&Membership> for proto::ClusterSnapshot {
    fn from(value: &Membership) -> Self {
        Self {
            members: value.members.iter().map(Into::into).collect(),
            removed: value.removed.clone(),
        }
    }
}

impl TryFrom<proto::ClusterSnapshot> for Membership {
    type Error = Error;

    fn try_from(value: proto::ClusterSnapshot) -> Result<Self, Error> {
        let members = value.members.into_iter().map(Member::try_from);
        Ok(Self {
            members: members.collect::<Result<_, _>>().at("members")?,
            removed: value.removed,
        })
    }
}

#[cfg(test)]
mod tests;
