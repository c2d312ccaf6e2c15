//! Load, save, import, and what the store then says about the images.

use std::os::unix::fs::FileTypeExt as _;

use super::fixture::{Fixture, TestImage, busybox, docker_archive, gzip, run, tiny};
use crate::image::{Error, Filters, ImageId, ImageStore, ImportOptions};

#[test]
fn docker_archive_becomes_an_image() {
    let fixture = Fixture::new();
    let image = busybox("busybox:1");
    let loaded = fixture
        .store
        .load(image.docker_archive().as_slice())
        .expect("load");
    assert_eq!(loaded.lines, ["Loaded image: busybox:1"]);
    let id = fixture
        .store
        .resolve("docker.io/library/busybox:1")
        .expect("resolve");
    assert_eq!(id.to_string(), image.id());
    let ready = fixture.store.image(id).expect("image");
    assert_eq!(ready.config().cmd, ["/bin/busybox", "true"]);
    assert_eq!(ready.config().env, ["A=1"]);
    let [bottom, top] = ready.layer_dirs() else {
        panic!("two layers")
    };
    assert!(bottom.join("bin/busybox").is_file());
    assert_eq!(
        std::fs::read(top.join("etc/motd")).expect("motd"),
        b"busybox:1"
    );
    let whiteout = top
        .join("etc/release")
        .symlink_metadata()
        .expect("whiteout");
    assert!(whiteout.file_type().is_char_device());
    fixture.check_clean();
}

/// The directories do what they are for: mounted, the top hides what it deleted, and the program runs.
#[test]
fn layers_mount_as_overlay_and_run() {
    let fixture = Fixture::new();
    fixture
        .store
        .load(busybox("busybox:1").docker_archive().as_slice())
        .expect("load");
    let id = fixture.store.resolve("busybox:1").expect("resolve");
    let image = fixture.store.image(id).expect("image");
    let lower: Vec<&str> = image
        .layer_dirs()
        .iter()
        .rev()
        .map(|path| path.to_str().expect("path"))
        .collect();
    let target = fixture.root().join("merged");
    std::fs::create_dir(&target).expect("target");
    // In a mount namespace of its own, which takes the mount with it.
    let script = format!(
        "mount -t overlay overlay -o lowerdir={} {target} && ls {target}/etc && chroot {target} /bin/busybox echo ran",
        lower.join(":"),
        target = target.display(),
    );
    assert_eq!(run("unshare", &["-m", "sh", "-ec", &script]), "motd\nran\n");
}

#[test]
fn saved_images_load_again_with_the_same_ids() {
    let source = Fixture::new();
    let (one, two) = (busybox("busybox:1"), tiny("two", "localhost:5000/two:v2"));
    source
        .store
        .load(docker_archive(&[one.clone(), two.clone()]).as_slice())
        .expect("load");
    source
        .store
        .tag("busybox:1", &"busybox:other".parse().expect("reference"))
        .expect("tag");
    let mut archive = Vec::new();
    source
        .store
        .save(&["busybox", "localhost:5000/two:v2"], &mut archive)
        .expect("save");

    let target = Fixture::new();
    let loaded = target.store.load(archive.as_slice()).expect("load");
    let mut lines = loaded.lines.clone();
    lines.sort();
    assert_eq!(
        lines,
        [
            "Loaded image: busybox:1",
            "Loaded image: busybox:other",
            "Loaded image: localhost:5000/two:v2",
        ]
    );
    assert_eq!(
        target
            .store
            .resolve("busybox:other")
            .expect("resolve")
            .to_string(),
        one.id()
    );
    assert_eq!(
        target
            .store
            .resolve("localhost:5000/two:v2")
            .expect("resolve")
            .to_string(),
        two.id()
    );
    target.check_clean();
}

#[test]
fn image_saved_by_id_has_no_name() {
    let source = Fixture::new();
    let image = tiny("x", "x:1");
    source
        .store
        .load(image.docker_archive().as_slice())
        .expect("load");
    let mut archive = Vec::new();
    source
        .store
        .save(&[&image.id()], &mut archive)
        .expect("save");
    let loaded = Fixture::new().store.load(archive.as_slice()).expect("load");
    assert_eq!(loaded.lines, [format!("Loaded image ID: {}", image.id())]);
}

/// Another implementation reads what we write, and writes what we read: OCI archives, plain, gzip, zstd.
#[test]
fn skopeo_reads_ours_and_we_read_skopeos() {
    let source = Fixture::new();
    let image = busybox("busybox:1");
    source
        .store
        .load(image.docker_archive().as_slice())
        .expect("load");
    let ours = source.root().join("ours.tar");
    let file = std::fs::File::create(&ours).expect("file");
    source.store.save(&["busybox:1"], file).expect("save");
    let ours = format!("docker-archive:{}", ours.display());
    let shown = run("skopeo", &["inspect", "--config", &ours]);
    assert!(shown.contains("/bin/busybox"), "{shown}");

    for (name, options) in [
        ("plain", &[][..]),
        (
            "gzip",
            &["--dest-compress", "--dest-compress-format", "gzip"],
        ),
        (
            "zstd",
            &["--dest-compress", "--dest-compress-format", "zstd"],
        ),
    ] {
        let theirs = source.root().join(name);
        let target = format!(
            "oci-archive:{}:docker.io/library/theirs:{name}",
            theirs.display()
        );
        let arguments = [&["copy", "--insecure-policy"], options, &[&ours, &target]].concat();
        run("skopeo", &arguments);
        let fixture = Fixture::new();
        let archive = gzip(&std::fs::read(theirs).expect("archive"));
        let loaded = fixture.store.load(archive.as_slice()).expect("load");
        assert_eq!(loaded.lines, [format!("Loaded image: theirs:{name}")]);
        let id = fixture
            .store
            .resolve(&format!("theirs:{name}"))
            .expect("resolve");
        let image = fixture.store.image(id).expect("image");
        assert!(image.layer_dirs()[0].join("bin/busybox").is_file());
        fixture.check_clean();
        // Layers are saved uncompressed whatever they came as.
        let mut saved = Vec::new();
        fixture.store.save(&["theirs"], &mut saved).expect("save");
        Fixture::new()
            .store
            .load(saved.as_slice())
            .expect("load our own");
    }
}

#[test]
fn zstd_archives_are_recognised() {
    let archive = zstd::encode_all(tiny("x", "x:1").docker_archive().as_slice(), 1).expect("zstd");
    let loaded = Fixture::new().store.load(archive.as_slice()).expect("load");
    assert_eq!(loaded.lines, ["Loaded image: x:1"]);
}

#[test]
fn loading_over_a_tag_says_so_and_leaves_the_old_image_dangling() {
    let fixture = Fixture::new();
    let (old, new) = (tiny("old", "x:latest"), tiny("new", "x:latest"));
    fixture
        .store
        .load(old.docker_archive().as_slice())
        .expect("load");
    let loaded = fixture
        .store
        .load(new.docker_archive().as_slice())
        .expect("load");
    assert_eq!(
        loaded.lines,
        [
            format!(
                "The image x:latest already exists, renaming the old one with ID {} to empty string",
                old.id()
            ),
            "Loaded image: x:latest".to_owned(),
        ]
    );
    let dangling = Filters {
        dangling: Some(true),
        ..Filters::default()
    };
    let listed = fixture.store.list(&dangling).expect("list");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id.to_string(), old.id());
    assert_eq!(
        fixture.store.list(&Filters::default()).expect("list").len(),
        2
    );
}

#[test]
fn inspect_and_history_tell_all() {
    let fixture = Fixture::new();
    let image = busybox("busybox:1");
    fixture
        .store
        .load(image.docker_archive().as_slice())
        .expect("load");
    let details = fixture.store.inspect(&image.id()[7..19]).expect("inspect");
    assert_eq!(details.id.to_string(), image.id());
    assert_eq!(details.repo_tags, ["busybox:1"]);
    assert_eq!(details.document.architecture, "amd64");
    assert_eq!(details.document.rootfs.diff_ids.len(), 2);
    assert!(details.last_tag_time.is_some());
    let program = std::fs::metadata("/bin/busybox").expect("busybox").len();
    assert_eq!(details.size_bytes, program + 4 + 9);
    let upper = &details.graph_driver.data["UpperDir"];
    assert!(
        upper.starts_with(fixture.root().to_str().expect("path")),
        "{upper}"
    );
    assert!(!details.graph_driver.data["LowerDir"].contains(':'));

    let history = fixture.store.history("busybox:1").expect("history");
    let shown: Vec<_> = history
        .iter()
        .map(|entry| (entry.created_by.as_str(), entry.size_bytes))
        .collect();
    assert_eq!(shown, [("CMD", 0), ("step 1", 9), ("step 0", program + 4)]);
    assert_eq!(history[0].id.map(|id| id.to_string()), Some(image.id()));
    assert_eq!(
        (history[0].tags.as_slice(), history[1].id),
        (&["busybox:1".to_owned()][..], None)
    );
    assert_eq!(history[0].comment, "last");
}

#[track_caller]
fn check_list(store: &ImageStore, filters: &Filters, expect: &[&str]) {
    let mut tags: Vec<String> = store
        .list(filters)
        .expect("list")
        .into_iter()
        .flat_map(|image| image.repo_tags)
        .collect();
    tags.sort();
    assert_eq!(tags, expect, "{filters:?}");
}

#[test]
fn lists_are_filtered() {
    let fixture = Fixture::new();
    let labels = serde_json::json!({ "Labels": { "team": "a", "x": "" } });
    let mut labelled = TestImage::new(
        vec![super::fixture::layer(&[("a", b"a")])],
        &labels,
        "lab/one:1",
    );
    let config = String::from_utf8(labelled.config.clone()).expect("text");
    labelled.config = config
        .replace(
            "\"created\":\"2024-05-01T10:00:00.5Z\"",
            "\"created\":\"2023-01-01T00:00:00Z\"",
        )
        .into_bytes();
    let images = [labelled, tiny("2", "two:1")];
    fixture
        .store
        .load(docker_archive(&images).as_slice())
        .expect("load");
    let store = &fixture.store;
    let all = Filters::default();
    let one = |value: &str| vec![value.to_owned()];
    check_list(store, &all, &["lab/one:1", "two:1"]);
    check_list(
        store,
        &Filters {
            reference: one("lab/*"),
            ..all.clone()
        },
        &["lab/one:1"],
    );
    check_list(
        store,
        &Filters {
            reference: one("*:1"),
            ..all.clone()
        },
        &["two:1"],
    );
    check_list(
        store,
        &Filters {
            label: one("team=a"),
            ..all.clone()
        },
        &["lab/one:1"],
    );
    check_list(
        store,
        &Filters {
            label: one("team=b"),
            ..all.clone()
        },
        &[],
    );
    check_list(
        store,
        &Filters {
            label: one("x"),
            ..all.clone()
        },
        &["lab/one:1"],
    );
    check_list(
        store,
        &Filters {
            label_not: one("x"),
            ..all.clone()
        },
        &["two:1"],
    );
    check_list(
        store,
        &Filters {
            before: Some("two:1".into()),
            ..all.clone()
        },
        &["lab/one:1"],
    );
    check_list(
        store,
        &Filters {
            since: Some("lab/one:1".into()),
            ..all.clone()
        },
        &["two:1"],
    );
    check_list(
        store,
        &Filters {
            dangling: Some(true),
            ..all.clone()
        },
        &[],
    );
    let until = Some("2023-06-01T00:00:00Z".parse().expect("time"));
    check_list(
        store,
        &Filters {
            until,
            ..all.clone()
        },
        &["lab/one:1"],
    );
    let missing = Filters {
        before: Some("none".into()),
        ..all
    };
    let error = store.list(&missing).expect_err("no such image");
    assert_eq!(error.to_string(), "No such image: none:latest");
}

#[test]
fn import_makes_an_image_of_a_root_file_system() {
    let fixture = Fixture::new();
    let rootfs = gzip(&super::fixture::layer(&[("bin/true", b"#!")]));
    let options = ImportOptions {
        reference: Some("mine".parse().expect("reference")),
        changes: vec!["CMD [\"/bin/true\"]".into(), "ENV A=b".into()],
        message: "from a tar".into(),
        platform: Some("linux/arm64".parse().expect("platform")),
    };
    let id = fixture
        .store
        .import(rootfs.as_slice(), &options)
        .expect("import");
    let details = fixture.store.inspect("mine:latest").expect("inspect");
    assert_eq!(details.id, id);
    assert_eq!(
        (
            details.document.architecture.as_str(),
            details.document.comment.as_str()
        ),
        ("arm64", "from a tar")
    );
    assert_eq!(details.document.config.cmd, ["/bin/true"]);
    let layer = &fixture.store.image(id).expect("image").layer_dirs()[0].clone();
    assert_eq!(std::fs::read(layer.join("bin/true")).expect("file"), b"#!");
    let bad = ImportOptions {
        changes: vec!["RUN x".into()],
        ..ImportOptions::default()
    };
    let error = fixture
        .store
        .import(rootfs.as_slice(), &bad)
        .expect_err("change");
    assert_eq!(error.to_string(), "RUN is not a valid change command");
    fixture.check_clean();
}

#[test]
fn ids_are_found_by_unique_beginnings() {
    let fixture = Fixture::new();
    // Enough images that two ids begin alike.
    let images: Vec<TestImage> = (0..17).map(|n| tiny(&n.to_string(), "")).collect();
    fixture
        .store
        .load(docker_archive(&images).as_slice())
        .expect("load");
    let store = &fixture.store;
    let image = images[0].id();
    let id: ImageId = image.parse().expect("id");
    for text in [&image[..], &image[7..], &image[7..19], &image[..19]] {
        assert_eq!(store.resolve(text).expect("resolve"), id);
    }
    let first = |image: &TestImage| image.id()[7..8].to_owned();
    let twice = images
        .iter()
        .map(first)
        .find(|c| images.iter().filter(|i| first(i) == *c).count() > 1);
    let twice = twice.expect("17 images, 16 digits");
    assert!(matches!(store.resolve(&twice), Err(Error::AmbiguousId(_))));
    let unknown = format!("sha256:{}", "0".repeat(64));
    assert_eq!(
        store.resolve(&unknown).expect_err("unknown").to_string(),
        format!("No such image: {unknown}")
    );
    assert_eq!(
        store.resolve("nosuch").expect_err("unknown").to_string(),
        "No such image: nosuch:latest"
    );
    assert_eq!(
        store.resolve("Foo").expect_err("upper case").to_string(),
        "invalid reference format: repository name (library/Foo) must be lowercase"
    );
}

#[test]
fn a_store_is_open_once() {
    let fixture = Fixture::new();
    let error = ImageStore::open(fixture.root()).expect_err("second");
    assert!(matches!(error, Error::Locked(_)), "{error}");
}

/// On a full disk an operation fails with that reason, nothing half-made stays, and a smaller one still works.
#[test]
fn full_disk_is_a_clear_error_and_leaves_nothing() {
    // A tmpfs in a mount namespace of this thread.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
    let none = None::<&str>;
    let flags = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(none, "/", none, flags, none).expect("private");
    let directory = tempfile::TempDir::new().expect("directory");
    let root = directory.path();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), root, Some("tmpfs"), flags, Some("size=8m")).expect("tmpfs");
    let store = ImageStore::open(root).expect("store");
    store
        .load(tiny("small", "small:1").docker_archive().as_slice())
        .expect("small");
    let big = TestImage::new(
        vec![super::fixture::layer(&[("big", &vec![7; 5 << 20])])],
        &serde_json::json!({}),
        "big:1",
    );
    let error = store
        .load(big.docker_archive().as_slice())
        .expect_err("full");
    assert!(
        error.to_string().starts_with("no space left on device"),
        "{error}"
    );
    assert!(store.resolve("big:1").is_err());
    super::fixture::check_clean(&store);
    store
        .load(tiny("again", "again:1").docker_archive().as_slice())
        .expect("small again");
    drop(store);
    nix::mount::umount2(root, nix::mount::MntFlags::MNT_DETACH).expect("unmount");
}
