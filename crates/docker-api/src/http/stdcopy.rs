//! Docker's framing of several streams in one: a type byte, three zeros, a big-endian length.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use skep_model::TaskId;

use crate::{
    backend::{LogMessage, LogSource},
    http::{query::query_escape, timestamp::rfc3339_nano_fixed},
};

/// Bytes of a frame's header.
const HEADER_LENGTH: usize = 8;
/// Type of an error message of the server.
const SYSTEM_ERROR: u8 = 3;

/// How log lines are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// Frames; else bare bytes, as from a terminal.
    pub(crate) is_framed: bool,
    /// A time before each line.
    pub(crate) timestamps: bool,
    /// Details before each line.
    pub(crate) details: bool,
}

fn stream_type(source: LogSource) -> u8 {
    match source {
        LogSource::Stdout => 1,
        LogSource::Stderr => 2,
    }
}

/// `data` as one frame.
pub(crate) fn frame(source: LogSource, data: &[u8]) -> Bytes {
    framed(stream_type(source), data)
}

fn framed(kind: u8, data: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER_LENGTH + data.len());
    bytes.put_u32(u32::from(kind) << 24);
    bytes.put_u32(u32::try_from(data.len()).expect("a piece of output is far below 4 GiB"));
    bytes.put_slice(data);
    bytes.freeze()
}

/// Writes log lines as a client gets them.
#[derive(Debug)]
pub(crate) struct LineWriter {
    format: Format,
    /// Details of tasks whose lines have none of their own.
    details: BTreeMap<TaskId, String>,
}

/// Tasks whose details are kept; a service has five per slot.
const TASKS_KEPT: usize = 4096;

impl LineWriter {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            details: BTreeMap::new(),
        }
    }

    /// Adds a line to `out`.
    pub(crate) fn write(&mut self, message: &LogMessage, out: &mut BytesMut) {
        let start = out.len();
        if self.format.is_framed {
            out.put_bytes(0, HEADER_LENGTH);
        }
        if self.format.timestamps {
            out.put_slice(rfc3339_nano_fixed(message.time).as_bytes());
            out.put_u8(b' ');
        }
        if self.format.details {
            self.write_details(message, out);
            out.put_u8(b' ');
        }
        out.put_slice(&message.data);
        if self.format.is_framed {
            let length = out.len() - start - HEADER_LENGTH;
            let length = u32::try_from(length).expect("a line is far below 4 GiB");
            out[start] = stream_type(message.source);
            out[start + 4..start + HEADER_LENGTH].copy_from_slice(&length.to_be_bytes());
        }
    }

    fn write_details(&mut self, message: &LogMessage, out: &mut BytesMut) {
        let Some(origin) = message.origin.filter(|_| message.attributes.is_empty()) else {
            return out.put_slice(details(message).as_bytes());
        };
        if self.details.len() >= TASKS_KEPT {
            self.details.clear();
        }
        let known = self.details.entry(origin.task);
        out.put_slice(known.or_insert_with(|| details(message)).as_bytes());
    }
}

/// A failure in the middle of a log stream.
pub(crate) fn log_failure(text: &str, format: Format) -> Bytes {
    let line = format!("Error grabbing logs: {text}\n");
    if format.is_framed {
        framed(SYSTEM_ERROR, line.as_bytes())
    } else {
        line.into()
    }
}

/// `key=value,…`, escaped, sorted by key; `docker service logs` finds the task in it. What the line itself says of the task counts for
/// nothing.
fn details(message: &LogMessage) -> String {
    let mut pairs: Vec<(String, String)> = message.attributes.clone();
    if let Some(origin) = message.origin {
        let ids = [
            ("com.docker.swarm.node.id", origin.node.to_string()),
            ("com.docker.swarm.service.id", origin.service.to_string()),
            ("com.docker.swarm.task.id", origin.task.to_string()),
        ];
        pairs.retain(|(key, _)| !ids.iter().any(|(id, _)| id == key));
        pairs.extend(ids.map(|(key, id)| (key.to_owned(), id)));
    }
    pairs.sort();
    let mut text = String::new();
    for (key, value) in pairs {
        if !text.is_empty() {
            text.push(',');
        }
        query_escape(&key, &mut text);
        text.push('=');
        query_escape(&value, &mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use skep_model::{NodeId, Rng, ServiceId, Timestamp};

    use super::*;
    use crate::backend::LogOrigin;

    #[test]
    fn a_frame_is_type_length_and_data() {
        assert_eq!(
            &frame(LogSource::Stderr, b"hi")[..],
            b"\x02\0\0\0\0\0\0\x02hi"
        );
    }

    #[track_caller]
    fn check(format: (bool, bool, bool), message: &LogMessage, expect: &[u8]) {
        let (is_framed, timestamps, details) = format;
        let mut writer = LineWriter::new(Format {
            is_framed,
            timestamps,
            details,
        });
        let mut out = BytesMut::from("before ");
        writer.write(message, &mut out);
        writer.write(message, &mut out);
        let expect = [b"before ", expect, expect].concat();
        assert_eq!(out, expect, "{}", String::from_utf8_lossy(&out));
    }

    fn message(attributes: &[(&str, &str)], origin: Option<LogOrigin>) -> LogMessage {
        let owned = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
        LogMessage {
            source: LogSource::Stdout,
            time: Timestamp::from_parts(1, 5),
            data: Bytes::from_static(b"text\n"),
            attributes: attributes.iter().map(owned).collect(),
            origin,
        }
    }

    #[test]
    fn time_comes_before_details_before_text() {
        let message = message(&[("b", "x y"), ("a", "1")], None);
        check((false, false, false), &message, b"text\n");
        check(
            (false, true, true),
            &message,
            b"1970-01-01T00:00:01.000000005Z a=1,b=x+y text\n",
        );
        check(
            (true, false, true),
            &message,
            b"\x01\0\0\0\0\0\0\x0fa=1,b=x+y text\n",
        );
    }

    #[test]
    fn a_line_cannot_lie_about_its_task() {
        let mut rng = Rng::from_seed(1);
        let origin = LogOrigin {
            node: NodeId::random(&mut rng),
            service: ServiceId::random(&mut rng),
            task: TaskId::random(&mut rng),
        };
        let ids = format!(
            "com.docker.swarm.node.id={},com.docker.swarm.service.id={},com.docker.swarm.task.id={} text\n",
            origin.node, origin.service, origin.task
        );
        let format = (false, false, true);
        check(format, &message(&[], Some(origin)), ids.as_bytes());
        let lie = message(
            &[("com.docker.swarm.task.id", "x"), ("a", "1")],
            Some(origin),
        );
        check(format, &lie, format!("a=1,{ids}").as_bytes());
    }
}
