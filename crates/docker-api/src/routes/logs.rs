//! Logs of services, tasks and containers: one format, two sources.

use bytes::BytesMut;
use futures_util::StreamExt;
use skep_model::Timestamp;

use crate::{
    backend::{BoxStream, LogMessage, LogOptions, LogSelector, LogSource, Tail},
    error::{ApiError, Result},
    http::{
        query::Query,
        request::Request,
        response::{self, Response},
        server::Context,
        stdcopy::{self, Format, LineWriter},
        timestamp,
    },
    routes::lookup,
};

/// `GET /services/{id}/logs`
pub(crate) async fn of_service(context: &Context, id: &str, request: &Request) -> Result<Response> {
    let options = options(&request.query)?;
    strict_tail(&request.query)?;
    let view = lookup::view(context).await?;
    let service = lookup::service(&*view, id)?;
    let selector = LogSelector {
        services: vec![service.id],
        ..LogSelector::default()
    };
    let messages = context.backends.cluster.logs(selector, options).await?;
    let has_tty = service.spec.task.container.has_tty;
    Ok(answer(context, request, messages, options, has_tty))
}

/// `GET /tasks/{id}/logs`
pub(crate) async fn of_task(context: &Context, id: &str, request: &Request) -> Result<Response> {
    let options = options(&request.query)?;
    strict_tail(&request.query)?;
    let view = lookup::view(context).await?;
    let task = lookup::task(&*view, id)?;
    let selector = LogSelector {
        tasks: vec![task.id],
        ..LogSelector::default()
    };
    let messages = context.backends.cluster.logs(selector, options).await?;
    Ok(answer(
        context,
        request,
        messages,
        options,
        task.spec.container.has_tty,
    ))
}

/// `GET /containers/{id}/logs`
pub(crate) async fn of_container(
    context: &Context,
    id: &str,
    request: &Request,
) -> Result<Response> {
    let options = options(&request.query)?;
    let detail = context.backends.containers.container(id, false).await?;
    let messages = context.backends.containers.logs(id, options).await?;
    Ok(answer(context, request, messages, options, detail.has_tty))
}

fn options(query: &Query) -> Result<LogOptions> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        let message = "Bad parameters: you must choose at least one stream";
        return Err(ApiError::invalid(message));
    }
    let now = timestamp::now();
    Ok(LogOptions {
        stdout,
        stderr,
        follow: query.flag("follow"),
        since: time(query, "since", now)?,
        until: time(query, "until", now)?,
        tail: query
            .text("tail")
            .parse()
            .map(Tail::Lines)
            .unwrap_or_default(),
        details: query.flag("details"),
    })
}

fn time(query: &Query, key: &str, now: Timestamp) -> Result<Option<Timestamp>> {
    timestamp::parse(query.text(key), now)
        .map_err(|error| ApiError::invalid(format!("invalid value for {key:?}: {error}")))
}

/// Swarm logs refuse a `tail` that container logs take for "all".
fn strict_tail(query: &Query) -> Result<()> {
    match query.text("tail") {
        "" | "all" => Ok(()),
        text if text.starts_with('-') => {
            Err(ApiError::invalid("negative tail values not supported"))
        }
        text if text.parse::<u64>().is_ok() => Ok(()),
        _ => Err(ApiError::invalid(
            "tail value must be a positive integer or \"all\"",
        )),
    }
}

fn answer(
    context: &Context,
    request: &Request,
    messages: BoxStream<Result<Vec<LogMessage>>>,
    options: LogOptions,
    has_tty: bool,
) -> Response {
    let format = Format {
        is_framed: !has_tty,
        timestamps: request.query.flag("timestamps"),
        details: options.details,
    };
    let mut writer = LineWriter::new(format);
    let is_wanted = move |message: &&LogMessage| match message.source {
        LogSource::Stdout => options.stdout,
        LogSource::Stderr => options.stderr,
    };
    let pieces = messages.filter_map(move |batch| {
        let piece = match batch {
            Ok(batch) => {
                let mut piece = BytesMut::new();
                for message in batch.iter().filter(is_wanted) {
                    writer.write(message, &mut piece);
                }
                piece.freeze()
            }
            Err(error) => stdcopy::log_failure(&error.message, format),
        };
        std::future::ready((!piece.is_empty()).then_some(Ok(piece)))
    });
    let content_type = response::output_type(request.version, has_tty);
    response::stream(content_type, pieces, &context.shutdown)
}
