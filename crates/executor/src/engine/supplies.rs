//! Secrets and configs: what the node was given, and the files of the containers that use it.
//!
//! Kept in memory only. A container's files lie in a directory of its own on a file system in memory,
//! so that nothing of a secret ever reaches a disk, and are bind-mounted into the container without
//! write access. They live as long as the container, over restarts of the daemon.

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustix::{
    fs::statfs,
    mount::{MountFlags, mount},
};
use skep_agent::exec::Supplies as Given;
use skep_model::{
    Config, ConfigId, ConfigReference, ConfigTarget, ContainerSpec, Driver, FileTarget, Redacted,
    Secret, SecretId, SecretReference,
    template::{self, Context, Payload, Template},
};

use crate::runtime::{
    ContainerId,
    config::{Mount, MountKind, Propagation},
};

/// Where secrets with a relative name appear.
const SECRETS_DIR: &str = "/run/secrets";
/// `f_type` of a file system in memory (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// Go's `os.FileMode` keeps these bits elsewhere than the kernel.
const GO_MODES: [(u32, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];

/// Why a container cannot have its secrets and configs.
#[derive(Debug, thiserror::Error)]
pub enum SupplyError {
    /// The manager has not said yet what this node may use.
    #[error("this node waits for the secrets and configs of its tasks")]
    NotYet,
    /// It is not there (any more). Docker's text.
    #[error("unable to get secret from secret store: secret {0} not found")]
    NoSecret(String),
    /// It is not there (any more). Docker's text.
    #[error("unable to get config from config store: config {0} not found")]
    NoConfig(String),
    /// The node cannot do what its driver stands for.
    #[error("{0} needs driver `{1}`, which this node does not have")]
    Driver(String, String),
    /// Its template fails.
    #[error("failed to expand templated {kind} {name}: {error}")]
    Template {
        /// `secret` or `config`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        error: Box<template::Error>,
    },
    /// An owner that is no number.
    #[error("file of {0}: `{1}` is not a numeric user or group id")]
    Owner(String, String),
    /// The file system failed.
    #[error("failed to write secrets and configs: {0}")]
    Files(#[from] io::Error),
}

/// Secrets and configs of a node.
#[derive(Debug)]
pub(super) struct Supplies {
    dir: PathBuf,
    held: RwLock<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// A manager has given the whole set since the daemon started.
    is_known: bool,
    secrets: BTreeMap<SecretId, Arc<Secret>>,
    configs: BTreeMap<ConfigId, Arc<Config>>,
}

/// What a container's secrets and configs may ask for.
struct Asked<'a> {
    held: &'a Held,
    spec: &'a ContainerSpec,
    context: &'a Context,
}

/// One file to be made.
struct File<'a> {
    name: &'a str,
    data: Redacted<Cow<'a, [u8]>>,
    target: &'a FileTarget,
    destination: String,
}

// === impl Supplies ===

impl Supplies {
    /// Nothing yet. Files go below `dir`, where a file system in memory is mounted unless there is one.
    ///
    /// # Errors
    /// The directory cannot be made or mounted.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        if statfs(dir)?.f_type != TMPFS_MAGIC {
            let flags = MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOSUID;
            mount("tmpfs", dir, "tmpfs", flags, Some(c"mode=0700"))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            held: RwLock::default(),
        })
    }

    /// Takes what a manager gives and takes away.
    pub(super) fn take(&self, given: Given) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if given.is_complete {
            *held = Held {
                is_known: true,
                ..Held::default()
            };
        }
        for id in given.gone_secrets {
            held.secrets.remove(&id);
        }
        for id in given.gone_configs {
            held.configs.remove(&id);
        }
        let secrets = given.secrets.into_iter();
        held.secrets
            .extend(secrets.map(|secret| (secret.id, secret)));
        let configs = given.configs.into_iter();
        held.configs
            .extend(configs.map(|config| (config.id, config)));
    }

    /// Writes the files of a container and returns the mounts that show them. Blocking, and done within
    /// microseconds: it is memory.
    ///
    /// # Errors
    /// Something is not there, or cannot be written. Files may be left; see [`Self::remove`].
    pub(super) fn write(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
        context: &Context,
    ) -> Result<Vec<Mount>, SupplyError> {
        if spec.secrets.is_empty() && spec.configs.is_empty() {
            return Ok(Vec::new());
        }
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let asked = Asked {
            held: &held,
            spec,
            context,
        };
        let files = asked.files()?;
        let dir = self.dir.join(id.as_str());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)?;
        let mut mounts = Vec::with_capacity(files.len());
        for (number, file) in files.into_iter().enumerate() {
            let source = dir.join(number.to_string());
            file.write(&source)?;
            mounts.push(Mount {
                destination: file.destination,
                is_readonly: true,
                kind: MountKind::Bind {
                    source,
                    propagation: Propagation::Rprivate,
                    is_recursive: true,
                    is_readonly_below: false,
                    subpath: String::new(),
                },
            });
        }
        Ok(mounts)
    }

    /// Removes the files of a container, if it has any.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub(super) fn remove(&self, id: &ContainerId) -> io::Result<()> {
        match fs::remove_dir_all(self.dir.join(id.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

// === impl Asked ===

impl<'a> Asked<'a> {
    fn files(&self) -> Result<Vec<File<'a>>, SupplyError> {
        let mut files = Vec::new();
        for reference in &self.spec.secrets {
            let Some(target) = &reference.file else {
                continue;
            };
            let secret = self.held.secret(reference)?;
            let name = &reference.secret_name;
            if let Some(driver) = &secret.spec.driver {
                let driver = driver.name.clone();
                return Err(SupplyError::Driver(format!("secret {name}"), driver));
            }
            let (data, driver) = (&secret.spec.data.0, secret.spec.templating.as_ref());
            files.push(File {
                name,
                data: Redacted(self.expanded(data, driver, ("secret", name))?),
                target,
                destination: destination(&target.name, SECRETS_DIR),
            });
        }
        for reference in &self.spec.configs {
            let Some(ConfigTarget::File(target)) = &reference.target else {
                continue;
            };
            let config = self.held.config(reference)?;
            let name = &reference.config_name;
            let (data, driver) = (&config.spec.data.0, config.spec.templating.as_ref());
            files.push(File {
                name,
                data: Redacted(self.expanded(data, driver, ("config", name))?),
                target,
                destination: destination(&target.name, ""),
            });
        }
        Ok(files)
    }

    fn expanded(
        &self,
        data: &'a [u8],
        driver: Option<&Driver>,
        (kind, name): (&'static str, &str),
    ) -> Result<Cow<'a, [u8]>, SupplyError> {
        let Some(driver) = driver else {
            return Ok(Cow::Borrowed(data));
        };
        if driver.name != template::DRIVER {
            let driver = driver.name.clone();
            return Err(SupplyError::Driver(format!("{kind} {name}"), driver));
        }
        let template = Template::parse_payload(data);
        let expanded = template.and_then(|template| template.expand_payload(self.context, self));
        let failed = |error| SupplyError::Template {
            kind,
            name: name.to_owned(),
            error: Box::new(error),
        };
        expanded.map(Cow::Owned).map_err(failed)
    }
}

/// Others are given as they are stored, whatever they are: templates do not go round in circles.
impl Payload for Asked<'_> {
    fn secret(&self, target: &str) -> Result<Vec<u8>, String> {
        let is_asked = |reference: &&SecretReference| {
            let file = reference.file.as_ref();
            file.is_some_and(|file| file.name == target)
        };
        let reference = self.spec.secrets.iter().find(is_asked);
        let reference = reference.ok_or_else(|| format!("secret target {target} not found"))?;
        let secret = self.held.secret(reference);
        Ok(secret
            .map_err(|error| error.to_string())?
            .spec
            .data
            .0
            .clone())
    }

    fn config(&self, target: &str) -> Result<Vec<u8>, String> {
        let is_asked = |reference: &&ConfigReference| matches!(&reference.target, Some(ConfigTarget::File(file)) if file.name == target);
        let reference = self.spec.configs.iter().find(is_asked);
        let reference = reference.ok_or_else(|| format!("config target {target} not found"))?;
        let config = self.held.config(reference);
        Ok(config
            .map_err(|error| error.to_string())?
            .spec
            .data
            .0
            .clone())
    }

    fn env(&self, name: &str) -> Result<Vec<u8>, String> {
        let entries = self
            .spec
            .env
            .iter()
            .filter_map(|entry| entry.split_once('='));
        let mut values = entries.filter(|(known, _)| *known == name);
        Ok(values
            .next()
            .map_or(Vec::new(), |(_, value)| value.as_bytes().to_vec()))
    }
}

// === impl SupplyError ===

impl SupplyError {
    /// Whether it may pass once a manager has told this node more.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::NotYet => true,
            Self::Template { error, .. } => **error == template::Error::NodeLabelsUntold,
            Self::NoSecret(_)
            | Self::NoConfig(_)
            | Self::Driver(..)
            | Self::Owner(..)
            | Self::Files(_) => false,
        }
    }
}

// === impl Held ===

impl Held {
    fn secret(&self, reference: &SecretReference) -> Result<&Secret, SupplyError> {
        let id = reference.secret_id.parse().ok();
        let secret = id.and_then(|id: SecretId| self.secrets.get(&id));
        let missing = || SupplyError::NoSecret(reference.secret_id.clone());
        Ok(secret.ok_or_else(|| self.because(missing()))?)
    }

    fn config(&self, reference: &ConfigReference) -> Result<&Config, SupplyError> {
        let id = reference.config_id.parse().ok();
        let config = id.and_then(|id: ConfigId| self.configs.get(&id));
        let missing = || SupplyError::NoConfig(reference.config_id.clone());
        Ok(config.ok_or_else(|| self.because(missing()))?)
    }

    /// What is missing may be on its way as long as no manager has been heard.
    fn because(&self, missing: SupplyError) -> SupplyError {
        if self.is_known {
            missing
        } else {
            SupplyError::NotYet
        }
    }
}

// === impl File ===

impl File<'_> {
    fn write(&self, path: &Path) -> Result<(), SupplyError> {
        let owner = |text: &str| {
            let id = text.parse::<u32>();
            id.map_err(|_| SupplyError::Owner(self.name.to_owned(), text.to_owned()))
        };
        let (uid, gid) = (owner(&self.target.uid)?, owner(&self.target.gid)?);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(path)?.write_all(&self.data.0)?;
        chown(path, Some(uid), Some(gid))?;
        // Last, because a change of owner takes set-id bits away.
        let mode = fs::Permissions::from_mode(kernel_mode(self.target.mode));
        Ok(fs::set_permissions(path, mode)?)
    }
}

fn destination(name: &str, dir: &str) -> String {
    if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}

fn kernel_mode(go: u32) -> u32 {
    let special = GO_MODES.iter().filter(|(bit, _)| go & bit != 0);
    special.fold(go & 0o777, |mode, (_, bit)| mode | bit)
}
