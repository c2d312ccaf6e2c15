//! A load of HTTP requests that forgives nothing: every connection, request and answer that fails is counted by kind, and never tried
//! again. Ends with a tally for each target.
//!
//! It knows the answers of `skep/web`: `<host name> <client address>`, and of the guestbook's `/whoami`. Threads and blocking sockets do, because the load is to show
//! failures, not to be the fastest.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Failures that are told one by one; a load with more has shown enough.
const TOLD_COUNT_MAX: usize = 20;

/// An answer that takes longer is told of: something was lost on the way and had to be sent again. TCP waits a second before it
/// repeats the first packet of a connection.
const LATE: Duration = Duration::from_millis(900);

/// What is asked, and how.
#[derive(Debug, Clone)]
pub struct Load {
    /// Who is asked; each has clients of its own.
    pub targets: Vec<SocketAddr>,
    /// What is asked for.
    pub path: String,
    /// Clients of each target.
    pub client_count: usize,
    /// Whether a client asks again on the same connection, or makes one for each request.
    pub is_kept_alive: bool,
    /// Between an answer and the next request of a client.
    pub pause: Duration,
    /// How long connecting, sending and each part of an answer may take.
    pub patience: Duration,
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection.
    Connect,
    /// The connection was reset while a request or an answer was on its way.
    Reset,
    /// The connection ended before the answer did.
    Closed,
    /// Silence.
    Timeout,
    /// A status other than 200.
    Status,
    /// An answer that is not the server's.
    Body,
}

/// What became of the requests to one target. Times count from the start of the load.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Requests that were answered as they should be.
    pub answered: u64,
    /// Those that were not.
    pub failed: BTreeMap<Failure, u64>,
    /// Connections that were made.
    pub connected: u64,
    /// Answers by the server's host name.
    pub servers: BTreeMap<String, u64>,
    /// Answers by the client's address as the server saw it.
    pub clients: BTreeMap<String, u64>,
    /// Those of the answered that took suspiciously long.
    pub late: u64,
    /// The first failures and late answers, in words.
    pub told: Vec<String>,
    /// The last failure.
    pub failed_last: Option<Duration>,
    /// The first answer that no failure followed.
    pub answered_since: Option<Duration>,
    /// The longest time without an answer, over all clients of the target.
    pub silence: Duration,
    answered_last: Duration,
}

/// One client's connection.
type Connection = BufReader<TcpStream>;

// === impl Load ===

impl Load {
    /// Asks until `is_over`; a tally for each target.
    pub fn run(&self, is_over: &AtomicBool) -> BTreeMap<SocketAddr, Tally> {
        let start = Instant::now();
        let ask = |target: SocketAddr| {
            let client = move || self.client(target, start, is_over);
            thread::scope(|scope| {
                let clients: Vec<_> = (0..self.client_count)
                    .map(|_| scope.spawn(client))
                    .collect();
                let mut events: Vec<Event> = clients
                    .into_iter()
                    .flat_map(|client| client.join().expect("a client does not panic"))
                    .collect();
                events.sort_by_key(|event| event.at);
                Tally::of(events)
            })
        };
        thread::scope(|scope| {
            let asked: Vec<_> = self
                .targets
                .iter()
                .map(|target| (*target, scope.spawn(move || ask(*target))))
                .collect();
            asked
                .into_iter()
                .map(|(target, tally)| (target, tally.join().expect("a load does not panic")))
                .collect()
        })
    }

    fn client(&self, target: SocketAddr, start: Instant, is_over: &AtomicBool) -> Vec<Event> {
        let mut events = Vec::new();
        let mut connection = None;
        while !is_over.load(Ordering::Relaxed) {
            let is_new = connection.is_none();
            let begun = Instant::now();
            let outcome = self.request(target, &mut connection);
            if outcome.is_err() || !self.is_kept_alive {
                connection = None;
            }
            let is_connected = !matches!(outcome, Err((Failure::Connect, _)));
            events.push(Event {
                at: start.elapsed(),
                took: begun.elapsed(),
                is_connected: is_new && is_connected,
                outcome,
            });
            thread::sleep(self.pause);
        }
        events
    }

    /// One request on the connection there is, or on a new one; the server's name and the client's address.
    fn request(
        &self,
        target: SocketAddr,
        connection: &mut Option<Connection>,
    ) -> Result<(String, String), (Failure, String)> {
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => self.connect(target).map_err(|error| {
                let failure = match is_silence(&error) {
                    true => Failure::Timeout,
                    false => Failure::Connect,
                };
                (failure, format!("connect: {error}"))
            })?,
        };
        let wish = match self.is_kept_alive {
            true => "keep-alive",
            false => "close",
        };
        let path = &self.path;
        let request = format!("GET {path} HTTP/1.1\r\nHost: load\r\nConnection: {wish}\r\n\r\n");
        let sent = stream.get_mut().write_all(request.as_bytes());
        let answer = sent.and_then(|()| answer(&mut stream));
        let answer = answer.map_err(|error| (Failure::of(&error), error.to_string()))?;
        if answer.status != 200 {
            return Err((Failure::Status, answer.status.to_string()));
        }
        if !answer.is_last {
            *connection = Some(stream);
        }
        let mut words = answer.body.split_whitespace().map(str::to_owned);
        match (words.next(), words.next(), words.next()) {
            (Some(server), Some(client), None) => Ok((server, client)),
            _ => Err((Failure::Body, answer.body)),
        }
    }

    fn connect(&self, target: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&target, self.patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        Ok(BufReader::new(stream))
    }
}

/// What a client met.
#[derive(Debug)]
struct Event {
    at: Duration,
    took: Duration,
    is_connected: bool,
    outcome: Result<(String, String), (Failure, String)>,
}

/// An answer of HTTP/1.1 with a length.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: String,
    is_last: bool,
}

fn answer(stream: &mut Connection) -> io::Result<Answer> {
    let first = next_line(stream)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut length = 0;
    let mut is_last = false;
    loop {
        let header = next_line(stream)?;
        if header.is_empty() {
            break;
        }
        match header.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            Some(("connection", value)) => is_last = value == "close",
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Answer {
        status: status.unwrap_or(0),
        body: String::from_utf8_lossy(&body).into_owned(),
        is_last,
    })
}

fn next_line(stream: &mut Connection) -> io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_ascii_lowercase()),
    }
}

fn is_silence(error: &io::Error) -> bool {
    // A read that ends for its time limit says either, as the system likes.
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

// === impl Failure ===

impl Failure {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ if is_silence(error) => Self::Timeout,
            _ => Self::Reset,
        }
    }

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Body => "body",
        }
    }
}

// === impl Tally ===

impl Tally {
    /// From what all clients met, in the order of time.
    fn of(events: Vec<Event>) -> Self {
        let mut tally = Self::default();
        for event in events {
            tally.connected += u64::from(event.is_connected);
            match event.outcome {
                Ok((server, client)) => {
                    tally.answered += 1;
                    *tally.servers.entry(server).or_default() += 1;
                    *tally.clients.entry(client).or_default() += 1;
                    tally.silence = tally.silence.max(event.at - tally.answered_last);
                    tally.answered_last = event.at;
                    tally.answered_since.get_or_insert(event.at);
                    if event.took >= LATE {
                        tally.late += 1;
                        let took = event.took.as_secs_f64();
                        tally.tell(event.at, &format!("late: answered after {took:.3} s"));
                    }
                }
                Err((failure, text)) => {
                    *tally.failed.entry(failure).or_default() += 1;
                    tally.failed_last = Some(event.at);
                    tally.answered_since = None;
                    tally.tell(event.at, &format!("{}: {text}", failure.name()));
                }
            }
        }
        tally
    }

    fn tell(&mut self, at: Duration, text: &str) {
        if self.told.len() < TOLD_COUNT_MAX {
            let at = at.as_secs_f64();
            self.told.push(format!("{at:.3} s: {text}"));
        }
    }

    /// How many requests failed.
    pub fn failed_count(&self) -> u64 {
        self.failed.values().sum()
    }

    /// As JSON, times in seconds.
    pub fn json(&self) -> Value {
        let failed: BTreeMap<&str, u64> = self
            .failed
            .iter()
            .map(|(failure, count)| (failure.name(), *count))
            .collect();
        json!({
            "answered": self.answered,
            "connected": self.connected,
            "failed": self.failed_count(),
            "failed_by_kind": failed,
            "servers": self.servers,
            "clients": self.clients,
            "late": self.late,
            "told": self.told,
            "failed_last": self.failed_last.map(|time| time.as_secs_f64()),
            "answered_since": self.answered_since.map(|time| time.as_secs_f64()),
            "silence": self.silence.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Serves the answers one after another, each on a connection of its own, then nothing.
    fn serve(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for text in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).unwrap();
                stream.write_all(text.as_bytes()).unwrap();
            }
        });
        address
    }

    fn load(target: SocketAddr) -> Load {
        Load {
            targets: vec![target],
            path: "/".to_owned(),
            client_count: 1,
            is_kept_alive: true,
            pause: Duration::ZERO,
            patience: Duration::from_secs(5),
        }
    }

    #[test]
    fn each_failure_is_told_apart() {
        let target = serve(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\na 1.2\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\na 1.2\n",
            "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhey",
        ]);
        let load = load(target);
        let mut connection = None;
        let first = load.request(target, &mut connection);
        assert_eq!(first.unwrap(), ("a".to_owned(), "1.2".to_owned()));
        for expected in [
            Failure::Closed,
            Failure::Status,
            Failure::Body,
            Failure::Connect,
        ] {
            connection = None;
            let failure = load.request(target, &mut connection).unwrap_err();
            assert_eq!(failure.0, expected, "{}", failure.1);
        }
    }

    #[test]
    fn tally_knows_the_last_failure_and_the_longest_silence() {
        let at = Duration::from_secs;
        let good = |seconds| Event {
            at: at(seconds),
            took: Duration::ZERO,
            is_connected: true,
            outcome: Ok(("a".to_owned(), "1.2".to_owned())),
        };
        let bad = |seconds| Event {
            at: at(seconds),
            took: Duration::ZERO,
            is_connected: false,
            outcome: Err((Failure::Reset, "reset".to_owned())),
        };
        let tally = Tally::of(vec![good(1), bad(2), bad(6), good(7), good(8)]);
        assert_eq!((tally.answered, tally.failed_count()), (3, 2));
        assert_eq!(tally.failed_last, Some(at(6)));
        assert_eq!(tally.answered_since, Some(at(7)));
        assert_eq!(tally.silence, at(6));
    }
}
