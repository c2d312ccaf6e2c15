//! The monitor's socket protocol, version 1: frames, requests, replies. Pure; both sides use it.
//!
//! Layout of a frame: `version u8, kind u8, 0 u16, length u32 LE`, then `length` bytes.

use serde::{Deserialize, Serialize};

use super::state::State;
use crate::runtime::config::PortReservation;

/// The socket inside the container's directory.
pub const SOCKET_FILE: &str = "monitor.sock";

/// Version in every frame.
pub const PROTOCOL_VERSION: u8 = 1;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 8;

/// Largest payload; a reader holds one frame at most. Streams are cut to it.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Request = 1,
    Reply = 2,
    Stdin = 3,
    StdinEnd = 4,
    Stdout = 5,
    Stderr = 6,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Runs the created container. Refused in any other phase.
    Start,
    /// Sends a signal to the container's first process.
    Signal {
        signal: i32,
    },
    /// Sets the pty's size.
    Resize {
        rows: u16,
        columns: u16,
    },
    /// Turns the connection into streams.
    Attach {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    /// Answers when the container has ended.
    Wait,
    State,
    /// Changes rotation from now on; refused without a log.
    SetLog {
        max_size: u64,
        max_files: u32,
    },
    /// Gives a reserved host port back; succeeds when it was not held.
    ReleasePort {
        port: PortReservation,
    },
}

/// What the monitor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Ok(Box<State>),
    Error(Refusal),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
}

/// The kinds a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// Not in this phase.
    WrongPhase,
    /// The container has ended.
    Gone,
    /// Not for this container (no pty, no log).
    Unsupported,
    /// The OCI runtime or the kernel refused.
    Failed,
}

/// The stream is not this protocol; the connection is worth nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("unknown protocol version {0}")]
    Version(u8),
    #[error("unknown frame kind {0}")]
    Kind(u8),
    #[error("frame of {0} bytes is too large")]
    TooLarge(usize),
}

/// A frame's first bytes, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub length: usize,
}

// === impl Kind ===

impl TryFrom<u8> for Kind {
    type Error = FrameError;

    fn try_from(byte: u8) -> Result<Self, FrameError> {
        Ok(match byte {
            1 => Self::Request,
            2 => Self::Reply,
            3 => Self::Stdin,
            4 => Self::StdinEnd,
            5 => Self::Stdout,
            6 => Self::Stderr,
            other => return Err(FrameError::Kind(other)),
        })
    }
}

// === impl Header ===

impl Header {
    /// Reads a header.
    pub fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [version, kind, _, _, length @ ..] = bytes;
        if version != PROTOCOL_VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = Kind::try_from(kind)?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > PAYLOAD_BYTES_MAX {
            return Err(FrameError::TooLarge(length));
        }
        Ok(Self { kind, length })
    }
}

/// A header for `payload`, which must not exceed [`PAYLOAD_BYTES_MAX`].
pub fn header(kind: Kind, payload: &[u8]) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(payload.len()).expect("a payload is at most 64 KiB");
    let [a, b, c, d] = length.to_le_bytes();
    [PROTOCOL_VERSION, kind as u8, 0, 0, a, b, c, d]
}

/// A whole frame.
pub fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&header(kind, payload));
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_header_is_read_or_refused_without_panic(bytes: [u8; HEADER_BYTES]) {
            if let Ok(header) = Header::parse(bytes) {
                prop_assert!(header.length <= PAYLOAD_BYTES_MAX);
                prop_assert_eq!(bytes[0], PROTOCOL_VERSION);
            }
        }

        #[test]
        fn a_frame_reads_back(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = frame(Kind::Stderr, &payload);
            let head = Header::parse(bytes[..HEADER_BYTES].try_into().unwrap()).unwrap();
            prop_assert_eq!(head, Header { kind: Kind::Stderr, length: payload.len() });
            prop_assert_eq!(&bytes[HEADER_BYTES..], &payload[..]);
        }
    }

    #[test]
    fn requests_have_stable_names_on_the_wire() {
        let text = serde_json::to_string(&Request::Attach {
            stdin: true,
            stdout: true,
            stderr: false,
        });
        assert_eq!(
            text.unwrap(),
            r#"{"op":"attach","stdin":true,"stdout":true,"stderr":false}"#
        );
    }
}
