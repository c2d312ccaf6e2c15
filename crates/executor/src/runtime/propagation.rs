//! Whether the host shares a mount that a container is to share.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{config::Propagation, error::Error};

/// The mounts of this process' namespace.
const MOUNTS: &str = "/proc/self/mountinfo";

/// One mount of the host.
#[derive(Debug, PartialEq, Eq)]
struct HostMount {
    point: PathBuf,
    is_shared: bool,
    is_slave: bool,
}

/// Refuses a propagation that the mount `source` lies on cannot have, as Docker does.
pub(super) fn check(source: &Path, wanted: Propagation) -> Result<(), Error> {
    let (is_slave_enough, name) = match wanted {
        Propagation::Rprivate | Propagation::Private => return Ok(()),
        Propagation::Rslave | Propagation::Slave => (true, "shared or slave"),
        Propagation::Rshared | Propagation::Shared => (false, "shared"),
    };
    let path = source
        .canonicalize()
        .map_err(Error::io("look up", source))?;
    let text = fs::read_to_string(MOUNTS).map_err(Error::io("read", MOUNTS))?;
    let mount = holding(&path, &text)
        .ok_or_else(|| Error::io("find the mount of", &path)(io::ErrorKind::NotFound.into()))?;
    if mount.is_shared || (mount.is_slave && is_slave_enough) {
        return Ok(());
    }
    Err(Error::NotShared {
        path,
        mount: mount.point,
        wanted: name,
    })
}

/// The mount that `path` lies on: the longest point, of equals the last, which covers the others.
fn holding(path: &Path, mountinfo: &str) -> Option<HostMount> {
    let mounts = mountinfo.lines().filter_map(read);
    let mounts = mounts.filter(|mount| path.starts_with(&mount.point));
    mounts.max_by_key(|mount| mount.point.components().count())
}

/// One line: `36 35 98:0 /root /point options shared:1 master:2 - type source options`.
fn read(line: &str) -> Option<HostMount> {
    let mut fields = line.split(' ');
    let point = unescape(fields.nth(4)?);
    let marks: Vec<&str> = fields.skip(1).take_while(|field| *field != "-").collect();
    let has = |prefix: &str| marks.iter().any(|mark| mark.starts_with(prefix));
    Some(HostMount {
        point: point.into(),
        is_shared: has("shared:"),
        is_slave: has("master:"),
    })
}

/// Blanks and backslashes are written as octal numbers.
fn unescape(text: &str) -> String {
    let known = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    known.iter().fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_on_top_says_what_is_shared() {
        let text = "1 0 0:1 / / rw shared:1 - ext4 /dev/a rw\n\
                    2 1 0:2 / /a\\040b rw,nosuid master:1 - tmpfs tmpfs rw\n\
                    3 1 0:3 / /c rw shared:5 master:1 - tmpfs tmpfs rw\n\
                    4 3 0:4 / /c rw - tmpfs tmpfs rw\n";
        let of = |path: &str| {
            let mount = holding(Path::new(path), text).unwrap();
            (mount.point, mount.is_shared, mount.is_slave)
        };
        assert_eq!(of("/x"), ("/".into(), true, false));
        assert_eq!(of("/a b/x"), ("/a b".into(), false, true));
        assert_eq!(of("/c/d"), ("/c".into(), false, false));
    }
}
