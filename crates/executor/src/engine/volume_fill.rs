//! Filling a new volume from the image's directory at its mount point.
//!
//! The image's layers are put together by overlayfs in a mount namespace of a short-lived thread,
//! so nothing is left mounted whatever happens.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, chown, symlink},
    path::{Component, Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::volumes::copy_owner;
use crate::image::Image;

/// Deepest directory copied; deeper trees are made to exhaust the stack.
const DEPTH_MAX: usize = 256;

/// Copies what the image has at `target` into `volume`. An image without that directory leaves
/// the volume empty, and gives `false`.
pub(super) fn fill(image: &Image, target: &str, volume: &Path) -> io::Result<bool> {
    fill_from(image.layer_dirs().to_vec(), target, volume)
}

fn fill_from(layers: Vec<PathBuf>, target: &str, volume: &Path) -> io::Result<bool> {
    if !layers
        .iter()
        .any(|layer| layer.join(relative(target)).exists())
    {
        return Ok(false);
    }
    let (target, volume) = (relative(target), volume.to_owned());
    let body = move || -> io::Result<bool> {
        // Not a directory that removes itself with all that is in it: the image is mounted there.
        let root = tempfile::tempdir()?.keep();
        let copied = mount_privately(&layers, &root).and_then(|()| copy(&root, &target, &volume));
        let _ = umount2(&root, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&root);
        copied
    };
    let worker = thread::Builder::new()
        .name("volume-fill".to_owned())
        .spawn(body)?;
    worker
        .join()
        .map_err(|_| io::Error::other("volume filler died"))?
}

fn copy(root: &Path, target: &Path, volume: &Path) -> io::Result<bool> {
    let Some(source) = resolve_beneath(root, target)? else {
        return Ok(false);
    };
    copy_owner(&source, volume)?;
    copy_directory(&source, volume, 0)?;
    Ok(true)
}

/// Mounts the layers read-only at `root`, for this thread only.
fn mount_privately(layers: &[PathBuf], root: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    if let [only] = layers {
        mount(Some(only), root, none, MsFlags::MS_BIND, none)?;
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, root, none, read_only, none)?;
        return Ok(());
    }
    let top_first: Vec<String> = layers
        .iter()
        .rev()
        .map(|layer| layer.display().to_string())
        .collect();
    let options = format!("lowerdir={}", top_first.join(":"));
    mount(
        Some("overlay"),
        root,
        Some("overlay"),
        MsFlags::MS_RDONLY,
        Some(&options[..]),
    )?;
    Ok(())
}

fn relative(target: &str) -> PathBuf {
    Path::new(target)
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect()
}

/// The directory at `path` below `root`, following no link out of it.
fn resolve_beneath(root: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let mut at = root.to_owned();
    for part in path.components() {
        at.push(part);
        let metadata = match fs::symlink_metadata(&at) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !metadata.is_dir() {
            return Ok(None);
        }
    }
    Ok(Some(at))
}

fn copy_directory(from: &Path, to: &Path, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("directory tree of the image is too deep"));
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            fs::create_dir(&target)?;
            copy_directory(&source, &target, depth + 1)?;
            copy_owner(&source, &target)?;
        } else if metadata.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
            std::os::unix::fs::lchown(&target, Some(metadata.uid()), Some(metadata.gid()))?;
        } else if metadata.is_file() {
            fs::copy(&source, &target)?;
            chown(&target, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        // Devices, sockets and pipes are not copied: a volume holds data.
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layer of an image that has just one is mounted as it is.
    #[test]
    #[expect(clippy::print_stderr, reason = "a skipped test is reported")]
    fn layers_are_left_as_they_are() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let layers = ["one", "two"].map(|name| dir.path().join(name));
        for layer in &layers {
            fs::create_dir_all(layer.join("etc/deep")).unwrap();
            fs::write(layer.join("etc/deep/file"), "kept").unwrap();
        }
        for count in [1, 2] {
            let volume = dir.path().join(format!("volume{count}"));
            fs::create_dir(&volume).unwrap();
            assert!(fill_from(layers[..count].to_vec(), "/etc", &volume).unwrap());
            assert!(!fill_from(layers[..count].to_vec(), "/none", &volume).unwrap());
            assert_eq!(fs::read(volume.join("deep/file")).unwrap(), b"kept");
            for layer in &layers {
                assert_eq!(fs::read(layer.join("etc/deep/file")).unwrap(), b"kept");
            }
        }
    }
}
