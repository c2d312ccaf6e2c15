//! Settings of the cluster.

use skep_model as model;

use crate::{
    convert::{
        field::{At, known, list, or_default, to_list},
        time::{duration_or, to_duration},
    },
    error::Error,
    proto::{self, external_ca::CaProtocol},
};

impl From<&model::ClusterSpec> for proto::ClusterSpec {
    fn from(value: &model::ClusterSpec) -> Self {
        Self {
            annotations: Some((&value.annotations).into()),
            acceptance_policy: Some(proto::AcceptancePolicy::default()),
            orchestration: Some(proto::OrchestrationConfig {
                task_history_retention_limit: value.task_history_limit,
            }),
            raft: Some((&value.raft).into()),
            dispatcher: Some(proto::DispatcherConfig {
                heartbeat_period: Some(to_duration(value.heartbeat_period)),
            }),
            ca_config: Some((&value.ca).into()),
            task_defaults: Some(proto::TaskDefaults {
                log_driver: value.default_log_driver.as_ref().map(Into::into),
            }),
            encryption_config: Some(proto::EncryptionConfig {
                auto_lock_managers: value.auto_lock_managers,
            }),
        }
    }
}

impl TryFrom<proto::ClusterSpec> for model::ClusterSpec {
    type Error = Error;

    /// `acceptance_policy` is not looked at: no released Docker reads or fills it.
    fn try_from(value: proto::ClusterSpec) -> Result<Self, Error> {
        let heartbeat_period = duration_or(
            value.dispatcher.unwrap_or_default().heartbeat_period,
            model::DEFAULT_HEARTBEAT_PERIOD,
        );
        Ok(Self {
            annotations: or_default(value.annotations).at("annotations")?,
            task_history_limit: value
                .orchestration
                .map_or(model::DEFAULT_TASK_HISTORY_LIMIT, |orchestration| {
                    orchestration.task_history_retention_limit
                }),
            raft: value
                .raft
                .map_or_else(model::RaftSettings::default, Into::into),
            heartbeat_period: heartbeat_period.at("heartbeat_period").at("dispatcher")?,
            ca: or_default(value.ca_config).at("ca_config")?,
            default_log_driver: value
                .task_defaults
                .and_then(|defaults| defaults.log_driver)
                .map(Into::into),
            auto_lock_managers: value
                .encryption_config
                .unwrap_or_default()
                .auto_lock_managers,
        })
    }
}

impl From<&model::RaftSettings> for proto::RaftConfig {
    fn from(value: &model::RaftSettings) -> Self {
        Self {
            snapshot_interval: value.snapshot_interval,
            keep_old_snapshots: value.keep_old_snapshots,
            log_entries_for_slow_followers: value.log_entries_for_slow_followers,
            heartbeat_tick: value.heartbeat_tick,
            election_tick: value.election_tick,
        }
    }
}

impl From<proto::RaftConfig> for model::RaftSettings {
    fn from(value: proto::RaftConfig) -> Self {
        Self {
            snapshot_interval: value.snapshot_interval,
            keep_old_snapshots: value.keep_old_snapshots,
            log_entries_for_slow_followers: value.log_entries_for_slow_followers,
            heartbeat_tick: value.heartbeat_tick,
            election_tick: value.election_tick,
        }
    }
}

impl From<&model::CaConfig> for proto::CaConfig {
    fn from(value: &model::CaConfig) -> Self {
        Self {
            node_cert_expiry: Some(to_duration(value.node_cert_expiry)),
            external_cas: to_list(&value.external_cas),
            signing_ca_cert: value.signing_ca_cert.clone(),
            signing_ca_key: value.signing_ca_key.0.clone(),
            force_rotate: value.force_rotate,
        }
    }
}

impl TryFrom<proto::CaConfig> for model::CaConfig {
    type Error = Error;

    fn try_from(value: proto::CaConfig) -> Result<Self, Error> {
        let node_cert_expiry = duration_or(value.node_cert_expiry, model::DEFAULT_CERT_EXPIRY);
        Ok(Self {
            node_cert_expiry: node_cert_expiry.at("node_cert_expiry")?,
            external_cas: list(value.external_cas).at("external_cas")?,
            signing_ca_cert: value.signing_ca_cert,
            signing_ca_key: model::Redacted(value.signing_ca_key),
            force_rotate: value.force_rotate,
        })
    }
}

impl From<&model::ExternalCa> for proto::ExternalCa {
    fn from(value: &model::ExternalCa) -> Self {
        Self {
            protocol: CaProtocol::Cfssl.into(),
            url: value.url.clone(),
            options: value.options.clone(),
            ca_cert: value.ca_cert.clone(),
        }
    }
}

impl TryFrom<proto::ExternalCa> for model::ExternalCa {
    type Error = Error;

    fn try_from(value: proto::ExternalCa) -> Result<Self, Error> {
        let _: CaProtocol = known::<CaProtocol, _>(value.protocol).at("protocol")?;
        Ok(Self {
            url: value.url,
            options: value.options,
            ca_cert: value.ca_cert,
        })
    }
}
