//! What the monitor does to itself first: session, mount namespace, root file system, hidden cgroup mount, own cgroup.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::{config::MonitorConfig, held::Held};
use crate::runtime::config::Rootfs;

/// The kernel takes one page of mount options; room is left for what it adds.
const OPTIONS_BYTES_MAX: usize = 4000;

/// Layers overlayfs accepts in one mount.
const LAYER_COUNT_MAX: usize = 500;

/// The mount point inside the container's directory.
pub(super) const ROOTFS_DIR: &str = "bundle/rootfs";

/// Cgroups opened before one of their hierarchies is hidden.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// The container's in the hidden hierarchy.
    pub(super) extra: Option<File>,
    /// The directory it is in: by path this process does not reach it any more.
    pub(super) extra_parent: Option<File>,
    /// The monitor's own.
    own: Vec<File>,
}

/// Leaves the daemon's session and becomes the reaper of what the OCI runtime leaves behind.
pub(super) fn detach() -> Result<(), String> {
    // Fails only for a process group leader, which is as detached as it gets.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("failed to become subreaper: {error}"))
}

/// Enters a mount namespace of its own, mounts the root file system and hides what crun cannot bear.
pub(super) fn mounts(dir: &Path, config: &MonitorConfig) -> Result<Cgroups, String> {
    let extra = config.extra_cgroup.as_deref().and_then(open_cgroup);
    let parent = config.extra_cgroup.as_deref().and_then(Path::parent);
    let extra_parent = parent.and_then(|parent| File::open(parent).ok());
    let own = config
        .monitor_cgroups
        .iter()
        .filter_map(|dir| open_cgroup(dir))
        .collect();
    let held: Vec<Held<'_>> = config
        .held_mounts
        .iter()
        .map(Held::take)
        .collect::<Result<_, _>>()?;
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|error| format!("failed to unshare the mount namespace: {error}"))?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .map_err(|error| format!("failed to make mounts slaves: {error}"))?;
    if let Some(hidden) = &config.hidden_mount {
        umount2(hidden, MntFlags::MNT_DETACH)
            .map_err(|error| format!("failed to hide `{}`: {error}", hidden.display()))?;
        // crun makes directories there: they must not end up below the host's mount point.
        let cover = mount(
            Some("tmpfs"),
            hidden,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=1m"),
        );
        cover.map_err(|error| format!("failed to cover `{}`: {error}", hidden.display()))?;
    }
    for held in &held {
        held.place()?;
    }
    mount_rootfs(dir, &config.rootfs)?;
    Ok(Cgroups {
        extra,
        extra_parent,
        own,
    })
}

fn open_cgroup(path: &Path) -> Option<File> {
    fs::create_dir_all(path).ok()?;
    OpenOptions::new()
        .write(true)
        .open(path.join("cgroup.procs"))
        .ok()
}

/// Puts a process into a cgroup that was opened before.
pub(super) fn join(cgroup: &mut File, pid: i32) -> io::Result<()> {
    cgroup.write_all(pid.to_string().as_bytes())
}

/// Moves this process out of the daemon's cgroups, so that stopping the daemon's unit does not stop containers.
pub(super) fn leave_daemon_cgroup(mut cgroups: Cgroups) {
    for cgroup in &mut cgroups.own {
        // Best effort: without it the monitor merely shares the daemon's fate with systemd's KillMode.
        let _ = join(cgroup, 0);
    }
}

fn mount_rootfs(dir: &Path, rootfs: &Rootfs) -> Result<(), String> {
    let target = dir.join(ROOTFS_DIR);
    let failed = |error| format!("failed to mount the root file system: {error}");
    match rootfs {
        Rootfs::Directory(source) => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(source), &target, None::<&str>, flags, None::<&str>).map_err(failed)
        }
        Rootfs::Overlay { lower, upper, work } => {
            if lower.len() > LAYER_COUNT_MAX {
                return Err(format!("{} layers are too many", lower.len()));
            }
            let options = match direct_options(lower, upper, work) {
                Some(options) => options,
                None => linked_options(dir, lower, upper, work)
                    .map_err(|error| format!("failed to link layers: {error}"))?,
            };
            mount(
                Some("overlay"),
                &target,
                Some("overlay"),
                MsFlags::empty(),
                Some(&*options),
            )
            .map_err(failed)
        }
    }
}

/// The option string with the paths as they are, if the kernel can read it.
fn direct_options(lower: &[PathBuf], upper: &Path, work: &Path) -> Option<String> {
    let is_plain = |path: &Path| {
        path.to_str()
            .is_some_and(|text| !text.contains([',', ':', '\\']))
    };
    let all_plain = lower.iter().all(|path| is_plain(path)) && is_plain(upper) && is_plain(work);
    if !all_plain || lower.is_empty() {
        return None;
    }
    let lower: Vec<_> = lower
        .iter()
        .rev()
        .filter_map(|path| path.to_str())
        .collect();
    let (upper, work) = (upper.to_str()?, work.to_str()?);
    let options = format!(
        "lowerdir={},upperdir={upper},workdir={work},index=off",
        lower.join(":")
    );
    (options.len() <= OPTIONS_BYTES_MAX).then_some(options)
}

/// Short relative names through symbolic links in `<dir>/l`, for many layers and odd paths. Leaves the process in that directory.
fn linked_options(dir: &Path, lower: &[PathBuf], upper: &Path, work: &Path) -> io::Result<String> {
    let links = dir.join("l");
    match fs::remove_dir_all(&links) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir(&links)?,
    }
    let mut names = Vec::with_capacity(lower.len());
    if lower.is_empty() {
        fs::create_dir(links.join("empty"))?;
        names.push("empty".to_owned());
    }
    for (index, layer) in lower.iter().enumerate().rev() {
        symlink(layer, links.join(index.to_string()))?;
        names.push(index.to_string());
    }
    symlink(upper, links.join("u"))?;
    symlink(work, links.join("w"))?;
    rustix::process::chdir(&links)?;
    Ok(format!(
        "lowerdir={},upperdir=u,workdir=w,index=off",
        names.join(":")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_listed_top_first_and_odd_paths_are_not_taken() {
        let (upper, work) = (Path::new("/u"), Path::new("/w"));
        let lower = [PathBuf::from("/base"), PathBuf::from("/top")];
        assert_eq!(
            direct_options(&lower, upper, work).unwrap(),
            "lowerdir=/top:/base,upperdir=/u,workdir=/w,index=off"
        );
        assert_eq!(direct_options(&[PathBuf::from("/a:b")], upper, work), None);
        assert_eq!(direct_options(&[], upper, work), None);
        let many: Vec<_> = (0..400)
            .map(|n| PathBuf::from(format!("/some/long/path/{n}")))
            .collect();
        assert_eq!(direct_options(&many, upper, work), None);
    }
}
