//! The grammar of references, case by case, and that parsing never panics.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(input: &str, familiar: &str, canonical: &str) {
    let reference: Reference = input.parse().unwrap_or_else(|e| panic!("{input}: {e}"));
    let reference = reference.or_latest();
    assert_eq!(reference.familiar(), familiar);
    assert_eq!(reference.to_string(), canonical);
    assert_eq!(
        reference.to_string().parse::<Reference>().as_ref(),
        Ok(&reference)
    );
}

#[track_caller]
fn check_error(input: &str, expect: &str) {
    match input.parse::<Reference>() {
        Ok(reference) => panic!("{input} was taken as {reference}"),
        Err(error) => assert_eq!(error.to_string(), expect, "for {input}"),
    }
}

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn names_get_docker_defaults() {
    check(
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox:latest",
    );
    check(
        "docker.io/busybox",
        "busybox:latest",
        "docker.io/library/busybox:latest",
    );
    check(
        "index.docker.io/library/busybox:1",
        "busybox:1",
        "docker.io/library/busybox:1",
    );
    check("user/app:v1", "user/app:v1", "docker.io/user/app:v1");
    check(
        "library/a/b",
        "library/a/b:latest",
        "docker.io/library/a/b:latest",
    );
    check("localhost/x", "localhost/x:latest", "localhost/x:latest");
    check(
        "localhost:5000/x",
        "localhost:5000/x:latest",
        "localhost:5000/x:latest",
    );
    check(
        "ghcr.io/a/b-c__d.e:1",
        "ghcr.io/a/b-c__d.e:1",
        "ghcr.io/a/b-c__d.e:1",
    );
    check("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest");
    check("Registry/x", "Registry/x:latest", "Registry/x:latest");
    check("sha256:abc", "sha256:abc", "docker.io/library/sha256:abc");
    check(
        &format!("busybox@sha256:{HEX}"),
        &format!("busybox@sha256:{HEX}"),
        &format!("docker.io/library/busybox@sha256:{HEX}"),
    );
    check(
        &format!("a.b/c:d@sha256:{HEX}"),
        &format!("a.b/c:d@sha256:{HEX}"),
        &format!("a.b/c:d@sha256:{HEX}"),
    );
}

#[test]
fn malformed_references_are_refused_in_docker_words() {
    let format = "invalid reference format";
    for input in [
        "",
        ":",
        "/",
        "a:",
        "a@",
        "a:b:c",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a b",
        "a/",
        "/a",
        "a//b",
        "a:-x",
        "a@sha256:12",
        "a.b:x/c",
        "ä",
        "localhost:/x",
        "-x.y/z",
        "a@md5:!",
    ] {
        check_error(input, format);
    }
    check_error(&format!("a:{}", "x".repeat(129)), format);
    check_error(
        "Foo",
        "invalid reference format: repository name (library/Foo) must be lowercase",
    );
    check_error(
        "x/Foo:1",
        "invalid reference format: repository name (x/Foo) must be lowercase",
    );
    check_error(
        HEX,
        &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
    );
    check_error(
        &"a".repeat(256),
        "repository name must not be more than 255 characters",
    );
    check_error(
        &format!("a@sha256:{}", &HEX[..40]),
        "invalid checksum digest length",
    );
    check_error(
        &format!("a@md5:{}", &HEX[..32]),
        "unsupported digest algorithm",
    );
}

#[test]
fn ids_are_told_from_names() {
    let id = ImageId(Digest::from_hex(HEX).expect("digest"));
    assert_eq!(HEX.parse(), Ok(AnyReference::Id(id)));
    assert_eq!(format!("sha256:{HEX}").parse(), Ok(AnyReference::Id(id)));
    assert!(matches!(HEX[..12].parse(), Ok(AnyReference::Name(_))));
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in "\\PC{0,80}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
        }
    }

    #[test]
    fn what_parses_survives_a_round_trip(text in "[a-zA-Z0-9._:@/-]{0,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.familiar().parse::<Reference>(), Ok(reference));
        }
    }
}
