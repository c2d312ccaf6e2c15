//! Connections to the monitor: framing in, bounded buffers out. A client can only hurt itself.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use super::protocol::{HEADER_BYTES, Header, Kind, PAYLOAD_BYTES_MAX, Reply, frame, header};

/// Connections at a time: the daemon needs three, every `attach` one more. Beyond it new ones are closed at once.
pub(super) const CLIENT_COUNT_MAX: usize = 64;

/// Output kept for a client that reads slower than the container writes; memory of the monitor.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// How long the container's output waits for a full client before that client is dropped.
const STALL_MAX: Duration = Duration::from_secs(1);

/// What a connection is for, after its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Asks and is answered.
    Asking,
    /// Wants the final state.
    Waiting,
    /// Asked for the start that is under way.
    Starting,
    Attached {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: UnixStream,
    pub(super) role: Role,
    /// Closed for any reason; removed at the end of the turn.
    pub(super) is_gone: bool,
    input: Vec<u8>,
    output: VecDeque<u8>,
    full_since: Option<Instant>,
}

impl Client {
    /// Takes over an accepted, non-blocking stream.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            role: Role::Asking,
            is_gone: false,
            input: Vec::new(),
            output: VecDeque::new(),
            full_since: None,
        }
    }

    /// Reads once; afterwards `next_frame` gives what is complete.
    pub(super) fn fill(&mut self) {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.is_gone = true,
            Ok(count) => self.input.extend_from_slice(&chunk[..count]),
            Err(error) if is_transient(error.kind()) => {}
            Err(_) => self.is_gone = true,
        }
    }

    /// The next complete frame; a stream that is not ours marks the client as gone.
    pub(super) fn next_frame(&mut self) -> Option<(Kind, Vec<u8>)> {
        let head = self.input.get(..HEADER_BYTES)?.try_into().ok()?;
        let Ok(head) = Header::parse(head) else {
            self.is_gone = true;
            self.input = Vec::new();
            return None;
        };
        let end = HEADER_BYTES + head.length;
        if self.input.len() < end {
            return None;
        }
        let payload = self.input[HEADER_BYTES..end].to_vec();
        self.input.drain(..end);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Some((head.kind, payload))
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, reply: &Reply) {
        match serde_json::to_vec(reply) {
            Ok(payload) if payload.len() <= PAYLOAD_BYTES_MAX => {
                self.output.extend(frame(Kind::Reply, &payload));
                self.flush();
            }
            _ => self.is_gone = true,
        }
    }

    /// Queues container output.
    pub(super) fn send(&mut self, kind: Kind, bytes: &[u8]) {
        for part in bytes.chunks(PAYLOAD_BYTES_MAX) {
            self.output.extend(header(kind, part));
            self.output.extend(part);
        }
        self.flush();
        if self.output.len() > OUTPUT_BYTES_MAX && self.full_since.is_none() {
            self.full_since = Some(Instant::now());
        }
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self) {
        while !self.output.is_empty() {
            let (first, _) = self.output.as_slices();
            match self.stream.write(first) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.is_gone = true;
                    self.output = VecDeque::new();
                }
            }
        }
        if self.output.is_empty() {
            self.output = VecDeque::new();
        }
        if self.output.len() < OUTPUT_BYTES_MAX / 2 {
            self.full_since = None;
        }
    }

    /// Whether bytes wait for the socket.
    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// When this client holds up the container's output: the time it is dropped.
    pub(super) fn stall_deadline(&self) -> Option<Instant> {
        self.full_since.map(|since| since + STALL_MAX)
    }

    /// Drops the client if it held up output for too long.
    pub(super) fn check_stall(&mut self, now: Instant) {
        if self
            .stall_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.is_gone = true;
        }
    }

    /// Whether it takes this kind of output.
    pub(super) fn wants(&self, kind: Kind) -> bool {
        match self.role {
            Role::Attached { stdout, stderr, .. } => match kind {
                Kind::Stdout => stdout,
                Kind::Stderr => stderr,
                _ => false,
            },
            Role::Asking | Role::Waiting | Role::Starting => false,
        }
    }
}

fn is_transient(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Client::new(ours), theirs)
    }

    #[test]
    fn a_half_frame_waits_and_a_foreign_one_drops_the_client() {
        let (mut client, mut peer) = pair();
        let bytes = frame(Kind::Request, b"{}");
        peer.write_all(&bytes[..5]).unwrap();
        client.fill();
        assert_eq!(client.next_frame(), None);
        peer.write_all(&bytes[5..]).unwrap();
        client.fill();
        assert_eq!(client.next_frame(), Some((Kind::Request, b"{}".to_vec())));
        assert!(!client.is_gone);
        peer.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        client.fill();
        assert_eq!(client.next_frame(), None);
        assert!(client.is_gone);
    }

    #[test]
    fn a_client_that_never_reads_is_dropped_after_the_stall_limit() {
        let (mut client, peer) = pair();
        while client.stall_deadline().is_none() {
            client.send(Kind::Stdout, &[0; PAYLOAD_BYTES_MAX]);
        }
        client.check_stall(Instant::now());
        assert!(!client.is_gone, "it has a second to read");
        client.check_stall(Instant::now() + STALL_MAX);
        assert!(client.is_gone);
        drop(peer);
    }

    #[test]
    fn a_client_that_drains_half_its_buffer_is_kept() {
        let (mut client, mut peer) = pair();
        while client.stall_deadline().is_none() {
            client.send(Kind::Stdout, &[0; PAYLOAD_BYTES_MAX]);
        }
        let mut taken = vec![0; PAYLOAD_BYTES_MAX];
        while client.stall_deadline().is_some() {
            peer.read_exact(&mut taken).unwrap();
            client.flush();
        }
        client.check_stall(Instant::now() + 2 * STALL_MAX);
        assert!(!client.is_gone);
    }
}
