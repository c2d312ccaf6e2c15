//! Tells what a name and a virtual address lead to, with the time, as often as it can without being a load.
//!
//! Lines: `dns <nanoseconds> <address>…` when the answer has changed, `vip <nanoseconds> <server's host name>` for every new
//! connection, `failed <nanoseconds> <why>` for one that failed. Nanoseconds count from 1970: they are compared with a task's times.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::dns::Resolver;

/// Between two looks: what the figures are exact to.
const PAUSE: Duration = Duration::from_millis(2);
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells until the process ends, or nobody listens any more.
pub(super) fn run(name: &str, target: SocketAddr) -> anyhow::Result<()> {
    let mut resolver = Resolver::open()?;
    let mut known = None;
    let mut out = io::stdout().lock();
    loop {
        let mut lines = String::new();
        match resolver.addresses(name) {
            Ok(found) if known.as_ref() != Some(&found) => {
                let words: Vec<String> = found.iter().map(ToString::to_string).collect();
                lines += &format!("dns {} {}\n", now(), words.join(" "));
                known = Some(found);
            }
            Ok(_) => {}
            Err(error) => lines += &format!("failed {} {error:#}\n", now()),
        }
        lines += &match server(target) {
            Ok(server) => format!("vip {} {server}\n", now()),
            Err(error) => format!("failed {} {error}\n", now()),
        };
        let told = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
        if told.is_err() {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}

fn now() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_nanos()
}

/// Who answers a new connection.
fn server(target: SocketAddr) -> io::Result<String> {
    let body = ask(target)?;
    let server = body.split(' ').next().filter(|name| !name.is_empty());
    server
        .map(str::to_owned)
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// What a web server answers to a new connection.
pub(super) fn ask(target: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    body.map(str::to_owned)
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
