//! Whether a text names an image: `[registry/]repository[:tag][@digest]`.
//!
//! Only the grammar; resolving and shortening references is the executor's and the API's business.

/// Longest repository name including its registry, as in distribution's grammar.
const NAME_BYTES_MAX: usize = 255;
/// Longest tag.
const TAG_BYTES_MAX: usize = 128;
/// Hexadecimal digits of an image id, which is not a name.
const ID_DIGITS: usize = 64;

/// True when `text` is a valid reference by name.
pub(super) fn is_reference(text: &str) -> bool {
    if text.len() == ID_DIGITS && text.bytes().all(is_lower_hex) {
        return false;
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    let (name, tag) = match name.rsplit_once(':') {
        // A colon before the last slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        Some(_) | None => (name, None),
    };
    is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

fn is_name(name: &str) -> bool {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_domain_like(first) => (Some(first), rest),
        Some(_) | None => (None, name),
    };
    name.len() <= NAME_BYTES_MAX
        && domain.is_none_or(is_domain)
        && path.split('/').all(is_path_component)
}

/// The first part names a registry when no repository could be called so.
fn is_domain_like(part: &str) -> bool {
    part == "localhost"
        || part.contains(['.', ':'])
        || part.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (domain, None),
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    port.is_none_or(is_port) && (is_ipv6(host) || host.split('.').all(is_domain_component))
}

fn is_ipv6(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    inner.is_some_and(|inner| {
        !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
    })
}

fn is_domain_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    is_end(bytes.first())
        && is_end(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// Lower-case letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    if !ends.is_some_and(|(first, last)| is_word(*first) && is_word(*last)) {
        return false;
    }
    bytes
        .split(|byte| is_word(*byte))
        .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag
            .bytes()
            .all(|byte| is_word(byte) || b".-".contains(&byte))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, value)) = digest.split_once(':') else {
        return false;
    };
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    value.len() == digits && value.bytes().all(is_lower_hex)
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_docker_accepts_are_references() {
        let digest = "a".repeat(64);
        for text in [
            "nginx",
            "nginx:1.27-alpine",
            "library/nginx",
            "registry.example.com:5000/team/app:v1",
            "localhost/app",
            "localhost:5000/app",
            "[::1]:5000/app",
            "a__b/c--d.e",
            &format!("nginx@sha256:{digest}"),
            &format!("nginx:1@sha256:{digest}"),
        ] {
            assert!(is_reference(text), "{text}");
        }
    }

    #[test]
    fn other_texts_are_not() {
        let id = "0".repeat(64);
        let long = "a".repeat(300);
        for text in [
            "",
            "Nginx",
            "nginx:",
            "nginx:-x",
            "nginx@sha256:abc",
            "nginx@md5:abc",
            "-nginx",
            "a..b",
            "a___b",
            "a//b",
            "exa mple",
            "registry.example.com:port/app",
            &id,
            &long,
        ] {
            assert!(!is_reference(text), "{text}");
        }
    }
}
