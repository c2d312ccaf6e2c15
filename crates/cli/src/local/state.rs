//! What is written down of a local cluster, so that the next command finds it again. Replaced as a
//! whole by rename, before anything it names outlives the command.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::PathBuf,
};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use serde::{Deserialize, Serialize};

use crate::local::{
    layout::{self, Cut, Layout},
    process::{Process, boot_id},
};

/// Of the file's format.
const VERSION: u32 = 1;
const FILE: &str = "cluster.json";

/// A local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    version: u32,
    /// In which pids are meant.
    boot: String,
    pub(crate) subnet: u8,
    pub(crate) node_count: u8,
    pub(crate) manager_count: u8,
    pub(crate) daemon_arguments: Vec<String>,
    /// Holds the switch's network.
    pub(crate) switch: Option<Process>,
    /// By number.
    pub(crate) nodes: BTreeMap<u8, Node>,
    pub(crate) cuts: BTreeMap<u8, Cut>,
}

/// A node's processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// Holds its namespaces.
    pub(crate) holder: Option<Process>,
    pub(crate) daemon: Option<Process>,
}

/// While it lives no other command changes a local cluster.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lifetime")] OwnedFd);

/// Waits until no other command changes a local cluster.
pub(crate) fn lock() -> anyhow::Result<Lock> {
    let take = || {
        fs::create_dir_all(layout::RUN_ROOT)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = open(layout::RUN_ROOT, flags, Mode::empty())?;
        flock(&dir, FlockOperation::LockExclusive)?;
        io::Result::Ok(Lock(dir))
    };
    take().with_context(|| format!("failed to lock `{}`", layout::RUN_ROOT))
}

/// The subnets other clusters have, running or not.
pub(crate) fn subnets() -> Vec<u8> {
    let dirs = fs::read_dir(layout::DATA_ROOT).into_iter().flatten();
    let names = dirs.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let states = names.filter_map(|name| State::read(&name).ok().flatten());
    states.map(|state| state.subnet).collect()
}

// === impl State ===

impl State {
    /// A cluster without processes.
    pub(crate) fn new(subnet: u8, node_count: u8, manager_count: u8) -> anyhow::Result<Self> {
        Ok(Self {
            version: VERSION,
            boot: boot_id().context("failed to identify this boot")?,
            subnet,
            node_count,
            manager_count,
            daemon_arguments: Vec::new(),
            switch: None,
            nodes: BTreeMap::new(),
            cuts: BTreeMap::new(),
        })
    }

    /// The cluster called `name`, if there is one. Processes of an earlier boot are forgotten.
    pub(crate) fn read(name: &str) -> anyhow::Result<Option<Self>> {
        let path = path(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read `{}`", path.display()));
            }
        };
        let mut state: Self = serde_json::from_str(&text)
            .with_context(|| format!("`{}` is not a cluster's state", path.display()))?;
        if state.version != VERSION {
            bail!("`{}` is of another version of skep", path.display());
        }
        let boot = boot_id().context("failed to identify this boot")?;
        if state.boot != boot {
            state.boot = boot;
            state.switch = None;
            state.nodes.clear();
            state.cuts.clear();
        }
        Ok(Some(state))
    }

    /// Writes it down.
    pub(crate) fn write(&self, name: &str) -> anyhow::Result<()> {
        let path = path(name);
        let fresh = path.with_extension("new");
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            let file = File::create(&fresh)?;
            serde_json::to_writer_pretty(&file, self)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        write().with_context(|| format!("failed to write `{}`", path.display()))
    }

    pub(crate) fn layout(&self, name: &str) -> Layout {
        Layout {
            name: name.to_owned(),
            subnet: self.subnet,
        }
    }

    /// The nodes' numbers.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.node_count
    }

    /// The number of the node called `name`.
    pub(crate) fn number_of(&self, name: &str) -> anyhow::Result<u8> {
        let found = self
            .numbers()
            .find(|number| layout::node_name(*number) == name);
        found.with_context(|| {
            format!(
                "there is no node `{name}`: nodes are node1 to node{}",
                self.node_count
            )
        })
    }

    /// A process that holds a node's namespaces.
    pub(crate) fn holder(&self, number: u8) -> Option<Process> {
        self.nodes.get(&number)?.holder.filter(Process::is_alive)
    }

    /// A node's running daemon.
    pub(crate) fn daemon(&self, number: u8) -> Option<Process> {
        self.nodes.get(&number)?.daemon.filter(Process::is_alive)
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(layout::DATA_ROOT).join(name).join(FILE)
}
