//! Privileges of a container.

use skep_model as model;

use crate::{
    convert::field::{At, enum_pair, known, option},
    error::Error,
    proto::{self, privileges as wire, privileges::credential_spec::Source},
};

enum_pair!(
    model::SeccompMode,
    wire::seccomp_opts::SeccompMode {
        Default,
        Unconfined,
        Custom
    }
);
enum_pair!(
    model::AppArmorMode,
    wire::app_armor_opts::AppArmorMode { Default, Disabled }
);

impl From<&model::Privileges> for proto::Privileges {
    fn from(value: &model::Privileges) -> Self {
        Self {
            credential_spec: value.credential_spec.as_ref().map(Into::into),
            selinux_context: value.selinux.as_ref().map(Into::into),
            seccomp: value.seccomp.as_ref().map(Into::into),
            apparmor: value.apparmor.map(|mode| wire::AppArmorOpts {
                mode: wire::app_armor_opts::AppArmorMode::from(mode).into(),
            }),
            no_new_privileges: value.no_new_privileges,
        }
    }
}

impl TryFrom<proto::Privileges> for model::Privileges {
    type Error = Error;

    fn try_from(value: proto::Privileges) -> Result<Self, Error> {
        let apparmor = value
            .apparmor
            .map(|options| known::<wire::app_armor_opts::AppArmorMode, _>(options.mode).at("mode"))
            .transpose()
            .at("apparmor")?;
        Ok(Self {
            credential_spec: option(value.credential_spec).at("credential_spec")?,
            selinux: value.selinux_context.map(Into::into),
            seccomp: option(value.seccomp).at("seccomp")?,
            apparmor,
            no_new_privileges: value.no_new_privileges,
        })
    }
}

impl From<&model::CredentialSpec> for wire::CredentialSpec {
    fn from(value: &model::CredentialSpec) -> Self {
        let source = match value {
            model::CredentialSpec::File(file) => Source::File(file.clone()),
            model::CredentialSpec::Registry(key) => Source::Registry(key.clone()),
            model::CredentialSpec::Config(id) => Source::Config(id.clone()),
        };
        Self {
            source: Some(source),
        }
    }
}

impl TryFrom<wire::CredentialSpec> for model::CredentialSpec {
    type Error = Error;

    fn try_from(value: wire::CredentialSpec) -> Result<Self, Error> {
        Ok(match value.source.at("source")? {
            Source::File(file) => Self::File(file),
            Source::Registry(key) => Self::Registry(key),
            Source::Config(id) => Self::Config(id),
        })
    }
}

impl From<&model::SeLinuxContext> for wire::SeLinuxContext {
    fn from(value: &model::SeLinuxContext) -> Self {
        Self {
            disable: value.is_disabled,
            user: value.user.clone(),
            role: value.role.clone(),
            r#type: value.kind.clone(),
            level: value.level.clone(),
        }
    }
}

impl From<wire::SeLinuxContext> for model::SeLinuxContext {
    fn from(value: wire::SeLinuxContext) -> Self {
        Self {
            is_disabled: value.disable,
            user: value.user,
            role: value.role,
            kind: value.r#type,
            level: value.level,
        }
    }
}

impl From<&model::SeccompOptions> for wire::SeccompOpts {
    fn from(value: &model::SeccompOptions) -> Self {
        Self {
            mode: wire::seccomp_opts::SeccompMode::from(value.mode).into(),
            profile: value.profile.clone(),
        }
    }
}

impl TryFrom<wire::SeccompOpts> for model::SeccompOptions {
    type Error = Error;

    fn try_from(value: wire::SeccompOpts) -> Result<Self, Error> {
        Ok(Self {
            mode: known::<wire::seccomp_opts::SeccompMode, _>(value.mode).at("mode")?,
            profile: value.profile,
        })
    }
}
