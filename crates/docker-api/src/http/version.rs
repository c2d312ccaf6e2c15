//! API versions: the `/v1.NN` prefix and the range that is served.

use std::fmt;

use crate::error::{ApiError, Result};

/// A version of the Engine API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(pub(crate) u16, pub(crate) u16);

/// The oldest that is served: Docker 1.12, the first with Swarm mode.
pub(crate) const VERSION_MIN: ApiVersion = ApiVersion(1, 24);
/// The newest, and what a request without prefix gets.
pub(crate) const VERSION_MAX: ApiVersion = ApiVersion(1, 51);

impl ApiVersion {
    /// Whether this is `1.minor` or newer.
    pub(crate) fn at_least(self, minor: u16) -> bool {
        self >= Self(1, minor)
    }

    /// Splits `/v1.NN/rest` into version and `/rest`. Paths without such a prefix stay whole.
    pub(crate) fn split(path: &str) -> (Option<Self>, &str) {
        let Some(rest) = path.strip_prefix("/v") else {
            return (None, path);
        };
        let end = rest.find('/').unwrap_or(rest.len());
        let (version, tail) = rest.split_at(end);
        let mut numbers = version.splitn(2, '.').map(str::parse::<u16>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (Some(Self(major, minor)), tail),
            _ => (None, path),
        }
    }

    /// Refuses versions out of range, with Docker's texts.
    pub(crate) fn check(self) -> Result<()> {
        if self < VERSION_MIN {
            return Err(ApiError::invalid(format!(
                "client version {self} is too old. Minimum supported API version is \
                 {VERSION_MIN}, please upgrade your client to a newer version"
            )));
        }
        if self > VERSION_MAX {
            return Err(ApiError::invalid(format!(
                "client version {self} is too new. Maximum supported API version is {VERSION_MAX}"
            )));
        }
        Ok(())
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_split_off() {
        assert_eq!(
            ApiVersion::split("/v1.41/info"),
            (Some(ApiVersion(1, 41)), "/info")
        );
        assert_eq!(ApiVersion::split("/info"), (None, "/info"));
        assert_eq!(ApiVersion::split("/volumes"), (None, "/volumes"));
        assert_eq!(ApiVersion::split("/vx.y/info"), (None, "/vx.y/info"));
    }

    #[test]
    fn versions_out_of_range_are_refused_in_dockers_words() {
        assert_eq!(
            ApiVersion(1, 99).check().expect_err("too new").message,
            "client version 1.99 is too new. Maximum supported API version is 1.51"
        );
        assert_eq!(
            ApiVersion(1, 9).check().expect_err("too old").message,
            "client version 1.9 is too old. Minimum supported API version is 1.24, please upgrade \
             your client to a newer version"
        );
    }
}
