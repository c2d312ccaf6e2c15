//! Reopening, damage, formats, and crashes at every write.

mod platter;

use std::sync::Arc;

use redb::ReadableTable as _;
use skep_model::{
    Annotations, ContainerStatus, Id, Meta, Rng, Task, TaskId, TaskSpec, TaskState, TaskStatus,
    Timestamp,
};

use self::platter::Platter;
use super::{Db, Error, META, STATUSES, TASKS, builder};
use crate::core::{Change, StoredTask};

fn task(number: u64) -> Arc<Task> {
    Arc::new(Task {
        id: TaskId(Id::random(&mut Rng::from_seed(number))),
        meta: Meta::default(),
        spec: Arc::new(TaskSpec::default()),
        spec_version: None,
        service_id: None,
        slot: number,
        node_id: None,
        annotations: Arc::new(Annotations::default()),
        service_annotations: Arc::new(Annotations {
            name: "web".to_owned(),
            ..Annotations::default()
        }),
        status: status(TaskState::Assigned),
        desired_state: TaskState::Running,
        endpoint: None,
        log_driver: None,
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    })
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus {
        timestamp: Timestamp(1_700_000_000_000_000_000),
        state,
        message: "started".to_owned(),
        container: Some(ContainerStatus {
            container_id: "c1".to_owned(),
            pid: 7,
            exit_code: 0,
        }),
        ..TaskStatus::default()
    }
}

fn stored(number: u64, state: TaskState) -> StoredTask {
    StoredTask {
        task: task(number),
        status: status(state),
        is_assigned: true,
    }
}

fn by_id(mut tasks: Vec<StoredTask>) -> Vec<StoredTask> {
    tasks.sort_by_key(|stored| stored.task.id);
    tasks
}

#[test]
fn tasks_come_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let db = Db::open(&path).unwrap();
    let (one, two, three) = (task(1), task(2), task(3));
    db.apply(&[
        Change::Task(Arc::clone(&one)),
        Change::Status(one.id, status(TaskState::Running)),
        Change::Task(Arc::clone(&two)),
        Change::Task(Arc::clone(&three)),
    ])
    .unwrap();
    db.apply(&[Change::Unassign(two.id), Change::Forget(three.id)])
        .unwrap();
    drop(db);
    let loaded = Db::open(&path).unwrap().load().unwrap();
    let unassigned = StoredTask {
        is_assigned: false,
        ..stored(2, TaskState::Assigned)
    };
    let expect = by_id(vec![stored(1, TaskState::Running), unassigned]);
    assert_eq!((by_id(loaded.tasks), loaded.damaged), (expect, vec![]));
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let _first = Db::open(&path).unwrap();
    assert!(matches!(Db::open(&path), Err(Error::InUse(_))));
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let db = Db::open(&path).unwrap();
    let transaction = db.database.begin_write().unwrap();
    transaction
        .open_table(META)
        .unwrap()
        .insert("format", 2)
        .unwrap();
    transaction.commit().unwrap();
    drop(db);
    for _ in 0..2 {
        assert!(matches!(Db::open(&path), Err(Error::TooNew { found: 2 })));
    }
}

#[test]
fn damaged_records_are_named_and_dropped_while_others_survive() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("tasks.db")).unwrap();
    let (good, torn, confused, bad_status) = (task(1), task(2), task(3), task(4));
    for task in [&good, &torn, &confused, &bad_status] {
        db.apply(&[Change::Task(Arc::clone(task))]).unwrap();
    }
    let transaction = db.database.begin_write().unwrap();
    {
        let mut tasks = transaction.open_table(TASKS).unwrap();
        let bytes = tasks
            .get(good.id.as_str())
            .unwrap()
            .unwrap()
            .value()
            .to_vec();
        tasks
            .insert(torn.id.as_str(), &bytes[..bytes.len() / 2])
            .unwrap();
        tasks
            .insert(confused.id.as_str(), bytes.as_slice())
            .unwrap();
        tasks.insert("not an id", bytes.as_slice()).unwrap();
        let mut statuses = transaction.open_table(STATUSES).unwrap();
        statuses
            .insert(bad_status.id.as_str(), [0xff_u8; 9].as_slice())
            .unwrap();
    }
    transaction.commit().unwrap();

    let loaded = db.load().unwrap();
    let mut damaged: Vec<_> = loaded.damaged.into_iter().map(|(key, _)| key).collect();
    damaged.sort();
    let ids = [torn.id, confused.id, bad_status.id].map(|id| id.as_str().to_owned());
    let mut expect = Vec::from(ids);
    expect.push("not an id".to_owned());
    expect.sort();
    assert_eq!(damaged, expect);
    assert_eq!(loaded.tasks, [stored(1, TaskState::Assigned)]);
    assert_eq!(db.load().unwrap().damaged, [], "they are dropped for good");
}

#[test]
fn a_file_that_is_no_database_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    std::fs::write(&path, vec![0x5a; 8192]).unwrap();
    let db = Db::open(&path).unwrap();
    let aside = db.quarantined().unwrap();
    assert_eq!(std::fs::read(aside).unwrap(), vec![0x5a; 8192]);
    db.apply(&[Change::Task(task(1))]).unwrap();
    assert_eq!(db.load().unwrap().tasks.len(), 1);
}

/// The crash loses, keeps or tears what was not synced; every change that was acknowledged as
/// durable is there afterwards, and none is there by half.
#[test]
fn a_crash_at_any_write_loses_nothing_acknowledged() {
    let mut crashes = 0;
    for crash_at in 0.. {
        let mut is_finished = true;
        for seed in 0..4 {
            let platter = Platter::new();
            let mut durable = 0;
            if let Ok(db) = open_on(&platter) {
                platter.fail_after(crash_at);
                durable = write_script(&db);
            }
            is_finished &= !platter.has_failed();
            let db = open_on(&platter.crash(seed)).unwrap();
            let loaded = db.load().unwrap();
            assert_eq!(loaded.damaged, []);
            let state = script_states().position(|expect| expect == by_id(loaded.tasks.clone()));
            let state = state.expect("some prefix of the changes is stored");
            assert!(state >= durable, "stored {state} of {durable} acknowledged");
            crashes += 1;
        }
        if is_finished {
            break;
        }
    }
    assert!(crashes > 40, "only {crashes} crashes were tried");
}

fn open_on(platter: &Platter) -> Result<Db, Error> {
    Db::prepare(builder().create_with_backend(platter.clone())?)
}

/// The third change may be lost while it is the last, the others may not.
fn script() -> [Change; 6] {
    let (one, two) = (task(1), task(2));
    [
        Change::Task(Arc::clone(&one)),
        Change::Task(Arc::clone(&two)),
        Change::Status(two.id, status(TaskState::Running)),
        Change::Status(one.id, status(TaskState::Failed)),
        Change::Unassign(two.id),
        Change::Forget(one.id),
    ]
}

/// How many changes were acknowledged as durable before the disk failed.
fn write_script(db: &Db) -> usize {
    let script = script();
    let is_written = |change: &&Change| db.apply(std::slice::from_ref(*change)).is_ok();
    match script.iter().take_while(is_written).count() {
        3 => 2,
        count => count,
    }
}

/// What is stored after none, one, … all changes of the script, written by hand.
fn script_states() -> impl Iterator<Item = Vec<StoredTask>> {
    let one = stored(1, TaskState::Assigned);
    let two = stored(2, TaskState::Assigned);
    let failed = stored(1, TaskState::Failed);
    let running = stored(2, TaskState::Running);
    let removing = StoredTask {
        is_assigned: false,
        ..running.clone()
    };
    [
        vec![],
        vec![one.clone()],
        vec![one.clone(), two],
        vec![one, running.clone()],
        vec![failed.clone(), running],
        vec![failed, removing.clone()],
        vec![removing],
    ]
    .into_iter()
    .map(by_id)
}

/// `golden/worker-v1.redb.gz` was written when format 1 was new: two tasks, one running and one
/// whose removal began. It is never written again.
#[test]
fn the_first_format_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    let golden: &[u8] = include_bytes!("golden/worker-v1.redb.gz");
    let mut file = flate2::read::GzDecoder::new(golden);
    std::io::copy(&mut file, &mut std::fs::File::create(&path).unwrap()).unwrap();
    let loaded = Db::open(&path).unwrap().load().unwrap();
    let unassigned = StoredTask {
        is_assigned: false,
        ..stored(2, TaskState::Assigned)
    };
    let expect = by_id(vec![stored(1, TaskState::Running), unassigned]);
    assert_eq!((by_id(loaded.tasks), loaded.damaged), (expect, vec![]));
}
