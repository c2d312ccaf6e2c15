//! The worker's database: its tasks and their statuses, so that a restarted daemon resumes them
//! before it has spoken to any manager.
//!
//! One redb file with the tables `meta` (format version), `tasks` and `statuses` (task id → SwarmKit's
//! messages, `skep_wire::record`) and `removals` (ids whose removal began). A record that cannot be
//! read is dropped and named in [`Loaded::damaged`]: if its task is still assigned the next complete
//! set brings it back and its container is adopted, else the container is swept as an orphan.
//! Design: `docs/design/agent.md`.

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr as _,
    sync::Arc,
};

use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _,
    StorageError, TableDefinition, WriteTransaction,
};
use skep_model::{TaskId, TaskStatus};
use skep_wire::{SpecCache, record};

use crate::{
    core::{Change, StoredTask},
    error_chain::chain,
};

#[cfg(test)]
mod tests;

/// Version of the tables and their values. A file with a higher one is refused.
const FORMAT_VERSION: u64 = 1;

/// Memory redb may keep pages in. A node has hundreds of records of about 1 KiB, read once at start.
const CACHE_BYTES: usize = 1024 * 1024;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");
const STATUSES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("statuses");
const REMOVALS: TableDefinition<'_, &str, ()> = TableDefinition::new("removals");

/// Why the database could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon uses the data directory.
    #[error("`{0}` is in use by another process")]
    InUse(PathBuf),
    /// A later version of Skep wrote the file.
    #[error("worker database has format {found}, newest known is {FORMAT_VERSION}")]
    TooNew {
        /// Format of the file.
        found: u64,
    },
    /// A damaged file could not be moved away.
    #[error("failed to move the damaged worker database to `{path}`")]
    Quarantine {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk or the database engine failed.
    #[error("worker database failed")]
    Engine(#[source] Box<redb::Error>),
}

impl<E: Into<redb::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Engine(Box::new(error.into()))
    }
}

/// What an earlier run left.
#[derive(Debug, Default, PartialEq)]
pub struct Loaded {
    /// Its tasks, by id.
    pub tasks: Vec<StoredTask>,
    /// Keys of records that could not be read and were dropped, with the reason.
    pub damaged: Vec<(String, String)>,
}

/// The open database. One process at a time; the file is locked.
#[derive(Debug)]
pub struct Db {
    database: Database,
    quarantined: Option<PathBuf>,
}

// === impl Db ===

impl Db {
    /// Opens the file or makes it. A file damaged as a whole is moved to `<path>.damaged` and
    /// replaced by an empty one (see [`Self::quarantined`]): tasks are assigned anew and adopted.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let error = match builder().create(path) {
            Ok(database) => return Self::prepare(database),
            Err(error) => error,
        };
        match error {
            DatabaseError::DatabaseAlreadyOpen => Err(Error::InUse(path.to_owned())),
            DatabaseError::Storage(error) if is_damage(&error) => {
                let mut aside = path.as_os_str().to_owned();
                aside.push(".damaged");
                let aside = PathBuf::from(aside);
                std::fs::rename(path, &aside).map_err(|source| Error::Quarantine {
                    path: aside.clone(),
                    source,
                })?;
                let db = Self::prepare(builder().create(path)?)?;
                Ok(Self {
                    quarantined: Some(aside),
                    ..db
                })
            }
            error => Err(error.into()),
        }
    }

    /// Where [`Self::open`] moved a damaged file, if it did.
    pub fn quarantined(&self) -> Option<&Path> {
        self.quarantined.as_deref()
    }

    fn prepare(database: Database) -> Result<Self, Error> {
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("format")?.map(|value| value.value());
            match found {
                Some(found) if found > FORMAT_VERSION => return Err(Error::TooNew { found }),
                Some(_) => {}
                None => {
                    meta.insert("format", FORMAT_VERSION)?;
                }
            }
            transaction.open_table(TASKS)?;
            transaction.open_table(STATUSES)?;
            transaction.open_table(REMOVALS)?;
        }
        transaction.commit()?;
        Ok(Self {
            database,
            quarantined: None,
        })
    }

    /// Reads all tasks; drops records that cannot be read.
    pub fn load(&self) -> Result<Loaded, Error> {
        let mut loaded = Loaded::default();
        let mut cache = SpecCache::default();
        {
            let transaction = self.database.begin_read()?;
            let tasks = transaction.open_table(TASKS)?;
            let statuses = transaction.open_table(STATUSES)?;
            let removals = transaction.open_table(REMOVALS)?;
            for entry in tasks.iter()? {
                let (key, value) = entry?;
                let key = key.value();
                let status = statuses.get(key)?;
                let status = status.as_ref().map(|value| value.value());
                match decode(key, value.value(), status, &mut cache) {
                    Ok(mut task) => {
                        task.is_assigned = removals.get(key)?.is_none();
                        loaded.tasks.push(task);
                    }
                    Err(reason) => loaded.damaged.push((key.to_owned(), reason)),
                }
            }
        }
        if !loaded.damaged.is_empty() {
            let transaction = self.database.begin_write()?;
            for (key, _) in &loaded.damaged {
                forget(&transaction, key)?;
            }
            transaction.commit()?;
        }
        Ok(loaded)
    }

    /// Stores changes as one. Durable on return, except that statuses of tasks that have not ended
    /// may still be lost in a crash: such a task resumes from an earlier state, repeats idempotent
    /// operations and arrives at the same one.
    pub fn apply(&self, changes: &[Change]) -> Result<(), Error> {
        let mut transaction = self.database.begin_write()?;
        if !changes.iter().any(must_be_durable) {
            transaction.set_durability(Durability::None)?;
        }
        for change in changes {
            match change {
                Change::Task(task) => {
                    let bytes = record::encode_task(task);
                    transaction
                        .open_table(TASKS)?
                        .insert(task.id.as_str(), bytes.as_slice())?;
                }
                Change::Status(id, status) => {
                    let bytes = record::encode_task_status(status);
                    transaction
                        .open_table(STATUSES)?
                        .insert(id.as_str(), bytes.as_slice())?;
                }
                Change::Unassign(id) => {
                    transaction.open_table(REMOVALS)?.insert(id.as_str(), ())?;
                }
                Change::Forget(id) => forget(&transaction, id.as_str())?,
            }
        }
        Ok(transaction.commit()?)
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn is_damage(error: &StorageError) -> bool {
    match error {
        StorageError::Corrupted(_) => true,
        // A file that is not redb's at all.
        StorageError::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

fn must_be_durable(change: &Change) -> bool {
    match change {
        Change::Task(_) | Change::Unassign(_) | Change::Forget(_) => true,
        Change::Status(_, status) => status.state.is_terminal(),
    }
}

fn forget(transaction: &WriteTransaction, key: &str) -> Result<(), Error> {
    transaction.open_table(TASKS)?.remove(key)?;
    transaction.open_table(STATUSES)?.remove(key)?;
    transaction.open_table(REMOVALS)?.remove(key)?;
    Ok(())
}

fn decode(
    key: &str,
    task: &[u8],
    status: Option<&[u8]>,
    cache: &mut SpecCache,
) -> Result<StoredTask, String> {
    let id = TaskId::from_str(key).map_err(|error| error.to_string())?;
    let task = record::decode_task(task, cache).map_err(|error| chain(&error))?;
    if task.id != id {
        return Err(format!("record is of task `{}`", task.id));
    }
    let status: TaskStatus = match status {
        Some(bytes) => record::decode_task_status(bytes).map_err(|error| chain(&error))?,
        None => task.status.clone(),
    };
    Ok(StoredTask {
        task: Arc::new(task),
        status,
        is_assigned: true,
    })
}
