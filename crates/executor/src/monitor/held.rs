//! Mounts that are taken from the host's mount namespace and put into the monitor's.
//!
//! A bind mount made in the monitor's namespace can only be a slave of the host's. What is to be shared with the host is
//! therefore cloned before the monitor leaves: a clone stays in its peer group wherever it is put. The same for a part
//! of a volume: its path is walked once, by the kernel, which refuses to leave the volume, and what was found is held,
//! so that a container that changes the volume meanwhile has no way out of it.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use super::config::HeldMount;

/// A clone that is nowhere yet.
#[derive(Debug)]
pub(super) struct Held<'a> {
    mount: &'a HeldMount,
    tree: OwnedFd,
    is_directory: bool,
}

// === impl Held ===

impl<'a> Held<'a> {
    /// Clones a mount of the present mount namespace.
    pub(super) fn take(mount: &'a HeldMount) -> Result<Self, String> {
        let path = mount.source.join(&mount.subpath);
        let failed = |error: Errno| format!("cannot access path {}: {error}", path.display());
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let mut found = openat2(
            CWD,
            &mount.source,
            flags,
            Mode::empty(),
            ResolveFlags::empty(),
        )
        .map_err(failed)?;
        if !mount.subpath.is_empty() {
            let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            found = openat2(&found, mount.subpath.as_str(), flags, Mode::empty(), inside)
                .map_err(failed)?;
        }
        let kind = FileType::from_raw_mode(fstat(&found).map_err(failed)?.st_mode);
        let mut clone = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        if mount.is_recursive {
            clone |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = open_tree(&found, "", clone).map_err(failed)?;
        Ok(Self {
            mount,
            tree,
            is_directory: kind == FileType::Directory,
        })
    }

    /// Puts it into the present mount namespace.
    pub(super) fn place(&self) -> Result<(), String> {
        let target = &self.mount.target;
        let failed = |error: &dyn std::fmt::Display| {
            format!("failed to hold `{}`: {error}", self.mount.source.display())
        };
        if self.is_directory {
            fs::create_dir_all(target).map_err(|error| failed(&error))?;
        } else {
            let parent = target.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(parent).map_err(|error| failed(&error))?;
            File::create(target).map_err(|error| failed(&error))?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&self.tree, "", CWD, target, flags).map_err(|error| failed(&error))
    }
}
