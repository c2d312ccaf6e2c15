//! `/containers`.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::{Method, StatusCode};

use crate::{
    backend::{
        AttachOptions, ConsoleSize, ContainerState, ContainerSummary, RemoveContainerOptions,
        StatsMode, StatsSample, WaitCondition,
    },
    dto::{
        container::{ContainersPruned, Summary, Top, Wait, WaitError, inspect::Inspect},
        stats::Stats,
    },
    error::{ApiError, ErrorKind, Result},
    http::{
        filter::Filters,
        hijack::hijack,
        query::Query,
        request::Request,
        response::{self, JSON, Response},
        server::Context,
        timestamp,
    },
    routes::{exec, logs, page_not_found, unsupported},
};

/// Routes below `/containers`.
pub(crate) async fn dispatch(
    context: &Arc<Context>,
    path: &[&str],
    request: Request,
) -> Result<Response> {
    let method = request.method().clone();
    match (method, path) {
        (Method::GET, ["json"]) => list(context, &request).await,
        (Method::POST, ["prune"]) => prune(context, &request).await,
        (Method::GET, [id, "json"]) => inspect(context, id, &request).await,
        (Method::GET, [id, "logs"]) => logs::of_container(context, id, &request).await,
        (Method::GET, [id, "top"]) => top(context, id, &request).await,
        (Method::GET, [id, "stats"]) => stats(context, id, &request).await,
        (Method::POST, [id, "attach"]) => attach(context, id, request).await,
        (Method::POST, [id, "resize"]) => resize(context, id, &request).await,
        (Method::POST, [id, "stop"]) => stop(context, id, &request).await,
        (Method::POST, [id, "kill"]) => kill(context, id, &request).await,
        (Method::POST, [id, "wait"]) => wait(context, id, &request).await,
        (Method::POST, [id, "exec"]) => exec::create(context, id, request).await,
        (Method::DELETE, [id]) => remove(context, id, &request).await,
        (method, path) => unsupported::containers(&method, path).map_or_else(
            || Err(page_not_found()),
            |verb| {
                Err(ApiError::not_implemented(format!(
                    "not supported yet: {verb}"
                )))
            },
        ),
    }
}

const LIST_FILTERS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// What `--filter health=` takes.
const HEALTH_VALUES: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

async fn list(context: &Context, request: &Request) -> Result<Response> {
    let query = &request.query;
    let filters = Filters::from_query(query, &LIST_FILTERS)?;
    if let Some(unknown) = filters
        .values("health")
        .find(|value| !HEALTH_VALUES.contains(value))
    {
        return Err(ApiError::invalid(format!(
            "Unrecognised filter value for health: {unknown}"
        )));
    }
    let limit = match query.text("limit") {
        "" => None,
        text => Some(text.parse::<i64>().map_err(|_| {
            ApiError::invalid(format!("strconv.Atoi: parsing \"{text}\": invalid syntax"))
        })?),
    };
    let limit = limit
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    let names_states = filters.has("status") || filters.has("exited");
    let all = query.flag("all") || limit.is_some() || names_states;
    let containers = context
        .backends
        .containers
        .containers(query.flag("size"))
        .await?;
    let created = |key: &str| {
        let name = filters.values(key).next()?;
        let found = containers
            .iter()
            .find(|it| !name.is_empty() && it.id.starts_with(name) || it.name == name);
        Some(
            found
                .map(|it| it.created_at)
                .ok_or_else(|| no_such_container(name)),
        )
    };
    let before = created("before").transpose()?;
    let since = created("since").transpose()?;
    let now = timestamp::now();
    let wanted = containers.into_iter().filter(|container| {
        let is_up = matches!(
            container.state.state,
            ContainerState::Running | ContainerState::Paused
        );
        (all || is_up)
            && before.is_none_or(|limit| container.created_at < limit)
            && since.is_none_or(|limit| container.created_at > limit)
            && matches(&filters, container)
    });
    let shown = wanted
        .take(limit.unwrap_or(usize::MAX))
        .map(|it| Summary::new(it, now));
    response::json(&shown.collect::<Vec<_>>())
}

fn no_such_container(name: &str) -> ApiError {
    ApiError::not_found(format!("No such container: {name}"))
}

fn matches(filters: &Filters, container: &ContainerSummary) -> bool {
    let any =
        |key: &str, test: &dyn Fn(&str) -> bool| !filters.has(key) || filters.values(key).any(test);
    let image_name = container.image.split('@').next().unwrap_or("");
    let is_task = container.labels.contains_key("com.docker.swarm.task.id");
    filters.starts("id", &container.id)
        && filters.matches_names("name", &[&format!("/{}", container.name), &container.name])
        && filters.labels("label", &container.labels)
        && filters.equals("status", container.state.state.name())
        && any("exited", &|code| {
            container.state.state == ContainerState::Exited
                && code.parse() == Ok(container.state.exit_code)
        })
        && any("ancestor", &|image| {
            container
                .image_id
                .trim_start_matches("sha256:")
                .starts_with(image)
                || container.image_id == image
                || image_name == image
                || image_name
                    .rsplit_once(':')
                    .is_some_and(|(name, _)| name == image)
        })
        && any("network", &|wanted| {
            let mut networks = container.networks.iter();
            networks.any(|(name, network)| name == wanted || network.network_id == wanted)
        })
        && any("volume", &|wanted| {
            let mut mounts = container.mounts.iter();
            mounts.any(|mount| mount.name == wanted || mount.destination == wanted)
        })
        && any("publish", &|port| publishes(container, port))
        && any("expose", &|port| publishes(container, port))
        && any("is-task", &|wanted| {
            ["true", "1"].contains(&wanted) == is_task
        })
        && filters.equals("health", health_of(container))
}

/// What `--filter health=` calls the container's health.
fn health_of(container: &ContainerSummary) -> &'static str {
    let health = container.state.health.as_ref();
    health.map_or("none", |health| health.status)
}

/// Whether the container has port `wanted` (`80`, `80/tcp`), inside or outside.
fn publishes(container: &ContainerSummary, wanted: &str) -> bool {
    let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let Ok(number) = number.parse::<u16>() else {
        return false;
    };
    container.ports.iter().any(|port| {
        port.protocol.name() == protocol
            && (port.container_port == number
                || port.host.is_some_and(|(_, host_port)| host_port == number))
    })
}

async fn inspect(context: &Context, id: &str, request: &Request) -> Result<Response> {
    let size = request.query.flag("size");
    let container = context.backends.containers.container(id, size).await?;
    response::json(&Inspect::from(container))
}

async fn top(context: &Context, id: &str, request: &Request) -> Result<Response> {
    let ps_args = match request.query.text("ps_args") {
        "" => "-ef",
        ps_args => ps_args,
    };
    let table = context.backends.containers.top(id, ps_args).await?;
    response::json(&Top {
        processes: table.processes,
        titles: table.titles,
    })
}

async fn stats(context: &Context, id: &str, request: &Request) -> Result<Response> {
    let one_shot = request.version.at_least(41) && request.query.flag("one-shot");
    let mode = match (request.query.flag_or("stream", true), one_shot) {
        (true, true) => {
            return Err(ApiError::invalid(
                "cannot have stream=true and one-shot=true",
            ));
        }
        (true, false) => StatsMode::Stream,
        (false, true) => StatsMode::Once,
        (false, false) => StatsMode::Twice,
    };
    let mut samples = context.backends.containers.stats(id, mode).await?;
    if mode == StatsMode::Stream {
        return Ok(response::stream(
            JSON,
            stats_lines(samples),
            &context.shutdown,
        ));
    }
    let ended = || ApiError::new(ErrorKind::System, "the container's statistics ended early");
    let first = samples.next().await.ok_or_else(ended)?;
    match samples.next().await {
        Some(second) => response::json(&Stats::new(&second, Some(&first))),
        None => response::json(&Stats::new(&first, None)),
    }
}

/// Each sample as a line, paired with the one before.
fn stats_lines(
    samples: crate::backend::BoxStream<StatsSample>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    samples.scan(None, |previous: &mut Option<StatsSample>, sample| {
        let line = response::encode(&Stats::new(&sample, previous.as_ref()));
        *previous = Some(sample);
        std::future::ready(Some(line.map_err(io::Error::other)))
    })
}

async fn attach(context: &Context, id: &str, request: Request) -> Result<Response> {
    let query = &request.query;
    let options = AttachOptions {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let io = context.backends.containers.attach(id, options).await?;
    Ok(hijack(context, request, io))
}

/// The size of a terminal in a query.
pub(crate) fn console_size(query: &Query) -> Result<ConsoleSize> {
    Ok(ConsoleSize {
        height: query.cells("h", "height")?,
        width: query.cells("w", "width")?,
    })
}

async fn resize(context: &Context, id: &str, request: &Request) -> Result<Response> {
    context
        .backends
        .containers
        .resize(id, console_size(&request.query)?)
        .await?;
    Ok(response::empty(StatusCode::OK))
}

async fn stop(context: &Context, id: &str, request: &Request) -> Result<Response> {
    let signal = request.query.text("signal");
    let signal = (request.version.at_least(42) && !signal.is_empty()).then_some(signal);
    let grace = match request.query.text("t") {
        "" => None,
        text => {
            let seconds: i64 = text.parse().map_err(|_| {
                ApiError::invalid(format!("strconv.Atoi: parsing \"{text}\": invalid syntax"))
            })?;
            // A negative number means to wait for ever.
            Some(u64::try_from(seconds).ok().map(Duration::from_secs))
        }
    };
    context.backends.containers.stop(id, signal, grace).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

async fn kill(context: &Context, id: &str, request: &Request) -> Result<Response> {
    let signal = match request.query.text("signal") {
        "" => "KILL",
        signal => signal,
    };
    context
        .backends
        .containers
        .kill(id, signal)
        .await
        .map_err(|error| ApiError {
            message: format!("cannot kill container: {id}: {}", error.message),
            ..error
        })?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

async fn wait(context: &Context, id: &str, request: &Request) -> Result<Response> {
    let condition = match request.query.text("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::invalid(format!("invalid condition: \"{other}\""))),
    };
    let outcome = context.backends.containers.wait(id, condition).await?;
    // The headers tell the client that the wait has begun; it starts the container only then.
    let line = stream::once(async move {
        let wait = match outcome.await {
            Ok(outcome) => Wait {
                error: outcome.error.map(|message| WaitError { message }),
                status_code: outcome.exit_code,
            },
            Err(error) => Wait {
                error: Some(WaitError {
                    message: error.message,
                }),
                status_code: -1,
            },
        };
        response::encode(&wait).map_err(io::Error::other)
    });
    Ok(response::stream(JSON, line, &context.shutdown))
}

async fn remove(context: &Context, id: &str, request: &Request) -> Result<Response> {
    if request.query.flag("link") {
        return Err(ApiError::not_implemented(
            "not supported yet: container links",
        ));
    }
    let options = RemoveContainerOptions {
        force: request.query.flag("force"),
        volumes: request.query.flag("v"),
    };
    context.backends.containers.remove(id, options).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

async fn prune(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &["label", "label!", "until"])?;
    let until = match filters.values("until").next() {
        Some(text) => timestamp::parse(text, timestamp::now())
            .map_err(|error| ApiError::invalid(error.to_string()))?,
        None => None,
    };
    let mut deleted = Vec::new();
    let mut space_reclaimed = 0;
    for container in context.backends.containers.prunable().await? {
        let wanted = filters.labels("label", &container.labels)
            && filters.labels_absent("label!", &container.labels)
            && until.is_none_or(|limit| container.created_at < limit);
        let options = RemoveContainerOptions::default();
        // One that went meanwhile, or came to life, is no reason to stop.
        if wanted
            && context
                .backends
                .containers
                .remove(&container.id, options)
                .await
                .is_ok()
        {
            space_reclaimed += u64::try_from(container.size_rw_bytes.unwrap_or(0)).unwrap_or(0);
            deleted.push(container.id);
        }
    }
    let containers_deleted = (!deleted.is_empty()).then_some(deleted);
    response::json(&ContainersPruned {
        containers_deleted,
        space_reclaimed,
    })
}
