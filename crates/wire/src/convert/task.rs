//! Tasks as stored. The parts tasks share are converted apart, so that a codec can share them.

use std::sync::Arc;

use skep_model as model;

use crate::{
    convert::{
        field::{
            At, enum_pair, id, known, list, option, optional_id, or_default, to_list, unsupported,
        },
        time::{timestamp, timestamp_or_zero, to_timestamp, to_timestamp_unless_zero},
    },
    error::Error,
    proto::{self, TaskState, task_status::RuntimeStatus},
};

enum_pair!(
    model::TaskState,
    TaskState {
        New,
        Pending,
        Assigned,
        Accepted,
        Preparing,
        Ready,
        Starting,
        Running,
        Complete,
        Shutdown,
        Failed,
        Rejected,
        Remove,
        Orphaned,
    }
);

/// The parts of a task that many tasks have in common.
pub(crate) struct TaskParts {
    pub(crate) spec: Arc<model::TaskSpec>,
    pub(crate) annotations: Arc<model::Annotations>,
    pub(crate) service_annotations: Arc<model::Annotations>,
    pub(crate) endpoint: Option<Arc<model::Endpoint>>,
    pub(crate) networks: Vec<model::NetworkAttachment>,
}

impl From<&model::Task> for proto::Task {
    fn from(value: &model::Task) -> Self {
        Self {
            spec: Some((&*value.spec).into()),
            service_annotations: Some((&*value.service_annotations).into()),
            endpoint: value.endpoint.as_deref().map(Into::into),
            networks: to_list(&value.networks),
            ..Self::without_shared_parts(value)
        }
    }
}

impl proto::Task {
    /// `value` with `spec`, `service_annotations`, `endpoint` and `networks` left out.
    pub(crate) fn without_shared_parts(value: &model::Task) -> Self {
        Self {
            id: value.id.to_string(),
            meta: Some((&value.meta).into()),
            spec: None,
            spec_version: value.spec_version.map(Into::into),
            service_id: value
                .service_id
                .map_or_else(String::new, |id| id.to_string()),
            slot: value.slot,
            node_id: value.node_id.map_or_else(String::new, |id| id.to_string()),
            annotations: Some((&*value.annotations).into()),
            service_annotations: None,
            status: Some((&value.status).into()),
            desired_state: TaskState::from(value.desired_state).into(),
            networks: Vec::new(),
            endpoint: None,
            log_driver: value.log_driver.as_ref().map(Into::into),
            assigned_generic_resources: to_list(&value.assigned_generic_resources),
            job_iteration: value.job_iteration.map(Into::into),
            volumes: Vec::new(),
        }
    }

    /// The model's form of this task with `parts` in place of its own.
    pub(crate) fn into_model_with(self, parts: TaskParts) -> Result<model::Task, Error> {
        unsupported(self.volumes.is_empty()).at("volumes")?;
        let generic = list(self.assigned_generic_resources);
        Ok(model::Task {
            id: id(&self.id).at("id")?,
            meta: self.meta.unwrap_or_default().into(),
            spec: parts.spec,
            spec_version: self.spec_version.map(Into::into),
            service_id: optional_id(&self.service_id).at("service_id")?,
            slot: self.slot,
            node_id: optional_id(&self.node_id).at("node_id")?,
            annotations: parts.annotations,
            service_annotations: parts.service_annotations,
            status: or_default(self.status).at("status")?,
            desired_state: known::<TaskState, _>(self.desired_state).at("desired_state")?,
            endpoint: parts.endpoint,
            log_driver: self.log_driver.map(Into::into),
            networks: parts.networks,
            assigned_generic_resources: generic.at("assigned_generic_resources")?,
            job_iteration: self.job_iteration.map(Into::into),
        })
    }
}

impl TryFrom<proto::Task> for model::Task {
    type Error = Error;

    fn try_from(mut value: proto::Task) -> Result<Self, Error> {
        let spec = model::TaskSpec::try_from(value.spec.take().at("spec")?).at("spec")?;
        let endpoint: Option<model::Endpoint> = option(value.endpoint.take()).at("endpoint")?;
        let parts = TaskParts {
            spec: Arc::new(spec),
            annotations: Arc::new(or_default(value.annotations.take()).at("annotations")?),
            service_annotations: Arc::new(
                or_default(value.service_annotations.take()).at("service_annotations")?,
            ),
            endpoint: endpoint.map(Arc::new),
            networks: list(std::mem::take(&mut value.networks)).at("networks")?,
        };
        value.into_model_with(parts)
    }
}

impl From<&model::TaskStatus> for proto::TaskStatus {
    fn from(value: &model::TaskStatus) -> Self {
        Self {
            timestamp: to_timestamp_unless_zero(value.timestamp),
            state: TaskState::from(value.state).into(),
            message: value.message.clone(),
            err: value.err.clone(),
            runtime_status: value
                .container
                .as_ref()
                .map(|container| RuntimeStatus::Container(container.into())),
            port_status: (!value.ports.is_empty()).then(|| proto::PortStatus {
                ports: to_list(&value.ports),
            }),
            applied_by: value
                .applied_by
                .map_or_else(String::new, |id| id.to_string()),
            applied_at: value.applied_at.map(to_timestamp),
        }
    }
}

impl TryFrom<proto::TaskStatus> for model::TaskStatus {
    type Error = Error;

    fn try_from(value: proto::TaskStatus) -> Result<Self, Error> {
        let ports = list(value.port_status.unwrap_or_default().ports).at("ports");
        Ok(Self {
            timestamp: timestamp_or_zero(value.timestamp),
            state: known::<TaskState, _>(value.state).at("state")?,
            message: value.message,
            err: value.err,
            container: value
                .runtime_status
                .map(|RuntimeStatus::Container(container)| container.into()),
            ports: ports.at("port_status")?,
            applied_by: optional_id(&value.applied_by).at("applied_by")?,
            applied_at: value.applied_at.map(timestamp),
        })
    }
}

impl From<&model::ContainerStatus> for proto::ContainerStatus {
    fn from(value: &model::ContainerStatus) -> Self {
        Self {
            container_id: value.container_id.clone(),
            pid: value.pid,
            exit_code: value.exit_code,
        }
    }
}

impl From<proto::ContainerStatus> for model::ContainerStatus {
    fn from(value: proto::ContainerStatus) -> Self {
        Self {
            container_id: value.container_id,
            pid: value.pid,
            exit_code: value.exit_code,
        }
    }
}
