//! A tiny HTTP/1.1 client on unix sockets: one connection, kept alive, one request at a time.
//!
//! It reads bodies of known length and chunked ones, and leaves out all else: what is measured is the daemon, so the driver does as
//! little as it can.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// How long an answer may take. A daemon that needs longer has failed the measurement.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
    line: String,
    body: Vec<u8>,
}

// === impl Client ===

impl Client {
    /// Connects to a daemon at `unix:///path`.
    pub(crate) fn connect(host: &str) -> anyhow::Result<Self> {
        Self::connect_for(host, ANSWER_TIME_MAX)
    }

    /// Connects to a daemon that may need `limit` for an answer.
    pub(crate) fn connect_for(host: &str, limit: Duration) -> anyhow::Result<Self> {
        let path = host
            .strip_prefix("unix://")
            .with_context(|| format!("`{host}` is not `unix:///path`"))?;
        let stream =
            UnixStream::connect(path).with_context(|| format!("failed to reach `{host}`"))?;
        stream
            .set_read_timeout(Some(limit))
            .context("failed to set a time limit")?;
        Ok(Self {
            stream: BufReader::with_capacity(64 << 10, stream),
            line: String::new(),
            body: Vec::new(),
        })
    }

    /// Sends a request and reads its whole answer; an answer above 299 is a failure that shows its text.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> anyhow::Result<&[u8]> {
        let text = body.unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        self.stream
            .get_mut()
            .write_all(request.as_bytes())
            .context("failed to send")?;
        let status = self
            .answer()
            .with_context(|| format!("failed to read the answer to `{method} {path}`"))?;
        if status > 299 {
            bail!(
                "`{method} {path}`: {status} {}",
                String::from_utf8_lossy(&self.body).trim()
            );
        }
        Ok(&self.body)
    }

    /// The answer to a GET as JSON.
    pub(crate) fn json(&mut self, path: &str) -> anyhow::Result<Value> {
        let body = self.request("GET", path, None)?;
        serde_json::from_slice(body).with_context(|| format!("`{path}` is not JSON"))
    }

    fn answer(&mut self) -> anyhow::Result<u16> {
        let status = self
            .next_line()?
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .context("no status")?;
        let mut length = None;
        let mut is_chunked = false;
        loop {
            let line = self.next_line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').context("a header without colon")?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse::<usize>().context("a length")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                is_chunked = value.eq_ignore_ascii_case("chunked");
            }
        }
        self.body.clear();
        if is_chunked {
            while self.chunk()? {}
        } else if let Some(length) = length {
            self.append(length)?;
        }
        Ok(status)
    }

    /// Reads one chunk; the last is empty.
    fn chunk(&mut self) -> anyhow::Result<bool> {
        let length = usize::from_str_radix(self.next_line()?, 16).context("a chunk's length")?;
        self.append(length)?;
        self.next_line()?;
        Ok(length > 0)
    }

    fn append(&mut self, length: usize) -> anyhow::Result<()> {
        let start = self.body.len();
        self.body.resize(start + length, 0);
        let rest = self.body.get_mut(start..).unwrap_or_default();
        self.stream.read_exact(rest).context("the body is short")
    }

    fn next_line(&mut self) -> anyhow::Result<&str> {
        self.line.clear();
        if self.stream.read_line(&mut self.line)? == 0 {
            bail!("the daemon closed the connection");
        }
        Ok(self.line.trim_end())
    }
}
