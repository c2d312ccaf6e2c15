//! The disk against `MemoryDisk` as its model, on a platter that fails when told to.

mod damage;
mod failure;
mod model;
mod platter;

use std::ops::RangeInclusive;

use self::platter::Platter;
use super::*;
use crate::{memory_disk::MemoryDisk, snapshot::ConfState};

/// One operation of a storage.
#[derive(Clone, Debug)]
enum Step {
    Bootstrap,
    Write(Ready),
    Save(Snapshot),
    Compact(u64),
}

fn dek() -> Dek {
    Dek::from_bytes([3; 32])
}

fn open(platter: &Platter) -> Result<Disk, DiskError> {
    Disk::with_backend(platter.clone(), Box::new(platter.clone()), &dek())
}

fn run(storage: &mut dyn Storage, step: &Step) -> Result<(), DiskError> {
    match step {
        Step::Bootstrap => storage.bootstrap(&Restored::new_group(1, "member")),
        Step::Write(ready) => storage.write(ready),
        Step::Save(snapshot) => storage.save_snapshot(snapshot),
        Step::Compact(index) => storage.compact(*index),
    }
}

fn entry(index: u64, term: u64) -> Entry {
    let data = format!("data of {index} in {term}").repeat(20);
    Entry {
        kind: 0,
        term,
        index,
        data: data.into(),
    }
}

fn write(indexes: RangeInclusive<u64>, term: u64) -> Step {
    let hard_state = HardState {
        term,
        vote: 1,
        commit: indexes.start() - 1,
    };
    let entries = indexes.map(|index| entry(index, term)).collect();
    Step::Write(Ready {
        entries,
        hard_state: Some(hard_state),
        ..Ready::default()
    })
}

fn snapshot(index: u64, term: u64) -> Snapshot {
    let conf_state = ConfState {
        voters: vec![1, 2],
        ..ConfState::default()
    };
    let data = format!("state at {index}").repeat(100);
    Snapshot {
        data: data.into(),
        metadata: SnapshotMetadata {
            conf_state,
            index,
            term,
        },
    }
}

fn install(index: u64, term: u64) -> Step {
    let hard_state = Some(HardState {
        term,
        vote: 0,
        commit: index,
    });
    Step::Write(Ready {
        snapshot: Some(snapshot(index, term)),
        hard_state,
        ..Ready::default()
    })
}

/// A bit of everything: appends, a conflict, own snapshots, compaction, a leader's snapshot.
fn history() -> Vec<Step> {
    vec![
        Step::Bootstrap,
        write(2..=5, 2),
        write(4..=4, 3),
        write(5..=9, 3),
        Step::Save(snapshot(6, 3)),
        Step::Compact(4),
        write(10..=12, 3),
        Step::Save(snapshot(11, 3)),
        Step::Compact(11),
        install(40, 5),
        write(41..=44, 5),
        Step::Save(snapshot(43, 5)),
        Step::Compact(42),
        write(45..=45, 6),
    ]
}

#[test]
fn history_is_restored() {
    let (platter, mut model) = (Platter::default(), MemoryDisk::new());
    for step in history() {
        let mut disk = open(&platter).unwrap();
        run(&mut disk, &step).unwrap();
        run(&mut model, &step).unwrap();
        assert_eq!(
            disk.restored().unwrap(),
            model.restored().unwrap(),
            "after {step:?}"
        );
        assert_eq!(disk.snapshot().unwrap(), model.snapshot().unwrap());
        drop(disk);
        assert_eq!(
            open(&platter).unwrap().restored().unwrap(),
            model.restored().unwrap()
        );
    }
    assert_eq!(
        platter.file_names(),
        ["0000000000000005-000000000000002b.snap"]
    );
}

#[test]
fn old_snapshots_are_kept_as_told() {
    let platter = Platter::default();
    let mut disk = open(&platter).unwrap();
    disk.set_keep_old_snapshots(2);
    run(&mut disk, &Step::Bootstrap).unwrap();
    run(&mut disk, &write(2..=9, 2)).unwrap();
    for index in 2..=7 {
        run(&mut disk, &Step::Save(snapshot(index, 2))).unwrap();
    }
    let kept = |index: u64| format!("{:016x}-{index:016x}.snap", 2);
    assert_eq!(platter.file_names(), [kept(5), kept(6), kept(7)]);
}

/// A crash between the file and the transaction that refers to it leaves a file.
#[test]
fn stray_snapshots_are_removed_by_the_next_one() {
    let mut platter = Platter::default();
    let mut disk = open(&platter).unwrap();
    run(&mut disk, &Step::Bootstrap).unwrap();
    run(&mut disk, &write(2..=9, 2)).unwrap();
    for stray in [
        "0000000000000001-0000000000000001.snap",
        "00000000000000ff-0000000000000001.snap",
    ] {
        SnapshotFiles::write(&mut platter, stray, b"stray").unwrap();
    }
    SnapshotFiles::write(&mut platter, "key", b"not ours").unwrap();
    run(&mut disk, &Step::Save(snapshot(5, 2))).unwrap();
    assert_eq!(
        platter.file_names(),
        ["0000000000000002-0000000000000005.snap", "key"]
    );
}

/// What every storage refuses, and that a ready without work is none.
#[test]
fn every_storage_keeps_the_contract() {
    let mut disks: [Box<dyn Storage>; 2] = [
        Box::new(open(&Platter::default()).unwrap()),
        Box::new(MemoryDisk::new()),
    ];
    for disk in &mut disks {
        let disk = disk.as_mut();
        assert!(disk.restored().unwrap().is_empty());
        run(disk, &Step::Write(Ready::default())).unwrap();
        run(disk, &Step::Bootstrap).unwrap();
        assert!(matches!(
            run(disk, &Step::Bootstrap),
            Err(DiskError::NotEmpty)
        ));
        run(disk, &write(2..=9, 2)).unwrap();
        assert!(matches!(disk.compact(1), Err(DiskError::Misplaced(1))));
        let beyond = run(disk, &Step::Save(snapshot(10, 2)));
        assert!(matches!(beyond, Err(DiskError::Misplaced(10))));
        run(disk, &Step::Save(snapshot(8, 2))).unwrap();
        run(disk, &Step::Save(snapshot(8, 2))).unwrap();
        let older = run(disk, &Step::Save(snapshot(7, 2)));
        assert!(matches!(older, Err(DiskError::Misplaced(7))));
        assert!(matches!(disk.compact(9), Err(DiskError::Misplaced(9))));
        let only_commit = Ready {
            committed: vec![entry(9, 2)],
            ..Ready::default()
        };
        let before = disk.restored().unwrap();
        run(disk, &Step::Write(only_commit)).unwrap();
        assert_eq!(disk.restored().unwrap(), before);
    }
}

#[test]
fn nothing_stored_is_readable() {
    let platter = Platter::default();
    let mut disk = open(&platter).unwrap();
    for step in history() {
        run(&mut disk, &step).unwrap();
        for text in ["data of", "state at", "member"] {
            assert!(
                !platter.contains(text.as_bytes()),
                "`{text}` after {step:?}"
            );
        }
    }
}
