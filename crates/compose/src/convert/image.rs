//! Image references as Docker's client sends them.

/// Names the default registry goes by.
const REGISTRIES: [&str; 2] = ["docker.io/", "index.docker.io/"];
/// What images without a publisher are below.
const LIBRARY: &str = "library/";
/// The tag of references that have none.
const TAG: &str = "latest";
/// Digits of an image's id.
const ID_LENGTH: usize = 64;

/// The reference in its short form, with a tag unless it has a digest. An id stays as it is.
pub(super) fn normal(image: &str) -> String {
    let is_id = image.len() == ID_LENGTH && image.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id {
        return image.to_owned();
    }
    let registry = REGISTRIES.iter().find(|name| image.starts_with(**name));
    let name = &image[registry.map_or(0, |name| name.len())..];
    let short = name
        .strip_prefix(LIBRARY)
        .filter(|rest| !rest.contains('/'));
    let name = short.unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.contains([':', '@']) {
        true => name.to_owned(),
        false => format!("{name}:{TAG}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(image: &str, expected: &str) {
        assert_eq!(normal(image), expected);
    }

    #[test]
    fn references_are_short_and_have_a_tag_or_a_digest() {
        check("nginx", "nginx:latest");
        check("nginx:1", "nginx:1");
        check("docker.io/library/nginx", "nginx:latest");
        check("index.docker.io/me/app:2", "me/app:2");
        check("library/a/b", "library/a/b:latest");
        check("localhost:5000/app", "localhost:5000/app:latest");
        check("reg.example/app@sha256:00", "reg.example/app@sha256:00");
        check(&"a".repeat(64), &"a".repeat(64));
        check("", ":latest");
    }
}
