//! Writes the golden files of this version's formats into `tests/golden`: run once per format version, then committed.

use std::path::Path;

use skep_raft::{Dek, Disk, Entry, HardState, Kek, KeyFile, Ready, Restored, Snapshot, Storage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let key = KeyFile {
        dek: Dek::from_bytes([7; 32]),
        kek_version: 42,
    };
    std::fs::write(golden.join("key-v1-plain"), key.encode(None))?;
    std::fs::write(
        golden.join("key-v1-sealed"),
        key.encode(Some(&Kek::from_bytes([9; 32]))),
    )?;

    let mut disk = Disk::open(&golden.join("disk-v1"), &key.dek)?;
    disk.bootstrap(&Restored::new_group(5, "raft member"))?;
    let entries = (2..=6).map(|index| Entry {
        kind: 0,
        term: 2,
        index,
        data: format!("command {index}").into(),
    });
    disk.write(&Ready {
        entries: entries.collect(),
        hard_state: Some(HardState {
            term: 2,
            vote: 5,
            commit: 4,
        }),
        ..Ready::default()
    })?;
    let mut snapshot = Snapshot {
        data: "the state".into(),
        ..Snapshot::default()
    };
    (snapshot.metadata.index, snapshot.metadata.term) = (4, 2);
    snapshot.metadata.conf_state.voters = vec![5];
    disk.save_snapshot(&snapshot)?;
    disk.compact(3)?;
    Ok(())
}
