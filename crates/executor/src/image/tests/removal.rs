//! Untag, delete, prune and what stands against them: the cases of Docker's engine.

use super::fixture::{Fixture, TestImage, docker_archive, layer, tiny};
use crate::image::{ErrorKind, Filters, ImageStore, Removed};

fn load(fixture: &Fixture, images: &[TestImage]) {
    fixture
        .store
        .load(docker_archive(images).as_slice())
        .expect("load");
}

fn tag(store: &ImageStore, source: &str, target: &str) {
    store
        .tag(source, &target.parse().expect("reference"))
        .expect("tag");
}

fn id(image: &TestImage) -> crate::image::ImageId {
    image.id().parse().expect("id")
}

const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[track_caller]
fn check_conflict(store: &ImageStore, name: &str, force: bool, is_running: bool, expect: &str) {
    let error = store
        .remove(name, force, &|_| is_running)
        .expect_err("conflict");
    assert_eq!(error.to_string(), expect);
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[test]
fn the_last_name_takes_the_image_and_its_layers() {
    let fixture = Fixture::new();
    let image = tiny("x", "x:1");
    load(&fixture, std::slice::from_ref(&image));
    tag(&fixture.store, "x:1", "x:2");
    let removed = fixture
        .store
        .remove("x:1", false, &|_| false)
        .expect("untag");
    assert_eq!(removed, [Removed::Untagged("x:1".into())]);
    let removed = fixture
        .store
        .remove("x:2", false, &|_| false)
        .expect("remove");
    let layer = crate::image::Digest::of(&image.layers[0]).to_string();
    assert_eq!(
        removed,
        [
            Removed::Untagged("x:2".into()),
            Removed::Deleted(image.id()),
            Removed::Deleted(layer)
        ]
    );
    assert!(
        fixture
            .store
            .list(&Filters::default())
            .expect("list")
            .is_empty()
    );
    fixture.check_clean();
}

#[test]
fn shared_layers_stay_with_the_other_image() {
    let fixture = Fixture::new();
    let shared = layer(&[("shared", b"s")]);
    let with = |own: &[u8], tag| {
        let layers = vec![shared.clone(), layer(&[("own", own)])];
        TestImage::new(layers, &serde_json::json!({}), tag)
    };
    load(&fixture, &[with(b"1", "one:1"), with(b"2", "two:1")]);
    fixture
        .store
        .remove("one:1", false, &|_| false)
        .expect("remove");
    fixture.check_clean();
    let id = fixture.store.resolve("two:1").expect("resolve");
    let image = fixture.store.image(id).expect("image");
    assert!(image.layer_dirs()[0].join("shared").is_file());
    assert!(image.layer_dirs()[1].join("own").is_file());
}

#[test]
fn containers_protect_the_only_name() {
    let fixture = Fixture::new();
    let image = tiny("x", "x:1");
    load(&fixture, std::slice::from_ref(&image));
    let short = &image.id()[7..19];
    let store = &fixture.store;
    store.lease(id(&image), CONTAINER).expect("lease");
    check_conflict(
        store,
        "x:1",
        false,
        false,
        &format!(
            "conflict: unable to remove repository reference \"x:1\" (must force) - container 0123456789ab is using its referenced image {short}"
        ),
    );
    check_conflict(
        store,
        short,
        false,
        false,
        &format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
        ),
    );
    check_conflict(
        store,
        short,
        true,
        true,
        &format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container 0123456789ab"
        ),
    );
    // By name and by force the running container's image merely loses its name.
    let removed = store.remove("x:1", true, &|_| true).expect("untag");
    assert_eq!(removed, [Removed::Untagged("x:1".into())]);
    assert!(store.image(id(&image)).is_ok());
    store.release(CONTAINER).expect("release");
    assert!(store.image(id(&image)).is_ok());
}

#[test]
fn forced_removal_leaves_the_layers_to_the_container() {
    let fixture = Fixture::new();
    let image = tiny("x", "x:1");
    load(&fixture, std::slice::from_ref(&image));
    let store = &fixture.store;
    let directory = store.image(id(&image)).expect("image").layer_dirs()[0].clone();
    store.lease(id(&image), CONTAINER).expect("lease");
    store.remove("x:1", true, &|_| false).expect("force");
    assert!(store.image(id(&image)).is_err());
    assert!(
        directory.join("file").is_file(),
        "the container still has its layers"
    );
    let (root, fixture) = (fixture.directory, drop(fixture.store));
    let () = fixture;
    let store = ImageStore::open(root.path()).expect("leases survive a restart");
    assert!(directory.join("file").is_file());
    store.release(CONTAINER).expect("release");
    assert!(!directory.exists(), "nobody uses them now");
    super::fixture::check_clean(&store);
}

#[test]
fn several_names_protect_against_removal_by_id() {
    let fixture = Fixture::new();
    let image = tiny("x", "x:1");
    load(&fixture, std::slice::from_ref(&image));
    tag(&fixture.store, "x:1", "y:1");
    let short = image.id()[7..19].to_owned();
    check_conflict(
        &fixture.store,
        &short,
        false,
        false,
        &format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        ),
    );
    let removed = fixture
        .store
        .remove(&short, true, &|_| false)
        .expect("force");
    assert_eq!(removed.len(), 4, "{removed:?}");
    fixture.check_clean();
}

#[test]
fn a_name_that_looks_like_an_id_is_a_name() {
    let fixture = Fixture::new();
    let image = tiny("x", "x:1");
    load(&fixture, std::slice::from_ref(&image));
    // A repository called like the beginning of the image's own id.
    let name = image.id()[7..11].to_owned();
    tag(&fixture.store, "x:1", &name);
    let removed = fixture
        .store
        .remove(&name, false, &|_| false)
        .expect("untag");
    assert_eq!(removed, [Removed::Untagged(format!("{name}:latest"))]);
    assert!(fixture.store.resolve("x:1").is_ok());
}

#[test]
fn prune_takes_the_dangling_or_all_unused() {
    let fixture = Fixture::new();
    load(&fixture, &[tiny("old", "x:1")]);
    load(
        &fixture,
        &[
            tiny("new", "x:1"),
            tiny("used", "used:1"),
            tiny("idle", "idle:1"),
        ],
    );
    let used = fixture.store.resolve("used:1").expect("resolve");
    fixture.store.lease(used, CONTAINER).expect("lease");
    let pruned = fixture
        .store
        .prune(false, &Filters::default())
        .expect("prune");
    let deleted = |removed: &[Removed]| {
        removed
            .iter()
            .filter(|r| matches!(r, Removed::Deleted(_)))
            .count()
    };
    assert_eq!(
        deleted(&pruned.removed),
        2,
        "image and layer: {:?}",
        pruned.removed
    );
    assert!(pruned.reclaimed_bytes > 0);
    let none = Filters {
        label: vec!["no".into()],
        ..Filters::default()
    };
    assert!(
        fixture
            .store
            .prune(true, &none)
            .expect("prune")
            .removed
            .is_empty()
    );
    fixture
        .store
        .prune(true, &Filters::default())
        .expect("prune");
    let left = fixture.store.list(&Filters::default()).expect("list");
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].id, left[0].container_count), (used, 1));
    fixture.check_clean();
}

#[test]
fn tags_move_and_digests_are_no_tags() {
    let fixture = Fixture::new();
    let (one, two) = (tiny("1", "one:1"), tiny("2", "two:1"));
    load(&fixture, &[one, two.clone()]);
    tag(&fixture.store, "two:1", "one:1");
    assert_eq!(fixture.store.resolve("one:1").expect("resolve"), id(&two));
    let digest = format!("x@{}", two.id()).parse().expect("reference");
    let error = fixture.store.tag("two:1", &digest).expect_err("digest");
    assert_eq!(
        error.to_string(),
        "refusing to create a tag with a digest reference"
    );
    let error = fixture
        .store
        .tag("two:1", &"sha256:x".parse().expect("reference"))
        .expect_err("name");
    assert_eq!(
        error.to_string(),
        "refusing to create an ambiguous tag using digest algorithm as name"
    );
    let error = fixture
        .store
        .tag("three", &"x".parse().expect("reference"))
        .expect_err("source");
    assert_eq!(error.to_string(), "No such image: three:latest");
}
