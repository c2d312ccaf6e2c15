//! A group of one made of stored state.

use skep_manager::{bootstrap::NewCluster, event::Bootstrap};
use skep_model::{Availability, ClusterId, ClusterSpec, Rng, RootCa, object::Cluster};
use skep_raft::{Entry, EntryKind};
use skep_store::{Action, ActionKind};
use skep_wire::member::encode_member;

use super::*;

fn bootstrap(seed: u64) -> Bootstrap {
    let mut rng = Rng::from_seed(seed);
    NewCluster {
        cluster_id: ClusterId::random(&mut rng),
        node_id: NodeId::random(&mut rng),
        spec: ClusterSpec::default(),
        root_ca: RootCa::default(),
        certificate: Vec::new(),
        availability: Availability::Active,
        data_path_port: 0,
        default_address_pool: Vec::new(),
        subnet_size: 0,
        node_pool: None,
    }
    .into()
}

/// A cluster object.
pub(crate) fn cluster() -> Cluster {
    *bootstrap(1).cluster
}

fn node(seed: u64) -> Node {
    *bootstrap(seed).node
}

fn member(raft_id: u64) -> Member {
    Member {
        raft_id,
        node_id: node(raft_id).id,
        addr: format!("192.0.2.{raft_id}:2377"),
    }
}

fn entry(index: u64, kind: EntryKind, data: Vec<u8>) -> Entry {
    Entry {
        kind: kind as i32,
        term: 3,
        index,
        data: data.into(),
    }
}

fn change(index: u64, kind: ConfChangeKind, raft_id: u64) -> Entry {
    use prost::Message;
    let change = ConfChange::new(kind, raft_id, encode_member(&member(raft_id)));
    entry(index, EntryKind::ConfChange, change.encode_to_vec())
}

fn create(index: u64, object: Object) -> Entry {
    let action = Action {
        kind: ActionKind::Create,
        object,
    };
    let data = log::encode_actions(index, &[action]);
    entry(index, EntryKind::Normal, data)
}

/// Managers 1 and 2, a third that left, and an entry that was never committed.
fn restored() -> Restored {
    let uncommitted = node(4);
    Restored {
        hard_state: HardState {
            term: 3,
            vote: 1,
            commit: 7,
        },
        snapshot: None,
        entries: vec![
            change(1, ConfChangeKind::AddNode, 1),
            create(2, Object::Cluster(cluster().into())),
            create(3, Object::Node(node(1).into())),
            change(4, ConfChangeKind::AddNode, 3),
            change(5, ConfChangeKind::RemoveNode, 3),
            change(6, ConfChangeKind::AddNode, 2),
            create(7, Object::Node(node(2).into())),
            create(8, Object::Node(uncommitted.into())),
        ],
    }
}

#[test]
fn a_log_is_replayed_up_to_its_commit() {
    let state = replay(&restored()).unwrap();
    assert_eq!((state.index, state.term), (7, 3));
    assert_eq!(state.membership.members, [member(1), member(2)]);
    assert_eq!(state.membership.removed, [3]);
    assert!(state.store.node(node(2).id).is_some());
    assert!(state.store.node(node(4).id).is_none());
    assert_eq!(state.store.cluster().unwrap().id, cluster().id);
}

#[test]
fn one_member_remains_and_a_log_of_it_replays_to_the_same() {
    let own = Member {
        raft_id: 99,
        ..member(2)
    };
    let fresh = alone(&replay(&restored()).unwrap(), &own);
    assert!(fresh.entries.is_empty());
    let metadata = &fresh.snapshot.as_ref().unwrap().metadata;
    assert_eq!(metadata.conf_state.voters, [99]);
    assert_eq!((metadata.index, metadata.term), (7, 4));
    let state = replay(&fresh).unwrap();
    assert_eq!(state.membership.members, std::slice::from_ref(&own));
    assert_eq!(state.membership.removed, [1, 2, 3]);
    let roles = |id| {
        let node = state.store.node(id).unwrap();
        (node.role, node.spec.desired_role)
    };
    assert_eq!(roles(own.node_id), (Role::Manager, Role::Manager));
    assert_eq!(roles(node(1).id), (Role::Worker, Role::Worker));
    assert_eq!(state.store.cluster().unwrap().id, cluster().id);
}

#[test]
fn a_log_without_cluster_or_with_nonsense_is_refused() {
    let mut empty = restored();
    empty.hard_state.commit = 1;
    assert!(matches!(replay(&empty), Err(ReplayError::Empty)));
    let mut malformed = restored();
    malformed.entries[2].data = vec![0x12, 0x05, 0x01].into();
    assert!(matches!(
        replay(&malformed),
        Err(ReplayError::Entry { index: 3, .. })
    ));
    let mut twice = restored();
    twice.entries[3] = create(4, Object::Node(node(1).into()));
    assert!(matches!(
        replay(&twice),
        Err(ReplayError::Apply { index: 4, .. })
    ));
}
