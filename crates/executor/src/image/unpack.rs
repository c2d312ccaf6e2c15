//! Writes a layer archive into an empty directory, as an overlayfs lower directory.
//!
//! The archive is a stranger's. Nothing in it can reach outside the directory: see `docs/design/images.md`, "Hostile input".

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags},
    io::Errno,
};

use super::tar_stream::{self, Entry, Kind, TarStream};

mod attributes;
mod error;

use attributes::{set_file_metadata, set_node_metadata, timestamps};
pub use error::Error;
use error::{parent_error, unsafe_path, write_error, write_io};

/// Longest path, as the kernel's PATH_MAX.
const PATH_BYTES_MAX: usize = 4096;
/// Longest component, as the kernel's NAME_MAX.
const NAME_BYTES_MAX: usize = 255;
/// Prefix of entries that hide one of a lower layer.
const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Prefix of entries that speak about the layer itself.
const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
/// Entry that hides all of a directory's lower content.
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
/// How much is copied at a time.
const COPY_BYTES: usize = 128 << 10;
/// Mode of directories an archive needs but does not name, as Docker.
const IMPLIED_DIRECTORY_MODE: u32 = 0o755;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) entry_count: u64,
    /// Sum of file sizes; Docker's layer size.
    pub(crate) content_bytes: u64,
}

/// Writes all entries of `stream` into the directory `root`.
pub(crate) fn unpack<R: Read>(stream: &mut TarStream<R>, root: &Path) -> Result<Unpacked, Error> {
    let fd = fs::open(
        root,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(write_error("open", b"."))?;
    let mut unpacker = Unpacker {
        root: fd,
        root_path: root.to_owned(),
        parent: None,
        directory_times: Vec::new(),
        buffer: vec![0; COPY_BYTES],
        unpacked: Unpacked::default(),
    };
    while let Some(entry) = stream.next_entry()? {
        unpacker.write(&entry, stream)?;
    }
    unpacker.finish()
}

struct Unpacker {
    root: OwnedFd,
    root_path: PathBuf,
    /// The last parent, because neighbours follow each other in archives.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Set at the end, since writing into a directory changes them.
    directory_times: Vec<(PathBuf, (i64, u32))>,
    buffer: Vec<u8>,
    unpacked: Unpacked,
}

// === impl Unpacker ===

impl Unpacker {
    fn write<R: Read>(&mut self, entry: &Entry, stream: &mut TarStream<R>) -> Result<(), Error> {
        self.unpacked.entry_count += 1;
        let path = safe_path(&entry.path)?;
        let Some(name) = path.file_name() else {
            return self.write_root(entry);
        };
        let parent_path = path.parent().unwrap_or(Path::new(""));
        self.open_parent(parent_path, &entry.path)?;
        let Some((_, parent)) = self.parent.take() else {
            return Ok(());
        };
        let result = self.write_at(entry, parent.as_fd(), &path, name, stream);
        // Still valid: what was replaced is a child of it, never the directory itself.
        self.parent = Some((parent_path.to_owned(), parent));
        result
    }

    fn write_root(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.kind != Kind::Directory {
            return Err(unsafe_path(&entry.path, "the root is not a directory"));
        }
        let root = self
            .root
            .try_clone()
            .map_err(|e| write_io("open", &entry.path, e))?;
        set_file_metadata(root.as_fd(), entry)?;
        self.directory_times.push((PathBuf::from("."), entry.mtime));
        Ok(())
    }

    fn write_at<R: Read>(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        path: &Path,
        name: &OsStr,
        stream: &mut TarStream<R>,
    ) -> Result<(), Error> {
        let raw = name.as_bytes();
        if raw.starts_with(WHITEOUT_META_PREFIX) {
            return match raw {
                WHITEOUT_OPAQUE => set_opaque(parent, &entry.path),
                _ => Ok(()),
            };
        }
        if let Some(hidden) = raw.strip_prefix(WHITEOUT_PREFIX) {
            return write_whiteout(parent, hidden, &entry.path);
        }
        let was_whiteout = self.make_way(entry, parent, path, name)?;
        match entry.kind {
            Kind::File => self.write_file(entry, parent, name, stream)?,
            Kind::Directory => self.write_directory(entry, parent, path, name, was_whiteout)?,
            Kind::HardLink => self.write_hard_link(entry, parent, name)?,
            Kind::Symlink => {
                let target = OsStr::from_bytes(&entry.link);
                fs::symlinkat(target, parent, name).map_err(write_error("link", &entry.path))?;
                set_node_metadata(parent, name, entry)?;
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                write_node(entry, parent, name)?;
            }
        }
        Ok(())
    }

    /// Removes what an earlier entry of the same name left. Tells whether that was a whiteout.
    fn make_way(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        path: &Path,
        name: &OsStr,
    ) -> Result<bool, Error> {
        let stat = match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(write_error("stat", &entry.path))?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if entry.kind == Kind::Directory => Ok(false),
            FileType::Directory => {
                // No component of the path is a symbolic link: the parent was opened that way and nobody else writes here.
                std::fs::remove_dir_all(self.root_path.join(path))
                    .map_err(|e| write_io("replace", &entry.path, e))?;
                self.directory_times
                    .retain(|(directory, _)| !directory.starts_with(path));
                Ok(false)
            }
            kind => {
                fs::unlinkat(parent, name, AtFlags::empty())
                    .map_err(write_error("replace", &entry.path))?;
                Ok(kind == FileType::CharacterDevice && stat.st_rdev == 0)
            }
        }
    }

    fn write_file<R: Read>(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        stream: &mut TarStream<R>,
    ) -> Result<(), Error> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(write_error("create", &entry.path))?;
        let mut file = File::from(fd);
        loop {
            let count = match stream.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(tar_stream::Error::from_read(error).into()),
            };
            file.write_all(&self.buffer[..count])
                .map_err(|e| write_io("write", &entry.path, e))?;
        }
        self.unpacked.content_bytes += entry.size;
        set_file_metadata(file.as_fd(), entry)?;
        fs::futimens(&file, &timestamps(entry.mtime))
            .map_err(write_error("set times of", &entry.path))
    }

    fn write_directory(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        path: &Path,
        name: &OsStr,
        was_whiteout: bool,
    ) -> Result<(), Error> {
        match fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(write_error("create", &entry.path)(error)),
        }
        let directory = open_directory(parent, Path::new(name), OFlags::RDONLY)
            .map_err(write_error("open", &entry.path))?;
        set_file_metadata(directory.as_fd(), entry)?;
        if was_whiteout {
            set_opaque(directory.as_fd(), &entry.path)?;
        }
        self.directory_times.push((path.to_owned(), entry.mtime));
        Ok(())
    }

    fn write_hard_link(
        &self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Error> {
        let target = safe_path(&entry.link)?;
        let Some(target_name) = target.file_name() else {
            return Err(unsafe_path(&entry.path, "hard link to a directory"));
        };
        let target_parent = target.parent().unwrap_or(Path::new(""));
        let directory = open_directory(self.root.as_fd(), target_parent, OFlags::PATH)
            .map_err(|e| parent_error(e, &entry.link))?;
        fs::linkat(&directory, target_name, parent, name, AtFlags::empty())
            .map_err(write_error("link", &entry.path))
    }

    /// Makes `self.parent` the directory at `path`, creating what is missing.
    fn open_parent(&mut self, path: &Path, shown: &[u8]) -> Result<(), Error> {
        if self
            .parent
            .as_ref()
            .is_some_and(|(cached, _)| cached == path)
        {
            return Ok(());
        }
        let fd = match open_directory(self.root.as_fd(), path, OFlags::RDONLY) {
            Err(Errno::NOENT) => self.create_parent(path, shown)?,
            other => other.map_err(|e| parent_error(e, shown))?,
        };
        self.parent = Some((path.to_owned(), fd));
        Ok(())
    }

    fn create_parent(&self, path: &Path, shown: &[u8]) -> Result<OwnedFd, Error> {
        let mut directory = open_directory(self.root.as_fd(), Path::new(""), OFlags::RDONLY)
            .map_err(write_error("open", shown))?;
        for name in path {
            match fs::mkdirat(
                &directory,
                name,
                Mode::from_raw_mode(IMPLIED_DIRECTORY_MODE),
            ) {
                Err(Errno::EXIST) => {}
                Err(error) => return Err(write_error("create", shown)(error)),
                Ok(()) => {
                    let mode = Mode::from_raw_mode(IMPLIED_DIRECTORY_MODE);
                    fs::chmodat(&directory, name, mode, AtFlags::empty())
                        .map_err(write_error("set mode of", shown))?;
                }
            }
            directory = open_directory(directory.as_fd(), Path::new(name), OFlags::RDONLY)
                .map_err(|e| parent_error(e, shown))?;
        }
        Ok(directory)
    }

    fn finish(self) -> Result<Unpacked, Error> {
        for (path, mtime) in self.directory_times.iter().rev() {
            let shown = path.as_os_str().as_bytes();
            let directory = match open_directory(self.root.as_fd(), path, OFlags::RDONLY) {
                // A later entry replaced a parent of it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                other => other.map_err(write_error("open", shown))?,
            };
            fs::futimens(&directory, &timestamps(*mtime))
                .map_err(write_error("set times of", shown))?;
        }
        Ok(self.unpacked)
    }
}

/// The path as components below the root.
fn safe_path(raw: &[u8]) -> Result<PathBuf, Error> {
    if raw.is_empty() {
        return Err(unsafe_path(raw, "empty"));
    }
    if raw.len() > PATH_BYTES_MAX {
        return Err(unsafe_path(&raw[..NAME_BYTES_MAX], "too long"));
    }
    if raw.contains(&0) {
        return Err(unsafe_path(raw, "contains a zero byte"));
    }
    if raw.starts_with(b"/") {
        return Err(unsafe_path(raw, "absolute"));
    }
    let mut path = PathBuf::new();
    for component in raw.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(unsafe_path(raw, "contains `..`")),
            name if name.len() > NAME_BYTES_MAX => return Err(unsafe_path(raw, "name too long")),
            name => path.push(OsStr::from_bytes(name)),
        }
    }
    Ok(path)
}

/// Opens a directory below `root` without following any link on the way.
fn open_directory(root: BorrowedFd<'_>, path: &Path, access: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
    loop {
        match fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel could not prove the walk safe against a concurrent rename somewhere; try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn write_whiteout(parent: BorrowedFd<'_>, hidden: &[u8], shown: &[u8]) -> Result<(), Error> {
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(unsafe_path(shown, "whiteout of no name"));
    }
    let name = OsStr::from_bytes(hidden);
    match fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Ok(()) => Ok(()),
        // A whiteout speaks of lower layers only: what this layer brings itself stays, and hides what is below.
        Err(Errno::EXIST) => match open_directory(parent, Path::new(name), OFlags::RDONLY) {
            Ok(directory) => set_opaque(directory.as_fd(), shown),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(write_error("open", shown)(error)),
        },
        Err(error) => Err(write_error("create whiteout", shown)(error)),
    }
}

fn set_opaque(directory: BorrowedFd<'_>, shown: &[u8]) -> Result<(), Error> {
    fs::fsetxattr(directory, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
        .map_err(write_error("mark opaque", shown))
}

fn write_node(entry: &Entry, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Error> {
    let (kind, device) = match entry.kind {
        Kind::CharDevice => (
            FileType::CharacterDevice,
            fs::makedev(entry.device.0, entry.device.1),
        ),
        Kind::BlockDevice => (
            FileType::BlockDevice,
            fs::makedev(entry.device.0, entry.device.1),
        ),
        _ => (FileType::Fifo, 0),
    };
    if kind == FileType::CharacterDevice && device == 0 {
        return Err(unsafe_path(&entry.path, "raw whiteout device"));
    }
    let mode = Mode::from_raw_mode(entry.mode);
    fs::mknodat(parent, name, kind, mode, device).map_err(write_error("create", &entry.path))?;
    set_node_metadata(parent, name, entry)?;
    fs::chmodat(parent, name, mode, AtFlags::empty())
        .map_err(write_error("set mode of", &entry.path))
}

#[cfg(test)]
mod tests;
