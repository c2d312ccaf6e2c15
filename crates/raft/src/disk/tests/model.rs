//! Random histories, with crashes and restarts, against `MemoryDisk`.

use std::io;

use proptest::prelude::*;

use super::{
    platter::{Fate, Platter},
    *,
};

/// A step, made concrete by the state it meets.
#[derive(Clone, Debug)]
enum Intent {
    Append { back: u64, count: u64 },
    Vote,
    Save { back: u64 },
    Compact { kept: u64 },
    Install { ahead: u64 },
    Reopen,
    Crash { operation: u64, seed: u64 },
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![
        6 => (0..4_u64, 1..9_u64).prop_map(|(back, count)| Intent::Append { back, count }),
        1 => Just(Intent::Vote),
        2 => (0..5_u64).prop_map(|back| Intent::Save { back }),
        2 => (0..6_u64).prop_map(|kept| Intent::Compact { kept }),
        1 => (1..50_u64).prop_map(|ahead| Intent::Install { ahead }),
        1 => Just(Intent::Reopen),
        2 => (0..20_u64, any::<u64>())
            .prop_map(|(operation, seed)| Intent::Crash { operation, seed }),
    ]
}

fn step(intent: &Intent, state: &Restored, term: u64) -> Option<Step> {
    let last = state.last_index();
    let taken = state.snapshot.as_ref().map_or(0, Snapshot::index);
    Some(match *intent {
        Intent::Append { back, count } => {
            let first = (last + 1).saturating_sub(back).max(taken + 1);
            write(first..=first + count - 1, term)
        }
        Intent::Vote => {
            let hard_state = Some(HardState {
                term,
                vote: 2,
                commit: taken,
            });
            Step::Write(Ready {
                hard_state,
                ..Ready::default()
            })
        }
        Intent::Save { back } => Step::Save(snapshot(last.saturating_sub(back).max(taken), term)),
        Intent::Compact { kept } => Step::Compact(taken.saturating_sub(kept)),
        Intent::Install { ahead } => install(last + ahead, term),
        Intent::Reopen | Intent::Crash { .. } => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn disk_behaves_as_its_model(intents in proptest::collection::vec(intent(), 1..40)) {
        let (platter, mut model) = (Platter::default(), MemoryDisk::new());
        let mut disk = open(&platter).unwrap();
        run(&mut disk, &Step::Bootstrap).unwrap();
        run(&mut model, &Step::Bootstrap).unwrap();
        let mut crash = None;
        for (term, intent) in (2..).zip(&intents) {
            if let Intent::Crash { operation, seed } = *intent {
                platter.fail_after(operation, io::ErrorKind::Other);
                crash = Some(Fate::Torn(seed));
                continue;
            }
            let before = model.restored().unwrap();
            let Some(step) = step(intent, &before, term) else {
                if crash.is_none() {
                    drop(disk);
                    disk = open(&platter).unwrap();
                }
                continue;
            };
            run(&mut model, &step).unwrap();
            if let Err(error) = run(&mut disk, &step) {
                let fate = crash.take().expect("only crashes fail");
                prop_assert!(matches!(error, DiskError::Io(_)), "{error:?}");
                platter.crash(fate);
                drop(disk);
                disk = open(&platter).unwrap();
                if disk.restored().unwrap() == before {
                    run(&mut disk, &step).unwrap();
                }
            }
            if crash.is_none() {
                prop_assert_eq!(disk.restored().unwrap(), model.restored().unwrap());
            }
        }
    }
}
