//! A group of one on a real directory, through the public API only, as a manager drives it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use skep_raft::{
    Config, Dek, Disk, Kek, KeyFile, Node, Ready, Restored, SLOW_FOLLOWER_ENTRIES, Storage,
    compaction_point,
};

/// The application: a list of commands, and how it is put into a snapshot.
struct Manager {
    node: Node,
    disk: Disk,
    commands: Vec<String>,
}

impl Manager {
    fn start(directory: &Path, dek: &Dek) -> Self {
        let mut disk = Disk::open(directory, dek).unwrap();
        if disk.restored().unwrap().is_empty() {
            disk.bootstrap(&Restored::new_group(11, "raft member"))
                .unwrap();
        }
        let restored = disk.restored().unwrap();
        let node = Node::new(Config::new(11, 1), &restored).unwrap();
        let commands = restored.snapshot.map(|snapshot| snapshot.data.to_vec());
        let commands = String::from_utf8(commands.unwrap_or_default()).unwrap();
        let commands = commands.lines().map(str::to_owned).collect();
        let mut manager = Self {
            node,
            disk,
            commands,
        };
        manager.drain();
        manager.node.campaign().unwrap();
        manager.drain();
        assert!(manager.node.is_leader_ready());
        manager
    }

    /// Gives how many readies had to be written.
    fn drain(&mut self) -> usize {
        let mut writes = 0;
        while let Some(ready) = self.node.ready() {
            writes += usize::from(ready.must_write());
            self.disk.write(&ready).unwrap();
            assert!(
                self.node.persisted(ready.number).is_empty(),
                "there is nobody to talk to"
            );
            self.apply(&ready);
        }
        writes
    }

    fn apply(&mut self, ready: &Ready) {
        let commands = ready.committed.iter().filter(|entry| entry.is_command());
        let text = |entry: &skep_raft::Entry| String::from_utf8(entry.data.to_vec()).unwrap();
        self.commands.extend(commands.map(text));
    }

    fn snapshot(&mut self) {
        let data = self.commands.join("\n");
        let snapshot = self
            .node
            .snapshot_at(self.node.applied_index(), data.into())
            .unwrap();
        self.disk.save_snapshot(&snapshot).unwrap();
        let to = compaction_point(snapshot.index(), SLOW_FOLLOWER_ENTRIES);
        self.disk.compact(to).unwrap();
        self.node.snapshot_saved(&snapshot.metadata, to);
    }
}

#[test]
fn manager_restarts_with_everything_committed() {
    let directory = tempfile::tempdir().unwrap();
    let (key, kek) = (directory.path().join("key"), Kek::generate());
    KeyFile {
        dek: Dek::generate(),
        kek_version: 1,
    }
    .save(&key, Some(&kek))
    .unwrap();
    let dek = KeyFile::load(&key, Some(&kek)).unwrap().dek;
    let state = directory.path().join("raft");

    let mut manager = Manager::start(&state, &dek);
    let mut expected = Vec::new();
    for batch in 0..80 {
        for number in 0..16 {
            let command = format!("command {batch}.{number}");
            manager.node.propose(command.clone().into()).unwrap();
            expected.push(command);
        }
        assert_eq!(manager.drain(), 1, "a batch is one write");
        assert_eq!(manager.commands, expected);
        if batch == 50 {
            manager.snapshot();
        }
        if batch % 20 == 19 {
            drop(manager);
            manager = Manager::start(&state, &dek);
            assert_eq!(manager.commands, expected);
        }
    }
    let kept = manager.disk.restored().unwrap().entries.len();
    assert!((500..1000).contains(&kept), "{kept} entries are kept");
    assert_eq!(manager.node.members().voters, [11]);
}

#[test]
fn cores_can_move_to_other_threads() {
    fn check<T: Send>() {}
    check::<Node>();
    check::<Disk>();
    check::<skep_raft::MemoryDisk>();
}
