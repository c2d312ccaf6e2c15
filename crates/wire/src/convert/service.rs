//! Services as stored.

use std::sync::Arc;

use skep_model as model;

use crate::{
    convert::{
        field::{At, enum_pair, id, known, option},
        time::{timestamp, to_timestamp},
    },
    error::Error,
    proto::{self, update_status::UpdateState},
};

enum_pair!(
    model::UpdateState,
    UpdateState {
        Unknown,
        Updating,
        Paused,
        Completed,
        RollbackStarted,
        RollbackPaused,
        RollbackCompleted,
    }
);

impl From<&model::Service> for proto::Service {
    fn from(value: &model::Service) -> Self {
        Self {
            id: value.id.to_string(),
            meta: Some((&value.meta).into()),
            spec: Some((&*value.spec).into()),
            spec_version: Some(value.spec_version.into()),
            previous_spec: value.previous_spec.as_ref().map(|spec| (&**spec).into()),
            previous_spec_version: value.previous_spec_version.map(Into::into),
            endpoint: value.endpoint.as_ref().map(Into::into),
            update_status: value.update_status.as_ref().map(Into::into),
            job_status: value.job_status.as_ref().map(Into::into),
            pending_delete: value.is_pending_delete,
        }
    }
}

impl TryFrom<proto::Service> for model::Service {
    type Error = Error;

    fn try_from(value: proto::Service) -> Result<Self, Error> {
        let spec = model::ServiceSpec::try_from(value.spec.at("spec")?).at("spec")?;
        let previous_spec: Option<model::ServiceSpec> =
            option(value.previous_spec).at("previous_spec")?;
        Ok(Self {
            id: id(&value.id).at("id")?,
            meta: value.meta.unwrap_or_default().into(),
            spec: Arc::new(spec),
            spec_version: value.spec_version.unwrap_or_default().into(),
            previous_spec: previous_spec.map(Arc::new),
            previous_spec_version: value.previous_spec_version.map(Into::into),
            endpoint: option(value.endpoint).at("endpoint")?,
            update_status: option(value.update_status).at("update_status")?,
            job_status: value.job_status.map(Into::into),
            is_pending_delete: value.pending_delete,
        })
    }
}

impl From<&model::UpdateStatus> for proto::UpdateStatus {
    fn from(value: &model::UpdateStatus) -> Self {
        Self {
            state: UpdateState::from(value.state).into(),
            started_at: value.started_at.map(to_timestamp),
            completed_at: value.completed_at.map(to_timestamp),
            message: value.message.clone(),
        }
    }
}

impl TryFrom<proto::UpdateStatus> for model::UpdateStatus {
    type Error = Error;

    fn try_from(value: proto::UpdateStatus) -> Result<Self, Error> {
        Ok(Self {
            state: known::<UpdateState, _>(value.state).at("state")?,
            started_at: value.started_at.map(timestamp),
            completed_at: value.completed_at.map(timestamp),
            message: value.message,
        })
    }
}

impl From<&model::JobStatus> for proto::JobStatus {
    fn from(value: &model::JobStatus) -> Self {
        Self {
            job_iteration: Some(value.job_iteration.into()),
            last_execution: value.last_execution.map(to_timestamp),
        }
    }
}

impl From<proto::JobStatus> for model::JobStatus {
    fn from(value: proto::JobStatus) -> Self {
        Self {
            job_iteration: value.job_iteration.unwrap_or_default().into(),
            last_execution: value.last_execution.map(timestamp),
        }
    }
}
