//! Docker's framing of several streams in one: a type byte, three zeros, a big-endian length.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

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
    framed(stream_type(source), &[data])
}

fn framed(kind: u8, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = BytesMut::with_capacity(HEADER_LENGTH + length);
    bytes.put_u32(u32::from(kind) << 24);
    bytes.put_u32(u32::try_from(length).expect("a piece of output is far below 4 GiB"));
    parts.iter().for_each(|part| bytes.put_slice(part));
    bytes.freeze()
}

/// A log line as the client gets it.
pub(crate) fn log_line(message: &LogMessage, format: Format) -> Bytes {
    let time = match format.timestamps {
        true => Cow::Owned(rfc3339_nano_fixed(message.time) + " "),
        false => Cow::Borrowed(""),
    };
    let details = match format.details {
        true => Cow::Owned(details(message) + " "),
        false => Cow::Borrowed(""),
    };
    let parts = [time.as_bytes(), details.as_bytes(), &message.data];
    if format.is_framed {
        framed(stream_type(message.source), &parts)
    } else if time.is_empty() && details.is_empty() {
        message.data.clone()
    } else {
        parts.concat().into()
    }
}

/// A failure in the middle of a log stream.
pub(crate) fn log_failure(text: &str, format: Format) -> Bytes {
    let line = format!("Error grabbing logs: {text}\n");
    if format.is_framed {
        framed(SYSTEM_ERROR, &[line.as_bytes()])
    } else {
        line.into()
    }
}

/// `key=value,…`, escaped, sorted by key; `docker service logs` finds the task in it.
fn details(message: &LogMessage) -> String {
    let mut pairs = message.attributes.clone();
    if let Some(origin) = message.origin {
        pairs.extend([
            (
                "com.docker.swarm.node.id".to_owned(),
                origin.node.to_string(),
            ),
            (
                "com.docker.swarm.service.id".to_owned(),
                origin.service.to_string(),
            ),
            (
                "com.docker.swarm.task.id".to_owned(),
                origin.task.to_string(),
            ),
        ]);
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
    use skep_model::Timestamp;

    use super::*;

    #[test]
    fn a_frame_is_type_length_and_data() {
        assert_eq!(
            &frame(LogSource::Stderr, b"hi")[..],
            b"\x02\0\0\0\0\0\0\x02hi"
        );
    }

    #[test]
    fn time_comes_before_details_before_text() {
        let message = LogMessage {
            source: LogSource::Stdout,
            time: Timestamp::from_parts(1, 5),
            data: Bytes::from_static(b"text\n"),
            attributes: vec![
                ("b".to_owned(), "x y".to_owned()),
                ("a".to_owned(), "1".to_owned()),
            ],
            origin: None,
        };
        let format = Format {
            is_framed: false,
            timestamps: true,
            details: true,
        };
        assert_eq!(
            &log_line(&message, format)[..],
            b"1970-01-01T00:00:01.000000005Z a=1,b=x+y text\n"
        );
    }
}
