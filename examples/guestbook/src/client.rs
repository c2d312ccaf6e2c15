//! Requests to other servers of the application: one a connection, each with a time limit.

use std::{
    io::{self, BufReader},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::http::{Request, Response};

/// How long a connection may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// How long an answer may take: longer than `api` waits for its database.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(8);

/// Connects to the first address of `name:port` that answers.
pub(crate) fn connect(place: &str) -> io::Result<TcpStream> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "no such name"));
    for address in place.to_socket_addrs()? {
        outcome = TcpStream::connect_timeout(&address, CONNECT_TIME_MAX);
        if outcome.is_ok() {
            break;
        }
    }
    let stream = outcome?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
    Ok(stream)
}

/// Asks a server, which must answer with status 200; returns the body.
pub(crate) fn ask(place: &str, request: &Request) -> anyhow::Result<Vec<u8>> {
    let mut stream = connect(place).with_context(|| format!("failed to connect to `{place}`"))?;
    let sent = request.write(&mut stream, place);
    let answer = sent.and_then(|()| Response::read(&mut BufReader::new(stream)));
    match answer.with_context(|| format!("no answer from `{place}`"))? {
        (200, body) => Ok(body),
        (status, body) => bail!(
            "`{place}` answered {status}: {}",
            String::from_utf8_lossy(&body).trim()
        ),
    }
}

/// Asks the server of this container whether it is well.
pub(crate) fn check(port: u16) -> anyhow::Result<()> {
    let request = Request {
        method: "GET".to_owned(),
        path: "/health".to_owned(),
        ..Request::default()
    };
    ask(&format!("127.0.0.1:{port}"), &request).map(drop)
}
