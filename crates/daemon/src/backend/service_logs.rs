//! Logs of services and tasks: the lines of all their containers on all nodes, by time.

use futures_util::StreamExt;
use skep_docker_api::{
    backend::{BoxStream, LogMessage, LogOptions, LogOrigin, LogSelector, LogSource, Tail},
    error::Result,
};
use skep_rpc::logs;
use tokio_stream::wrappers::ReceiverStream;

use crate::{backend::errors::from_command, swarm::Active};

/// The lines of everything `selector` names.
pub(crate) async fn stream(
    active: &Active,
    selector: LogSelector,
    options: LogOptions,
) -> Result<BoxStream<Result<Vec<LogMessage>>>> {
    let selector = logs::LogSelector {
        services: selector.services,
        nodes: Vec::new(),
        tasks: selector.tasks,
    };
    let options = logs::LogOptions {
        stdout: options.stdout,
        stderr: options.stderr,
        follow: options.follow,
        tail: match options.tail {
            Tail::All => None,
            Tail::Lines(count) => Some(count),
        },
        since: options.since,
        until: options.until,
    };
    let lines = active.cluster.logs(selector, options).await;
    let batches = ReceiverStream::new(lines.map_err(|error| from_command(&error))?);
    Ok(Box::pin(batches.map(|batch| match batch {
        // A line of no service cannot be shown as one of a service; it was not asked for either.
        Ok(lines) => Ok(lines.into_iter().filter_map(message).collect()),
        Err(error) => Err(from_command(&error)),
    })))
}

fn message(line: logs::LogMessage) -> Option<LogMessage> {
    Some(LogMessage {
        source: match line.is_stderr {
            true => LogSource::Stderr,
            false => LogSource::Stdout,
        },
        time: line.time,
        data: line.data,
        attributes: line.attributes,
        origin: Some(LogOrigin {
            node: line.node_id,
            service: line.service_id?,
            task: line.task_id,
        }),
    })
}
