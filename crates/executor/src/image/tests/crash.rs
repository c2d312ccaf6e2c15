//! Pulls the plug between every two steps, and kills a process with signal 9: afterwards the store holds the old or the new state.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::fixture::{TestImage, check_clean, docker_archive, layer, tiny};
use crate::image::{Error, Filters, ImageStore, ImportOptions};

/// Two images that share a layer.
fn pair() -> (TestImage, TestImage) {
    let shared = layer(&[("shared", b"s")]);
    let with = |own: &[u8], tag| {
        let layers = vec![
            shared.clone(),
            layer(&[("own", own), ("dir/.wh..wh..opq", b"")]),
        ];
        TestImage::new(layers, &serde_json::json!({}), tag)
    };
    (with(b"1", "one:1"), with(b"2", "two:1"))
}

/// The image is all there, or not at all. Tells which.
#[track_caller]
fn is_whole(store: &ImageStore, name: &str) -> bool {
    let id = match store.resolve(name) {
        Ok(id) => id,
        Err(Error::NoSuchImage(_)) => return false,
        Err(error) => panic!("{name}: {error}"),
    };
    for directory in store.image(id).expect("image").layer_dirs() {
        assert!(
            directory.read_dir().expect("layer").next().is_some(),
            "{name} has an empty layer"
        );
    }
    let mut archive = Vec::new();
    store
        .save(&[name], &mut archive)
        .expect("all bytes are there");
    true
}

/// Crashes `operation` before its first step, its second, and so on until it gets through; checks the store after each.
#[track_caller]
fn crash_everywhere(
    prepare: impl Fn(&ImageStore),
    operation: impl Fn(&ImageStore) -> Result<(), Error>,
    check: impl Fn(&ImageStore, bool),
) {
    let mut crash_count = 0;
    for step in 0.. {
        let directory = TempDir::new().expect("directory");
        let store = ImageStore::open(directory.path()).expect("open");
        prepare(&store);
        store.inner.disk.faults.crash_after(step);
        let is_done = match operation(&store) {
            Ok(()) => true,
            Err(Error::Crash(_)) => false,
            Err(error) => panic!("step {step}: {error}"),
        };
        drop(store);
        let store = ImageStore::open(directory.path()).expect("reopen after a crash");
        check_clean(&store);
        check(&store, is_done);
        // And it works on.
        store
            .load(tiny("after", "after:1").docker_archive().as_slice())
            .expect("load");
        if is_done {
            break;
        }
        crash_count += 1;
    }
    assert!(crash_count >= 2, "only {crash_count} steps to crash at");
}

#[test]
fn interrupted_load_is_old_or_new() {
    let (one, two) = pair();
    crash_everywhere(
        |store| {
            store.load(one.docker_archive().as_slice()).expect("load");
        },
        |store| store.load(two.docker_archive().as_slice()).map(drop),
        |store, is_done| {
            assert!(is_whole(store, "one:1"));
            assert_eq!(is_whole(store, "two:1"), is_done);
        },
    );
}

#[test]
fn interrupted_removal_is_old_or_new() {
    let (one, two) = pair();
    crash_everywhere(
        |store| {
            store
                .load(docker_archive(&[one.clone(), two.clone()]).as_slice())
                .expect("load");
        },
        |store| store.remove("two:1", false, &|_| false).map(drop),
        |store, is_done| {
            assert!(is_whole(store, "one:1"));
            assert!(!(is_done && is_whole(store, "two:1")));
        },
    );
}

#[test]
fn interrupted_prune_is_old_or_new() {
    let (one, two) = pair();
    crash_everywhere(
        |store| {
            store
                .load(docker_archive(&[one.clone(), two.clone()]).as_slice())
                .expect("load");
        },
        |store| store.prune(true, &Filters::default()).map(drop),
        |store, is_done| {
            let left = [is_whole(store, "one:1"), is_whole(store, "two:1")];
            assert!(!is_done || left == [false, false]);
        },
    );
}

#[test]
fn interrupted_import_is_old_or_new() {
    let options = ImportOptions {
        reference: "x".parse().ok(),
        ..ImportOptions::default()
    };
    crash_everywhere(
        |_| {},
        |store| {
            store
                .import(layer(&[("a", b"a")]).as_slice(), &options)
                .map(drop)
        },
        |store, is_done| assert_eq!(is_whole(store, "x"), is_done),
    );
}

/// Set for the process that is going to be killed.
const VICTIM: &str = "SKEP_TEST_IMAGE_VICTIM";

/// This test starts itself again as a process that loads and removes images without end, and kills it at different moments.
#[test]
fn killed_process_leaves_a_whole_store() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        churn(Path::new(&directory));
    }
    let directory = TempDir::new().expect("directory");
    for round in 0..12_u32 {
        let mut victim = Command::new(std::env::current_exe().expect("test program"))
            .args([
                "--exact",
                "--nocapture",
                "image::tests::crash::killed_process_leaves_a_whole_store",
            ])
            .env(VICTIM, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("victim");
        let lines = BufReader::new(victim.stdout.take().expect("stdout")).lines();
        // Which of its operations it dies in differs from round to round; where in it is up to the scheduler.
        let progress = lines
            .map_while(Result::ok)
            .filter(|line| line.starts_with("operation"));
        let seen = progress.take(2 + round as usize).count();
        assert_eq!(seen, 2 + round as usize, "the victim stopped by itself");
        victim.kill().expect("kill");
        victim.wait().expect("wait");

        let store = ImageStore::open(directory.path()).expect("open after kill");
        check_clean(&store);
        for image in store.list(&Filters::default()).expect("list") {
            assert!(is_whole(&store, &image.id.to_string()));
        }
    }
}

#[expect(clippy::print_stdout, reason = "the parent process counts the lines")]
fn churn(directory: &Path) -> ! {
    let store = ImageStore::open(directory).expect("open");
    let (one, two) = pair();
    loop {
        println!("operation load");
        store
            .load(docker_archive(&[one.clone(), two.clone()]).as_slice())
            .expect("load");
        println!("operation remove");
        store.remove("one:1", false, &|_| false).expect("remove");
        println!("operation prune");
        store.prune(true, &Filters::default()).expect("prune");
    }
}
