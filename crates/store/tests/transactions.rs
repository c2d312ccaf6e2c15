//! Transactions against a simple model: plain maps, and indexes recomputed from scratch.

#![expect(clippy::unwrap_used, reason = "a broken test shall panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use skep_model::{
    Availability, Certificate, Id, Meta, Node, NodeDescription, NodeId, NodeSpec, NodeState,
    NodeStatus, Resources, Rng, Role, Service, ServiceId, ServiceSpec, Slot, Task, TaskId,
    TaskState, TaskStatus, Timestamp, Version,
};
use skep_store::{Error, NodeLoad, NodeRoom, Store, Transaction};

/// One write; small numbers name objects, so that writes collide.
#[derive(Debug, Clone)]
enum Write {
    CreateService(u8, u8),
    UpdateService(u8, bool),
    RemoveService(u8),
    CreateTask {
        task: u8,
        service: Option<u8>,
        slot: u8,
        node: Option<u8>,
    },
    UpdateTask {
        task: u8,
        state: usize,
        desired: usize,
        node: Option<u8>,
        is_stale: bool,
    },
    RemoveTask(u8),
    /// Commits what was written and starts the next transaction.
    Commit,
    /// Throws away what was written.
    Abort,
}

fn write() -> impl Strategy<Value = Write> {
    let node = || prop::option::of(0u8..3);
    prop_oneof![
        (0u8..4, 0u8..3).prop_map(|(id, name)| Write::CreateService(id, name)),
        (0u8..4, any::<bool>()).prop_map(|(id, is_stale)| Write::UpdateService(id, is_stale)),
        (0u8..4).prop_map(Write::RemoveService),
        (0u8..12, prop::option::of(0u8..4), 0u8..3, node()).prop_map(
            |(task, service, slot, node)| Write::CreateTask {
                task,
                service,
                slot,
                node
            }
        ),
        (
            0u8..12,
            0usize..14,
            0usize..14,
            node(),
            prop::bool::weighted(0.1)
        )
            .prop_map(|(task, state, desired, node, is_stale)| Write::UpdateTask {
                task,
                state,
                desired,
                node,
                is_stale
            }),
        (0u8..12).prop_map(Write::RemoveTask),
        Just(Write::Commit),
        Just(Write::Abort),
    ]
}

fn id(number: u8) -> Id {
    format!("{number:0>25}").parse().unwrap()
}

fn service(number: u8, name: u8) -> Service {
    let mut spec = ServiceSpec::default();
    // Names differ in case only, to see that case does not matter.
    let name = ["Web", "wEB", "db"][usize::from(name)];
    Arc::make_mut(&mut spec.annotations).name = name.to_owned();
    Service {
        id: ServiceId(id(number)),
        meta: Meta::default(),
        spec: Arc::new(spec),
        spec_version: Version(0),
        previous_spec: None,
        previous_spec_version: None,
        endpoint: None,
        update_status: None,
        job_status: None,
        is_pending_delete: false,
    }
}

fn task(number: u8, service: Option<u8>, slot: u8, node: Option<u8>) -> Task {
    let mut spec = skep_model::TaskSpec::default();
    spec.resources.reservations.nano_cpus = i64::from(number);
    Task {
        id: TaskId(id(number)),
        meta: Meta::default(),
        spec: Arc::new(spec),
        spec_version: None,
        service_id: service.map(|service| ServiceId(id(service))),
        slot: u64::from(slot),
        node_id: node.map(|node| NodeId(id(node))),
        annotations: Arc::default(),
        service_annotations: Arc::default(),
        status: TaskStatus::default(),
        desired_state: TaskState::New,
        endpoint: None,
        log_driver: None,
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    }
}

/// What the store should hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    services: BTreeMap<ServiceId, Service>,
    tasks: BTreeMap<TaskId, Task>,
}

impl Model {
    fn has_name(&self, name: &str, except: ServiceId) -> bool {
        self.services
            .values()
            .any(|other| other.id != except && other.name().eq_ignore_ascii_case(name))
    }
}

/// Writes to both; the results must agree.
fn apply(tx: &mut Transaction, model: &mut Model, write: &Write, meta: Meta) {
    match *write {
        Write::CreateService(number, name) => {
            let mut new = service(number, name);
            let ok = !model.services.contains_key(&new.id) && !model.has_name(new.name(), new.id);
            assert_eq!(tx.create_service(new.clone()).is_ok(), ok);
            if ok {
                new.meta = meta;
                model.services.insert(new.id, new);
            }
        }
        Write::UpdateService(number, is_stale) => {
            let Some(stored) = model.services.get_mut(&ServiceId(id(number))) else {
                assert!(tx.update_service(service(number, 0)).is_err());
                return;
            };
            let mut new = stored.clone();
            new.spec_version = Version(7);
            if is_stale {
                new.meta.version = Version(u64::MAX);
                assert_eq!(tx.update_service(new), Err(Error::OutOfSequence));
                return;
            }
            tx.update_service(new.clone()).unwrap();
            new.meta = next(meta, stored.meta);
            *stored = new;
        }
        Write::RemoveService(number) => {
            let id = ServiceId(id(number));
            assert_eq!(tx.remove_service(id), model.services.remove(&id).is_some());
        }
        Write::CreateTask {
            task: number,
            service,
            slot,
            node,
        } => {
            let mut new = task(number, service, slot, node);
            let ok = !model.tasks.contains_key(&new.id);
            assert_eq!(tx.create_task(new.clone()).is_ok(), ok);
            if ok {
                new.meta = meta;
                model.tasks.insert(new.id, new);
            }
        }
        Write::UpdateTask { .. } => update_task(tx, model, write, meta),
        Write::RemoveTask(number) => {
            let id = TaskId(id(number));
            assert_eq!(tx.remove_task(id), model.tasks.remove(&id).is_some());
        }
        Write::Commit | Write::Abort => {}
    }
}

fn update_task(tx: &mut Transaction, model: &mut Model, write: &Write, meta: Meta) {
    let Write::UpdateTask {
        task: number,
        state,
        desired,
        node,
        is_stale,
    } = *write
    else {
        return;
    };
    let Some(stored) = model.tasks.get_mut(&TaskId(id(number))) else {
        assert!(tx.update_task(task(number, None, 0, None)).is_err());
        return;
    };
    let mut new = stored.clone();
    // States only grow; that they must is asserted by the transaction itself.
    new.status.state = new.status.state.max(TaskState::ALL[state]);
    new.desired_state = new.desired_state.max(TaskState::ALL[desired]);
    new.node_id = new.node_id.or(node.map(|node| NodeId(id(node))));
    if is_stale {
        new.meta.version = Version(u64::MAX);
        assert_eq!(tx.update_task(new), Err(Error::OutOfSequence));
        return;
    }
    tx.update_task(new.clone()).unwrap();
    new.meta = next(meta, stored.meta);
    *stored = new;
}

fn next(meta: Meta, stored: Meta) -> Meta {
    Meta {
        created_at: stored.created_at,
        ..meta
    }
}

/// Tables and every index say what the model says.
#[track_caller]
fn check(store: &Store, model: &Model) {
    let services: Vec<_> = store.services().map(|s| Service::clone(s)).collect();
    assert_eq!(
        services,
        model.services.values().cloned().collect::<Vec<_>>()
    );
    let tasks: Vec<_> = store.tasks().map(|t| Task::clone(t)).collect();
    assert_eq!(tasks, model.tasks.values().cloned().collect::<Vec<_>>());
    for service in model.services.values() {
        let found = store.service_by_name(&service.name().to_uppercase());
        assert_eq!(found.map(|found| found.id), Some(service.id));
    }
    let of_model = |keep: &dyn Fn(&Task) -> bool| -> BTreeSet<TaskId> {
        let kept = model.tasks.values().filter(|task| keep(task));
        kept.map(|task| task.id).collect()
    };
    let waits = |task: &Task| {
        task.status.state == TaskState::Pending && task.desired_state <= TaskState::Complete
    };
    for number in 0..4 {
        let service = ServiceId(id(number));
        let found: BTreeSet<_> = store.tasks_of_service(service).map(|t| t.id).collect();
        assert_eq!(found, of_model(&|task| task.service_id == Some(service)));
        let tasks = store.tasks_with_node_of_service(service);
        let found: BTreeSet<_> = tasks.map(|t| t.id).collect();
        let needs_none = |task: &Task| !waits(task) || task.node_id.is_some();
        let is_there = |task: &Task| task.service_id == Some(service) && needs_none(task);
        assert_eq!(found, of_model(&is_there));
        for slot in 1..3 {
            let slot = Slot::Number(slot);
            let found: BTreeSet<_> = store.tasks_in_slot(service, slot).map(|t| t.id).collect();
            let is_there =
                |task: &Task| task.service_id == Some(service) && task.slot() == Some(slot);
            assert_eq!(found, of_model(&is_there));
        }
    }
    for number in 0..3 {
        let node = NodeId(id(number));
        let found: BTreeSet<_> = store.tasks_on_node(node).map(|t| t.id).collect();
        assert_eq!(found, of_model(&|task| task.node_id == Some(node)));
        check_load(store, model, node);
    }
    let to_place: BTreeSet<_> = store.tasks_to_place().map(|t| t.id).collect();
    assert_eq!(to_place, of_model(&|t| waits(t) && t.node_id.is_none()));
    for task in store.tasks_to_place().chain(store.tasks_to_confirm()) {
        assert_eq!(**task, model.tasks[&task.id]);
    }
    let to_confirm: BTreeSet<_> = store.tasks_to_confirm().map(|t| t.id).collect();
    assert_eq!(to_confirm, of_model(&|t| waits(t) && t.node_id.is_some()));
    check_services_to_place(store, &waits, model);
}

fn check_load(store: &Store, model: &Model, node: NodeId) {
    let mut expected = NodeLoad::default();
    for task in model.tasks.values().filter(|t| t.node_id == Some(node)) {
        let state = task.status.state;
        if state >= TaskState::Assigned && state <= TaskState::Running {
            expected.held_count += 1;
            expected.active_count += u32::from(task.desired_state <= TaskState::Complete);
            expected.nano_cpus += task.spec.resources.reservations.nano_cpus;
        }
    }
    assert_eq!(store.load_of_node(node), expected);
}

/// Walking from service to service meets each that has a task to place, in order.
fn check_services_to_place(store: &Store, waits: &dyn Fn(&Task) -> bool, model: &Model) {
    let expected: BTreeSet<ServiceId> = model
        .tasks
        .values()
        .filter(|task| waits(task) && task.node_id.is_none())
        .filter_map(|task| task.service_id)
        .collect();
    let mut found = Vec::new();
    let mut service = store.next_service_to_place(None);
    while let Some(id) = service {
        assert!(store.tasks_to_place_of(Some(id)).next().is_some());
        found.push(id);
        service = store.next_service_to_place(service);
    }
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn store_agrees_with_plain_maps(writes in prop::collection::vec(write(), 0..80)) {
        let mut committed = Store::default();
        let mut follower = Store::default();
        let mut model = Model::default();
        let mut rest = writes.as_slice();
        for round in 1.. {
            let meta = Meta {
                version: Version(round),
                created_at: Timestamp(i64::try_from(round).unwrap()),
                updated_at: Timestamp(i64::try_from(round).unwrap()),
            };
            let mut tx = Transaction::new(&committed, meta.version, meta.updated_at);
            let mut draft = model.clone();
            let is_end = |write: &Write| matches!(write, Write::Commit | Write::Abort);
            let length = rest.iter().position(is_end).unwrap_or(rest.len());
            for write in &rest[..length] {
                apply(&mut tx, &mut draft, write, meta);
                check(tx.view(), &draft);
            }
            check(&committed, &model);
            if matches!(rest.get(length), Some(Write::Abort)) {
                rest = &rest[length + 1..];
                continue;
            }
            let (head, actions, changes) = tx.finish();
            prop_assert_eq!(actions.len(), changes.len());
            for (action, change) in actions.iter().zip(&changes) {
                prop_assert_eq!(&follower.apply(action).unwrap(), change);
            }
            committed = head;
            model = draft;
            if rest.len() <= length {
                break;
            }
            rest = &rest[length + 1..];
        }
        check(&follower, &model);
        let restored = Store::from_objects(committed.objects()).unwrap();
        prop_assert!(restored == committed);
        check(&restored, &model);
    }
}

#[test]
#[should_panic(expected = "a task's state only grows")]
fn a_state_that_goes_back_stops_the_manager() {
    let mut tx = Transaction::new(&Store::default(), Version(1), Timestamp(1));
    let mut first = task(1, None, 0, None);
    first.id = TaskId::random(&mut Rng::from_seed(1));
    first.status.state = TaskState::Running;
    tx.create_task(first.clone()).unwrap();
    first.meta.version = Version(1);
    first.status.state = TaskState::Assigned;
    let _ = tx.update_task(first);
}

#[test]
fn the_room_of_a_node_follows_the_node() {
    let mut node = Node {
        id: NodeId(id(1)),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: None,
        status: NodeStatus::default(),
        manager_status: None,
        certificate: Certificate::default(),
        role: Role::Worker,
        attachments: Vec::new(),
        vxlan_udp_port: 0,
    };
    let mut tx = Transaction::new(&Store::default(), Version(1), Timestamp(1));
    let room = |tx: &Transaction| tx.view().nodes_with_room().next().map(|(_, _, room)| room);
    assert_eq!(room(&tx), None);
    tx.create_node(node.clone()).unwrap();
    assert_eq!(room(&tx), Some(NodeRoom::default()));
    node.meta.version = Version(1);
    node.status.state = NodeState::Ready;
    let resources = Resources {
        nano_cpus: 2,
        memory_bytes: 3,
        generic: Vec::new(),
    };
    node.description = Some(NodeDescription {
        resources,
        ..NodeDescription::default()
    });
    tx.update_node(node.clone()).unwrap();
    let expected = NodeRoom {
        is_ready: true,
        nano_cpus: 2,
        memory_bytes: 3,
    };
    assert_eq!(room(&tx), Some(expected));
    node.spec.availability = Availability::Drain;
    tx.update_node(node).unwrap();
    assert_eq!(room(&tx).map(|room| room.is_ready), Some(false));
}

#[test]
fn there_is_one_cluster() {
    let mut tx = Transaction::new(&Store::default(), Version(1), Timestamp(1));
    let mut rng = Rng::from_seed(3);
    let mut make = || skep_model::Cluster {
        id: skep_model::ClusterId::random(&mut rng),
        meta: Meta::default(),
        spec: skep_model::ClusterSpec::default(),
        root_ca: skep_model::RootCa::default(),
        network_bootstrap_keys: Vec::new(),
        encryption_key_lamport_clock: 0,
        blacklisted_certificates: BTreeMap::new(),
        unlock_keys: Vec::new(),
        is_fips: false,
        default_address_pool: Vec::new(),
        subnet_size: 24,
        vxlan_udp_port: 0,
    };
    tx.create_cluster(make()).unwrap();
    let refused = tx.create_cluster(make()).unwrap_err();
    assert_eq!(refused.to_string(), "name `default` is in use");
}
