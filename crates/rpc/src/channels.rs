//! Connections to managers, one per address, made when needed and shared by all calls.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

use crate::{
    connection::{Connection, DialError},
    error::ErrorChain,
    limits::CHANNELS_MAX,
    security::Security,
};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Channels {
    security: Arc<Security>,
    slots: Mutex<BTreeMap<String, Slot>>,
}

/// What is known of one address; locked while a connection is made.
type Slot = Arc<tokio::sync::Mutex<Attempt>>;

#[derive(Debug, Default)]
struct Attempt {
    /// The connection and the identity it was made with.
    made: Option<(u64, Connection)>,
    /// When the last one failed, and why.
    failed: Option<(Instant, String)>,
}

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
        let began = Instant::now();
        let slot = self.slot(addr);
        let mut slot = slot.lock().await;
        let identity = self.security.current();
        if let Some((generation, connection)) = &slot.made
            && *generation == identity.generation
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        slot.made = None;
        // Who waited for an attempt that failed has its answer: a queue of callers must not each wait for a dead host.
        if let Some((at, reason)) = &slot.failed
            && *at >= began
        {
            return Err(DialError::Failed {
                addr: addr.to_owned(),
                reason: reason.clone(),
            });
        }
        match Connection::dial(identity.target(addr)?).await {
            Ok(connection) => {
                slot.made = Some((identity.generation, connection.clone()));
                slot.failed = None;
                Ok(connection)
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), ErrorChain(&error).to_string()));
                Err(error)
            }
        }
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
