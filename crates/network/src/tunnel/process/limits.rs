//! What the process does to itself first: leaves the daemon's session and control group, gives up what it does not need.

use std::io;
use std::path::PathBuf;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, setsid,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

/// Open files: two devices with four each, the socket, a request and its directory.
const FILE_COUNT_MAX: u64 = 64;

/// Address space: 10,000 nodes take some 600 MB, most of it never touched. A process that reached it would be restarted.
const MEMORY_BYTES_MAX: u64 = 2 << 30;

/// Sets all limits and joins control groups. Those that cannot be joined are left out: the process then merely shares the daemon's fate.
pub(super) fn enter(cgroups: impl Iterator<Item = PathBuf>) -> io::Result<()> {
    // Fails only for a process group leader, which is as detached as it gets.
    let _ = setsid();
    for cgroup in cgroups {
        let _ = std::fs::create_dir_all(&cgroup);
        let _ = std::fs::write(cgroup.join("cgroup.procs"), "0");
    }
    // No core files and no debugger: there are keys in memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let limits = [
        (Resource::Core, 0),
        (Resource::Nofile, FILE_COUNT_MAX),
        (Resource::As, MEMORY_BYTES_MAX),
    ];
    for (resource, limit) in limits {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit)?;
    }
    set_no_new_privs(true)?;
    // To make a TUN device; to enter the tunnels' namespace.
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
    let sets = CapabilitySets {
        effective: needed,
        permitted: needed,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}
