//! Services as Docker cannot show them: what is wrong with them, and the specs they had.

mod condition;

use serde::Serialize;
use skep_model::{Service, ServiceMode, Task, TaskState, Timestamp};

use self::condition::Subject;

use crate::{
    backend::{ClusterView, ServiceUpdate},
    dto::service as dto,
    error::{ApiError, Result},
    http::{
        request::Request,
        response::{self, Response},
        server::Context,
        timestamp::{now, rfc3339_nano},
    },
    routes::lookup,
};

/// A service in short.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Summary {
    #[serde(rename = "ID")]
    id: String,
    pub(super) name: String,
    mode: &'static str,
    image: String,
    pub(super) running: usize,
    pub(super) desired: u64,
    /// What is not as it should be and does not mend itself, in words.
    pub(super) conditions: Vec<String>,
    /// What keeps the rest, in words.
    pub(super) waits: Vec<String>,
}

/// A spec a service had.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Revision {
    number: u64,
    created_at: String,
    /// Number of the one in force before it, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<u64>,
    is_current: bool,
    is_previous: bool,
    spec: dto::ServiceSpec,
}

pub(super) async fn list(context: &Context) -> Result<Response> {
    let view = lookup::view(context).await?;
    let (mut services, now) = (view.services(), now());
    services.sort_by(|a, b| a.name().cmp(b.name()));
    let summaries = services.iter().map(|service| summary(&*view, service, now));
    response::json(&summaries.collect::<Vec<_>>())
}

pub(super) async fn revisions(context: &Context, id: &str) -> Result<Response> {
    let view = lookup::view(context).await?;
    let service = lookup::service(&*view, id)?;
    let kept = view.revisions_of_service(service.id);
    let shown = kept.iter().map(|revision| Revision {
        number: revision.number,
        created_at: rfc3339_nano(revision.created_at),
        previous: revision.previous,
        is_current: revision.spec_version == service.spec_version,
        is_previous: Some(revision.spec_version) == service.previous_spec_version,
        spec: (&*revision.spec).into(),
    });
    response::json(&shown.collect::<Vec<_>>())
}

/// To the revision `to`, else to the previous spec; against `version`, if it is given.
pub(super) async fn roll_back(context: &Context, id: &str, request: &Request) -> Result<Response> {
    let view = lookup::view(context).await?;
    let service = lookup::service(&*view, id)?;
    let update = match request.query.text("to") {
        "" => ServiceUpdate::RollBack,
        number => ServiceUpdate::RollBackTo(number.parse().map_err(|_| {
            ApiError::invalid(format!("`{number}` is not the number of a revision"))
        })?),
    };
    let version = match request.query.text("version") {
        "" => service.meta.version,
        _ => request.query.version("service")?,
    };
    let cluster = &context.backends.cluster;
    let warnings = cluster.update_service(service.id, version, update).await?;
    let warnings = (!warnings.is_empty()).then_some(warnings);
    response::json(&dto::UpdateResponse { warnings })
}

pub(super) fn summary(view: &dyn ClusterView, service: &Service, now: Timestamp) -> Summary {
    let tasks = view.tasks_of_service(service.id);
    let wanted = |task: &&std::sync::Arc<Task>| task.desired_state <= TaskState::Running;
    let is_running = |task: &&std::sync::Arc<Task>| task.status.state == TaskState::Running;
    let (mode, desired) = match service.spec.mode {
        ServiceMode::Replicated { replicas } => ("replicated", replicas),
        ServiceMode::Global => ("global", tasks.iter().filter(wanted).count() as u64),
        ServiceMode::ReplicatedJob { max_concurrent, .. } => ("replicated job", max_concurrent),
        ServiceMode::GlobalJob => ("global job", tasks.iter().filter(wanted).count() as u64),
    };
    let condition = condition::of(&Subject {
        service,
        tasks: &tasks,
        node_name: &|id| {
            let node = view.node(id);
            node.map_or(id.to_string(), |node| node.hostname().to_owned())
        },
        now,
    });
    Summary {
        id: service.id.to_string(),
        name: service.name().to_owned(),
        mode,
        image: service.spec.task.container.image.clone(),
        running: tasks.iter().filter(wanted).filter(is_running).count(),
        desired,
        conditions: condition.stuck,
        waits: condition.waits,
    }
}
