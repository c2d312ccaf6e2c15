//! Owner, mode, times and extended attributes of what was unpacked.

use std::{
    ffi::OsStr,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{self, AtFlags, Mode, Timespec, Timestamps, XattrFlags},
    io::Errno,
    process::{Gid, Uid},
};

use super::{Error, write_error};
use crate::image::tar_stream::Entry;

/// Owner, mode and attributes, in this order: a change of owner clears set-id bits and capabilities.
pub(super) fn set_file_metadata(file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Error> {
    let (uid, gid) = owner(entry)?;
    fs::fchown(file, Some(uid), Some(gid)).map_err(write_error("set owner of", &entry.path))?;
    fs::fchmod(file, Mode::from_raw_mode(entry.mode))
        .map_err(write_error("set mode of", &entry.path))?;
    for (name, value) in entry
        .xattrs
        .iter()
        .filter(|(name, _)| is_kept_attribute(name))
    {
        let result = fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty());
        ignore_unsupported(name, result).map_err(write_error("set attribute of", &entry.path))?;
    }
    Ok(())
}

/// The same for what cannot be opened.
pub(super) fn set_node_metadata(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
) -> Result<(), Error> {
    let (uid, gid) = owner(entry)?;
    fs::chownat(
        parent,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(write_error("set owner of", &entry.path))?;
    let path = Path::new("/proc/self/fd")
        .join(parent.as_raw_fd().to_string())
        .join(name);
    for (key, value) in entry
        .xattrs
        .iter()
        .filter(|(key, _)| is_kept_attribute(key))
    {
        let result = fs::lsetxattr(&path, key.as_slice(), value, XattrFlags::empty());
        // Links and nodes take no user attributes.
        match result {
            Err(Errno::PERM) if key.starts_with(b"user.") => Ok(()),
            other => ignore_unsupported(key, other),
        }
        .map_err(write_error("set attribute of", &entry.path))?;
    }
    fs::utimensat(
        parent,
        name,
        &timestamps(entry.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(write_error("set times of", &entry.path))
}

fn owner(entry: &Entry) -> Result<(Uid, Gid), Error> {
    // All ones means "unchanged" to the kernel.
    if entry.uid == u32::MAX || entry.gid == u32::MAX {
        return Err(Error::Malformed("owner".to_owned()));
    }
    Ok((Uid::from_raw(entry.uid), Gid::from_raw(entry.gid)))
}

/// Attributes steering overlayfs (`trusted.`, `user.overlay.`) or a host's security module are not an image's business.
fn is_kept_attribute(name: &[u8]) -> bool {
    name == b"security.capability"
        || name.starts_with(b"system.posix_acl_")
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// A file system without an attribute class loses it silently, as in Docker; lost capabilities would break programs.
fn ignore_unsupported(name: &[u8], result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP) if name != b"security.capability" => Ok(()),
        other => other,
    }
}

pub(super) fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanos),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
