//! What a service is.

use std::{sync::Arc, time::Duration};

use skep_model as model;

use crate::{
    convert::{
        field::{At, enum_pair, known, option, or_default, to_list},
        time::{duration, duration_or, to_duration},
    },
    error::Error,
    proto::{
        self,
        service_spec::Mode,
        update_config::{FailureAction, UpdateOrder},
    },
};

enum_pair!(
    model::FailureAction,
    FailureAction {
        Pause,
        Continue,
        Rollback
    }
);
enum_pair!(
    model::UpdateOrder,
    UpdateOrder {
        StopFirst,
        StartFirst
    }
);

impl From<&model::ServiceSpec> for proto::ServiceSpec {
    fn from(value: &model::ServiceSpec) -> Self {
        Self {
            annotations: Some((&*value.annotations).into()),
            task: Some((&*value.task).into()),
            mode: Some(value.mode.into()),
            update: value.update.as_ref().map(Into::into),
            rollback: value.rollback.as_ref().map(Into::into),
            networks: to_list(&value.networks),
            endpoint: value.endpoint.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::ServiceSpec> for model::ServiceSpec {
    type Error = Error;

    fn try_from(value: proto::ServiceSpec) -> Result<Self, Error> {
        let task = model::TaskSpec::try_from(value.task.at("task")?).at("task")?;
        Ok(Self {
            annotations: Arc::new(or_default(value.annotations).at("annotations")?),
            task: Arc::new(task),
            mode: value.mode.at("mode")?.into(),
            update: option(value.update).at("update")?,
            rollback: option(value.rollback).at("rollback")?,
            networks: value.networks.into_iter().map(Into::into).collect(),
            endpoint: option(value.endpoint).at("endpoint")?,
        })
    }
}

impl From<model::ServiceMode> for Mode {
    fn from(value: model::ServiceMode) -> Self {
        match value {
            model::ServiceMode::Replicated { replicas } => {
                Self::Replicated(proto::ReplicatedService { replicas })
            }
            model::ServiceMode::Global => Self::Global(proto::GlobalService {}),
            model::ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions,
            } => Self::ReplicatedJob(proto::ReplicatedJob {
                max_concurrent,
                total_completions,
            }),
            model::ServiceMode::GlobalJob => Self::GlobalJob(proto::GlobalJob {}),
        }
    }
}

impl From<Mode> for model::ServiceMode {
    fn from(value: Mode) -> Self {
        match value {
            Mode::Replicated(mode) => Self::Replicated {
                replicas: mode.replicas,
            },
            Mode::Global(proto::GlobalService {}) => Self::Global,
            Mode::ReplicatedJob(mode) => Self::ReplicatedJob {
                max_concurrent: mode.max_concurrent,
                total_completions: mode.total_completions,
            },
            Mode::GlobalJob(proto::GlobalJob {}) => Self::GlobalJob,
        }
    }
}

impl From<&model::UpdateConfig> for proto::UpdateConfig {
    fn from(value: &model::UpdateConfig) -> Self {
        Self {
            parallelism: value.parallelism,
            delay: Some(to_duration(value.delay)),
            failure_action: FailureAction::from(value.failure_action).into(),
            monitor: value.monitor.map(to_duration),
            max_failure_ratio: value.max_failure_ratio,
            order: UpdateOrder::from(value.order).into(),
        }
    }
}

impl TryFrom<proto::UpdateConfig> for model::UpdateConfig {
    type Error = Error;

    fn try_from(value: proto::UpdateConfig) -> Result<Self, Error> {
        Ok(Self {
            parallelism: value.parallelism,
            delay: duration_or(value.delay, Duration::ZERO).at("delay")?,
            failure_action: known::<FailureAction, _>(value.failure_action).at("failure_action")?,
            monitor: value.monitor.map(duration).transpose().at("monitor")?,
            max_failure_ratio: value.max_failure_ratio,
            order: known::<UpdateOrder, _>(value.order).at("order")?,
        })
    }
}
