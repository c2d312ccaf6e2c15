//! Log entries read back as written, mean the same to a plain protobuf decoder, and never panic.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::arbitrary::Draw;

const KINDS: [ActionKind; 3] = [ActionKind::Create, ActionKind::Update, ActionKind::Remove];

fn actions(seed: u64) -> Vec<Action> {
    let objects = Draw::from_seed(seed).objects();
    let kinds = KINDS.into_iter().cycle();
    objects
        .into_iter()
        .zip(kinds)
        .map(|(object, kind)| Action { kind, object })
        .collect()
}

/// `actions` as prost encodes them from whole messages: the oracle for our own framing.
fn whole_message(id: u64, actions: &[Action]) -> proto::InternalRaftRequest {
    use proto::{StoreActionKind, store_action::Target};

    let action = actions.iter().map(|action| proto::StoreAction {
        action: match action.kind {
            ActionKind::Create => StoreActionKind::StoreActionCreate,
            ActionKind::Update => StoreActionKind::StoreActionUpdate,
            ActionKind::Remove => StoreActionKind::StoreActionRemove,
        }
        .into(),
        target: Some(match &action.object {
            Object::Node(node) => Target::Node((&**node).into()),
            Object::Service(service) => Target::Service((&**service).into()),
            Object::Task(task) => Target::Task((&**task).into()),
            Object::Network(network) => Target::Network((&**network).into()),
            Object::Cluster(cluster) => Target::Cluster((&**cluster).into()),
            Object::Extension(extension) => Target::Extension((&**extension).into()),
            Object::Resource(resource) => Target::Resource((&**resource).into()),
            Object::Secret(secret) => Target::Secret((&**secret).into()),
            Object::Config(config) => Target::Config((&**config).into()),
        }),
    });
    proto::InternalRaftRequest {
        id,
        action: action.collect(),
    }
}

proptest! {
    #[test]
    fn entries_survive(id: u64, seed: u64) {
        let actions = actions(seed);
        let entry = encode_actions(id, &actions);
        prop_assert_eq!(decode_actions(&entry, &mut SpecCache::new()).unwrap(), (id, actions));
    }

    #[test]
    fn a_plain_decoder_reads_our_entries(id: u64, seed: u64) {
        let actions = actions(seed);
        let entry = encode_actions(id, &actions);
        let message = proto::InternalRaftRequest::decode(&*entry).unwrap();
        prop_assert_eq!(message, whole_message(id, &actions));
    }

    #[test]
    fn we_read_what_a_plain_encoder_writes(id: u64, seed: u64) {
        let actions = actions(seed);
        let entry = whole_message(id, &actions).encode_to_vec();
        prop_assert_eq!(decode_actions(&entry, &mut SpecCache::new()).unwrap(), (id, actions));
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = decode_actions(&bytes, &mut SpecCache::new());
    }

    #[test]
    fn damaged_entries_never_panic(seed: u64, at: prop::sample::Index, byte: u8, cut: bool) {
        let mut entry = encode_actions(seed, &actions(seed));
        let at = at.index(entry.len().max(1));
        if cut {
            entry.truncate(at);
        } else if let Some(place) = entry.get_mut(at) {
            *place = byte;
        }
        let _ = decode_actions(&entry, &mut SpecCache::new());
    }
}

#[test]
fn an_object_of_a_kind_we_do_not_have_is_refused() {
    let volume = proto::store_action::Target::Volume(proto::Volume::default());
    let action = proto::StoreAction {
        action: 1,
        target: Some(volume),
    };
    let entry = proto::InternalRaftRequest {
        id: 1,
        action: vec![action],
    }
    .encode_to_vec();
    let error = decode_actions(&entry, &mut SpecCache::new()).unwrap_err();
    assert_eq!(error.to_string(), "field `action.volume` is not supported");
}

#[test]
fn an_action_needs_a_known_kind_and_an_object() {
    let check = |action: proto::StoreAction, text: &str| {
        let entry = proto::InternalRaftRequest {
            id: 1,
            action: vec![action],
        }
        .encode_to_vec();
        let error = decode_actions(&entry, &mut SpecCache::new()).unwrap_err();
        assert_eq!(error.to_string(), text);
    };
    let node = proto::Node::from(&Draw::from_seed(1).node());
    let target = Some(proto::store_action::Target::Node(node));
    check(
        proto::StoreAction {
            action: 1,
            target: None,
        },
        "field `action.target` is missing",
    );
    check(
        proto::StoreAction {
            action: 0,
            target: target.clone(),
        },
        "field `action.action` is missing",
    );
    check(
        proto::StoreAction { action: 4, target },
        "field `action.action` has the unknown value `4`",
    );
}

#[test]
fn a_task_whose_spec_comes_in_two_pieces_is_merged() {
    let task = Draw::from_seed(3).task();
    let mut bytes = proto::Task::from(&task).encode_to_vec();
    let more = proto::TaskSpec {
        force_update: 77,
        ..Default::default()
    };
    put_bytes(&mut bytes, 3, &more.encode_to_vec());

    let decoded = decode_task(&bytes, &mut SpecCache::new()).unwrap();

    assert_eq!(decoded.spec.force_update, 77);
    assert_eq!(decoded.spec.container, task.spec.container);
}
