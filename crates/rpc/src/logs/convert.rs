//! Between log lines and SwarmKit's messages.

use prost::Message as _;
use skep_model::{NodeId, ServiceId, TaskId, Timestamp};
use skep_wire::{
    peer::{LogLine, LogLines, LogOrigin, LogsKnown, ReadLogsRequest},
    proto,
};

use crate::logs::{LogMessage, LogOptions, LogSelector, Unreadable};

/// A field that cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("log {0} is malformed")]
pub struct Malformed(&'static str);

impl From<&LogSelector> for proto::LogSelector {
    fn from(value: &LogSelector) -> Self {
        Self {
            service_ids: value.services.iter().map(ToString::to_string).collect(),
            node_ids: value.nodes.iter().map(ToString::to_string).collect(),
            task_ids: value.tasks.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<proto::LogSelector> for LogSelector {
    type Error = Malformed;

    fn try_from(value: proto::LogSelector) -> Result<Self, Malformed> {
        Ok(Self {
            services: ids(&value.service_ids)?,
            nodes: ids(&value.node_ids)?,
            tasks: ids(&value.task_ids)?,
        })
    }
}

impl From<&LogOptions> for proto::LogSubscriptionOptions {
    fn from(value: &LogOptions) -> Self {
        let streams = [
            (value.stdout, proto::LogStream::Stdout),
            (value.stderr, proto::LogStream::Stderr),
        ];
        let streams = streams.into_iter().filter(|(is_wanted, _)| *is_wanted);
        Self {
            streams: streams.map(|(_, stream)| stream.into()).collect(),
            follow: value.follow,
            // 0 is all; the last n lines are -n-1.
            tail: value.tail.map_or(0, |lines| {
                i64::try_from(lines).map_or(0, |lines| -lines.saturating_add(1))
            }),
            since: value.since.map(timestamp),
        }
    }
}

impl From<proto::LogSubscriptionOptions> for LogOptions {
    fn from(value: proto::LogSubscriptionOptions) -> Self {
        let has = |stream: proto::LogStream| {
            value.streams.is_empty() || value.streams.contains(&stream.into())
        };
        Self {
            stdout: has(proto::LogStream::Stdout),
            stderr: has(proto::LogStream::Stderr),
            follow: value.follow,
            tail: (value.tail < 0).then(|| value.tail.unsigned_abs() - 1),
            since: value
                .since
                .map(|at| Timestamp::from_parts(at.seconds, at.nanos)),
            until: None,
        }
    }
}

impl From<LogMessage> for proto::LogMessage {
    fn from(value: LogMessage) -> Self {
        let stream = if value.is_stderr {
            proto::LogStream::Stderr
        } else {
            proto::LogStream::Stdout
        };
        let context = proto::LogContext {
            service_id: value
                .service_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            node_id: value.node_id.to_string(),
            task_id: value.task_id.to_string(),
        };
        let attrs = value.attributes.into_iter();
        Self {
            context: Some(context),
            timestamp: Some(timestamp(value.time)),
            stream: stream.into(),
            data: value.data.to_vec(),
            attrs: attrs
                .map(|(key, value)| proto::LogAttr { key, value })
                .collect(),
        }
    }
}

/// Known by its stream, which is neither.
impl From<Unreadable> for proto::LogMessage {
    fn from(value: Unreadable) -> Self {
        let service_id = value.service_id.map(|id| id.to_string());
        Self {
            context: Some(proto::LogContext {
                service_id: service_id.unwrap_or_default(),
                node_id: value.node_id.to_string(),
                task_id: value.task_id.to_string(),
            }),
            data: value.reason.into_bytes(),
            ..Self::default()
        }
    }
}

/// When a line was written.
pub(crate) fn time(line: &proto::LogMessage) -> Timestamp {
    let time = line.timestamp.unwrap_or_default();
    Timestamp::from_parts(time.seconds, time.nanos)
}

/// A request to the leader, with the newest line that is known of each node.
pub(crate) fn read_logs(
    selector: &LogSelector,
    options: &LogOptions,
    known: impl Iterator<Item = (NodeId, Timestamp)>,
) -> ReadLogsRequest {
    let request = proto::SubscribeLogsRequest {
        selector: Some(selector.into()),
        options: Some(options.into()),
    };
    let known = known.map(|(node_id, time)| LogsKnown {
        node_id: node_id.to_string(),
        time: time.0,
    });
    ReadLogsRequest {
        request: request.encode_to_vec(),
        known: known.collect(),
    }
}

/// What [`read_logs`] made.
pub(crate) fn read_request(
    request: ReadLogsRequest,
) -> Result<(proto::SubscribeLogsRequest, Vec<(NodeId, Timestamp)>), Malformed> {
    let known = request.known.into_iter().map(|known| {
        let node_id = known.node_id.parse().map_err(|_| Malformed("node id"))?;
        Ok((node_id, Timestamp(known.time)))
    });
    let known = known.collect::<Result<_, _>>()?;
    let request = proto::SubscribeLogsRequest::decode(request.request.as_slice());
    Ok((request.map_err(|_| Malformed("request"))?, known))
}

/// Lines for a manager that reads them: the ids of each task only once.
pub(crate) fn log_lines(messages: impl Iterator<Item = proto::LogMessage>) -> LogLines {
    let mut all = LogLines::default();
    for message in messages {
        let context = message.context.clone().unwrap_or_default();
        let is_same = |origin: &LogOrigin| {
            origin.task_id == context.task_id && origin.node_id == context.node_id
        };
        let place = all.origins.iter().rposition(is_same).unwrap_or_else(|| {
            all.origins.push(LogOrigin {
                service_id: context.service_id,
                node_id: context.node_id,
                task_id: context.task_id,
            });
            all.origins.len() - 1
        });
        all.lines.push(LogLine {
            // A batch has some hundred lines.
            origin: u32::try_from(place).unwrap_or(u32::MAX),
            time: time(&message).0,
            is_stderr: message.stream() == proto::LogStream::Stderr,
            details: message
                .attrs
                .into_iter()
                .map(|it| (it.key, it.value))
                .collect(),
            data: message.data,
        });
    }
    all
}

/// A task's ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) service_id: Option<ServiceId>,
    pub(crate) node_id: NodeId,
    pub(crate) task_id: TaskId,
}

/// The ids in a batch, in their order; `None` for what is none of a task.
pub(crate) fn origins(all: &[LogOrigin]) -> Vec<Option<Origin>> {
    let origin = |wire: &LogOrigin| {
        let service = Some(&wire.service_id).filter(|id| !id.is_empty());
        Some(Origin {
            service_id: service.map(|id| id.parse()).transpose().ok()?,
            node_id: wire.node_id.parse().ok()?,
            task_id: wire.task_id.parse().ok()?,
        })
    };
    all.iter().map(origin).collect()
}

/// One line of a batch.
pub(crate) fn message(origin: Origin, line: LogLine) -> LogMessage {
    LogMessage {
        service_id: origin.service_id,
        node_id: origin.node_id,
        task_id: origin.task_id,
        time: Timestamp(line.time),
        is_stderr: line.is_stderr,
        data: line.data.into(),
        attributes: line.details.into_iter().collect(),
    }
}

fn ids<T: std::str::FromStr>(texts: &[String]) -> Result<Vec<T>, Malformed> {
    let ids = texts.iter().map(|text| text.parse());
    ids.collect::<Result<_, _>>()
        .map_err(|_| Malformed("selector"))
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.to_parts();
    prost_types::Timestamp { seconds, nanos }
}

#[cfg(test)]
mod tests {
    use skep_model::{NodeId, Rng, ServiceId, TaskId};

    use super::*;

    #[test]
    fn options_selectors_and_lines_survive() {
        let mut rng = Rng::from_seed(3);
        for tail in [None, Some(0), Some(1), Some(100)] {
            let options = LogOptions {
                stdout: true,
                stderr: tail.is_some(),
                follow: tail.is_none(),
                tail,
                since: tail.map(|_| Timestamp(1_234_567_891)),
                until: None,
            };
            let sent = proto::LogSubscriptionOptions::from(&options);
            assert_eq!(LogOptions::from(sent), options);
        }
        let selector = LogSelector {
            services: vec![ServiceId::random(&mut rng)],
            nodes: vec![NodeId::random(&mut rng)],
            tasks: vec![TaskId::random(&mut rng)],
        };
        let sent = proto::LogSelector::from(&selector);
        assert_eq!(LogSelector::try_from(sent), Ok(selector));
        let message = LogMessage {
            service_id: Some(ServiceId::random(&mut rng)),
            node_id: NodeId::random(&mut rng),
            task_id: TaskId::random(&mut rng),
            time: Timestamp(-5),
            is_stderr: true,
            data: "line\n".into(),
            attributes: vec![("k".to_owned(), "v".to_owned())],
        };
        let sent = proto::LogMessage::from(message.clone());
        let other = LogMessage {
            service_id: None,
            task_id: TaskId::random(&mut rng),
            ..message.clone()
        };
        let batch = log_lines([sent.clone(), other.clone().into(), sent].into_iter());
        assert_eq!(batch.origins.len(), 2);
        let known = origins(&batch.origins);
        let lines = batch.lines.into_iter();
        let lines: Vec<_> = lines
            .map(|line| super::message(known[line.origin as usize].unwrap(), line))
            .collect();
        assert_eq!(lines, [message.clone(), other, message]);
    }

    #[test]
    fn a_request_to_read_survives_with_what_is_known() {
        let node = NodeId::random(&mut Rng::from_seed(3));
        let options = LogOptions {
            stdout: true,
            stderr: false,
            follow: true,
            tail: None,
            since: None,
            until: None,
        };
        let selector = LogSelector {
            nodes: vec![node],
            ..LogSelector::default()
        };
        let sent = read_logs(&selector, &options, [(node, Timestamp(7))].into_iter());
        let (request, known) = read_request(sent).unwrap();
        assert_eq!(known, [(node, Timestamp(7))]);
        assert_eq!(LogOptions::from(request.options.unwrap()), options);
        let broken = ReadLogsRequest {
            request: b"?".to_vec(),
            known: Vec::new(),
        };
        read_request(broken).unwrap_err();
    }

    #[test]
    fn the_last_ten_lines_are_minus_eleven() {
        let options = LogOptions {
            stdout: true,
            stderr: true,
            follow: false,
            tail: Some(10),
            since: None,
            until: None,
        };
        assert_eq!(proto::LogSubscriptionOptions::from(&options).tail, -11);
    }
}
