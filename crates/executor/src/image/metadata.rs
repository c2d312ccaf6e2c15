//! Which images exist, what they are called and who uses them, in redb.
//!
//! This is the only place that makes an image exist: files come first, then one transaction here.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use redb::{Database, ReadableDatabase as _, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{Digest, Error, ImageId, Reference, error::Result};

/// `format` → version of everything here and of the directory layout.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Image id → JSON of [`ImageRecord`].
const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");
/// Canonical reference → image id.
const REFERENCES: TableDefinition<'_, &str, &str> = TableDefinition::new("references");
/// Owner → JSON of [`Lease`].
const LEASES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("leases");

const FORMAT: u64 = 1;

/// An image that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Bottom first.
    pub(crate) diff_ids: Vec<Digest>,
    /// Sum of the layers' file sizes.
    pub(crate) size_bytes: u64,
    /// Nanoseconds since 1970 of the last tag.
    #[serde(default)]
    pub(crate) last_tagged_ns: Option<i64>,
}

/// A container's use of an image. It names the layers itself, since the image may be removed by force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) image: ImageId,
    pub(crate) diff_ids: Vec<Digest>,
}

/// What must not be collected.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) configs: BTreeSet<Digest>,
    pub(crate) layers: BTreeSet<Digest>,
}

/// A consistent copy of all metadata; a node has hundreds of images, not millions.
#[derive(Debug, Default, Clone)]
pub(crate) struct Snapshot {
    pub(crate) images: BTreeMap<ImageId, ImageRecord>,
    /// Canonical reference → image.
    pub(crate) references: BTreeMap<String, ImageId>,
    /// Owner → lease.
    pub(crate) leases: BTreeMap<String, Lease>,
}

/// The database.
#[derive(Debug)]
pub(crate) struct Metadata {
    database: Database,
}

// === impl Metadata ===

impl Metadata {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let database = Database::create(path)?;
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("format")?.map(|value| value.value());
            match found {
                None => {
                    meta.insert("format", FORMAT)?;
                }
                Some(FORMAT) => {}
                Some(found) => {
                    return Err(Error::Format {
                        found,
                        known: FORMAT,
                    });
                }
            }
            transaction.open_table(IMAGES)?;
            transaction.open_table(REFERENCES)?;
            transaction.open_table(LEASES)?;
        }
        transaction.commit()?;
        Ok(Self { database })
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        let transaction = self.database.begin_read()?;
        let mut snapshot = Snapshot::default();
        for row in transaction.open_table(IMAGES)?.iter()? {
            let (id, record) = row?;
            snapshot
                .images
                .insert(id.value().parse()?, decode(record.value())?);
        }
        for row in transaction.open_table(REFERENCES)?.iter()? {
            let (reference, id) = row?;
            snapshot
                .references
                .insert(reference.value().to_owned(), id.value().parse()?);
        }
        for row in transaction.open_table(LEASES)?.iter()? {
            let (owner, lease) = row?;
            snapshot
                .leases
                .insert(owner.value().to_owned(), decode(lease.value())?);
        }
        Ok(snapshot)
    }

    /// Makes an image exist and gives it names. Returns who had the names before.
    pub(crate) fn register(
        &self,
        id: ImageId,
        record: &ImageRecord,
        references: &[Reference],
        now_ns: i64,
    ) -> Result<Vec<Option<ImageId>>> {
        let transaction = self.database.begin_write()?;
        let mut before = Vec::new();
        {
            let mut images = transaction.open_table(IMAGES)?;
            let known = images
                .get(id.to_string().as_str())?
                .map(|row| decode(row.value()))
                .transpose()?;
            let mut record: ImageRecord = known.unwrap_or_else(|| record.clone());
            let mut table = transaction.open_table(REFERENCES)?;
            for reference in references {
                let key = reference.to_string();
                let old = table.insert(key.as_str(), id.to_string().as_str())?;
                before.push(old.map(|old| old.value().parse()).transpose()?);
            }
            if references.iter().any(|r| r.tag().is_some()) {
                record.last_tagged_ns = Some(now_ns);
            }
            images.insert(id.to_string().as_str(), encode(&record)?.as_slice())?;
        }
        transaction.commit()?;
        Ok(before)
    }

    /// Gives an existing image a name.
    pub(crate) fn tag(&self, id: ImageId, reference: &Reference, now_ns: i64) -> Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut images = transaction.open_table(IMAGES)?;
            let mut record = require_image(&images, id)?;
            record.last_tagged_ns = Some(now_ns);
            images.insert(id.to_string().as_str(), encode(&record)?.as_slice())?;
            transaction
                .open_table(REFERENCES)?
                .insert(reference.to_string().as_str(), id.to_string().as_str())?;
        }
        Ok(transaction.commit()?)
    }

    /// Takes names away and, with `image`, the image itself.
    pub(crate) fn remove(&self, references: &[String], image: Option<ImageId>) -> Result<()> {
        let transaction = self.database.begin_write()?;
        remove_rows(&transaction, references, image)?;
        Ok(transaction.commit()?)
    }

    /// Records that `owner` uses an existing image. Idempotent; replaces the owner's earlier lease.
    pub(crate) fn lease(&self, owner: &str, image: ImageId) -> Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let record = require_image(&transaction.open_table(IMAGES)?, image)?;
            let lease = Lease {
                image,
                diff_ids: record.diff_ids,
            };
            transaction
                .open_table(LEASES)?
                .insert(owner, encode(&lease)?.as_slice())?;
        }
        Ok(transaction.commit()?)
    }

    /// Ends the lease of `owner`; tells whether there was one.
    pub(crate) fn release(&self, owner: &str) -> Result<bool> {
        let transaction = self.database.begin_write()?;
        let had_lease = transaction.open_table(LEASES)?.remove(owner)?.is_some();
        transaction.commit()?;
        Ok(had_lease)
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// The names of an image, sorted.
    pub(crate) fn references_of(&self, id: ImageId) -> Vec<Reference> {
        let named = self.references.iter().filter(|(_, image)| **image == id);
        named.filter_map(|(text, _)| text.parse().ok()).collect()
    }

    /// Owners that use an image.
    pub(crate) fn owners_of(&self, id: ImageId) -> impl Iterator<Item = &str> {
        self.leases
            .iter()
            .filter(move |(_, lease)| lease.image == id)
            .map(|(owner, _)| owner.as_str())
    }

    pub(crate) fn live(&self) -> Live {
        let mut live = Live::default();
        for (id, record) in &self.images {
            live.configs.insert(id.0);
            live.layers.extend(&record.diff_ids);
        }
        for lease in self.leases.values() {
            live.layers.extend(&lease.diff_ids);
        }
        live
    }
}

fn require_image(
    images: &impl ReadableTable<&'static str, &'static [u8]>,
    id: ImageId,
) -> Result<ImageRecord> {
    match images.get(id.to_string().as_str())? {
        Some(row) => decode(row.value()),
        None => Err(Error::NoSuchImage(id.to_string())),
    }
}

fn remove_rows(
    transaction: &WriteTransaction,
    references: &[String],
    image: Option<ImageId>,
) -> Result<()> {
    let mut table = transaction.open_table(REFERENCES)?;
    for reference in references {
        table.remove(reference.as_str())?;
    }
    if let Some(image) = image {
        transaction
            .open_table(IMAGES)?
            .remove(image.to_string().as_str())?;
    }
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(Error::document("image record"))
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(Error::document("image record"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by format 1. Never change it; a new format gets its own and reads this one.
    #[test]
    fn records_of_format_1_are_read() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest = Digest::from_hex(hex).expect("digest");
        let image = format!(
            r#"{{"diff_ids":["sha256:{hex}"],"size_bytes":42,"last_tagged_ns":1700000000000000000}}"#
        );
        let expect = ImageRecord {
            diff_ids: vec![digest],
            size_bytes: 42,
            last_tagged_ns: Some(1_700_000_000_000_000_000),
        };
        assert_eq!(
            decode::<ImageRecord>(image.as_bytes()).expect("image record"),
            expect
        );
        assert_eq!(encode(&expect).expect("encode"), image.as_bytes());
        let lease = format!(r#"{{"image":"sha256:{hex}","diff_ids":["sha256:{hex}"]}}"#);
        let expect = Lease {
            image: ImageId(digest),
            diff_ids: vec![digest],
        };
        assert_eq!(decode::<Lease>(lease.as_bytes()).expect("lease"), expect);
        assert_eq!(encode(&expect).expect("encode"), lease.as_bytes());
    }
}
