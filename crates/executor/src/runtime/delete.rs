//! Removing a container: every step treats "already gone" as success, and none stops the next.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
};

use super::{
    Settings, cgroup,
    config::ContainerId,
    error::{Error, ErrorList},
};
use crate::monitor::{
    protocol::SOCKET_FILE,
    state::{ProcessId, State, boot_id},
};

/// A monitor is done with the container's cgroups within this time, or is killed.
const MONITOR_WAIT_MAX: Duration = Duration::from_secs(2);

/// Between two looks at an ending monitor.
const MONITOR_POLL: Duration = Duration::from_millis(1);

const SIGKILL: i32 = 9;

pub(super) async fn delete(settings: &Settings, id: &ContainerId) -> Result<(), ErrorList> {
    let (dir, cgroups) = (settings.dir(id), settings.cgroup_dirs(id));
    let oci_state = settings.oci_root().join(id.as_str());
    let work = move || delete_blocking(&dir, &cgroups, &oci_state);
    let errors = tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| vec![Error::Protocol(io::Error::other(error))]);
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ErrorList(errors))
    }
}

fn delete_blocking(dir: &Path, cgroups: &[PathBuf], oci_state: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut note = |outcome: Result<(), Error>| errors.extend(outcome.err());
    if let Ok(state) = State::read(dir)
        && boot_id().is_ok_and(|boot| boot == state.boot_id)
    {
        note(end_processes(dir, &state, cgroups));
    }
    note(cgroup::destroy(cgroups).map_err(Error::io("remove cgroups of", dir)));
    note(remove(oci_state));
    // Nothing is mounted in the host's namespace; should that ever be wrong, removing through a mount would destroy foreign files.
    let rootfs = dir.join("bundle/rootfs");
    match umount2(&rootfs, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => note(remove(dir)),
        Err(errno) => note(Err(Error::io("unmount", rootfs)(errno.into()))),
    }
    errors
}

fn end_processes(dir: &Path, state: &State, cgroups: &[PathBuf]) -> Result<(), Error> {
    if !state.is_final() {
        if let Some(process) = state.process.filter(ProcessId::is_alive) {
            let _ = crate::monitor::kill(process.pid, SIGKILL);
        }
        cgroup::kill_all(cgroups);
    }
    // Its process may live on for a while: unmounting an overlay makes the kernel write the upper file system out.
    let deadline = Instant::now() + MONITOR_WAIT_MAX;
    let socket = dir.join(SOCKET_FILE);
    while socket.exists() && state.monitor.is_alive() {
        if Instant::now() >= deadline {
            let _ = crate::monitor::kill(state.monitor.pid, SIGKILL);
            return Ok(());
        }
        std::thread::sleep(MONITOR_POLL);
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Io {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
