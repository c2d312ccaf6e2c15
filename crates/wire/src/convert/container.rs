//! The container of a task. `pids_limit` lives here on the wire and with the limits in the model.

use std::time::Duration;

use skep_model as model;

use crate::{
    convert::{
        field::{At, enum_pair, known, list, option, to_list},
        time::{duration, duration_or, to_duration},
    },
    error::Error,
    proto::{self, config_reference, container_spec as wire, secret_reference},
};

enum_pair!(model::Isolation, wire::Isolation { Default, Process, HyperV = Hyperv });

/// `value` on the wire, with the limit that the model keeps elsewhere.
pub(super) fn to_container(value: &model::ContainerSpec, pids_limit: i64) -> proto::ContainerSpec {
    let registry_auth = &value.registry_auth.0;
    proto::ContainerSpec {
        image: value.image.clone(),
        labels: value.labels.clone(),
        command: value.command.clone(),
        args: value.args.clone(),
        hostname: value.hostname.clone(),
        env: value.env.clone(),
        dir: value.dir.clone(),
        user: value.user.clone(),
        groups: value.groups.clone(),
        privileges: value.privileges.as_ref().map(Into::into),
        init: value.init,
        tty: value.has_tty,
        open_stdin: value.has_open_stdin,
        read_only: value.is_read_only,
        stop_signal: value.stop_signal.clone(),
        mounts: to_list(&value.mounts),
        stop_grace_period: value.stop_grace_period.map(to_duration),
        pull_options: (!registry_auth.is_empty()).then(|| wire::PullOptions {
            registry_auth: registry_auth.clone(),
        }),
        secrets: to_list(&value.secrets),
        configs: to_list(&value.configs),
        hosts: value.hosts.clone(),
        dns_config: value.dns.as_ref().map(Into::into),
        healthcheck: value.health.as_ref().map(Into::into),
        isolation: wire::Isolation::from(value.isolation).into(),
        pids_limit,
        sysctls: value.sysctls.clone(),
        capability_add: value.capability_add.clone(),
        capability_drop: value.capability_drop.clone(),
        ulimits: to_list(&value.ulimits),
        oom_score_adj: value.oom_score_adj,
    }
}

impl TryFrom<proto::ContainerSpec> for model::ContainerSpec {
    type Error = Error;

    /// `pids_limit` is the caller's to take before.
    fn try_from(value: proto::ContainerSpec) -> Result<Self, Error> {
        let stop_grace_period = value
            .stop_grace_period
            .map(duration)
            .transpose()
            .at("stop_grace_period")?;
        Ok(Self {
            image: value.image,
            labels: value.labels,
            command: value.command,
            args: value.args,
            hostname: value.hostname,
            env: value.env,
            dir: value.dir,
            user: value.user,
            groups: value.groups,
            privileges: option(value.privileges).at("privileges")?,
            init: value.init,
            has_tty: value.tty,
            has_open_stdin: value.open_stdin,
            is_read_only: value.read_only,
            stop_signal: value.stop_signal,
            mounts: list(value.mounts).at("mounts")?,
            stop_grace_period,
            registry_auth: model::Redacted(value.pull_options.unwrap_or_default().registry_auth),
            secrets: value.secrets.into_iter().map(Into::into).collect(),
            configs: value.configs.into_iter().map(Into::into).collect(),
            hosts: value.hosts,
            dns: value.dns_config.map(Into::into),
            health: option(value.healthcheck).at("healthcheck")?,
            isolation: known::<wire::Isolation, _>(value.isolation).at("isolation")?,
            sysctls: value.sysctls,
            capability_add: value.capability_add,
            capability_drop: value.capability_drop,
            ulimits: value.ulimits.into_iter().map(Into::into).collect(),
            oom_score_adj: value.oom_score_adj,
        })
    }
}

impl From<&model::Ulimit> for wire::Ulimit {
    fn from(value: &model::Ulimit) -> Self {
        Self {
            name: value.name.clone(),
            soft: value.soft,
            hard: value.hard,
        }
    }
}

impl From<wire::Ulimit> for model::Ulimit {
    fn from(value: wire::Ulimit) -> Self {
        Self {
            name: value.name,
            soft: value.soft,
            hard: value.hard,
        }
    }
}

impl From<&model::DnsConfig> for wire::DnsConfig {
    fn from(value: &model::DnsConfig) -> Self {
        Self {
            nameservers: value.nameservers.clone(),
            search: value.search.clone(),
            options: value.options.clone(),
        }
    }
}

impl From<wire::DnsConfig> for model::DnsConfig {
    fn from(value: wire::DnsConfig) -> Self {
        Self {
            nameservers: value.nameservers,
            search: value.search,
            options: value.options,
        }
    }
}

impl From<&model::FileTarget> for proto::FileTarget {
    fn from(value: &model::FileTarget) -> Self {
        Self {
            name: value.name.clone(),
            uid: value.uid.clone(),
            gid: value.gid.clone(),
            mode: value.mode,
        }
    }
}

impl From<proto::FileTarget> for model::FileTarget {
    fn from(value: proto::FileTarget) -> Self {
        Self {
            name: value.name,
            uid: value.uid,
            gid: value.gid,
            mode: value.mode,
        }
    }
}

impl From<&model::SecretReference> for proto::SecretReference {
    fn from(value: &model::SecretReference) -> Self {
        Self {
            secret_id: value.secret_id.clone(),
            secret_name: value.secret_name.clone(),
            target: value
                .file
                .as_ref()
                .map(|file| secret_reference::Target::File(file.into())),
        }
    }
}

impl From<proto::SecretReference> for model::SecretReference {
    fn from(value: proto::SecretReference) -> Self {
        Self {
            secret_id: value.secret_id,
            secret_name: value.secret_name,
            file: value
                .target
                .map(|secret_reference::Target::File(file)| file.into()),
        }
    }
}

impl From<&model::ConfigReference> for proto::ConfigReference {
    fn from(value: &model::ConfigReference) -> Self {
        let target = value.target.as_ref().map(|target| match target {
            model::ConfigTarget::File(file) => config_reference::Target::File(file.into()),
            model::ConfigTarget::Runtime => {
                config_reference::Target::Runtime(proto::RuntimeTarget {})
            }
        });
        Self {
            config_id: value.config_id.clone(),
            config_name: value.config_name.clone(),
            target,
        }
    }
}

impl From<proto::ConfigReference> for model::ConfigReference {
    fn from(value: proto::ConfigReference) -> Self {
        let target = value.target.map(|target| match target {
            config_reference::Target::File(file) => model::ConfigTarget::File(file.into()),
            config_reference::Target::Runtime(proto::RuntimeTarget {}) => {
                model::ConfigTarget::Runtime
            }
        });
        Self {
            config_id: value.config_id,
            config_name: value.config_name,
            target,
        }
    }
}

impl From<&model::HealthConfig> for proto::HealthConfig {
    fn from(value: &model::HealthConfig) -> Self {
        Self {
            test: value.test.clone(),
            interval: Some(to_duration(value.interval)),
            timeout: Some(to_duration(value.timeout)),
            retries: value.retries,
            start_period: Some(to_duration(value.start_period)),
            start_interval: Some(to_duration(value.start_interval)),
        }
    }
}

impl TryFrom<proto::HealthConfig> for model::HealthConfig {
    type Error = Error;

    fn try_from(value: proto::HealthConfig) -> Result<Self, Error> {
        let start_interval = duration_or(value.start_interval, Duration::ZERO);
        Ok(Self {
            test: value.test,
            interval: duration_or(value.interval, Duration::ZERO).at("interval")?,
            timeout: duration_or(value.timeout, Duration::ZERO).at("timeout")?,
            retries: value.retries,
            start_period: duration_or(value.start_period, Duration::ZERO).at("start_period")?,
            start_interval: start_interval.at("start_interval")?,
        })
    }
}
