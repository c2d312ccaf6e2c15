//! Finding a user in an image's `/etc/passwd` and `/etc/group`, layer by layer, without ever leaving the layer.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use super::config::Rootfs;

/// Largest user database that is read: 4 MiB are some 60,000 users.
const DATABASE_BYTES_MAX: u64 = 4 << 20;

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
}

/// The user does not exist; Docker's words.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    #[error("failed to read `{path}` of the image")]
    Read {
        path: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Resolves `user` (`name`, `uid`, `name:group`, … or empty for root) and more groups against a root file system.
pub(super) fn resolve(rootfs: &Rootfs, user: &str, groups_add: &[String]) -> Result<User, Error> {
    let passwd = read_database(rootfs, "etc/passwd")?;
    let group = read_database(rootfs, "etc/group")?;
    resolve_in(&passwd, &group, user, groups_add)
}

/// [`resolve`] on the files' texts. Pure.
fn resolve_in(passwd: &str, group: &str, user: &str, groups_add: &[String]) -> Result<User, Error> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| {
            fields.len() >= 4
                && (fields[0] == name || (number.is_some() && fields[2].parse().ok() == number))
        });
    let (login, mut found) = match (entry, number) {
        (Some(fields), _) => {
            let numbers = fields[2].parse().ok().zip(fields[3].parse().ok());
            let (uid, gid) = numbers.ok_or_else(|| Error::NoUser(name.to_owned()))?;
            let home = fields
                .get(5)
                .filter(|home| !home.is_empty())
                .unwrap_or(&"/");
            let home = (*home).to_owned();
            (
                Some(fields[0]),
                User {
                    uid,
                    gid,
                    groups: Vec::new(),
                    home,
                },
            )
        }
        (None, Some(uid)) => {
            let home = if uid == 0 { "/root" } else { "/" };
            (
                None,
                User {
                    uid,
                    gid: 0,
                    groups: Vec::new(),
                    home: home.to_owned(),
                },
            )
        }
        (None, None) => return Err(Error::NoUser(name.to_owned())),
    };
    if let Some(group_name) = group_name.filter(|name| !name.is_empty()) {
        found.gid = gid_of(group, group_name)?;
    } else if let Some(login) = login {
        found.groups = memberships(group, login);
    }
    for extra in groups_add {
        found.groups.push(gid_of(group, extra)?);
    }
    found.groups.sort_unstable();
    found.groups.dedup();
    Ok(found)
}

fn gid_of(group: &str, name: &str) -> Result<u32, Error> {
    let named = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    });
    named
        .or_else(|| name.parse().ok())
        .ok_or_else(|| Error::NoGroup(name.to_owned()))
}

fn memberships(group: &str, login: &str) -> Vec<u32> {
    let lines = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    lines
        .filter(|fields| {
            fields
                .get(3)
                .is_some_and(|members| members.split(',').any(|m| m == login))
        })
        .filter_map(|fields| fields[2].parse().ok())
        .collect()
}

/// A file of the image: from the highest layer that has it. Missing is empty, as in an image `FROM scratch`.
fn read_database(rootfs: &Rootfs, path: &'static str) -> Result<String, Error> {
    let layers: Vec<&PathBuf> = match rootfs {
        Rootfs::Directory(root) => vec![root],
        Rootfs::Overlay { lower, upper, .. } => {
            std::iter::once(upper).chain(lower.iter().rev()).collect()
        }
    };
    for layer in layers {
        match read_in(layer, path) {
            Ok(Found::Text(text)) => return Ok(text),
            Ok(Found::Whiteout) => break,
            Ok(Found::Nothing { is_opaque: true }) => break,
            Ok(Found::Nothing { is_opaque: false }) => {}
            Err(source) => return Err(Error::Read { path, source }),
        }
    }
    Ok(String::new())
}

enum Found {
    Text(String),
    Whiteout,
    /// Not here; an opaque directory hides the layers below.
    Nothing {
        is_opaque: bool,
    },
}

fn read_in(layer: &Path, path: &str) -> io::Result<Found> {
    let root = openat(
        CWD,
        layer,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&root, path, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        // A whiteout is a device without driver, or its parent is one.
        Err(rustix::io::Errno::NXIO | rustix::io::Errno::NOTDIR) => return Ok(Found::Whiteout),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => {
            return Ok(Found::Nothing {
                is_opaque: is_opaque(&layer.join("etc")),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let kind = file.metadata()?.file_type();
    if kind.is_char_device() || !kind.is_file() {
        return Ok(Found::Whiteout);
    }
    let mut bytes = Vec::new();
    file.take(DATABASE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Found::Text(String::from_utf8_lossy(&bytes).into_owned()))
}

fn is_opaque(dir: &Path) -> bool {
    let mut value = [0; 4];
    rustix::fs::lgetxattr(dir, "trusted.overlay.opaque", &mut value)
        .is_ok_and(|length| value[..length] == *b"y")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:w:/srv:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:40:web,x\nnine:x:9:\n";

    #[track_caller]
    fn check(user: &str, add: &[&str], expected: (u32, u32, &[u32], &str)) {
        let add: Vec<String> = add.iter().map(|&text| text.to_owned()).collect();
        let found = resolve_in(PASSWD, GROUP, user, &add).unwrap();
        assert_eq!(
            (found.uid, found.gid, &found.groups[..], &*found.home),
            expected
        );
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        check("", &[], (0, 0, &[], "/root"));
        check("web", &["nine", "7"], (33, 34, &[7, 9, 40], "/srv"));
        check("33:nine", &[], (33, 9, &[], "/srv"));
        check("1000", &[], (1000, 0, &[], "/"));
        check("1000:1001", &[], (1000, 1001, &[], "/"));
    }

    #[test]
    fn unknown_names_are_refused_in_dockers_words() {
        let error = resolve_in(PASSWD, GROUP, "nobody", &[]).unwrap_err();
        let expected = "unable to find user nobody: no matching entries in passwd file";
        assert_eq!(error.to_string(), expected);
        assert!(matches!(
            resolve_in(PASSWD, GROUP, "web:x", &[]),
            Err(Error::NoGroup(_))
        ));
    }

    #[test]
    fn the_highest_layer_wins_and_links_do_not_leave_it() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.join("etc")).unwrap();
            path
        };
        let (low, high, upper) = (layer("low"), layer("high"), layer("upper"));
        std::fs::write(low.join("etc/passwd"), "a:x:1:1::/:\n").unwrap();
        std::fs::write(high.join("etc/passwd"), "a:x:2:2::/:\n").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", upper.join("etc/group")).unwrap();
        let work = dir.path().join("w");
        let rootfs = Rootfs::Overlay {
            lower: vec![low, high],
            upper,
            work,
        };
        assert_eq!(resolve(&rootfs, "a", &[]).unwrap().uid, 2);
        assert!(
            resolve(&rootfs, "root", &[]).is_err(),
            "the host's passwd must not be read"
        );
    }
}
