//! What was stored by an older version, with another key, or was damaged since.

use std::path::Path;

use super::{engine::Engine, platter::Platter, *};

fn golden_dir(to: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/disk-v1");
    for file in fs::read_dir(golden).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn directory_of_version_1_is_read_and_continued() {
    let dir = tempfile::tempdir().unwrap();
    golden_dir(dir.path());
    let mut disk = Disk::open(dir.path(), &Dek::from_bytes([7; 32])).unwrap();
    let restored = disk.restored().unwrap();
    assert_eq!(
        restored.hard_state,
        HardState {
            term: 2,
            vote: 5,
            commit: 4
        }
    );
    let indexes: Vec<_> = restored.entries.iter().map(|entry| entry.index).collect();
    assert_eq!(indexes, [3, 4, 5, 6]);
    assert_eq!(restored.entries[3].data, "command 6");
    let snapshot = restored.snapshot.as_ref().unwrap();
    assert_eq!((snapshot.index(), snapshot.term()), (4, 2));
    assert_eq!(
        (&snapshot.data[..], &snapshot.metadata.conf_state.voters),
        (&b"the state"[..], &vec![5])
    );
    crate::Node::new(crate::Config::new(5, 0), &restored).unwrap();
    run(&mut disk, &write(7..=7, 3)).unwrap();
    assert_eq!(disk.restored().unwrap().last_index(), 7);
}

#[test]
fn directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Disk::open(dir.path(), &dek()).unwrap();
    assert!(matches!(
        Disk::open(dir.path(), &dek()),
        Err(DiskError::Locked)
    ));
    drop(first);
    Disk::open(dir.path(), &dek()).unwrap();
}

#[test]
fn lost_log_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    golden_dir(dir.path());
    fs::remove_file(dir.path().join(LOG_FILE)).unwrap();
    let opened = Disk::open(dir.path(), &Dek::from_bytes([7; 32]));
    assert!(matches!(opened, Err(DiskError::LogMissing)));
}

#[test]
fn directory_whose_creation_was_interrupted_is_created_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("log.new"), [0; 5000]).unwrap();
    let mut disk = Disk::open(dir.path(), &dek()).unwrap();
    run(&mut disk, &Step::Bootstrap).unwrap();
    drop(disk);
    assert_eq!(
        Disk::open(dir.path(), &dek())
            .unwrap()
            .restored()
            .unwrap()
            .last_index(),
        1
    );
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(names, [LOG_FILE]);
}

#[test]
fn another_key_is_told_from_damage() {
    let platter = written();
    let other = Dek::from_bytes([4; 32]);
    let opened = Disk::with_backend(platter.clone(), Box::new(platter.clone()), &other);
    assert!(matches!(opened, Err(DiskError::WrongKey)));
    open(&platter).unwrap().restored().unwrap();
}

#[test]
fn another_format_is_named() {
    let platter = written();
    let mut engine = Engine::backend(platter.clone());
    engine
        .write(|tables| tables.put_meta(Meta::Format, &7_u32.to_be_bytes()))
        .unwrap();
    drop(engine);
    assert!(matches!(
        open(&platter),
        Err(DiskError::Format {
            found: 7,
            supported: 1
        })
    ));
}

#[test]
fn moved_or_damaged_record_is_named() {
    let platter = written();
    let mut engine = Engine::backend(platter.clone());
    let mut sealed = Vec::new();
    engine
        .read(|tables| {
            tables.for_each_entry(|index, record| {
                if index == 10 {
                    sealed = record.to_vec();
                }
                Ok(())
            })
        })
        .unwrap();
    engine
        .write(|tables| tables.put_entry(11, &sealed))
        .unwrap();
    check_corrupt(&mut engine, &platter, "log/11");
    engine
        .write(|tables| tables.put_entry(10, &sealed[1..]))
        .unwrap();
    check_corrupt(&mut engine, &platter, "log/10");
    engine
        .write(|tables| tables.put_meta(Meta::HardState, b"short"))
        .unwrap();
    check_corrupt(&mut engine, &platter, "meta/hard_state");
}

/// `engine` has the file open, so it is put aside while the disk reads.
#[track_caller]
fn check_corrupt(engine: &mut Engine, platter: &Platter, name: &str) {
    drop(std::mem::replace(engine, Engine::backend(platter.clone())));
    match open(platter).unwrap().restored() {
        Err(DiskError::Corrupt(found)) => assert_eq!(found, name),
        other => panic!("{other:?}"),
    }
}

#[test]
fn damaged_or_missing_snapshot_is_named() {
    let name = "0000000000000003-000000000000000b.snap";
    let check = |change: &dyn Fn(&mut Vec<u8>)| {
        let platter = written();
        platter.tamper(name, change);
        open(&platter).unwrap().restored().unwrap_err()
    };
    let corrupt = |error| matches!(error, DiskError::Corrupt(found) if found == name);
    assert!(corrupt(check(&|file| file.truncate(file.len() / 2))));
    assert!(corrupt(check(&|file| file.clear())));
    assert!(corrupt(check(&|file| file[60] ^= 1)));
    assert!(matches!(
        check(&|file| file[11] = 9),
        DiskError::Format {
            found: 9,
            supported: 1
        }
    ));
    let platter = written();
    SnapshotFiles::remove(&mut platter.clone(), name).unwrap();
    let missing = open(&platter).unwrap().restored().unwrap_err();
    assert!(matches!(missing, DiskError::SnapshotMissing(found) if found == name));
}

#[test]
fn cut_off_file_is_an_error() {
    let length = {
        let platter = written();
        let mut length = 0;
        platter.tamper("log", |file| length = file.len());
        length
    };
    for left in [
        1,
        100,
        4096,
        length / 4,
        length / 2,
        length - 4096,
        length - 1,
    ] {
        let platter = written();
        platter.tamper("log", |file| file.truncate(left));
        let result = open(&platter).and_then(|mut disk| disk.restored());
        assert!(
            matches!(result, Err(DiskError::Damaged(_) | DiskError::Corrupt(_))),
            "cut to {left} of {length}: {result:?}",
        );
    }
}

/// A platter with a log to 12 and a snapshot at 11.
fn written() -> Platter {
    let platter = Platter::default();
    let mut disk = open(&platter).unwrap();
    for step in history().iter().take(8) {
        run(&mut disk, step).unwrap();
    }
    platter
}
