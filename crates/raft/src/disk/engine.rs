//! redb, reduced to two tables and to errors of ours. After a failed operation the database is dropped and opened again by
//! the next one, which rolls back: redb itself refuses to go on after an IO error.

use std::{
    fmt, fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Builder, Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable, StorageBackend, Table,
    TableDefinition, WriteTransaction,
};

use super::records::{FORMAT_VERSION, Meta, Records, check_format};
use crate::storage::DiskError;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Memory for pages. The log is read only when starting, so little helps.
const CACHE_BYTES: usize = 16 << 20;
/// Length of redb's magic number.
const MAGIC_BYTES: usize = 9;

/// The database file, open or to be opened.
#[derive(Debug)]
pub(super) struct Engine {
    source: Source,
    database: Option<Database>,
}

enum Source {
    File(PathBuf),
    Backend(Arc<dyn StorageBackend>),
}

/// Both tables, in a transaction.
pub(super) struct Tables<L, M> {
    log: L,
    meta: M,
}

pub(super) type ReadTables =
    Tables<ReadOnlyTable<u64, &'static [u8]>, ReadOnlyTable<&'static str, &'static [u8]>>;
pub(super) type WriteTables<'t> =
    Tables<Table<'t, u64, &'static [u8]>, Table<'t, &'static str, &'static [u8]>>;

// === impl Engine ===

impl Engine {
    pub(super) fn file(path: PathBuf) -> Self {
        Self {
            source: Source::File(path),
            database: None,
        }
    }

    pub(super) fn backend(backend: impl StorageBackend) -> Self {
        Self {
            source: Source::Backend(Arc::new(backend)),
            database: None,
        }
    }

    /// Creates the database if there is none, or checks version and key of an existing one.
    pub(super) fn prepare(&mut self, records: &Records) -> Result<(), DiskError> {
        if let Source::File(path) = &self.source
            && !path.try_exists().map_err(io_error)?
        {
            // Creating is not atomic in redb, so the file gets its name when it is complete.
            let unfinished = path.with_extension("new");
            remove_if_exists(&unfinished).map_err(io_error)?;
            let database = builder().create(&unfinished).map_err(engine_error)?;
            let mut engine = Self {
                source: Source::File(unfinished.clone()),
                database: Some(database),
            };
            engine.check(records)?;
            drop(engine);
            rename_durably(&unfinished, path).map_err(io_error)?;
        }
        if let Source::Backend(backend) = &self.source {
            discard_unfinished(backend.as_ref()).map_err(io_error)?;
        }
        self.check(records)
    }

    /// Marks a new database with version and key, or checks those of an existing one.
    fn check(&mut self, records: &Records) -> Result<(), DiskError> {
        self.write(|tables| match tables.meta(Meta::Format)? {
            None => {
                tables.put_meta(Meta::Format, &FORMAT_VERSION.to_be_bytes())?;
                tables.put_meta(Meta::Probe, &records.seal_probe())
            }
            Some(version) => {
                let corrupt = || DiskError::Corrupt("meta/format".to_owned());
                let version = <[u8; 4]>::try_from(version).map_err(|_| corrupt())?;
                check_format(u32::from_be_bytes(version))?;
                match tables.meta(Meta::Probe)? {
                    Some(probe) if records.opens_probe(&probe) => Ok(()),
                    Some(_) | None => Err(DiskError::WrongKey),
                }
            }
        })
    }

    pub(super) fn read<T>(
        &mut self,
        read: impl FnOnce(&ReadTables) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let database = self.database()?;
        let result = (|| {
            let transaction = database.begin_read().map_err(engine_error)?;
            let log = transaction.open_table(LOG).map_err(engine_error)?;
            let meta = transaction.open_table(META).map_err(engine_error)?;
            read(&Tables { log, meta })
        })();
        self.settle(result)
    }

    /// One durable transaction; nothing is changed if `write` or the disk fails.
    pub(super) fn write(
        &mut self,
        write: impl FnOnce(&mut WriteTables<'_>) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let database = self.database()?;
        let result = (|| {
            let transaction: WriteTransaction = database.begin_write().map_err(engine_error)?;
            {
                let log = transaction.open_table(LOG).map_err(engine_error)?;
                let meta = transaction.open_table(META).map_err(engine_error)?;
                write(&mut Tables { log, meta })?;
            }
            transaction.commit().map_err(engine_error)
        })();
        self.settle(result)
    }

    fn database(&mut self) -> Result<&Database, DiskError> {
        if self.database.is_none() {
            let opened = match &self.source {
                Source::File(path) => builder().open(path),
                Source::Backend(backend) => {
                    builder().create_with_backend(Shared(Arc::clone(backend)))
                }
            };
            self.database = Some(opened.map_err(engine_error)?);
        }
        Ok(self
            .database
            .as_ref()
            .expect("the database was just opened"))
    }

    fn settle<T>(&mut self, result: Result<T, DiskError>) -> Result<T, DiskError> {
        if result.is_err() {
            self.database = None;
        }
        result
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// redb writes its magic number last when it creates a database: without it there never was one.
fn discard_unfinished(backend: &dyn StorageBackend) -> io::Result<()> {
    let mut magic = [0; MAGIC_BYTES];
    let length = backend.len()?;
    let present = magic
        .len()
        .min(usize::try_from(length).unwrap_or(usize::MAX));
    backend.read(0, &mut magic[..present])?;
    if length > 0 && magic == [0; MAGIC_BYTES] {
        backend.set_len(0)?;
    }
    Ok(())
}

fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    to.parent()
        .map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Backend(backend) => write!(f, "Backend({backend:?})"),
        }
    }
}

// === impl Tables ===

impl<L, M> Tables<L, M>
where
    L: ReadableTable<u64, &'static [u8]>,
    M: ReadableTable<&'static str, &'static [u8]>,
{
    pub(super) fn meta(&self, meta: Meta) -> Result<Option<Vec<u8>>, DiskError> {
        let value = self.meta.get(meta.key()).map_err(engine_error)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    pub(super) fn last_index(&self) -> Result<Option<u64>, DiskError> {
        Ok(self
            .log
            .last()
            .map_err(engine_error)?
            .map(|(index, _)| index.value()))
    }

    pub(super) fn for_each_entry(
        &self,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        for item in self.log.iter().map_err(engine_error)? {
            let (index, sealed) = item.map_err(engine_error)?;
            visit(index.value(), sealed.value())?;
        }
        Ok(())
    }
}

impl WriteTables<'_> {
    pub(super) fn put_meta(&mut self, meta: Meta, value: &[u8]) -> Result<(), DiskError> {
        self.meta.insert(meta.key(), value).map_err(engine_error)?;
        Ok(())
    }

    pub(super) fn put_entry(&mut self, index: u64, sealed: &[u8]) -> Result<(), DiskError> {
        self.log.insert(index, sealed).map_err(engine_error)?;
        Ok(())
    }

    pub(super) fn remove_entries(&mut self, range: RangeInclusive<u64>) -> Result<(), DiskError> {
        self.log
            .retain_in(range, |_, _| false)
            .map_err(engine_error)
    }
}

/// A backend that can be given to redb again after a failure.
#[derive(Debug)]
struct Shared(Arc<dyn StorageBackend>);

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

pub(super) fn io_error(error: io::Error) -> DiskError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::Full(error),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            DiskError::Damaged(Box::new(error))
        }
        _ => DiskError::Io(error),
    }
}

fn engine_error(error: impl Into<redb::Error>) -> DiskError {
    match error.into() {
        redb::Error::Io(error) => io_error(error),
        redb::Error::DatabaseAlreadyOpen => DiskError::Locked,
        error @ redb::Error::Corrupted(_) => DiskError::Damaged(Box::new(error)),
        error => DiskError::Engine(Box::new(error)),
    }
}
