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
    let dir = target_dir().join(format!("conformance-images-{:016x}", recipe()));
    if dir.join("hostile-bomb.tar").exists() {
        return dir;
    }
    // Tests run at the same time: each builds its own, the first to finish is kept.
    let fresh = dir.with_extension(process::id().to_string());
    let script = root().join("fixtures/build-images");
    let status = Command::new(&script)
        .arg(&fresh)
        .status()
        .expect("build-images can be run");
    assert!(status.success(), "`{}` failed", script.display());
    if fs::rename(&fresh, &dir).is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
    dir
}

/// Changes with what the images are made of.
fn recipe() -> u64 {
    let mut hasher = DefaultHasher::new();
    for name in ["archive.sh", "build-images", "web.rs"] {
        let path = root().join("fixtures").join(name);
        fs::read(path).expect("a fixture").hash(&mut hasher);
    }
    hasher.finish()
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
    let path = target_dir().join("skep");
    assert!(
        path.exists(),
        "no `{}`: run `cargo build --bin skep`",
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
