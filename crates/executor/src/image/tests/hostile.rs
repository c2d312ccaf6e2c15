//! Archives no honest tool would write: each is refused for its reason and leaves nothing.

use serde_json::json;

use super::fixture::{Fixture, TestImage, docker_archive, gzip, layer, tar, tiny};
use crate::image::{Digest, Filters, StoreConfig};

#[track_caller]
fn check_with(config: StoreConfig, archive: &[u8], expect: &str) {
    let fixture = Fixture::with(config);
    let error = fixture.store.load(archive).expect_err(expect);
    assert_eq!(error.to_string(), expect);
    assert!(
        fixture
            .store
            .list(&Filters::default())
            .expect("list")
            .is_empty()
    );
    fixture.store.collect().expect("collect");
    fixture.check_clean();
}

#[track_caller]
fn check(archive: &[u8], expect: &str) {
    check_with(StoreConfig::default(), archive, expect);
}

fn files(entries: &[(&str, &str)]) -> Vec<u8> {
    tar(entries
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())))
}

#[test]
fn archives_without_images_are_refused() {
    let none = "archive holds no images: neither `manifest.json` nor `index.json` found";
    check(&files(&[("x", "y")]), none);
    check(&[], none);
    check(b"not an archive", "archive is truncated");
    check(&[1; 512], "malformed archive: header checksum");
    check(b"BZh91AY&SY", "unsupported archive: bzip2");
}

#[test]
fn truncated_archives_are_refused() {
    let whole = tiny("x", "x:1").docker_archive();
    check(&whole[..700], "archive is truncated");
    check(&whole[..2000], "archive is truncated");
    let packed = gzip(&whole);
    check(&packed[..packed.len() / 2], "archive is truncated");
    let packed = zstd::encode_all(whole.as_slice(), 1).expect("zstd");
    check(&packed[..packed.len() / 2], "archive is truncated");
}

#[test]
fn documents_must_make_sense() {
    check(
        &files(&[("manifest.json", "[]"), ("manifest.json", "[]")]),
        "archive has `manifest.json` twice",
    );
    check(
        &files(&[("manifest.json", "{}")]),
        "malformed `manifest.json` in archive: invalid type: map, expected a sequence at line 1 column 0",
    );
    check(
        &files(&[("manifest.json", r#"[{"Config":"c"}]"#)]),
        "archive has no file `c`",
    );
    check(
        &files(&[("manifest.json", r#"[{"Config":"../c"}]"#)]),
        "unsafe path `../c` in archive",
    );
    check(
        &files(&[("./manifest.json", r#"[{"Config":"/c"}]"#)]),
        "unsafe path `/c` in archive",
    );
    check(
        &files(&[("manifest.json", r#"[{"Config":"c","RepoTags":["A:1"]}]"#)]),
        "invalid reference format: repository name (library/A) must be lowercase",
    );
    let config = r#"{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    check(
        &files(&[
            ("manifest.json", r#"[{"Config":"c","Layers":["l"]}]"#),
            ("c", config),
        ]),
        "invalid manifest, layers length mismatch: expected 0, got 1",
    );
    let windows = config.replace("linux", "windows");
    check(
        &files(&[("manifest.json", r#"[{"Config":"c"}]"#), ("c", &windows)]),
        "malformed image config: operating system is `windows`, not `linux`",
    );
}

#[test]
fn layers_must_be_what_the_config_says() {
    let mut image = tiny("x", "x:1");
    let honest = Digest::of(&image.layers[0]);
    image.layers[0] = layer(&[("file", b"another")]);
    let actual = Digest::of(&image.layers[0]);
    check(
        &image.docker_archive(),
        &format!("digest mismatch: expected {honest}, got {actual}"),
    );
    let name = format!("blobs/sha256/{}", honest.hex());
    check(
        &files(&[(&name, "x")]),
        &format!(
            "digest mismatch: expected {honest}, got {}",
            Digest::of(b"x")
        ),
    );
}

#[test]
fn oci_layouts_are_checked() {
    let blob = |text: &str| format!("blobs/sha256/{}", Digest::of(text.as_bytes()).hex());
    let descriptor = |text: &str, kind: &str| json!({ "mediaType": kind, "digest": Digest::of(text.as_bytes()).to_string(), "size": text.len() });
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let index =
        |entry: serde_json::Value| json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    let check_manifest = |manifest: &str, expect: &str| {
        let index = index(descriptor(manifest, manifest_type));
        check(
            &files(&[("index.json", &index), (&blob(manifest), manifest)]),
            expect,
        );
    };
    let config_type = "application/vnd.oci.image.config.v1+json";
    let both = json!({
        "schemaVersion": 2,
        "config": descriptor("c", config_type),
        "layers": [],
        "manifests": [],
    });
    check_manifest(
        &both.to_string(),
        "malformed manifest: it is both an image and an index",
    );
    let strange_layer = json!({
        "schemaVersion": 2,
        "config": descriptor("c", config_type),
        "layers": [descriptor("l", "application/x-strange")],
    });
    check_manifest(
        &strange_layer.to_string(),
        "unsupported media type application/x-strange",
    );
    let chart = json!({
        "schemaVersion": 2,
        "config": descriptor("c", "application/vnd.cncf.helm.config.v1+json"),
        "layers": [],
    });
    check_manifest(
        &chart.to_string(),
        "unsupported media type application/vnd.cncf.helm.config.v1+json",
    );
    check_manifest(
        r#"{"schemaVersion":1}"#,
        "malformed manifest: schema version is not 2",
    );
    let disguised =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json" });
    check_manifest(
        &disguised.to_string(),
        "malformed manifest: its media type is not what it was sent as",
    );
}

#[test]
fn bombs_are_defused() {
    let limits = StoreConfig {
        layer_bytes_max: 1 << 20,
        archive_bytes_max: 64 << 20,
        blob_bytes_max: 8 << 20,
        entries_max: 100,
        ..StoreConfig::default()
    };
    let bomb = TestImage::new(
        vec![layer(&[("zeros", &vec![0; 2 << 20])])],
        &json!({}),
        "bomb:1",
    );
    // As a whole within limits, unpacked not.
    check_with(
        limits.clone(),
        &gzip(&bomb.docker_archive()),
        "layer exceeds the limit of 1048576 bytes",
    );
    let mut packed = bomb.clone();
    packed.layers[0] = gzip(&bomb.layers[0]);
    check_with(
        limits.clone(),
        &packed.docker_archive(),
        "layer exceeds the limit of 1048576 bytes",
    );
    let small = StoreConfig {
        archive_bytes_max: 1 << 20,
        ..limits.clone()
    };
    check_with(
        small,
        &gzip(&bomb.docker_archive()),
        "archive exceeds the limit of 1048576 bytes",
    );
    let small = StoreConfig {
        blob_bytes_max: 1 << 20,
        ..limits.clone()
    };
    check_with(
        small,
        &bomb.docker_archive(),
        "archive exceeds the limit of 1048576 bytes for a file",
    );
    let many: Vec<(String, Vec<u8>)> = (0..101).map(|n| (n.to_string(), Vec::new())).collect();
    check_with(
        limits.clone(),
        &tar(many.clone()),
        "archive exceeds the limit of 100 entries",
    );
    let many = TestImage::new(vec![tar(many)], &json!({}), "many:1");
    check_with(
        limits,
        &many.docker_archive(),
        "layer exceeds the limit of 100 entries",
    );
}

#[test]
fn a_good_image_before_a_bad_one_stays() {
    let (good, mut bad) = (tiny("good", "good:1"), tiny("bad", "bad:1"));
    bad.layers[0] = layer(&[("other", b"x")]);
    let fixture = Fixture::new();
    fixture
        .store
        .load(docker_archive(&[good, bad]).as_slice())
        .expect_err("bad");
    assert!(fixture.store.resolve("good:1").is_ok());
    assert!(fixture.store.resolve("bad:1").is_err());
    fixture.store.collect().expect("collect");
    fixture.check_clean();
}
