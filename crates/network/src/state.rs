//! The run directory: what must survive the daemon, so that the kernel's state can be adopted and repaired.
//!
//! ```text
//! <run dir>/lock         held by the process that owns the directory
//! <run dir>/state.json   endpoints, their addresses and ports; the pool's cursor; the layout in force (version 2)
//! <run dir>/netns/<id>   bind mounts of namespaces
//! ```
//!
//! The file is replaced whole: written, synced, renamed. It lives as long as the kernel's state, which a reboot ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::config::Layout;
use crate::ports::HostPort;

/// The version this code writes. Readers refuse newer ones.
const VERSION: u32 = 2;

/// Why the run directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file operation failed.
    #[error("failed to {operation} `{}`", .path.display())]
    File {
        /// What was done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another process owns the directory.
    #[error("another process uses `{}`", .0.display())]
    Locked(PathBuf),
    /// The state file is not ours.
    #[error("state file `{}` is damaged", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A newer version wrote the state file.
    #[error("state file has version {0}, this program knows {VERSION}")]
    Version(u32),
}

/// Content of the state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    /// Address given last.
    pub(crate) cursor: Option<IpAddr>,
    /// The layout the node network was resized to; none while it is the configuration's. Since version 2.
    #[serde(default)]
    pub(crate) layout: Option<Layout>,
    pub(crate) endpoints: BTreeMap<String, EndpointState>,
}

/// One endpoint of the state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointState {
    /// None for a namespace with a loopback interface only.
    pub(crate) address: Option<IpAddr>,
    /// Since version 2.
    #[serde(default)]
    pub(crate) address6: Option<Ipv6Addr>,
    pub(crate) ports: Vec<HostPort>,
}

/// The run directory, locked.
#[derive(Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    /// Held until dropped.
    _lock: Flock<File>,
}

// === impl State ===

impl State {
    pub(crate) fn new(
        cursor: IpAddr,
        layout: Option<Layout>,
        endpoints: BTreeMap<String, EndpointState>,
    ) -> State {
        State {
            version: VERSION,
            cursor: Some(cursor),
            layout,
            endpoints,
        }
    }
}

impl Default for State {
    fn default() -> State {
        State {
            version: VERSION,
            cursor: None,
            layout: None,
            endpoints: BTreeMap::new(),
        }
    }
}

// === impl StateDir ===

impl StateDir {
    /// Makes the directory if need be and locks it.
    pub(crate) fn open(root: &Path) -> Result<StateDir, StateError> {
        let netns = root.join("netns");
        fs::create_dir_all(&netns).map_err(|source| file("make", &netns, source))?;
        let path = root.join("lock");
        let lock = File::create(&path).map_err(|source| file("open", &path, source))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| StateError::Locked(root.to_owned()))?;
        Ok(StateDir {
            root: root.to_owned(),
            _lock: lock,
        })
    }

    /// Reads the state file; without one there is no state.
    pub(crate) fn load(&self) -> Result<State, StateError> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(source) => return Err(file("read", &path, source)),
        };
        let state: State = serde_json::from_slice(&bytes)
            .map_err(|source| StateError::Damaged { path, source })?;
        if state.version > VERSION {
            return Err(StateError::Version(state.version));
        }
        Ok(state)
    }

    /// Replaces the state file.
    pub(crate) fn save(&self, state: &State) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(state).expect("state is made of strings and numbers");
        let (path, new) = (self.path(), self.root.join("state.json.new"));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_data()
        };
        write().map_err(|source| file("write", &new, source))?;
        fs::rename(&new, &path).map_err(|source| file("replace", &path, source))
    }

    /// Removes all files, not the directory itself, which the caller may have made.
    pub(crate) fn remove(&self) -> Result<(), StateError> {
        for name in ["state.json", "state.json.new", "lock"] {
            let path = self.root.join(name);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(file("remove", &path, source)),
            }
        }
        let netns = self.root.join("netns");
        fs::remove_dir(&netns).map_err(|source| file("remove", &netns, source))
    }

    fn path(&self) -> PathBuf {
        self.root.join("state.json")
    }
}

fn file(operation: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
