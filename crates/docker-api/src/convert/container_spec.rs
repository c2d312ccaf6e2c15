//! The container part of a task template.

use skep_model::{
    AppArmorMode, ContainerSpec, CredentialSpec, DnsConfig, HealthConfig, Isolation, Privileges,
    Redacted, SeLinuxContext, SeccompMode, SeccompOptions, Ulimit,
};

use crate::{
    convert::{duration, nanos},
    dto::container_spec as dto,
    error::{ApiError, Result},
    http::base64,
};

impl From<&ContainerSpec> for dto::ContainerSpec {
    /// Registry credentials are left out: they are never shown.
    fn from(spec: &ContainerSpec) -> Self {
        Self {
            image: spec.image.clone(),
            labels: spec.labels.clone(),
            command: spec.command.clone(),
            args: spec.args.clone(),
            hostname: spec.hostname.clone(),
            env: spec.env.clone(),
            dir: spec.dir.clone(),
            user: spec.user.clone(),
            groups: spec.groups.clone(),
            privileges: spec.privileges.as_ref().map(Into::into),
            init: spec.init,
            stop_signal: spec.stop_signal.clone(),
            tty: spec.has_tty,
            open_stdin: spec.has_open_stdin,
            read_only: spec.is_read_only,
            mounts: spec.mounts.iter().map(Into::into).collect(),
            stop_grace_period: spec.stop_grace_period.map(nanos),
            healthcheck: spec.health.as_ref().map(Into::into),
            hosts: spec.hosts.clone(),
            dns_config: spec.dns.as_ref().map(|dns| dto::DnsConfig {
                nameservers: dns.nameservers.clone(),
                search: dns.search.clone(),
                options: dns.options.clone(),
            }),
            secrets: spec.secrets.iter().map(Into::into).collect(),
            configs: spec.configs.iter().map(Into::into).collect(),
            isolation: match spec.isolation {
                Isolation::Default => "default",
                Isolation::Process => "process",
                Isolation::HyperV => "hyperv",
            }
            .to_owned(),
            sysctls: spec.sysctls.clone(),
            capability_add: spec.capability_add.clone(),
            capability_drop: spec.capability_drop.clone(),
            ulimits: spec.ulimits.iter().map(Into::into).collect(),
            oom_score_adj: spec.oom_score_adj,
        }
    }
}

impl TryFrom<dto::ContainerSpec> for ContainerSpec {
    type Error = ApiError;

    fn try_from(spec: dto::ContainerSpec) -> Result<Self> {
        let grace = spec.stop_grace_period;
        Ok(Self {
            image: spec.image,
            labels: spec.labels,
            command: spec.command,
            args: spec.args,
            hostname: spec.hostname,
            env: spec.env,
            dir: spec.dir,
            user: spec.user,
            groups: spec.groups,
            privileges: spec.privileges.map(TryInto::try_into).transpose()?,
            init: spec.init,
            has_tty: spec.tty,
            has_open_stdin: spec.open_stdin,
            is_read_only: spec.read_only,
            stop_signal: spec.stop_signal,
            mounts: spec
                .mounts
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_>>()?,
            stop_grace_period: grace
                .map(|nanos| duration(nanos, "ContainerSpec.StopGracePeriod"))
                .transpose()?,
            registry_auth: Redacted::default(),
            secrets: spec.secrets.into_iter().map(Into::into).collect(),
            configs: spec
                .configs
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_>>()?,
            hosts: spec.hosts,
            dns: spec.dns_config.map(|dns| DnsConfig {
                nameservers: dns.nameservers,
                search: dns.search,
                options: dns.options,
            }),
            health: spec.healthcheck.map(TryInto::try_into).transpose()?,
            isolation: match spec.isolation.as_str() {
                "" | "default" => Isolation::Default,
                "process" => Isolation::Process,
                "hyperv" => Isolation::HyperV,
                other => return Err(ApiError::invalid(format!("invalid Isolation: {other:?}"))),
            },
            sysctls: spec.sysctls,
            capability_add: spec.capability_add,
            capability_drop: spec.capability_drop,
            ulimits: spec.ulimits.into_iter().map(Into::into).collect(),
            oom_score_adj: spec.oom_score_adj,
        })
    }
}

impl From<&Ulimit> for dto::Ulimit {
    fn from(ulimit: &Ulimit) -> Self {
        Self {
            name: ulimit.name.clone(),
            hard: ulimit.hard,
            soft: ulimit.soft,
        }
    }
}

impl From<dto::Ulimit> for Ulimit {
    fn from(ulimit: dto::Ulimit) -> Self {
        Self {
            name: ulimit.name,
            soft: ulimit.soft,
            hard: ulimit.hard,
        }
    }
}

impl From<&HealthConfig> for dto::HealthConfig {
    fn from(health: &HealthConfig) -> Self {
        Self {
            test: health.test.clone(),
            interval: nanos(health.interval),
            timeout: nanos(health.timeout),
            start_period: nanos(health.start_period),
            start_interval: nanos(health.start_interval),
            retries: i64::from(health.retries),
        }
    }
}

impl TryFrom<dto::HealthConfig> for HealthConfig {
    type Error = ApiError;

    fn try_from(health: dto::HealthConfig) -> Result<Self> {
        Ok(Self {
            test: health.test,
            interval: duration(health.interval, "Healthcheck.Interval")?,
            timeout: duration(health.timeout, "Healthcheck.Timeout")?,
            retries: i32::try_from(health.retries)
                .map_err(|_| ApiError::invalid("Healthcheck.Retries is out of range"))?,
            start_period: duration(health.start_period, "Healthcheck.StartPeriod")?,
            start_interval: duration(health.start_interval, "Healthcheck.StartInterval")?,
        })
    }
}

impl From<&Privileges> for dto::Privileges {
    fn from(privileges: &Privileges) -> Self {
        let credential_spec = privileges.credential_spec.as_ref().map(|spec| {
            let mut dto = dto::CredentialSpec::default();
            match spec.clone() {
                CredentialSpec::Config(id) => dto.config = id,
                CredentialSpec::File(path) => dto.file = path,
                CredentialSpec::Registry(key) => dto.registry = key,
            }
            dto
        });
        Self {
            credential_spec,
            selinux_context: privileges
                .selinux
                .as_ref()
                .map(|label| dto::SeLinuxContext {
                    disable: label.is_disabled,
                    user: label.user.clone(),
                    role: label.role.clone(),
                    kind: label.kind.clone(),
                    level: label.level.clone(),
                }),
            seccomp: privileges.seccomp.as_ref().map(|seccomp| dto::Seccomp {
                mode: match seccomp.mode {
                    SeccompMode::Default => "default",
                    SeccompMode::Unconfined => "unconfined",
                    SeccompMode::Custom => "custom",
                }
                .to_owned(),
                profile: base64::encode(&seccomp.profile),
            }),
            app_armor: privileges.apparmor.map(|mode| dto::AppArmor {
                mode: match mode {
                    AppArmorMode::Default => "default",
                    AppArmorMode::Disabled => "disabled",
                }
                .to_owned(),
            }),
            no_new_privileges: privileges.no_new_privileges,
        }
    }
}

impl TryFrom<dto::Privileges> for Privileges {
    type Error = ApiError;

    fn try_from(privileges: dto::Privileges) -> Result<Self> {
        Ok(Self {
            credential_spec: privileges
                .credential_spec
                .map(credential_spec)
                .transpose()?,
            selinux: privileges.selinux_context.map(|label| SeLinuxContext {
                is_disabled: label.disable,
                user: label.user,
                role: label.role,
                kind: label.kind,
                level: label.level,
            }),
            seccomp: privileges.seccomp.map(seccomp).transpose()?,
            apparmor: privileges
                .app_armor
                .map(|app_armor| apparmor(&app_armor))
                .transpose()?,
            no_new_privileges: privileges.no_new_privileges,
        })
    }
}

fn credential_spec(spec: dto::CredentialSpec) -> Result<CredentialSpec> {
    match (
        spec.config.as_str(),
        spec.file.as_str(),
        spec.registry.as_str(),
    ) {
        (_, "", "") if !spec.config.is_empty() => Ok(CredentialSpec::Config(spec.config)),
        ("", _, "") if !spec.file.is_empty() => Ok(CredentialSpec::File(spec.file)),
        ("", "", _) if !spec.registry.is_empty() => Ok(CredentialSpec::Registry(spec.registry)),
        ("", "", "") => Err(ApiError::invalid(
            "invalid CredentialSpec: must either provide \"file\", \"registry\", or \"config\" for \
             credential spec",
        )),
        _ => Err(ApiError::invalid(
            "invalid CredentialSpec: cannot specify both \"file\", \"registry\", and \"config\" \
             credential specs",
        )),
    }
}

fn seccomp(seccomp: dto::Seccomp) -> Result<SeccompOptions> {
    let mode = match seccomp.mode.as_str() {
        "" | "default" => SeccompMode::Default,
        "unconfined" => SeccompMode::Unconfined,
        "custom" => SeccompMode::Custom,
        other => {
            return Err(ApiError::invalid(format!(
                "invalid Seccomp Mode: {other:?}"
            )));
        }
    };
    let profile = base64::decode(&seccomp.profile)
        .ok_or_else(|| ApiError::invalid("invalid Seccomp Profile: not base64"))?;
    Ok(SeccompOptions { mode, profile })
}

fn apparmor(apparmor: &dto::AppArmor) -> Result<AppArmorMode> {
    match apparmor.mode.as_str() {
        "" | "default" => Ok(AppArmorMode::Default),
        "disabled" => Ok(AppArmorMode::Disabled),
        other => Err(ApiError::invalid(format!(
            "invalid AppArmor Mode: {other:?}"
        ))),
    }
}
