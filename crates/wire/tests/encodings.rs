//! Encodings worked out by hand from the protocol's numbers, and the fields peers rely on.

use std::sync::Arc;

use prost::Message;
use skep_model as model;
use skep_model::{Redacted, TaskState, Timestamp, Version};
use skep_store::{Action, ActionKind, Object};
use skep_wire::{log::encode_actions, proto, record};

const NODE_ID: &str = "node000000000000000000001";

/// Asserts that `P` made from `value` is exactly `bytes`.
#[track_caller]
fn check<'a, M, P: Message + From<&'a M>>(value: &'a M, bytes: &[u8]) {
    assert_eq!(P::from(value).encode_to_vec(), bytes);
}

#[test]
fn registry_auth_is_field_64_of_pull_options() {
    let task = model::TaskSpec {
        container: model::ContainerSpec {
            registry_auth: Redacted("ab".to_owned()),
            ..model::ContainerSpec::default()
        },
        ..model::TaskSpec::default()
    };
    let spec = proto::TaskSpec::from(&task);
    let bytes = spec.encode_to_vec();
    // Field 1 (container) of 7 bytes, in it field 10 of 5 bytes, in it field 64 (key 514 = 0x82
    // 0x04) of 2 bytes.
    assert_eq!(bytes[..9], [0x0a, 7, 0x52, 5, 0x82, 0x04, 2, b'a', b'b']);
}

#[test]
fn the_process_limit_is_field_25_of_the_container() {
    let task = model::TaskSpec {
        resources: model::ResourceRequirements {
            pids_limit: 100,
            ..model::ResourceRequirements::default()
        },
        restart: model::RestartPolicy {
            delay: std::time::Duration::from_secs(5),
            ..model::RestartPolicy::default()
        },
        ..model::TaskSpec::default()
    };
    let expect = [
        0x0a, 3, 0xc8, 0x01, 100, // container (1) with pidsLimit (25 << 3 = 200) = 100
        0x22, 6, // restart (4)
        0x08, 2, // condition (1) = ANY
        0x12, 2, 0x08, 5, // delay (2) of 5 seconds
    ];
    check::<_, proto::TaskSpec>(&task, &expect);
}

#[test]
fn task_states_keep_their_large_numbers() {
    let status = model::TaskStatus {
        timestamp: Timestamp(1_000_000_002),
        state: TaskState::Running,
        container: Some(model::ContainerStatus {
            container_id: "c".to_owned(),
            pid: 1,
            exit_code: -1,
        }),
        ..model::TaskStatus::default()
    };
    let expect = [
        0x0a, 4, 0x08, 1, 0x10, 2, // timestamp (1): 1 s and 2 ns
        0x10, 0x80, 0x04, // state (2) = 512
        0x2a, 16, // container (5)
        0x0a, 1, b'c', // container_id (1)
        0x10, 1, // pid (2)
        0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0x01, // exit_code (3) = -1
    ];
    check::<_, proto::TaskStatus>(&status, &expect);
    assert_eq!(record::encode_task_status(&status), expect);
}

#[test]
fn an_entry_holds_its_id_and_whole_objects() {
    let node = model::Node {
        id: NODE_ID.parse().unwrap(),
        meta: model::Meta {
            version: Version(300),
            ..model::Meta::default()
        },
        spec: model::NodeSpec::default(),
        description: None,
        status: model::NodeStatus::default(),
        manager_status: None,
        certificate: model::Certificate::default(),
        role: model::Role::Manager,
        attachments: Vec::new(),
        vxlan_udp_port: 4789,
    };
    let action = Action {
        kind: ActionKind::Update,
        object: Object::Node(node.into()),
    };
    let mut expect = vec![
        0x08, 0x96, 0x01, // id (1) = 150
        0x12, 53, // action (2)
        0x08, 2, // kind (1) = UPDATE
        0x12, 49, // node (2)
        0x0a, 25, // id (1)
    ];
    expect.extend_from_slice(NODE_ID.as_bytes());
    expect.extend_from_slice(&[
        0x12, 5, 0x0a, 3, 0x08, 0xac, 0x02, // meta (2): version (1): index (1) = 300
        0x1a, 2, 0x0a, 0, // spec (3) with empty annotations (1), always written
        0x2a, 0, // status (5), always written
        0x42, 2, 0x1a, 0, // certificate (8) with empty status (3), always written
        0x48, 1, // role (9) = MANAGER
        0x58, 0xb5, 0x25, // VXLANUDPPort (11) = 4789
    ]);
    assert_eq!(encode_actions(150, &[action]), expect);
}

#[test]
fn what_peers_rely_on_is_written_even_when_empty() {
    let task = model::Task {
        id: "task000000000000000000001".parse().unwrap(),
        meta: model::Meta::default(),
        spec: Arc::default(),
        spec_version: None,
        service_id: None,
        slot: 0,
        node_id: None,
        annotations: Arc::default(),
        service_annotations: Arc::default(),
        status: model::TaskStatus::default(),
        desired_state: TaskState::New,
        endpoint: None,
        log_driver: None,
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    };
    let action = Action {
        kind: ActionKind::Create,
        object: Object::Task(task.into()),
    };
    let entry = proto::InternalRaftRequest::decode(&*encode_actions(1, &[action])).unwrap();
    let Some(proto::store_action::Target::Task(task)) = entry.action[0].target.clone() else {
        panic!("the entry holds no task");
    };
    assert!(task.meta.is_some_and(|meta| meta.version.is_some()));
    assert!(task.spec.is_some_and(|spec| spec.runtime.is_some()));
    assert!(task.annotations.is_some() && task.service_annotations.is_some());
    assert!(task.status.is_some());

    let spec = proto::ServiceSpec::from(&model::ServiceSpec {
        update: Some(model::UpdateConfig::default()),
        ..model::ServiceSpec::default()
    });
    assert!(spec.annotations.is_some() && spec.task.is_some());
    assert!(spec.update.is_some_and(|update| update.delay.is_some()));
    assert!(
        proto::JobStatus::from(&model::JobStatus::default())
            .job_iteration
            .is_some()
    );
    assert!(
        proto::RootCa::from(&model::RootCa::default())
            .join_tokens
            .is_some()
    );

    let spec = proto::ClusterSpec::from(&model::ClusterSpec::default());
    assert!(spec.annotations.is_some() && spec.acceptance_policy.is_some());
    assert!(spec.orchestration.is_some() && spec.raft.is_some() && spec.dispatcher.is_some());
    assert!(spec.ca_config.is_some() && spec.task_defaults.is_some());
    assert!(spec.encryption_config.is_some());
}

#[test]
fn removed_raft_ids_are_not_packed() {
    let membership = proto::ClusterSnapshot {
        members: Vec::new(),
        removed: vec![1, 2],
    };
    assert_eq!(membership.encode_to_vec(), [0x10, 1, 0x10, 2]);
}
