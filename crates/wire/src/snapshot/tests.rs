//! Snapshots read back as written and mean the same to a plain protobuf decoder.

use proptest::prelude::*;
use prost::Message;
use skep_model::{NodeId, Rng};

use super::*;
use crate::arbitrary::Draw;

fn membership(seed: u64) -> Membership {
    let mut rng = Rng::from_seed(seed);
    let members = (0..rng.below(4)).map(|index| Member {
        raft_id: rng.next_u64(),
        node_id: NodeId::random(&mut rng),
        addr: format!("192.0.2.{index}:2377"),
    });
    Membership {
        members: members.collect(),
        removed: vec![0, 7, seed],
    }
}

proptest! {
    #[test]
    fn snapshots_survive(seed: u64) {
        let (membership, objects) = (membership(seed), Draw::from_seed(seed).objects());
        let bytes = encode_snapshot(&membership, &objects);
        let snapshot = decode_snapshot(&bytes, &mut SpecCache::new()).unwrap();
        prop_assert_eq!(snapshot, Snapshot { membership, objects });
    }

    #[test]
    fn a_plain_decoder_reads_our_snapshots(seed: u64) {
        let (membership, objects) = (membership(seed), Draw::from_seed(seed).objects());
        let bytes = encode_snapshot(&membership, &objects);

        let snapshot = proto::Snapshot::decode(&*bytes).unwrap();

        let mut store = proto::StoreSnapshot::default();
        for object in &objects {
            match object {
                Object::Node(node) => store.nodes.push((&**node).into()),
                Object::Service(service) => store.services.push((&**service).into()),
                Object::Task(task) => store.tasks.push((&**task).into()),
                Object::Network(network) => store.networks.push((&**network).into()),
                Object::Cluster(cluster) => store.clusters.push((&**cluster).into()),
                Object::Extension(extension) => store.extensions.push((&**extension).into()),
                Object::Resource(resource) => store.resources.push((&**resource).into()),
                Object::Secret(secret) => store.secrets.push((&**secret).into()),
                Object::Config(config) => store.configs.push((&**config).into()),
            }
        }
        prop_assert_eq!(snapshot, proto::Snapshot {
            version: 0,
            membership: Some((&membership).into()),
            store: Some(store),
        });
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = decode_snapshot(&bytes, &mut SpecCache::new());
    }

    #[test]
    fn damaged_snapshots_never_panic(seed: u64, at: prop::sample::Index, byte: u8) {
        let objects = Draw::from_seed(seed).objects();
        let mut bytes = encode_snapshot(&membership(seed), &objects);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_snapshot(&bytes, &mut SpecCache::new());
    }
}

#[test]
fn a_snapshot_of_another_version_is_refused() {
    let bytes = proto::Snapshot {
        version: 1,
        ..Default::default()
    }
    .encode_to_vec();
    let error = decode_snapshot(&bytes, &mut SpecCache::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "field `version` has the unknown value `1`"
    );
}

#[test]
fn objects_of_kinds_we_do_not_have_are_refused() {
    let store = proto::StoreSnapshot {
        volumes: vec![proto::Volume::default()],
        ..Default::default()
    };
    let bytes = proto::Snapshot {
        store: Some(store),
        ..Default::default()
    }
    .encode_to_vec();
    let error = decode_snapshot(&bytes, &mut SpecCache::new()).unwrap_err();
    assert_eq!(error.to_string(), "field `store.volumes` is not supported");
}
