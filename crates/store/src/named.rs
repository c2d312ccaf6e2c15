//! A table of objects that are found by id and by name, and have no other index.

use std::sync::Arc;

use imbl::OrdMap;
use skep_model::{Config, ConfigId, Secret, SecretId};

/// What a [`Named`] table holds.
pub trait Row {
    /// Its id's type.
    type Id: Copy + Ord;
    /// Its id.
    fn id(&self) -> Self::Id;
    /// Its name: unique in the table without regard to case.
    fn name(&self) -> &str;
}

/// Objects by id and by name.
#[derive(Debug, Clone)]
pub struct Named<T: Row> {
    by_id: OrdMap<T::Id, Arc<T>>,
    /// In lower case.
    by_name: OrdMap<String, T::Id>,
}

// === impl Row ===

impl Row for Secret {
    type Id = SecretId;

    fn id(&self) -> SecretId {
        self.id
    }

    fn name(&self) -> &str {
        Secret::name(self)
    }
}

impl Row for Config {
    type Id = ConfigId;

    fn id(&self) -> ConfigId {
        self.id
    }

    fn name(&self) -> &str {
        Config::name(self)
    }
}

// === impl Named ===

impl<T: Row> Named<T> {
    /// The object with `id`.
    pub fn get(&self, id: T::Id) -> Option<&Arc<T>> {
        self.by_id.get(&id)
    }

    /// The object of that name, without regard to case.
    pub fn by_name(&self, name: &str) -> Option<&Arc<T>> {
        let id = self.by_name.get(&name.to_lowercase())?;
        self.get(*id)
    }

    /// All objects, by id.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<T>> {
        self.by_id.values()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn insert(&mut self, row: &Arc<T>) {
        self.remove(row.id());
        self.by_name.insert(row.name().to_lowercase(), row.id());
        self.by_id.insert(row.id(), Arc::clone(row));
    }

    pub(crate) fn remove(&mut self, id: T::Id) {
        if let Some(old) = self.by_id.remove(&id) {
            self.by_name.remove(&old.name().to_lowercase());
        }
    }
}

impl<T: Row> Default for Named<T> {
    fn default() -> Self {
        Self {
            by_id: OrdMap::new(),
            by_name: OrdMap::new(),
        }
    }
}

impl<T: Row + PartialEq> PartialEq for Named<T> {
    /// Equal when the objects are; names follow from them.
    fn eq(&self, other: &Self) -> bool {
        self.by_id == other.by_id
    }
}
