//! What the environment says. Every setting has a default that fits the stack file.

use std::path::PathBuf;

use anyhow::Context;

/// The program's settings.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The port that is served.
    pub(crate) port: u16,
    /// This replica, as pages name it.
    pub(crate) replica: String,
    /// The node it runs on, as pages name it.
    pub(crate) node: String,
    /// The page's heading.
    pub(crate) title: String,
    /// The page's template.
    pub(crate) template: PathBuf,
    /// Where `web` finds `api`: a name and a port.
    pub(crate) api: String,
    /// Where `api` finds the database: a name and a port.
    pub(crate) database: String,
    /// The file with the database's password.
    pub(crate) password: PathBuf,
}

// === impl Settings ===

impl Settings {
    /// Reads them with `variable`, which knows the environment.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let or = |name: &str, default: &str| variable(name).unwrap_or_else(|| default.to_owned());
        Ok(Self {
            port: or("PORT", "80").parse().context("PORT is no port")?,
            replica: or("REPLICA", "somebody"),
            node: or("NODE", "some node"),
            title: or("TITLE", "Guestbook"),
            template: or("TEMPLATE", "/etc/guestbook/page.html").into(),
            api: or("API", "api:80"),
            database: or("DATABASE", "db:6379"),
            password: or("PASSWORD_FILE", "/run/secrets/db-password").into(),
        })
    }
}
