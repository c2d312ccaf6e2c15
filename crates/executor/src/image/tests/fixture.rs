//! Stores in temporary directories and small images to put into them.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use crate::image::{Digest, ImageStore, StoreConfig};

/// A store and the directory that goes with it.
pub(super) struct Fixture {
    pub(super) store: ImageStore,
    pub(super) directory: TempDir,
}

/// An image to be: layers as tars, and its config document.
#[derive(Clone)]
pub(super) struct TestImage {
    pub(super) layers: Vec<Vec<u8>>,
    pub(super) config: Vec<u8>,
    pub(super) tags: Vec<&'static str>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(StoreConfig::default())
    }

    pub(super) fn with(config: StoreConfig) -> Self {
        let directory = TempDir::new().expect("directory");
        let store = ImageStore::open_with(directory.path(), config).expect("store");
        Self { store, directory }
    }

    pub(super) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Nothing under construction, and exactly the files that metadata names.
    #[track_caller]
    pub(super) fn check_clean(&self) {
        check_clean(&self.store);
    }
}

#[track_caller]
pub(super) fn check_clean(store: &ImageStore) {
    let names = |path: &str| {
        let entries = std::fs::read_dir(store.root().join(path)).expect("directory");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .into_string()
                    .expect("name")
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names("tmp"),
        Vec::<String>::new(),
        "left under construction"
    );
    let live = store.inner.metadata.snapshot().expect("snapshot").live();
    let layers: Vec<String> = live.layers.iter().map(Digest::hex).collect();
    assert_eq!(names("layers"), layers);
    let mut blobs: Vec<String> = live.configs.iter().map(Digest::hex).collect();
    for diff_id in live.layers {
        let record = store
            .inner
            .disk
            .layer_record(diff_id)
            .expect("layer record");
        assert!(store.inner.disk.layer_fs(diff_id).is_dir());
        blobs.push(record.blob.hex());
    }
    blobs.sort();
    blobs.dedup();
    assert_eq!(names("blobs/sha256"), blobs);
}

/// A layer of regular files.
pub(super) fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    tar(files
        .iter()
        .map(|(name, content)| ((*name).to_owned(), content.to_vec())))
}

/// An archive of regular files.
pub(super) fn tar(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        builder
            .append_data(&mut header, name, content.as_slice())
            .expect("append");
    }
    builder.into_inner().expect("archive")
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

/// A busybox that runs, with a second layer on top.
pub(super) fn busybox(tag: &'static str) -> TestImage {
    let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let base = layer(&[("bin/busybox", &program), ("etc/release", b"base")]);
    let top = layer(&[("etc/motd", tag.as_bytes()), ("etc/.wh.release", b"")]);
    TestImage::new(
        vec![base, top],
        &json!({ "Cmd": ["/bin/busybox", "true"], "Env": ["A=1"] }),
        tag,
    )
}

/// One file, no program.
pub(super) fn tiny(content: &str, tag: &'static str) -> TestImage {
    TestImage::new(
        vec![layer(&[("file", content.as_bytes())])],
        &json!({}),
        tag,
    )
}

impl TestImage {
    pub(super) fn new(layers: Vec<Vec<u8>>, config: &Value, tag: &'static str) -> Self {
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|tar| Digest::of(tar).to_string())
            .collect();
        let steps = (0..layers.len()).map(
            |n| json!({ "created": "2024-05-01T10:00:00Z", "created_by": format!("step {n}") }),
        );
        let mut history: Vec<Value> = steps.collect();
        history.push(json!({ "created_by": "CMD", "empty_layer": true, "comment": "last" }));
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-05-01T10:00:00.5Z",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": history,
        });
        let tags = if tag.is_empty() {
            Vec::new()
        } else {
            vec![tag]
        };
        Self {
            layers,
            config: config.to_string().into_bytes(),
            tags,
        }
    }

    pub(super) fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    /// As `docker save` wrote it before OCI layouts.
    pub(super) fn docker_archive(&self) -> Vec<u8> {
        docker_archive(std::slice::from_ref(self))
    }
}

pub(super) fn docker_archive(images: &[TestImage]) -> Vec<u8> {
    let mut files = BTreeMap::new();
    let mut manifest = Vec::new();
    for image in images {
        let config = format!("{}.json", Digest::of(&image.config).hex());
        let layers: Vec<String> = image
            .layers
            .iter()
            .map(|tar| format!("{}/layer.tar", Digest::of(tar).hex()))
            .collect();
        manifest.push(json!({ "Config": config, "RepoTags": image.tags, "Layers": layers }));
        files.insert(config, image.config.clone());
        files.extend(layers.into_iter().zip(image.layers.iter().cloned()));
    }
    files.insert(
        "manifest.json".to_owned(),
        Value::Array(manifest).to_string().into_bytes(),
    );
    tar(files)
}

/// Runs a program that must succeed; returns what it printed.
#[track_caller]
pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("program runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}
