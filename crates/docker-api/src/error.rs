//! The one error of the API edge: a kind, a text for the client, a cause for the log.
//!
//! `message` reaches the client word for word, so where clients compare texts it equals Docker's.
//! Only [`ErrorKind::status`] turns kinds into HTTP.

use std::{error::Error, fmt};

use hyper::StatusCode;

/// What kind of failure it is; decides the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The named object does not exist.
    NotFound,
    /// The request itself is wrong.
    InvalidArgument,
    /// The object's state forbids it, or the name is taken.
    Conflict,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// This node cannot answer now, e.g. it is not a manager.
    Unavailable,
    /// Never allowed.
    Forbidden,
    /// There is nothing to do, e.g. stopping a stopped container.
    NotModified,
    /// A known request that Skep does not support.
    NotImplemented,
    /// The request body is larger than allowed.
    TooLarge,
    /// Our fault.
    System,
}

impl ErrorKind {
    /// The HTTP status clients expect for this kind.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::InvalidArgument => StatusCode::BAD_REQUEST,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotModified => StatusCode::NOT_MODIFIED,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::System => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A refused or failed request.
#[derive(Debug)]
pub struct ApiError {
    /// Decides the status.
    pub kind: ErrorKind,
    /// What the client reads.
    pub message: String,
    /// Why it happened; logged, never sent.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// A text without what gRPC puts before words (`rpc error: code = X desc = …`): Docker's clients look for it, people do not.
pub(crate) fn plain(message: &str) -> String {
    let mut words = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, after)) = rest.split_once("rpc error: code = ") {
        words.push_str(before);
        rest = match after.split_once(" desc = ") {
            Some((code, described)) if !code.contains(' ') => described,
            _ => after,
        };
    }
    words.push_str(rest);
    words
}

impl ApiError {
    /// The same in plain words, for routes that no client of Docker's asks.
    #[must_use]
    pub(crate) fn in_plain_words(mut self) -> Self {
        self.message = plain(&self.message);
        self
    }

    /// An error of `kind` that tells the client `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Shorthand for [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Shorthand for [`ErrorKind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Shorthand for [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// Shorthand for [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Shorthand for [`ErrorKind::NotImplemented`].
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }

    /// Shorthand for [`ErrorKind::System`]; the chain of `source` goes to the log.
    pub fn system(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(ErrorKind::System, message)
        }
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn Error + 'static))
    }
}

/// Result of every backend call.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// The refusal of a write that was computed from an old version of the object.
pub fn out_of_sequence() -> ApiError {
    ApiError::new(
        ErrorKind::System,
        "rpc error: code = Unknown desc = update out of sequence",
    )
}

/// Displays an error with its causes, for the log.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_grpc_are_left_out() {
        let stale = "rpc error: code = Unknown desc = update out of sequence";
        assert_eq!(plain(stale), "update out of sequence");
        let nested = "Could not attach: rpc error: code = Internal desc = rpc error: code = NotFound desc = gone";
        assert_eq!(plain(nested), "Could not attach: gone");
        assert_eq!(plain("rpc error: code = 7"), "7");
        assert_eq!(plain("no such service"), "no such service");
    }
}
