//! Docker's JSON objects, field by field as Docker writes them.
//!
//! Fields Docker omits when empty carry `skip_serializing_if`; the others are always written, as
//! `null` where Go's value is nil. Types that clients also send read unknown fields as Go does: by
//! ignoring them.

pub(crate) mod cluster;
pub(crate) mod container;
pub(crate) mod container_spec;
pub(crate) mod engine;
pub(crate) mod event;
pub(crate) mod image;
pub(crate) mod meta;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod progress;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod stats;
pub(crate) mod task;
pub(crate) mod volume;

use std::collections::BTreeMap;

/// A map that is written sorted, so that equal objects give equal bytes.
pub(crate) type Map = BTreeMap<String, String>;

/// For `skip_serializing_if`: what Go's `omitempty` omits.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
