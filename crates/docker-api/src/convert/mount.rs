//! Mounts.

use skep_model::{
    BindOptions, Consistency, Mount, MountKind, Propagation, TmpfsOptions, VolumeOptions,
};

use crate::{
    dto::mount as dto,
    error::{ApiError, Result},
};

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("volume", MountKind::Volume),
    ("tmpfs", MountKind::Tmpfs),
    ("npipe", MountKind::NamedPipe),
    ("cluster", MountKind::Cluster),
];
const CONSISTENCIES: [(&str, Consistency); 4] = [
    ("default", Consistency::Default),
    ("consistent", Consistency::Consistent),
    ("cached", Consistency::Cached),
    ("delegated", Consistency::Delegated),
];
const PROPAGATIONS: [(&str, Propagation); 6] = [
    ("rprivate", Propagation::RPrivate),
    ("private", Propagation::Private),
    ("rshared", Propagation::RShared),
    ("shared", Propagation::Shared),
    ("rslave", Propagation::RSlave),
    ("slave", Propagation::Slave),
];

fn name<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table
        .iter()
        .find(|(_, other)| other == value)
        .map_or("", |(name, _)| name)
}

fn parse<T: Copy>(table: &[(&str, T)], name: &str, noun: &str) -> Result<T> {
    let found = table
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| ApiError::invalid(format!("invalid {noun}: {name:?}")))
}

impl From<&Mount> for dto::Mount {
    fn from(mount: &Mount) -> Self {
        let consistency = match mount.consistency {
            Consistency::Default => "",
            ref other => name(&CONSISTENCIES, other),
        };
        Self {
            kind: name(&KINDS, &mount.kind).to_owned(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.is_read_only,
            consistency: consistency.to_owned(),
            bind_options: mount.bind.as_ref().map(|bind| dto::BindOptions {
                propagation: name(&PROPAGATIONS, &bind.propagation).to_owned(),
                non_recursive: bind.is_non_recursive,
                create_mountpoint: bind.create_mountpoint,
                read_only_non_recursive: bind.is_read_only_non_recursive,
                read_only_force_recursive: bind.is_read_only_force_recursive,
            }),
            volume_options: mount.volume.as_ref().map(|volume| dto::VolumeOptions {
                no_copy: volume.is_no_copy,
                labels: volume.labels.clone(),
                subpath: volume.subpath.clone(),
                driver_config: volume.driver.as_ref().map(Into::into),
            }),
            image_options: None,
            tmpfs_options: mount.tmpfs.as_ref().map(|tmpfs| dto::TmpfsOptions {
                size_bytes: tmpfs.size_bytes,
                mode: tmpfs.mode,
                options: serde_json::from_str(&tmpfs.options).unwrap_or_default(),
            }),
            cluster_options: None,
        }
    }
}

impl TryFrom<dto::Mount> for Mount {
    type Error = ApiError;

    fn try_from(mount: dto::Mount) -> Result<Self> {
        let kind = match mount.kind.as_str() {
            "" => MountKind::Bind,
            kind => parse(&KINDS, kind, "MountType")?,
        };
        let consistency = match mount.consistency.as_str() {
            "" => Consistency::Default,
            consistency => parse(&CONSISTENCIES, consistency, "mount Consistency")?,
        };
        Ok(Self {
            kind,
            source: mount.source,
            target: mount.target,
            is_read_only: mount.read_only,
            consistency,
            bind: mount.bind_options.map(TryInto::try_into).transpose()?,
            volume: mount.volume_options.map(|volume| VolumeOptions {
                is_no_copy: volume.no_copy,
                labels: volume.labels,
                driver: volume.driver_config.map(Into::into),
                subpath: volume.subpath,
            }),
            tmpfs: mount.tmpfs_options.map(TryInto::try_into).transpose()?,
        })
    }
}

impl TryFrom<dto::BindOptions> for BindOptions {
    type Error = ApiError;

    fn try_from(bind: dto::BindOptions) -> Result<Self> {
        Ok(Self {
            propagation: match bind.propagation.as_str() {
                "" => Propagation::RPrivate,
                propagation => parse(&PROPAGATIONS, propagation, "MountPropagation")?,
            },
            is_non_recursive: bind.non_recursive,
            create_mountpoint: bind.create_mountpoint,
            is_read_only_non_recursive: bind.read_only_non_recursive,
            is_read_only_force_recursive: bind.read_only_force_recursive,
        })
    }
}

impl TryFrom<dto::TmpfsOptions> for TmpfsOptions {
    type Error = ApiError;

    fn try_from(tmpfs: dto::TmpfsOptions) -> Result<Self> {
        let options = match tmpfs.options.is_empty() {
            true => String::new(),
            false => serde_json::to_string(&tmpfs.options)
                .map_err(|error| ApiError::system("failed to keep tmpfs options", error))?,
        };
        Ok(Self {
            size_bytes: tmpfs.size_bytes,
            mode: tmpfs.mode,
            options,
        })
    }
}
