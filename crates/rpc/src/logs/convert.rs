//! Between log lines and SwarmKit's messages.

use skep_model::Timestamp;
use skep_wire::proto;

use crate::logs::{LogMessage, LogOptions, LogSelector};

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

impl TryFrom<proto::LogMessage> for LogMessage {
    type Error = Malformed;

    fn try_from(value: proto::LogMessage) -> Result<Self, Malformed> {
        let is_stderr = value.stream() == proto::LogStream::Stderr;
        let context = value.context.ok_or(Malformed("context"))?;
        let time = value.timestamp.unwrap_or_default();
        let service = Some(context.service_id).filter(|id| !id.is_empty());
        let service_id = service.map(|id| id.parse()).transpose();
        let attributes = value.attrs.into_iter().map(|attr| (attr.key, attr.value));
        Ok(Self {
            service_id: service_id.map_err(|_| Malformed("service id"))?,
            node_id: context.node_id.parse().map_err(|_| Malformed("node id"))?,
            task_id: context.task_id.parse().map_err(|_| Malformed("task id"))?,
            time: Timestamp::from_parts(time.seconds, time.nanos),
            is_stderr,
            data: value.data.into(),
            attributes: attributes.collect(),
        })
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
        assert_eq!(LogMessage::try_from(sent), Ok(message));
    }

    #[test]
    fn the_last_ten_lines_are_minus_eleven() {
        let options = LogOptions {
            stdout: true,
            stderr: true,
            follow: false,
            tail: Some(10),
            since: None,
        };
        assert_eq!(proto::LogSubscriptionOptions::from(&options).tail, -11);
    }
}
