//! Mounts.

use skep_model as model;

use crate::{
    convert::field::{At, enum_pair, known},
    error::Error,
    proto::{self, mount as wire},
};

enum_pair!(model::MountKind, wire::Type { Bind, Volume, Tmpfs, NamedPipe = Npipe, Cluster });
enum_pair!(
    model::Consistency,
    wire::Consistency {
        Default,
        Consistent,
        Cached,
        Delegated
    }
);
enum_pair!(model::Propagation, wire::bind_options::Propagation {
    RPrivate = Rprivate,
    Private,
    RShared = Rshared,
    Shared,
    RSlave = Rslave,
    Slave,
});

impl From<&model::Mount> for proto::Mount {
    fn from(value: &model::Mount) -> Self {
        Self {
            r#type: wire::Type::from(value.kind).into(),
            source: value.source.clone(),
            target: value.target.clone(),
            readonly: value.is_read_only,
            consistency: wire::Consistency::from(value.consistency).into(),
            bind_options: value.bind.as_ref().map(Into::into),
            volume_options: value.volume.as_ref().map(Into::into),
            tmpfs_options: value.tmpfs.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::Mount> for model::Mount {
    type Error = Error;

    fn try_from(value: proto::Mount) -> Result<Self, Error> {
        Ok(Self {
            kind: known::<wire::Type, _>(value.r#type).at("type")?,
            source: value.source,
            target: value.target,
            is_read_only: value.readonly,
            consistency: known::<wire::Consistency, _>(value.consistency).at("consistency")?,
            bind: value
                .bind_options
                .map(model::BindOptions::try_from)
                .transpose()
                .at("bind_options")?,
            volume: value.volume_options.map(Into::into),
            tmpfs: value.tmpfs_options.map(Into::into),
        })
    }
}

impl From<&model::BindOptions> for wire::BindOptions {
    fn from(value: &model::BindOptions) -> Self {
        Self {
            propagation: wire::bind_options::Propagation::from(value.propagation).into(),
            nonrecursive: value.is_non_recursive,
            createmountpoint: value.create_mountpoint,
            readonlynonrecursive: value.is_read_only_non_recursive,
            readonlyforcerecursive: value.is_read_only_force_recursive,
        }
    }
}

impl TryFrom<wire::BindOptions> for model::BindOptions {
    type Error = Error;

    fn try_from(value: wire::BindOptions) -> Result<Self, Error> {
        Ok(Self {
            propagation: known::<wire::bind_options::Propagation, _>(value.propagation)
                .at("propagation")?,
            is_non_recursive: value.nonrecursive,
            create_mountpoint: value.createmountpoint,
            is_read_only_non_recursive: value.readonlynonrecursive,
            is_read_only_force_recursive: value.readonlyforcerecursive,
        })
    }
}

impl From<&model::VolumeOptions> for wire::VolumeOptions {
    fn from(value: &model::VolumeOptions) -> Self {
        Self {
            nocopy: value.is_no_copy,
            labels: value.labels.clone(),
            driver_config: value.driver.as_ref().map(Into::into),
            subpath: value.subpath.clone(),
        }
    }
}

impl From<wire::VolumeOptions> for model::VolumeOptions {
    fn from(value: wire::VolumeOptions) -> Self {
        Self {
            is_no_copy: value.nocopy,
            labels: value.labels,
            driver: value.driver_config.map(Into::into),
            subpath: value.subpath,
        }
    }
}

impl From<&model::TmpfsOptions> for wire::TmpfsOptions {
    fn from(value: &model::TmpfsOptions) -> Self {
        Self {
            size_bytes: value.size_bytes,
            mode: value.mode,
            options: value.options.clone(),
        }
    }
}

impl From<wire::TmpfsOptions> for model::TmpfsOptions {
    fn from(value: wire::TmpfsOptions) -> Self {
        Self {
            size_bytes: value.size_bytes,
            mode: value.mode,
            options: value.options,
        }
    }
}
