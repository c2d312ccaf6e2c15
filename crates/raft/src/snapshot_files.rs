//! Where snapshot files are kept: a directory, or what a test makes of one. Each method is one step that a crash can follow.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

/// A flat set of files.
pub trait SnapshotFiles: fmt::Debug + Send {
    /// The names of all files.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// The content of a file.
    ///
    /// # Errors
    /// `NotFound`, or it cannot be read.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Creates or overwrites a file; not durable yet.
    ///
    /// # Errors
    /// The file may exist in part.
    fn write(&mut self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Makes a file's content durable.
    ///
    /// # Errors
    /// It may not be.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Renames a file over another; not durable yet.
    ///
    /// # Errors
    /// Nothing was renamed.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// They may not be.
    fn sync_dir(&mut self) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// It is still there.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// Files of a directory that exists.
#[derive(Clone, Debug)]
pub struct SnapshotDir(PathBuf);

// === impl SnapshotDir ===

impl SnapshotDir {
    /// The files in `directory`.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }
}

impl SnapshotFiles for SnapshotDir {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(name))
    }

    fn write(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(self.0.join(name))?.write_all(content)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        fs::File::open(self.0.join(name))?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        fs::File::open(&self.0)?.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }
}
