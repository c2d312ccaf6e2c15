//! What can go wrong between us and a registry, in Docker's words.

use std::time::Duration;

use reqwest::StatusCode;

use crate::image::ErrorKind;

/// A request to a registry failed. The wording is Docker's, clients show it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such manifest.
    #[error("manifest for {reference} not found: {code}: {message}")]
    ManifestUnknown {
        /// Familiar form.
        reference: String,
        /// The registry's code, as words.
        code: String,
        /// The registry's words.
        message: String,
    },
    /// There is no such repository, or it does not show itself.
    #[error("repository {name} not found: {code}: {message}")]
    NameUnknown {
        /// Familiar name.
        name: String,
        /// The registry's code, as words.
        code: String,
        /// The registry's words.
        message: String,
    },
    /// The registry knows who asks, or does not want to, and says no.
    #[error(
        "pull access denied for {name}, repository does not exist or may require 'docker login': {code}: {message}"
    )]
    Denied {
        /// Familiar name.
        name: String,
        /// The registry's code, as words.
        code: String,
        /// The registry's words.
        message: String,
    },
    /// The registry wants a password and there is none.
    #[error("{method} \"{url}\": no basic auth credentials")]
    NoCredentials {
        /// Of the request.
        method: &'static str,
        /// Of the request.
        url: String,
    },
    /// The credentials are wrong, or have no right to this.
    #[error("{method} \"{url}\": unauthorized: {message}")]
    Unauthorized {
        /// Of the request.
        method: &'static str,
        /// Of the request.
        url: String,
        /// The registry's words.
        message: String,
    },
    /// Too many requests.
    #[error("toomanyrequests: {message}")]
    RateLimited {
        /// The registry's words.
        message: String,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// Another answer than the protocol knows.
    #[error("received unexpected HTTP status: {status}{}", shown_message(message))]
    Status {
        /// Code and words.
        status: StatusCode,
        /// The registry's words, if any.
        message: String,
    },
    /// No connection.
    #[error("Get \"{url}\": {reason}")]
    Connect {
        /// What was asked.
        url: String,
        /// As Go's network package would say it.
        reason: String,
        /// The cause.
        #[source]
        source: Box<reqwest::Error>,
    },
    /// A connection that broke.
    #[error("failed to read from registry at \"{url}\"")]
    Transfer {
        /// What was asked.
        url: String,
        /// The cause.
        #[source]
        source: Box<reqwest::Error>,
    },
    /// An answer is longer than it may be.
    #[error("answer of registry exceeds the limit of {0} bytes")]
    TooLarge(u64),
    /// The registry's answer makes no sense.
    #[error("registry broke the protocol: {0}")]
    Protocol(String),
    /// Credentials would have gone over plain HTTP.
    #[error("refusing to send credentials to `{0}` without TLS")]
    InsecureToken(String),
    /// TLS cannot be set up, for instance without root certificates.
    #[error("failed to set up the HTTP client")]
    Setup(#[source] Box<reqwest::Error>),
}

// === impl Error ===

impl Error {
    /// Docker's class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ManifestUnknown { .. } | Self::NameUnknown { .. } | Self::Denied { .. } => {
                ErrorKind::NotFound
            }
            Self::NoCredentials { .. } | Self::Unauthorized { .. } => ErrorKind::Unauthorized,
            Self::Connect { .. } | Self::Transfer { .. } | Self::RateLimited { .. } => {
                ErrorKind::Unavailable
            }
            Self::TooLarge(_) => ErrorKind::InvalidArgument,
            _ => ErrorKind::Internal,
        }
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Transfer { .. } | Self::RateLimited { .. } => true,
            // Nobody listens, or nobody is there: waiting seldom helps and Docker does not either.
            Self::Connect { source, .. } => source.is_timeout() || !source.is_connect(),
            Self::Status { status, .. } => status.is_server_error(),
            _ => false,
        }
    }

    /// How long the registry wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn shown_message(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}
