//! What `load` is given: files, the environment and options.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Variables by name.
pub type Environment = BTreeMap<String, String>;

/// The files of the machine the command runs on. The command line implements it; tests have a map.
pub trait Files {
    /// All bytes of a file, at most `bytes_max`; relative paths are those of the working directory.
    ///
    /// # Errors
    /// When it cannot be read, or has more ([`io::ErrorKind::FileTooLarge`]).
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>>;

    /// The absolute path of the working directory.
    fn working_dir(&self) -> PathBuf;
}

/// A compose file the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, to be read.
    File(PathBuf),
    /// Bytes that are here already, such as of standard input.
    Bytes {
        /// What problems call it (`<stdin>`); relative paths in it are those of the working directory.
        name: PathBuf,
        /// Its content.
        bytes: Vec<u8>,
    },
}

/// What is done with keys a cluster cannot honour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unsupported {
    /// They are problems.
    #[default]
    Refuse,
    /// They are left out, and are warnings of the project.
    Warn,
}

/// How files are loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Name of the project; wins over `COMPOSE_PROJECT_NAME` and `name:`.
    pub project_name: Option<String>,
    /// What relative paths are relative to; `None`: the directory of the first file.
    pub project_directory: Option<PathBuf>,
    /// Files with variables, which must be there; empty: `.env` in the project directory, if there is one.
    pub env_files: Vec<PathBuf>,
    /// Active profiles, `*` being all; empty: those of `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
    /// See [`Unsupported`].
    pub unsupported: Unsupported,
}
