//! `/services`.

use std::sync::Arc;

use hyper::StatusCode;
use skep_model::{NodeState, Redacted, Service, ServiceMode, ServiceSpec, TaskState};

use crate::{
    backend::{ClusterView, ServiceUpdate},
    convert,
    dto::service as dto,
    error::{ApiError, Result},
    http::{
        cache::Key,
        filter::Filters,
        request::Request,
        response::{self, JSON, Response},
        server::Context,
    },
    routes::{jobs, lookup, names, registry},
};

const FILTERS: [&str; 5] = ["id", "label", "mode", "name", "runtime"];

/// `GET /services`
pub(crate) async fn list(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &FILTERS)?;
    let with_status = request.version.at_least(41) && request.query.strict_flag("status")?;
    let view = lookup::view(context).await?;
    let mut revision = view.revision();
    if !with_status {
        revision.tasks = 0;
        revision.nodes = 0;
    }
    let query = request.http.uri().query().unwrap_or("").to_owned();
    let key = Key {
        path: "services",
        query,
        version: request.version,
    };
    let bytes = context.cache.get(key, revision, || {
        let services = view.services();
        let wanted = services.iter().filter(|service| matches(&filters, service));
        let dtos = wanted.map(|service| {
            let mut dto = dto::Service::from(&**service);
            dto.service_status = with_status.then(|| count_tasks(&*view, service));
            dto
        });
        response::encode(&dtos.collect::<Vec<_>>())
    })?;
    Ok(response::full(StatusCode::OK, JSON, bytes))
}

fn matches(filters: &Filters, service: &Service) -> bool {
    let mode = match service.spec.mode {
        ServiceMode::Replicated { .. } => "replicated",
        ServiceMode::Global => "global",
        ServiceMode::ReplicatedJob { .. } => "replicated-job",
        ServiceMode::GlobalJob => "global-job",
    };
    filters.starts("id", service.id.as_str())
        && filters.starts("name", service.name())
        && filters.labels("label", &service.spec.annotations.labels)
        && filters.equals("mode", mode)
        && filters.equals("runtime", "container")
}

/// Running, wanted and completed tasks, as Docker counts them for `service ls`.
fn count_tasks(view: &dyn ClusterView, service: &Service) -> dto::ServiceStatus {
    let mut tasks = view.tasks_of_service(service.id);
    if let Some(status) = &service.job_status {
        // Of a job only the present run counts.
        tasks.retain(|task| task.job_iteration == Some(status.job_iteration));
    }
    let is_on_live_node = |task: &skep_model::Task| {
        let node = task.node_id.and_then(|id| view.node(id));
        node.is_some_and(|node| node.status.state != NodeState::Down)
    };
    let count = |wanted: &dyn Fn(&skep_model::Task) -> bool| {
        tasks.iter().filter(|task| wanted(task)).count() as u64
    };
    let desired_tasks = match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::ReplicatedJob { max_concurrent, .. } => max_concurrent,
        ServiceMode::Global => count(&|task| task.desired_state <= TaskState::Complete),
        // As in Docker: what is complete is wanted no more.
        ServiceMode::GlobalJob => count(&|task| {
            task.desired_state <= TaskState::Complete && task.status.state != TaskState::Complete
        }),
    };
    dto::ServiceStatus {
        running_tasks: count(&|task| {
            task.status.state == TaskState::Running && is_on_live_node(task)
        }),
        desired_tasks,
        completed_tasks: jobs::completed(service, &tasks),
    }
}

/// `GET /services/{id}`
pub(crate) async fn inspect(context: &Context, id: &str, request: &Request) -> Result<Response> {
    let with_defaults = request.query.strict_flag("insertDefaults")?;
    let view = lookup::view(context).await?;
    let mut dto = dto::Service::from(&*lookup::service(&*view, id)?);
    if with_defaults {
        convert::insert_defaults(&mut dto);
    }
    response::json(&dto)
}

/// `POST /services/create`
pub(crate) async fn create(context: &Arc<Context>, mut request: Request) -> Result<Response> {
    let mut body: dto::ServiceSpec = request.json().await?;
    lookup::check_manager(context)?;
    if body.name.is_empty() {
        body.name = names::random();
    }
    let mut spec = convert::service_spec(body, request.version)?;
    lookup::resolve_networks(context, &mut spec).await?;
    set_registry_auth(&mut spec, request.header(&registry::AUTH_HEADER).to_owned());
    let created = context.backends.cluster.create_service(spec).await?;
    let answer = dto::CreateResponse {
        id: created.id.to_string(),
        warnings: created.warnings,
    };
    response::json_with(StatusCode::CREATED, &answer)
}

/// `POST /services/{id}/update`
pub(crate) async fn update(context: &Context, id: &str, mut request: Request) -> Result<Response> {
    let body: dto::ServiceSpec = request.json().await?;
    let version = request.query.version("service")?;
    let view = lookup::view(context).await?;
    let stored = lookup::service(&*view, id)?;
    let update = match request.query.text("rollback") {
        "" | "none" => {
            let mut spec = convert::service_spec(body, request.version)?;
            lookup::resolve_networks(context, &mut spec).await?;
            let auth = registry_auth(&request, &stored)?;
            set_registry_auth(&mut spec, auth);
            ServiceUpdate::Set(spec)
        }
        "previous" => ServiceUpdate::RollBack,
        other => {
            return Err(ApiError::invalid(format!(
                "unrecognized rollback option {other}"
            )));
        }
    };
    let warnings = context
        .backends
        .cluster
        .update_service(stored.id, version, update)
        .await?;
    let warnings = (!warnings.is_empty()).then_some(warnings);
    response::json(&dto::UpdateResponse { warnings })
}

/// The credentials an updated service keeps or gets.
fn registry_auth(request: &Request, stored: &Service) -> Result<String> {
    let sent = request.header(&registry::AUTH_HEADER);
    let spec = match request.query.text("registryAuthFrom") {
        "" | "spec" => &stored.spec,
        "previous-spec" => stored
            .previous_spec
            .as_ref()
            .ok_or_else(|| ApiError::invalid("service does not have a previous spec"))?,
        other => {
            return Err(ApiError::invalid(format!(
                "invalid registryAuthFrom '{other}'"
            )));
        }
    };
    if sent.is_empty() {
        return Ok(spec.task.container.registry_auth.0.clone());
    }
    Ok(sent.to_owned())
}

/// Puts credentials into the spec; they stay encoded. Empty ones and the CLI's "none" are dropped.
pub(crate) fn set_registry_auth(spec: &mut ServiceSpec, auth: String) {
    if registry::decode_auth(&auth).is_some() {
        Arc::make_mut(&mut spec.task).container.registry_auth = Redacted(auth);
    }
}

/// `DELETE /services/{id}`
pub(crate) async fn remove(context: &Context, id: &str) -> Result<Response> {
    let view = lookup::view(context).await?;
    let service = lookup::service(&*view, id)?;
    context.backends.cluster.remove_service(service.id).await?;
    Ok(response::empty(StatusCode::OK))
}
