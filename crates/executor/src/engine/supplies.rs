//! Secrets and configs: what the node was given, and the files of the containers that use it.
//!
//! Kept in memory only. A container's files lie in a directory of its own on a file system in memory,
//! so that nothing of a secret ever reaches a disk, and are bind-mounted into the container without
//! write access. They live as long as the container, over restarts of the daemon.

use std::{
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
    Config, ConfigId, ConfigTarget, ContainerSpec, FileTarget, Redacted, Secret, SecretId,
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

/// One file to be made.
struct File<'a> {
    name: &'a str,
    data: Redacted<&'a [u8]>,
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
    ) -> Result<Vec<Mount>, SupplyError> {
        if spec.secrets.is_empty() && spec.configs.is_empty() {
            return Ok(Vec::new());
        }
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let files = held.files_of(spec)?;
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

// === impl Held ===

impl Held {
    fn files_of<'a>(&'a self, spec: &'a ContainerSpec) -> Result<Vec<File<'a>>, SupplyError> {
        let mut files = Vec::new();
        for reference in &spec.secrets {
            let Some(target) = &reference.file else {
                continue;
            };
            let id = reference.secret_id.parse().ok();
            let Some(secret) = id.and_then(|id: SecretId| self.secrets.get(&id)) else {
                let missing = SupplyError::NoSecret(reference.secret_id.clone());
                return Err(self.because(missing));
            };
            let drivers = [&secret.spec.driver, &secret.spec.templating];
            if let Some(driver) = drivers.into_iter().flatten().next() {
                return Err(SupplyError::Driver(
                    format!("secret {}", reference.secret_name),
                    driver.name.clone(),
                ));
            }
            files.push(File {
                name: &reference.secret_name,
                data: Redacted(&secret.spec.data.0),
                target,
                destination: destination(&target.name, SECRETS_DIR),
            });
        }
        for reference in &spec.configs {
            let Some(ConfigTarget::File(target)) = &reference.target else {
                continue;
            };
            let id = reference.config_id.parse().ok();
            let Some(config) = id.and_then(|id: ConfigId| self.configs.get(&id)) else {
                let missing = SupplyError::NoConfig(reference.config_id.clone());
                return Err(self.because(missing));
            };
            if let Some(driver) = &config.spec.templating {
                return Err(SupplyError::Driver(
                    format!("config {}", reference.config_name),
                    driver.name.clone(),
                ));
            }
            files.push(File {
                name: &reference.config_name,
                data: Redacted(&config.spec.data.0),
                target,
                destination: destination(&target.name, ""),
            });
        }
        Ok(files)
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
        options.open(path)?.write_all(self.data.0)?;
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

#[cfg(test)]
mod tests {
    use skep_model::{Meta, Rng, SecretReference, SecretSpec};

    use super::*;

    fn secret(rng: &mut Rng, name: &str, data: &[u8]) -> Arc<Secret> {
        let mut spec = SecretSpec {
            data: Redacted(data.to_vec()),
            ..SecretSpec::default()
        };
        name.clone_into(&mut spec.annotations.name);
        Arc::new(Secret {
            id: SecretId::random(rng),
            meta: Meta::default(),
            spec,
            is_internal: false,
        })
    }

    fn using(secret: &Secret, target: &str) -> ContainerSpec {
        ContainerSpec {
            secrets: vec![SecretReference {
                secret_id: secret.id.to_string(),
                secret_name: secret.name().to_owned(),
                file: Some(FileTarget {
                    name: target.to_owned(),
                    uid: "0".to_owned(),
                    gid: "0".to_owned(),
                    mode: 0o440,
                }),
            }],
            ..ContainerSpec::default()
        }
    }

    fn given(secrets: &[&Arc<Secret>], is_complete: bool) -> Given {
        Given {
            is_complete,
            secrets: secrets.iter().map(|secret| Arc::clone(secret)).collect(),
            ..Given::default()
        }
    }

    fn container(digit: char) -> ContainerId {
        let id: String = std::iter::repeat_n(digit, 64).collect();
        id.parse().unwrap()
    }

    #[test]
    fn files_lie_in_memory_as_long_as_their_container() {
        let dir = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
        let supplies = Supplies::open(dir.path()).unwrap();
        let secret = secret(&mut Rng::from_seed(1), "key", b"hidden");
        supplies.take(given(&[&secret], true));
        let id = container('a');
        let mounts = supplies.write(&id, &using(&secret, "key.pem")).unwrap();
        assert_eq!(mounts[0].destination, "/run/secrets/key.pem");
        assert!(mounts[0].is_readonly);
        let MountKind::Bind { source, .. } = &mounts[0].kind else {
            panic!("not a bind mount");
        };
        assert_eq!(fs::read(source).unwrap(), b"hidden");
        assert_eq!(
            fs::metadata(source).unwrap().permissions().mode() & 0o7777,
            0o440
        );
        supplies.remove(&id).unwrap();
        assert!(!source.exists());
        supplies.remove(&id).unwrap();
    }

    #[test]
    fn what_is_taken_away_is_not_given() {
        let dir = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
        let supplies = Supplies::open(dir.path()).unwrap();
        let mut rng = Rng::from_seed(2);
        let (one, two) = (secret(&mut rng, "one", b"1"), secret(&mut rng, "two", b"2"));
        let write = |secret: &Arc<Secret>| {
            let written = supplies.write(&container('b'), &using(secret, "/abs/path"));
            written
                .map(|mounts| mounts[0].destination.clone())
                .map_err(|error| error.to_string())
        };
        assert_eq!(write(&one), Err(SupplyError::NotYet.to_string()));
        supplies.take(given(&[&one, &two], true));
        assert_eq!(write(&one), Ok("/abs/path".to_owned()));
        supplies.take(Given {
            gone_secrets: vec![one.id],
            ..Given::default()
        });
        assert_eq!(
            write(&one),
            Err(SupplyError::NoSecret(one.id.to_string()).to_string())
        );
        assert!(write(&two).is_ok());
        supplies.take(given(&[], true));
        assert!(write(&two).is_err());
    }

    #[test]
    fn modes_are_gos() {
        assert_eq!(kernel_mode(0o444), 0o444);
        assert_eq!(kernel_mode(1 << 23 | 1 << 22 | 1 << 20 | 0o755), 0o7755);
    }
}
