//! Image references: `[registry/]repository[:tag][@digest]`, parsed, normalised and shortened as distribution's reference package does.
//!
//! Left out: digest algorithms other than SHA-256.

use std::{fmt, str::FromStr};

use super::digest::{self, Digest, ImageId};

/// Registry of names that do not give one.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// Tag of names that give neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// Longest repository name with its registry; distribution's limit.
const NAME_BYTES_MAX: usize = 255;
/// Longest tag; distribution's limit.
const TAG_BYTES_MAX: usize = 128;

/// A parsed, normalised reference to an image by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What a user may write to name an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnyReference {
    /// 64 hexadecimal digits, with or without `sha256:`.
    Id(ImageId),
    /// A name, which may turn out to be the beginning of an id.
    Name(Reference),
}

/// Why a text is not a reference. The wording is Docker's, clients show it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The repository would be taken for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The name is too long.
    #[error("repository name must not be more than {NAME_BYTES_MAX} characters")]
    TooLong,
    /// The digest is not usable.
    #[error(transparent)]
    Digest(#[from] digest::ParseError),
}

// === impl Reference ===

impl Reference {
    /// The registry's name as users write it, `docker.io` for Docker Hub.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry, `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry and repository: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Registry and repository as short as users write them: `busybox`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix("library/") {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The reference as short as users write it: `busybox:1.36`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    /// The same with the tag `latest` if it has neither tag nor digest.
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The repository of this reference with a digest and no tag.
    pub(crate) fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Whether `pattern` matches the familiar form or its name, as `--filter reference=` does.
    pub(crate) fn matches_glob(&self, pattern: &str) -> bool {
        super::glob::matches(pattern, &self.familiar())
            || super::glob::matches(pattern, &self.familiar_name())
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if is_hex_id(text) {
            return Err(ParseError::LooksLikeId(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let remainder = if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
            format!("library/{remainder}")
        } else {
            remainder.to_owned()
        };
        let repository = remainder.split(':').next().unwrap_or_default();
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            let repository = repository.split('@').next().unwrap_or_default();
            return Err(ParseError::Uppercase(repository.to_owned()));
        }
        let (named, digest) = match remainder.split_once('@') {
            Some((named, digest)) => (named, Some(parse_digest(digest)?)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match named.split_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
            Some(_) => return Err(ParseError::Format),
            None => (named, None),
        };
        if !is_domain(domain) || !path.split('/').all(is_path_component) {
            return Err(ParseError::Format);
        }
        if domain.len() + 1 + path.len() > NAME_BYTES_MAX {
            return Err(ParseError::TooLong);
        }
        Ok(Self {
            domain: domain.to_owned(),
            path: path.to_owned(),
            tag,
            digest,
        })
    }
}

// === impl AnyReference ===

impl FromStr for AnyReference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if is_hex_id(hex) {
            return Ok(Self::Id(ImageId(Digest::from_hex(hex)?)));
        }
        text.parse().map(Self::Name)
    }
}

impl AnyReference {
    /// The text Docker shows for it, with the default tag.
    pub(crate) fn shown(self) -> String {
        match self {
            Self::Id(id) => id.to_string(),
            Self::Name(reference) => reference.or_latest().familiar(),
        }
    }
}

fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The registry and the rest. The first component is a registry only if it cannot be a repository.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (
                if first == "index.docker.io" {
                    DEFAULT_DOMAIN
                } else {
                    first
                },
                rest,
            )
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

fn parse_digest(text: &str) -> Result<Digest, ParseError> {
    let (algorithm, hex) = text.split_once(':').ok_or(ParseError::Format)?;
    let is_word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    if !algorithm.split(['+', '.', '_', '-']).all(is_word)
        || hex.len() < 32
        || !hex.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Err(ParseError::Format);
    }
    Ok(text.parse()?)
}

fn is_tag(text: &str) -> bool {
    (1..=TAG_BYTES_MAX).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_port = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_ipv6 = |host: &str| {
        host.strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .is_some_and(|h| !h.is_empty() && h.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'))
    };
    port.is_none_or(is_port) && (is_ipv6(host) || host.split('.').all(is_label))
}

/// Lower-case words joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let is_word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_word(first)
        && is_word(last)
        && bytes
            .split(is_word)
            .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests;
