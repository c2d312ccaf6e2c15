//! The replicated state in memory: indexed tables of whole objects on persistent maps.
//!
//! A [`Store`] is cheap to clone (O(1)), so a snapshot for readers or for a plan costs nothing.
//! [`Transaction`] is an overlay on one: it checks rules, collects [`Action`]s and is thrown away
//! or proposed. Only [`Store::apply`] of committed actions changes the authoritative copy; see
//! `docs/design/store.md`. Knows nothing of consensus, encoding or time beyond what it is told.

mod action;
mod addresses;
mod job_tables;
mod load;
mod named;
mod network_tables;
mod resource_tables;
mod store;
mod transaction;

pub use crate::{
    action::{Action, ActionKind, Change, Object, ObjectId},
    addresses::{Addresses, Holder},
    job_tables::{JobTables, PlaceRow, RunRow, Stage},
    load::{NodeLoad, NodeRoom},
    named::{Named, Row},
    network_tables::NetworkTables,
    store::{ApplyError, Store},
    transaction::{Error, Transaction},
};
