//! Connections to managers, one per address, made when needed and shared by all calls.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    connection::{Connection, DialError},
    limits::CHANNELS_MAX,
    security::Security,
};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Channels {
    security: Arc<Security>,
    slots: Mutex<BTreeMap<String, Slot>>,
}

/// The connection to one address and the identity it was made with; locked while it is made.
type Slot = Arc<tokio::sync::Mutex<Option<(u64, Connection)>>>;

impl Channels {
    pub(crate) fn new(security: Arc<Security>) -> Self {
        Self {
            security,
            slots: Mutex::default(),
        }
    }

    pub(crate) fn security(&self) -> &Arc<Security> {
        &self.security
    }

    /// A live connection to `addr`, made with the identity of now.
    pub(crate) async fn get(&self, addr: &str) -> Result<Connection, DialError> {
        let slot = self.slot(addr);
        let mut slot = slot.lock().await;
        let identity = self.security.current();
        if let Some((generation, connection)) = &*slot
            && *generation == identity.generation
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        *slot = None;
        let connection = Connection::dial(identity.target(addr)?).await?;
        *slot = Some((identity.generation, connection.clone()));
        Ok(connection)
    }

    fn slot(&self, addr: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(addr) {
            return Arc::clone(slot);
        }
        if slots.len() >= CHANNELS_MAX {
            // Calls under way keep their connection.
            slots.clear();
        }
        let slot = Slot::default();
        slots.insert(addr.to_owned(), Arc::clone(&slot));
        slot
    }
}
