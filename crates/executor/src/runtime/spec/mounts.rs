//! Mounts in OCI form.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Error, Host, INIT_PATH, defaults};
use crate::runtime::config::{ContainerConfig, Mount, MountKind, Propagation};

/// Linux since which mounts below a read-only one can be made read-only, too.
const READONLY_BELOW_SINCE: (u32, u32) = (5, 12);

/// The `mounts` list.
pub(super) fn value(config: &ContainerConfig, host: &Host) -> Result<Vec<Value>, Error> {
    let mut list = defaults::mounts(config);
    if config.has_init {
        let init = host.init.as_ref().ok_or(Error::NoInit)?;
        list.push(
            json!({ "destination": INIT_PATH, "type": "bind", "source": init,
            "options": ["bind", "ro"] }),
        );
    }
    // A mount at a default's place replaces it, as with `--tmpfs /dev/shm`.
    for (index, mount) in config.mounts.iter().enumerate() {
        let destination = &mount.destination;
        list.retain(|known| known["destination"] != destination.as_str());
        if !destination.starts_with('/') || destination.contains('\0') || destination == "/" {
            return Err(Error::Mount {
                destination: destination.clone(),
                reason: "the destination must be an absolute path other than `/`",
            });
        }
        let held = host.held_dir.join(index.to_string());
        list.push(one(mount, held, host.kernel));
    }
    // Parents before children, else a later parent hides them; the order among equals stays.
    let depth = |mount: &Value| {
        let path = mount["destination"].as_str().unwrap_or_default();
        Path::new(path).components().count()
    };
    list.sort_by_key(depth);
    Ok(list)
}

/// One mount; `held` is where the monitor puts it, if it does.
fn one(mount: &Mount, held: PathBuf, kernel: (u32, u32)) -> Value {
    let destination = &mount.destination;
    let access = if mount.is_readonly { "ro" } else { "rw" };
    match &mount.kind {
        MountKind::Bind {
            source,
            propagation,
            is_recursive,
            is_readonly_below,
            subpath: _,
        } => {
            let source = if mount.kind.is_held() {
                held
            } else {
                source.clone()
            };
            // Without mounts below there is nothing to recurse into, but to crun `rprivate` says that there is.
            let (bind, propagation) = match (is_recursive, propagation.name()) {
                (true, name) => ("rbind", name),
                (false, name) => ("bind", name.strip_prefix('r').unwrap_or(name)),
            };
            let mut options = vec![bind, access, propagation];
            if mount.is_readonly && *is_readonly_below && kernel >= READONLY_BELOW_SINCE {
                options.push("rro");
            }
            json!({ "destination": destination, "type": "bind", "source": source, "options": options })
        }
        MountKind::Tmpfs {
            size_bytes,
            mode,
            options,
        } => {
            let mut all = vec!["nosuid".to_owned(), "nodev".to_owned(), "noexec".to_owned()];
            all.retain(|option| !options.contains(&option.replace("no", "")));
            all.push(access.to_owned());
            if *size_bytes > 0 {
                all.push(format!("size={size_bytes}"));
            }
            if *mode > 0 {
                all.push(format!("mode={mode:o}"));
            }
            let own = options.iter().filter(|option| !all.contains(option));
            let own: Vec<String> = own.cloned().collect();
            all.extend(own);
            json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": all })
        }
    }
}

/// The widest propagation any mount needs of the root.
pub(super) fn rootfs_propagation(config: &ContainerConfig) -> Option<&'static str> {
    let of_kind = |mount: &Mount| match mount.kind {
        MountKind::Bind { propagation, .. } => propagation,
        MountKind::Tmpfs { .. } => Propagation::Rprivate,
    };
    let has = |wanted: &[Propagation]| config.mounts.iter().any(|m| wanted.contains(&of_kind(m)));
    if has(&[Propagation::Shared, Propagation::Rshared]) {
        Some("shared")
    } else {
        has(&[Propagation::Slave, Propagation::Rslave]).then_some("rslave")
    }
}
