//! Which OCI runtime this node has, which cgroups, which init program.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    cgroup::{Hierarchies, Mode},
    error::Error,
};
use crate::monitor::config::OciKind;

/// Where distributions put programs; the daemon's `PATH` is not trusted to hold `/usr/sbin`.
const PROGRAM_DIRS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Static init programs of Debian, Docker's packages and Fedora.
const INIT_CANDIDATES: [&str; 6] = [
    "/usr/libexec/docker/docker-init",
    "/usr/bin/docker-init",
    "/usr/bin/tini-static",
    "/usr/bin/catatonit",
    "/usr/libexec/podman/catatonit",
    "/usr/bin/tini",
];

/// The wish for an OCI runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OciChoice {
    /// `crun`, else `runc`.
    #[default]
    Auto,
    Crun,
    Runc,
    /// A program at a path; what it is, is asked.
    Path(PathBuf),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub kind: OciKind,
    pub path: PathBuf,
    /// The first line of `--version`, e.g. `crun version 1.8.1`.
    pub version: String,
    pub cgroup_mode: Mode,
    /// A static init program, for `has_init`.
    pub init: Option<PathBuf>,
}

/// The mounted hierarchies and what else is asked once.
pub(super) async fn probe(
    choice: &OciChoice,
    init: Option<&Path>,
    hierarchies: &Hierarchies,
) -> Result<Probe, Error> {
    let path = match choice {
        OciChoice::Auto => find_program("crun").or_else(|| find_program("runc")),
        OciChoice::Crun => find_program("crun"),
        OciChoice::Runc => find_program("runc"),
        OciChoice::Path(path) => Some(path.clone()),
    };
    let path = path.ok_or(Error::NoOciRuntime)?;
    let output = tokio::process::Command::new(&path)
        .arg("--version")
        .output()
        .await;
    let broken = |message: String| Error::BrokenOciRuntime {
        path: path.clone(),
        message,
    };
    let output = output.map_err(|error| broken(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().unwrap_or_default().trim().to_owned();
    let kind = if version.starts_with("crun") {
        OciKind::Crun
    } else if version.starts_with("runc") {
        OciKind::Runc
    } else {
        return Err(broken(format!("`--version` says `{version}`")));
    };
    let init = match init {
        Some(path) => Some(path.to_owned()),
        None => INIT_CANDIDATES
            .iter()
            .map(PathBuf::from)
            .find(|path| is_static_elf(path)),
    };
    Ok(Probe {
        kind,
        path,
        version,
        cgroup_mode: hierarchies.mode(),
        init,
    })
}

pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    PROGRAM_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| {
            fs::metadata(path)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// Whether a 64-bit ELF program needs no dynamic loader: only such runs in a foreign root file system.
fn is_static_elf(path: &Path) -> bool {
    const HEAD_BYTES: u64 = 4096;
    const PT_INTERP: u32 = 3;
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    if read.is_err() || !head.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let number = |at: usize, length: usize| {
        let bytes = head.get(at..at + length)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0usize, |sum, &byte| sum << 8 | usize::from(byte)),
        )
    };
    let table = (number(32, 4), number(54, 2), number(56, 2));
    let (Some(offset), Some(size), Some(count)) = table else {
        return false;
    };
    (0..count.min(64)).all(|index| {
        number(offset + index * size, 4).is_some_and(|kind| kind != PT_INTERP as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_and_dynamic_programs_are_told_apart() {
        assert!(
            is_static_elf(Path::new("/bin/busybox")),
            "busybox-static is installed"
        );
        assert!(!is_static_elf(&std::env::current_exe().unwrap()));
        assert!(!is_static_elf(Path::new("/etc/passwd")));
    }

    #[tokio::test]
    async fn a_missing_runtime_and_a_wrong_one_are_named() {
        let none = Hierarchies {
            v1: Vec::new(),
            v2: None,
        };
        let wrong = OciChoice::Path("/bin/busybox".into());
        assert!(matches!(
            probe(&wrong, None, &none).await,
            Err(Error::BrokenOciRuntime { .. })
        ));
        let missing = OciChoice::Path("/nope".into());
        assert!(matches!(
            probe(&missing, None, &none).await,
            Err(Error::BrokenOciRuntime { .. })
        ));
    }
}
