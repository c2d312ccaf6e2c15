//! The database: Redis, in as much of its protocol (RESP 2) as the book needs.
//!
//! Connections are kept for the next request. One that the server has ended meanwhile is replaced once; a server that is away, because
//! it is being updated or moved, is waited for a few seconds.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::client;

/// How long the database may be away before a request fails.
const AWAY_TIME_MAX: Duration = Duration::from_secs(5);
/// Between two tries to reach it.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Connections that are kept while nobody needs them.
const IDLE_COUNT_MAX: usize = 16;
/// Longest string and array of an answer; the book's are far smaller.
const LENGTH_MAX: usize = 64 * 1024;
/// Deepest array: transactions answer with an array of arrays.
const DEPTH_MAX: usize = 4;

/// The database's place, and connections to it.
pub(crate) struct Database {
    place: String,
    password: String,
    idle: Mutex<Vec<BufReader<TcpStream>>>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `+OK`.
    Status(String),
    /// A number.
    Number(i64),
    /// A string, or none.
    Text(Option<String>),
    /// Several answers.
    List(Vec<Reply>),
    /// What the server refused.
    Error(String),
}

// === impl Database ===

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Database");
        debug.field("place", &self.place).finish_non_exhaustive()
    }
}

impl Database {
    /// The database at `name:port`; connects when first asked.
    pub(crate) fn new(place: String, password: String) -> Self {
        Self {
            place,
            password,
            idle: Mutex::default(),
        }
    }

    /// Runs commands as one transaction; their answers.
    pub(crate) fn transaction(&self, commands: &[&[&str]]) -> anyhow::Result<Vec<Reply>> {
        let mut bytes = encode(&["MULTI"]);
        commands
            .iter()
            .for_each(|words| bytes.extend(encode(words)));
        bytes.extend(encode(&["EXEC"]));
        let mut replies = self.exchange(&bytes, commands.len() + 2)?;
        match replies.pop() {
            Some(Reply::List(replies)) => {
                let refused = replies.iter().find_map(Reply::error);
                refused.map_or(Ok(()), |text| bail!("the database refused: {text}"))?;
                Ok(replies)
            }
            Some(Reply::Error(text)) => bail!("the database refused: {text}"),
            other => bail!("the database answered {other:?}"),
        }
    }

    /// Sends `bytes` and reads `count` answers.
    fn exchange(&self, bytes: &[u8], count: usize) -> anyhow::Result<Vec<Reply>> {
        let kept = self.lock().pop();
        if let Some(mut connection) = kept {
            match exchange(&mut connection, bytes, count) {
                Ok(replies) => {
                    self.keep(connection);
                    return Ok(replies);
                }
                // The server ended it while nobody looked; nothing that was sent has been read.
                Err(error) if is_ended(&error) => self.lock().clear(),
                Err(error) => return Err(error).context("the database does not answer"),
            }
        }
        let mut connection = self.reach()?;
        let replies = exchange(&mut connection, bytes, count);
        let replies = replies.context("the database does not answer")?;
        self.keep(connection);
        Ok(replies)
    }

    /// A new connection that has shown the password.
    fn reach(&self) -> anyhow::Result<BufReader<TcpStream>> {
        let start = Instant::now();
        loop {
            match self.open() {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(refused)) if start.elapsed() > AWAY_TIME_MAX => {
                    bail!("the database refused: {refused}")
                }
                Err(error) if start.elapsed() > AWAY_TIME_MAX => {
                    let place = &self.place;
                    return Err(error).with_context(|| format!("no database at `{place}`"));
                }
                // Away, loading its data, or about to be replaced by one with the new password.
                Ok(Err(_)) | Err(_) => thread::sleep(RETRY_PAUSE),
            }
        }
    }

    fn open(&self) -> io::Result<Result<BufReader<TcpStream>, String>> {
        let mut connection = BufReader::new(client::connect(&self.place)?);
        let mut hello = encode(&["AUTH", &self.password]);
        hello.extend(encode(&["PING"]));
        let replies = exchange(&mut connection, &hello, 2)?;
        Ok(match replies.iter().find_map(Reply::error) {
            Some(refused) => Err(refused.to_owned()),
            None => Ok(connection),
        })
    }

    fn keep(&self, connection: BufReader<TcpStream>) {
        let mut idle = self.lock();
        if idle.len() < IDLE_COUNT_MAX {
            idle.push(connection);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<BufReader<TcpStream>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn exchange(
    connection: &mut BufReader<TcpStream>,
    bytes: &[u8],
    count: usize,
) -> io::Result<Vec<Reply>> {
    connection.get_mut().write_all(bytes)?;
    (0..count).map(|_| Reply::read(connection, 0)).collect()
}

fn is_ended(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::UnexpectedEof,
    ];
    kinds.contains(&error.kind())
}

/// A command as the server reads it.
fn encode(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text.into_bytes()
}

// === impl Reply ===

impl Reply {
    fn read(stream: &mut impl BufRead, depth: usize) -> io::Result<Self> {
        let mut line = String::new();
        let limit = u64::try_from(LENGTH_MAX).unwrap_or(u64::MAX);
        stream.take(limit).read_line(&mut line)?;
        let Some(line) = line.strip_suffix("\r\n") else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let (kind, rest) = line
            .split_at_checked(1)
            .ok_or_else(|| strange("an empty line"))?;
        let number = || rest.parse::<i64>().map_err(|_| strange(line));
        let length = || match usize::try_from(number()?) {
            Err(_) => Ok(None),
            Ok(length) if length <= LENGTH_MAX => Ok(Some(length)),
            Ok(_) => Err(strange("a long answer")),
        };
        Ok(match kind {
            "+" => Self::Status(rest.to_owned()),
            "-" => Self::Error(rest.to_owned()),
            ":" => Self::Number(number()?),
            "$" => Self::Text(length()?.map(|length| text(stream, length)).transpose()?),
            "*" if depth < DEPTH_MAX => {
                let items = (0..length()?.unwrap_or(0)).map(|_| Self::read(stream, depth + 1));
                Self::List(items.collect::<io::Result<_>>()?)
            }
            _ => return Err(strange(line)),
        })
    }

    /// What the server refused, if it did.
    fn error(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text),
            Self::Status(_) | Self::Number(_) | Self::Text(_) | Self::List(_) => None,
        }
    }
}

fn text(stream: &mut impl Read, length: usize) -> io::Result<String> {
    let mut bytes = vec![0; length + 2];
    stream.read_exact(&mut bytes)?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<Reply> {
        Reply::read(&mut text.as_bytes(), 0)
    }

    #[test]
    fn commands_are_arrays_of_strings() {
        let expected = b"*2\r\n$4\r\nINCR\r\n$6\r\nv\xc3\xafsit\r\n";
        assert_eq!(encode(&["INCR", "vïsit"]), expected);
    }

    #[test]
    fn answers_of_all_kinds_are_read() {
        let text = |text: &str| Reply::Text(Some(text.to_owned()));
        assert_eq!(read("+OK\r\n").unwrap(), Reply::Status("OK".to_owned()));
        assert_eq!(read(":-7\r\n").unwrap(), Reply::Number(-7));
        assert_eq!(read("$4\r\na\r\nb\r\n").unwrap(), text("a\r\nb"));
        assert_eq!(read("$-1\r\n").unwrap(), Reply::Text(None));
        let list = Reply::List(vec![
            Reply::Number(1),
            Reply::List(vec![text("x"), text("")]),
        ]);
        assert_eq!(
            read("*2\r\n:1\r\n*2\r\n$1\r\nx\r\n$0\r\n\r\n").unwrap(),
            list
        );
        let refused = read("-WRONGPASS no\r\n").unwrap();
        assert_eq!(refused.error(), Some("WRONGPASS no"));
    }

    #[test]
    fn nonsense_and_endless_answers_are_refused() {
        let deep = "*1\r\n".repeat(DEPTH_MAX + 1);
        for text in ["!\r\n", "\r\n", ":x\r\n", "$999999999\r\n", &deep] {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
        let cut = read("$5\r\nab").unwrap_err();
        assert!(is_ended(&cut), "{cut}");
    }
}
