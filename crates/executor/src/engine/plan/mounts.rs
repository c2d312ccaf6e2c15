//! A task's mounts, sorted into what each part of the engine does with them.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use skep_model as model;

use super::{super::record::MountRecord, Error, VolumeUse};
use crate::runtime::config::{Mount, MountKind, Propagation};

/// Bits of Go's `os.FileMode` that differ from POSIX, and the POSIX bits they stand for.
const GO_MODE_BITS: [(u32, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];
/// Options of a tmpfs that a service may give.
const TMPFS_OPTIONS: [&str; 2] = ["exec", "noexec"];

/// Mounts sorted into what each part of the engine does with them.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) runtime: Vec<Mount>,
    pub(super) records: Vec<MountRecord>,
    pub(super) volumes: Vec<VolumeUse>,
    pub(super) sources_to_create: Vec<PathBuf>,
}

impl Mounts {
    pub(super) fn add(&mut self, mount: &model::Mount) -> Result<(), Error> {
        match mount.kind {
            model::MountKind::Bind => self.add_bind(mount),
            model::MountKind::Volume => self.add_volume(mount),
            model::MountKind::Tmpfs => self.add_tmpfs(mount),
            model::MountKind::NamedPipe => Err(Error::Unsupported("npipe mount")),
            model::MountKind::Cluster => Err(Error::Unsupported("cluster volume")),
        }
    }

    fn add_bind(&mut self, mount: &model::Mount) -> Result<(), Error> {
        if !Path::new(&mount.source).is_absolute() {
            return Err(Error::RelativePath(mount.source.clone()));
        }
        let options = mount.bind.clone().unwrap_or_default();
        if options.create_mountpoint {
            self.sources_to_create.push(PathBuf::from(&mount.source));
        }
        let propagation = propagation(options.propagation);
        self.records.push(MountRecord {
            kind: "bind".to_owned(),
            source: mount.source.clone(),
            destination: mount.target.clone(),
            is_writable: !mount.is_read_only,
            propagation: propagation.name().to_owned(),
            ..MountRecord::default()
        });
        let source = PathBuf::from(&mount.source);
        if options.is_read_only_non_recursive && options.is_read_only_force_recursive {
            return Err(Error::Mount {
                kind: "bind",
                reason: "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive"
                    .to_owned(),
            });
        }
        let kind = MountKind::Bind {
            source,
            propagation,
            is_recursive: !options.is_non_recursive,
            is_readonly_below: !options.is_read_only_non_recursive,
            subpath: String::new(),
        };
        self.push(mount, kind);
        Ok(())
    }

    fn add_volume(&mut self, mount: &model::Mount) -> Result<(), Error> {
        let options = mount.volume.clone().unwrap_or_default();
        let driver = options.driver.unwrap_or_default();
        if !is_local(&options.subpath) {
            return Err(Error::Mount {
                kind: "volume",
                reason: "subpath must be a relative path within the volume".to_owned(),
            });
        }
        self.volumes.push(VolumeUse {
            name: Some(mount.source.clone()).filter(|name| !name.is_empty()),
            driver: Some(driver.name).filter(|name| !name.is_empty()),
            options: driver.options,
            labels: options.labels,
            target: mount.target.clone(),
            is_read_only: mount.is_read_only,
            is_no_copy: options.is_no_copy,
            subpath: options.subpath,
        });
        Ok(())
    }

    fn add_tmpfs(&mut self, mount: &model::Mount) -> Result<(), Error> {
        let options = mount.tmpfs.clone().unwrap_or_default();
        self.records.push(MountRecord {
            kind: "tmpfs".to_owned(),
            destination: mount.target.clone(),
            is_writable: !mount.is_read_only,
            ..MountRecord::default()
        });
        let kind = MountKind::Tmpfs {
            size_bytes: u64::try_from(options.size_bytes).unwrap_or(0),
            mode: posix_mode(options.mode),
            options: tmpfs_options(&options.options)?,
        };
        self.push(mount, kind);
        Ok(())
    }

    /// Paths the image declares as volumes get anonymous ones, unless something is mounted there.
    pub(super) fn add_image_volumes<'a>(&mut self, targets: impl Iterator<Item = &'a str>) {
        for target in targets {
            let is_covered = self.runtime.iter().any(|mount| mount.destination == target)
                || self.volumes.iter().any(|volume| volume.target == target);
            if !is_covered {
                self.volumes.push(VolumeUse {
                    name: None,
                    driver: None,
                    options: BTreeMap::new(),
                    labels: BTreeMap::new(),
                    target: target.to_owned(),
                    is_read_only: false,
                    is_no_copy: false,
                    subpath: String::new(),
                });
            }
        }
    }

    fn push(&mut self, mount: &model::Mount, kind: MountKind) {
        let destination = mount.target.clone();
        self.runtime.push(Mount {
            destination,
            is_readonly: mount.is_read_only,
            kind,
        });
    }
}

fn propagation(propagation: model::Propagation) -> Propagation {
    match propagation {
        model::Propagation::RPrivate => Propagation::Rprivate,
        model::Propagation::Private => Propagation::Private,
        model::Propagation::RShared => Propagation::Rshared,
        model::Propagation::Shared => Propagation::Shared,
        model::Propagation::RSlave => Propagation::Rslave,
        model::Propagation::Slave => Propagation::Slave,
    }
}

fn posix_mode(go_mode: u32) -> u32 {
    let special = GO_MODE_BITS.iter().filter(|(go, _)| go_mode & go != 0);
    special.fold(go_mode & 0o777, |mode, (_, posix)| mode | posix)
}

/// Options beyond size and mode, as the API stores them. Only those that cannot break out are taken, as in Docker.
fn tmpfs_options(json: &str) -> Result<Vec<String>, Error> {
    let refused = |reason: String| Error::Mount {
        kind: "tmpfs",
        reason,
    };
    if json.is_empty() {
        return Ok(Vec::new());
    }
    let options: Vec<Vec<String>> =
        serde_json::from_str(json).map_err(|error| refused(error.to_string()))?;
    let one = |option: Vec<String>| match option.as_slice() {
        [name] if TMPFS_OPTIONS.contains(&name.as_str()) => Ok(name.clone()),
        [name] | [name, _] => Err(refused(format!("invalid option: {name}"))),
        _ => Err(refused("invalid option array length".to_owned())),
    };
    options.into_iter().map(one).collect()
}

/// Whether a path stays below where it starts; symbolic links are looked at when it is mounted.
fn is_local(path: &str) -> bool {
    let is_inner = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    !path.contains('\0') && Path::new(path).components().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_special_mode_bits_become_posix_ones() {
        assert_eq!(posix_mode(0o755), 0o755);
        assert_eq!(posix_mode(1 << 20 | 0o777), 0o1777);
        assert_eq!(posix_mode(1 << 23 | 1 << 22), 0o6000);
    }

    #[test]
    fn a_part_of_a_volume_is_below_it() {
        for inner in ["", "a", "a/b", "./a", "a//b"] {
            assert!(is_local(inner), "{inner}");
        }
        for outer in ["/a", "..", "a/../..", "a/..", "a\0"] {
            assert!(!is_local(outer), "{outer}");
        }
    }

    #[test]
    fn options_of_memory_file_systems_are_few() {
        assert_eq!(tmpfs_options("").unwrap(), [""; 0]);
        assert_eq!(tmpfs_options(r#"[["exec"]]"#).unwrap(), ["exec"]);
        let refused = |json| tmpfs_options(json).unwrap_err().to_string();
        assert_eq!(
            refused(r#"[["uid","7"]]"#),
            "invalid mount config for type \"tmpfs\": invalid option: uid"
        );
        assert!(refused("[[]]").contains("invalid option array length"));
        assert!(refused("{").contains("invalid mount config"));
    }
}
