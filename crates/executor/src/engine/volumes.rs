//! Volumes of a node: directories, what is mounted on them, and those of plugins.
//!
//! Layout: `<root>/<name>/volume.json` (the record), `_data` (what the local driver gives to
//! containers) and, where something is mounted for them, `holders/<container>` with the path each was
//! given. A holder is written before the mount and removed after its end, so that a crash loses none. A
//! directory without record is debris of a crash and is swept. Design: `docs/design/volumes.md`.

mod local;
mod mounting;
mod plugin;
mod record;
mod silence;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::join_all;
use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use self::plugin::PluginVolume;
pub(super) use self::record::{copy_owner, directory_bytes};
pub use self::{
    plugin::{Error as PluginError, Plugins},
    record::{LOCAL_DRIVER, Volume},
};

/// Why a volume operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be a file name. The text is Docker's.
    #[error(
        "create {0}: volume name is too short, names should be at least two alphanumeric \
         characters or contains invalid characters: only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
    )]
    Name(String),
    /// Options nobody could mount. The text is Docker's.
    #[error("create {0}: {1}")]
    Option(String, String),
    /// Another driver has one of that name. The text is Docker's.
    #[error("create {name}: driver {driver} already has volume {name}: volume name must be unique")]
    Conflict {
        /// Name of the volume.
        name: String,
        /// The driver that has it.
        driver: String,
    },
    /// No such volume. The text is Docker's.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// Containers use it. The text is Docker's.
    #[error("remove {0}: volume is in use - [{1}]")]
    InUse(String, String),
    /// What its options say cannot be mounted. The text begins as Docker's.
    #[error("error while mounting volume {name}: failed to mount local volume: {reason}")]
    Mount {
        /// Name of the volume.
        name: String,
        /// Why.
        reason: String,
    },
    /// Its plugin failed.
    #[error("{action} {name}: {error}")]
    Plugin {
        /// What was to be done.
        action: &'static str,
        /// Name of the volume.
        name: String,
        /// Why it was not.
        error: PluginError,
    },
    /// The file system failed.
    #[error("volume `{0}`: {1}")]
    Io(String, #[source] io::Error),
}

/// Fills an empty volume; says whether the image had anything for it.
pub(super) type Fill = Box<dyn FnOnce(&Path) -> io::Result<bool> + Send>;

/// A volume as it is now.
#[derive(Debug, Clone)]
pub struct VolumeView {
    /// What is known of it.
    pub volume: Volume,
    /// Where it is; empty: its plugin has it nowhere.
    pub mountpoint: String,
    /// What its plugin tells.
    pub status: Option<serde_json::Map<String, serde_json::Value>>,
}

/// All volumes of the node.
#[derive(Debug)]
pub struct Volumes {
    root: PathBuf,
    plugins: Plugins,
    /// Held while a volume comes, goes, is mounted or filled. A plugin may take minutes: one for each.
    locks: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Containers that have volumes or are being made with them.
    held: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

// === impl Volumes ===

impl Volumes {
    /// Opens the volumes below `root`.
    ///
    /// # Errors
    /// The directory cannot be read or made.
    pub fn open(root: &Path) -> io::Result<Self> {
        let held = record::sweep(root)?;
        Ok(Self {
            root: root.to_owned(),
            plugins: Plugins::default(),
            locks: Mutex::default(),
            held: Mutex::new(held),
        })
    }

    /// The plugins.
    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// Directory of a volume of the local driver.
    fn path(&self, name: &str) -> PathBuf {
        record::data_dir(&self.root, name)
    }

    /// The record of the volume called `name`.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    fn get(&self, name: &str) -> Result<Volume, Error> {
        record::read(&self.root, name)
    }

    /// The volume called `name`, which may be known to a plugin alone.
    ///
    /// # Errors
    /// There is none, or its plugin does not tell.
    pub async fn view(&self, name: &str) -> Result<VolumeView, Error> {
        let volume = match self.get(name) {
            Ok(volume) => volume,
            Err(Error::NotFound(_)) => return self.elsewhere(name).await,
            Err(error) => return Err(error),
        };
        if volume.is_local() {
            return Ok(self.local_view(volume));
        }
        let told = self.plugins.get(&volume.driver, name).await;
        let told = told.map_err(|error| plugin_error("get", name, error))?;
        Ok(VolumeView {
            volume,
            mountpoint: told.mountpoint,
            status: told.status,
        })
    }

    fn local_view(&self, volume: Volume) -> VolumeView {
        VolumeView {
            mountpoint: self.path(&volume.name).display().to_string(),
            volume,
            status: None,
        }
    }

    /// All volumes, by name, and what plugins did not tell. Unreadable ones are left out.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn list(&self) -> io::Result<(Vec<VolumeView>, Vec<String>)> {
        let mut views = BTreeMap::new();
        for volume in record::list(&self.root)? {
            let mut view = self.local_view(volume);
            if !view.volume.is_local() {
                view.mountpoint.clear();
            }
            views.insert(view.volume.name.clone(), view);
        }
        let recorded = views.values().map(|view| view.volume.driver.clone());
        let mut drivers: BTreeSet<String> = recorded.filter(|it| it != LOCAL_DRIVER).collect();
        drivers.extend(self.plugins.names().borrow().iter().cloned());
        let told = drivers
            .iter()
            .map(async |driver| (driver, self.plugins.list(driver).await));
        let mut warnings = Vec::new();
        for (driver, told) in join_all(told).await {
            match told {
                Ok(volumes) => {
                    for volume in volumes {
                        take_told(&mut views, driver, volume);
                    }
                }
                Err(error) => warnings.push(error.to_string()),
            }
        }
        Ok((views.into_values().collect(), warnings))
    }

    /// Makes a volume unless there is one; true when it was made.
    ///
    /// # Errors
    /// Name or options cannot be, another driver has it, or the driver failed.
    pub async fn create(&self, volume: &Volume) -> Result<bool, Error> {
        let name = &volume.name;
        record::check_name(name)?;
        let _lock = self.lock(name).await;
        match self.get(name) {
            Ok(existing) if existing.driver == volume.driver => return Ok(false),
            Ok(existing) => {
                return Err(Error::Conflict {
                    name: name.clone(),
                    driver: existing.driver,
                });
            }
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        if volume.is_local() {
            let checked = local::check(&volume.options);
            checked.map_err(|reason| Error::Option(name.clone(), reason))?;
        } else {
            let made = self
                .plugins
                .create(&volume.driver, name, &volume.options)
                .await;
            made.map_err(|error| plugin_error("create", name, error))?;
        }
        record::write(&self.root, volume).map_err(|error| Error::Io(name.clone(), error))?;
        Ok(true)
    }

    /// The driver of a volume that is asked for by name alone: that of the volume there is.
    pub(super) async fn driver_of(&self, name: &str) -> String {
        match self.get(name) {
            Ok(volume) => volume.driver,
            Err(_) => match self.elsewhere(name).await {
                Ok(view) => view.volume.driver,
                Err(_) => LOCAL_DRIVER.to_owned(),
            },
        }
    }

    /// Gives a volume to a container: mounts what has to be, and lets `fill` fill it if it is empty.
    ///
    /// # Errors
    /// The container has it not.
    pub(super) async fn hold(
        &self,
        name: &str,
        owner: &str,
        fill: Option<Fill>,
    ) -> Result<PathBuf, Error> {
        let _lock = self.lock(name).await;
        let volume = self.get(name)?;
        let has_others = {
            let mut held = self.held();
            let owners = held.entry(name.to_owned()).or_default();
            owners.insert(owner.to_owned());
            owners.len() > 1
        };
        let given = self.give(&volume, owner).await;
        let filled = match (given, fill) {
            (Ok(path), Some(fill)) => {
                let (at, is_staged) = (path.clone(), volume.is_plain() && !has_others);
                let work = move || record::fill_empty(&at, is_staged, fill);
                let filled = tokio::task::spawn_blocking(work).await;
                let filled = filled.unwrap_or_else(|error| Err(io::Error::other(error)));
                filled
                    .map(|()| path)
                    .map_err(|error| Error::Io(name.to_owned(), error))
            }
            (given, _) => given,
        };
        if filled.is_err() {
            // The container is not made; nothing of it shall keep the volume.
            self.take_back(name, owner).await;
        }
        filled
    }

    async fn give(&self, volume: &Volume, owner: &str) -> Result<PathBuf, Error> {
        let (name, data) = (&volume.name, self.path(&volume.name));
        if volume.is_plain() {
            return Ok(data);
        }
        let io_error = |error| Error::Io(name.clone(), error);
        if let Some(path) = record::held_at(&self.root, name, owner) {
            return Ok(path);
        }
        record::write_holder(&self.root, (name, owner), None).map_err(io_error)?;
        let path = if volume.is_local() {
            if !mounting::is_mounted(&data) {
                let mounted = mounting::mount_options(volume.options.clone(), data.clone()).await;
                mounted.map_err(|reason| Error::Mount {
                    name: name.clone(),
                    reason,
                })?;
            }
            data
        } else {
            let mounted = self.plugins.mount(&volume.driver, name, owner).await;
            mounted.map_err(|error| plugin_error("error while mounting volume", name, error))?
        };
        record::write_holder(&self.root, (name, owner), Some(&path)).map_err(io_error)?;
        Ok(path)
    }

    /// Takes all volumes back from a container; returns what went wrong, which keeps nobody.
    pub(super) async fn release(&self, owner: &str) -> Vec<String> {
        let names: Vec<String> = {
            let held = self.held();
            let own = held.iter().filter(|(_, owners)| owners.contains(owner));
            own.map(|(name, _)| name.clone()).collect()
        };
        let mut problems = Vec::new();
        for name in names {
            let _lock = self.lock(&name).await;
            problems.extend(self.take_back(&name, owner).await);
        }
        problems
    }

    /// With the volume's lock.
    async fn take_back(&self, name: &str, owner: &str) -> Option<String> {
        let has_others = {
            let mut held = self.held();
            let owners = held.entry(name.to_owned()).or_default();
            owners.remove(owner);
            let has_others = !owners.is_empty();
            if !has_others {
                held.remove(name);
            }
            has_others
        };
        let volume = self.get(name).ok()?;
        if volume.is_plain() {
            return None;
        }
        let problem = if !volume.is_local() {
            let unmounted = self.plugins.unmount(&volume.driver, name, owner).await;
            unmounted.err().map(|error| error.to_string())
        } else if has_others {
            None
        } else {
            mounting::unmount(&self.path(name))
                .err()
                .map(|error| error.to_string())
        };
        record::remove_holder(&self.root, name, owner);
        problem.map(|problem| format!("error while unmounting volume {name}: {problem}"))
    }

    /// Notes that a container that was found again has a volume.
    pub(super) fn adopt(&self, name: &str, owner: &str) {
        let mut held = self.held();
        let owners = held.entry(name.to_owned()).or_default();
        owners.insert(owner.to_owned());
    }

    /// All who have volumes.
    pub(super) fn holders(&self) -> BTreeSet<String> {
        self.held().values().flatten().cloned().collect()
    }

    /// Removes a volume no container has. `force`: even if its plugin fails.
    ///
    /// # Errors
    /// It is used, there is none, or it cannot be removed.
    pub async fn remove(&self, name: &str, force: bool) -> Result<(), Error> {
        let _lock = self.lock(name).await;
        let volume = match self.get(name) {
            Err(Error::NotFound(_)) => self.elsewhere(name).await?.volume,
            found => found?,
        };
        if let Some(owners) = self.held().get(name) {
            let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
            return Err(Error::InUse(name.to_owned(), owners.join(", ")));
        }
        if !volume.is_local() {
            match self.plugins.remove(&volume.driver, name).await {
                Err(error) if !force => return Err(plugin_error("remove", name, error)),
                Ok(()) | Err(_) => {}
            }
        }
        let removed = record::remove(&self.root, &volume);
        removed.map_err(|error| Error::Io(name.to_owned(), error))
    }

    /// Bytes of all files of a volume; `None` where others than this node would have to be asked.
    pub fn size_bytes(&self, name: &str) -> Option<u64> {
        let volume = self.get(name).ok()?;
        volume.is_plain().then(|| directory_bytes(&self.path(name)))
    }

    /// A volume that a plugin has and that was not made here.
    async fn elsewhere(&self, name: &str) -> Result<VolumeView, Error> {
        let drivers: Vec<String> = self.plugins.names().borrow().iter().cloned().collect();
        let asked = drivers.iter().map(async |driver| {
            let told = self.plugins.look_for(driver, name).await;
            if let Err(error @ PluginError::Timeout { .. }) = &told {
                warn!(volume = name, %error, "A plugin did not say whether it has a volume");
            }
            let told = told.ok()?;
            (told.name == name).then(|| view_of(driver, told))
        });
        let found = join_all(asked).await.into_iter().flatten().next();
        found.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    async fn lock(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(name.to_owned()).or_default())
        };
        lock.lock_owned().await
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds what a plugin tells of a volume.
fn take_told(views: &mut BTreeMap<String, VolumeView>, driver: &str, told: PluginVolume) {
    match views.get_mut(&told.name) {
        Some(view) if view.volume.driver == driver => {
            (view.mountpoint, view.status) = (told.mountpoint, told.status);
        }
        // A local one of the same name is what the name stands for.
        Some(_) => {}
        None => {
            views.insert(told.name.clone(), view_of(driver, told));
        }
    }
}

fn view_of(driver: &str, told: PluginVolume) -> VolumeView {
    let created_at = told.created_at.parse::<jiff::Timestamp>();
    let created_at_ns = created_at.map_or(0, |time| {
        i64::try_from(time.as_nanosecond()).unwrap_or_default()
    });
    VolumeView {
        volume: Volume {
            name: told.name,
            driver: driver.to_owned(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            created_at_ns,
            is_anonymous: false,
        },
        mountpoint: told.mountpoint,
        status: told.status,
    }
}

fn plugin_error(action: &'static str, name: &str, error: PluginError) -> Error {
    Error::Plugin {
        action,
        name: name.to_owned(),
        error,
    }
}
