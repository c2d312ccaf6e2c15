//! What users ask of secrets and configs: files handed to containers that need them.

use super::{Annotations, Driver};
use crate::redact::Redacted;

/// Most bytes of a secret (SwarmKit: less than 500 KiB).
pub const SECRET_BYTES_MAX: usize = 500 * 1024 - 1;
/// Most bytes of a config (SwarmKit: less than 1000 KiB).
pub const CONFIG_BYTES_MAX: usize = 1000 * 1024 - 1;

/// A secret as wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretSpec {
    /// Name and labels.
    pub annotations: Annotations,
    /// What containers read. Never shown by the API.
    pub data: Redacted<Vec<u8>>,
    /// Turns the data, taken for a template, into what containers read; `None`: nothing does.
    pub templating: Option<Driver>,
    /// Where the data is fetched from; `None`: it is [`data`](Self::data).
    pub driver: Option<Driver>,
}

/// A config as wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigSpec {
    /// Name and labels.
    pub annotations: Annotations,
    /// What containers read. The API shows it; logs do not.
    pub data: Redacted<Vec<u8>>,
    /// Turns the data, taken for a template, into what containers read; `None`: nothing does.
    pub templating: Option<Driver>,
}
