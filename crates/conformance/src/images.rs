//! The test images, built once for all tests of a build.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{self, Command},
};

/// The directory with `busybox.tar`, `httpd.tar`, `web.tar` and the hostile archives of `fixtures/build-images`.
///
/// # Panics
/// When they cannot be built.
pub fn images() -> PathBuf {
    let recipe = ["archive.sh", "build-images", "web.rs"].map(|name| format!("fixtures/{name}"));
    made("conformance-images", &recipe, "fixtures/build-images", &[])
}

/// The directory with the images of the example application, `guestbook.tar` and `redis.tar`.
///
/// # Panics
/// When they cannot be built.
pub fn guestbook() -> PathBuf {
    let recipe = [
        "Cargo.lock",
        "fixtures/archive.sh",
        "fixtures/debs",
        "examples/guestbook/Cargo.toml",
        "examples/guestbook/build-images",
        "examples/guestbook/redis",
        "examples/guestbook/src",
    ];
    let script = "examples/guestbook/build-images";
    made(
        "guestbook-images",
        &recipe.map(str::to_owned),
        script,
        &["dev"],
    )
}

/// The directory that `script` fills, given what it is made of. Built once.
fn made(name: &str, recipe: &[String], script: &str, arguments: &[&str]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    recipe
        .iter()
        .for_each(|path| feed(&root().join(path), &mut hasher));
    let dir = target_dir().join(format!("{name}-{:016x}", hasher.finish()));
    if dir.exists() {
        return dir;
    }
    // Tests run at the same time: each builds its own, the first to finish is kept.
    let fresh = dir.with_extension(process::id().to_string());
    let script = root().join(script);
    let status = Command::new(&script).arg(&fresh).args(arguments).status();
    let status = status.expect("the script can be run");
    assert!(status.success(), "`{}` failed", script.display());
    if fs::rename(&fresh, &dir).is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
    dir
}

/// Changes with a file, or with all files of a directory.
fn feed(path: &Path, hasher: &mut DefaultHasher) {
    if !path.is_dir() {
        return fs::read(path).expect("a file").hash(hasher);
    }
    let entries = fs::read_dir(path).expect("a directory").flatten();
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    entries.sort();
    entries.iter().for_each(|entry| feed(entry, hasher));
}

/// The workspace's root.
///
/// # Panics
/// When the crate lies elsewhere.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the crate lies in a workspace")
}

/// The binary under test: `SKEP_BIN`, else the one built beside the tests.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("SKEP_BIN") {
        return path.into();
    }
    built("skep")
}

/// A binary that was built beside the tests.
pub(crate) fn built(name: &str) -> PathBuf {
    let path = target_dir().join(name);
    assert!(
        path.exists(),
        "no `{}`: run `cargo build --bin {name}`",
        path.display()
    );
    path
}

/// Where cargo puts binaries of this profile: tests are in its `deps`.
fn target_dir() -> PathBuf {
    let test = env::current_exe().expect("a test is a file");
    test.ancestors()
        .nth(2)
        .expect("a test is in target/PROFILE/deps")
        .to_owned()
}
