//! Tasks, for showing only.

use skep_model::{
    NetworkAttachment, NodeId, ServiceId, Task, TaskStatus,
    reserved::{service::rollout, task::shown_message},
};

use crate::{
    convert::task_spec::{generic, template},
    dto::{meta, task as dto},
    http::timestamp::rfc3339_nano,
};

impl From<&Task> for dto::Task {
    fn from(task: &Task) -> Self {
        Self {
            id: task.id.to_string(),
            meta: task.meta.into(),
            annotations: meta::Annotations {
                name: task.annotations.name.clone(),
                labels: task.annotations.labels.clone(),
            },
            spec: template(&task.spec, false),
            service_id: task
                .service_id
                .as_ref()
                .map(ServiceId::to_string)
                .unwrap_or_default(),
            slot: task.slot,
            node_id: task
                .node_id
                .as_ref()
                .map(NodeId::to_string)
                .unwrap_or_default(),
            status: dto::TaskStatus {
                message: shown_message(task).to_owned(),
                err: rollout::shown_error(task),
                ..(&task.status).into()
            },
            desired_state: task.desired_state.name().to_owned(),
            networks_attachments: shown_places(task).map(Into::into).collect(),
            generic_resources: generic(&task.assigned_generic_resources),
            job_iteration: task
                .job_iteration
                .map(|version| meta::Version { index: version.0 }),
            volumes: None,
        }
    }
}

/// Its places on the networks somebody asked for.
fn shown_places(task: &Task) -> impl Iterator<Item = &NetworkAttachment> {
    let is_node_network = |place: &NetworkAttachment| place.network.spec.is_node_network();
    let places = task.networks.iter();
    places.filter(move |place| !is_node_network(place))
}

impl From<&TaskStatus> for dto::TaskStatus {
    fn from(status: &TaskStatus) -> Self {
        Self {
            timestamp: rfc3339_nano(status.timestamp),
            state: status.state.name().to_owned(),
            message: status.message.clone(),
            err: status.err.clone(),
            container_status: status
                .container
                .as_ref()
                .map(|container| dto::ContainerStatus {
                    container_id: container.container_id.clone(),
                    pid: container.pid,
                    exit_code: container.exit_code,
                }),
            port_status: dto::PortStatus {
                ports: status.ports.iter().map(Into::into).collect(),
            },
        }
    }
}
