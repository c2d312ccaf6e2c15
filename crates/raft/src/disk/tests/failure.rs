//! Crashes and full disks at every operation of the history.

use std::io;

use super::{
    platter::{Fate, Platter},
    *,
};

/// Runs the history until it fails; gives the model before and after the step that failed, and that step.
fn run_until_failure(platter: &Platter) -> (MemoryDisk, MemoryDisk, Option<Step>) {
    let mut model = MemoryDisk::new();
    let Ok(mut disk) = open(platter) else {
        return (model.clone(), model, None);
    };
    for step in history() {
        let before = model.clone();
        run(&mut model, &step).unwrap();
        if run(&mut disk, &step).is_err() {
            return (before, model, Some(step));
        }
    }
    (model.clone(), model, None)
}

fn operations_of_history() -> u64 {
    let platter = Platter::default();
    run_until_failure(&platter);
    platter.operations()
}

/// Everything acknowledged is there and nothing half-done, whatever the operation a crash comes at.
#[test]
fn crash_at_every_operation_loses_nothing_acknowledged() {
    let count = operations_of_history();
    assert!(count > 60, "{count} operations");
    for operation in 0..count {
        let fates = (0..2).map(|coin| Fate::Torn(operation * 7_919 + coin * 104_729));
        for fate in fates.chain([Fate::Lost, Fate::Kept]) {
            crash_once(operation, fate);
        }
    }
}

fn crash_once(operation: u64, fate: Fate) {
    let platter = Platter::default();
    platter.fail_after(operation, io::ErrorKind::Other);
    let (mut before, mut after, step) = run_until_failure(&platter);
    platter.crash(fate);
    let context = format!("operation {operation}, {fate:?}, {step:?}");
    let mut disk = open(&platter).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let restored = disk
        .restored()
        .unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let (before, after) = (before.restored().unwrap(), after.restored().unwrap());
    assert!(
        restored == before || restored == after,
        "{context}: {restored:#?}"
    );
    // It goes on: the failed step can be done now, unless it was done already.
    if let Some(step) = step
        && restored != after
    {
        run(&mut disk, &step).unwrap();
        assert_eq!(disk.restored().unwrap(), after, "{context}");
    }
}

/// A full disk is an error of its own at every operation, nothing is half-written, and it works again with space.
#[test]
fn full_disk_at_every_operation_is_survived() {
    for operation in 0..operations_of_history() {
        let (platter, mut model) = (Platter::default(), MemoryDisk::new());
        platter.fail_after(operation, io::ErrorKind::StorageFull);
        let mut disk = match open(&platter) {
            Ok(disk) => disk,
            Err(DiskError::Full(_)) => {
                platter.works_again();
                open(&platter).unwrap()
            }
            Err(error) => panic!("operation {operation}: {error:?}"),
        };
        for step in history() {
            if let Err(error) = run(&mut disk, &step) {
                assert!(
                    matches!(error, DiskError::Full(_)),
                    "operation {operation}: {error:?}"
                );
                let again = run(&mut disk, &step).unwrap_err();
                assert!(
                    matches!(again, DiskError::Full(_)),
                    "operation {operation}: {again:?}"
                );
                platter.works_again();
                let restored = disk.restored().unwrap();
                let before = model.restored().unwrap();
                run(&mut model, &step).unwrap();
                let after = model.restored().unwrap();
                assert!(
                    restored == before || restored == after,
                    "operation {operation}"
                );
                if restored != after {
                    run(&mut disk, &step).unwrap();
                }
            } else {
                run(&mut model, &step).unwrap();
            }
        }
        let (restored, expected) = (disk.restored().unwrap(), model.restored().unwrap());
        assert_eq!(restored, expected, "operation {operation}");
    }
}

/// A write that failed but took effect must not confuse the next, shorter one.
#[test]
fn entries_of_a_failed_write_do_not_come_back() {
    let mut saw_effect = false;
    for operation in 0..40 {
        let platter = Platter::default();
        let mut disk = open(&platter).unwrap();
        run(&mut disk, &Step::Bootstrap).unwrap();
        platter.fail_after(operation, io::ErrorKind::Other);
        let Err(_) = run(&mut disk, &write(2..=9, 2)) else {
            break;
        };
        platter.works_again();
        saw_effect |= disk.restored().unwrap().last_index() == 9;
        run(&mut disk, &write(2..=3, 3)).unwrap();
        assert_eq!(
            disk.restored().unwrap().last_index(),
            3,
            "operation {operation}"
        );
    }
    assert!(saw_effect, "some failed write took effect");
}
