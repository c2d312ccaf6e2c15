//! Control groups of containers whose node is gone: they belong to the machine, not to a namespace.

use std::{fs, path::Path};

/// Where hierarchies are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// The daemon's parent of all containers' groups.
const PARENT: &str = "skep";

/// Removes the groups of the containers below a node's data directory. None of their processes is
/// left; what cannot be removed is empty and harmless.
pub(crate) fn remove_of(data_dir: &Path) {
    let Ok(containers) = fs::read_dir(data_dir.join("containers")) else {
        return;
    };
    let hierarchies: Vec<_> = fs::read_dir(ROOT)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join(PARENT))
        .chain([Path::new(ROOT).join(PARENT)])
        .filter(|parent| parent.is_dir())
        .collect();
    for container in containers.flatten() {
        for parent in &hierarchies {
            remove(&parent.join(container.file_name()));
        }
    }
}

/// Removes a group and those below it: `rmdir` is the only way, leaves first.
fn remove(group: &Path) {
    for child in fs::read_dir(group).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&child.path());
        }
    }
    let _ = fs::remove_dir(group);
}
