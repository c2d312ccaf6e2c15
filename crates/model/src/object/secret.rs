//! Secrets and configs as stored.

use crate::{
    id::{ConfigId, SecretId},
    object::Meta,
    spec::{ConfigSpec, SecretSpec},
};

/// A secret as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its id.
    pub id: SecretId,
    /// Bookkeeping.
    pub meta: Meta,
    /// What is wanted.
    pub spec: SecretSpec,
    /// Made by the cluster for itself and hidden from users; kept for formats written by Docker.
    pub is_internal: bool,
}

/// A config as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its id.
    pub id: ConfigId,
    /// Bookkeeping.
    pub meta: Meta,
    /// What is wanted.
    pub spec: ConfigSpec,
}

impl Secret {
    /// The secret's name.
    pub fn name(&self) -> &str {
        &self.spec.annotations.name
    }
}

impl Config {
    /// The config's name.
    pub fn name(&self) -> &str {
        &self.spec.annotations.name
    }
}
