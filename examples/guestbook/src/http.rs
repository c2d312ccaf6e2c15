//! As much of HTTP/1.1 as the guestbook speaks: requests and answers with a length, kept connections, limits on all of it.

use std::io::{self, BufRead, Read, Write};

/// Longest line of a head. Browsers send cookies and agents of some hundred bytes.
const LINE_BYTES_MAX: u64 = 8 * 1024;
/// Most lines of a head.
const HEADER_COUNT_MAX: usize = 100;
/// Longest body, in bytes: a form with one entry, or a whole book.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024;

/// A request as a server meets it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// `GET`, `POST`, …
    pub(crate) method: String,
    /// The path, without a query.
    pub(crate) path: String,
    /// Who asked in the first place, when a server of ours passes it on.
    pub(crate) forwarded_for: Option<String>,
    /// Whether the client will ask no more on this connection.
    pub(crate) is_last: bool,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    /// The media type of the body.
    pub(crate) media_type: &'static str,
    /// Where to go instead.
    pub(crate) location: Option<&'static str>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// First line, what it says of length, connection and origin, and the body.
struct Message {
    first: String,
    forwarded_for: Option<String>,
    is_last: bool,
    body: Vec<u8>,
}

// === impl Request ===

impl Request {
    /// The next request of a connection; none when the client has ended it.
    pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        if stream.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let message = Message::read(stream)?;
        let mut words = message.first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(malformed("a request without a target"));
        };
        let is_old = words.next() == Some("HTTP/1.0");
        Ok(Some(Self {
            method: method.to_owned(),
            path: target.split('?').next().unwrap_or_default().to_owned(),
            forwarded_for: message.forwarded_for,
            is_last: message.is_last || is_old,
            body: message.body,
        }))
    }

    /// Sends it to `host`, as the only one of its connection.
    pub(crate) fn write(&self, stream: &mut impl Write, host: &str) -> io::Result<()> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.path);
        if let Some(address) = &self.forwarded_for {
            text += &format!("X-Forwarded-For: {address}\r\n");
        }
        text += &format!(
            "Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.body.len()
        );
        let mut bytes = text.into_bytes();
        bytes.extend(&self.body);
        stream.write_all(&bytes)
    }
}

// === impl Response ===

impl Response {
    /// A page.
    pub(crate) fn html(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, "text/html; charset=utf-8", body)
    }

    /// Text.
    pub(crate) fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    /// JSON.
    pub(crate) fn json(value: &serde_json::Value) -> Self {
        Self::new(200, "application/json", value.to_string())
    }

    /// Sends the client to a page, which it is to get.
    pub(crate) fn see_other(location: &'static str) -> Self {
        Self {
            location: Some(location),
            ..Self::text(303, "")
        }
    }

    fn new(status: u16, media_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            media_type,
            location: None,
            body: body.into(),
        }
    }

    /// Sends it in one piece.
    pub(crate) fn write(&self, stream: &mut impl Write, is_last: bool) -> io::Result<()> {
        let connection = if is_last { "close" } else { "keep-alive" };
        let mut text = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {connection}\r\n",
            self.status,
            reason(self.status),
            self.media_type,
            self.body.len()
        );
        if let Some(location) = self.location {
            text += &format!("Location: {location}\r\n");
        }
        let mut bytes = (text + "\r\n").into_bytes();
        bytes.extend(&self.body);
        stream.write_all(&bytes)
    }

    /// Reads status and body of an answer.
    pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<(u16, Vec<u8>)> {
        let message = Message::read(stream)?;
        let status = message.first.split(' ').nth(1);
        let status = status.and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| malformed("an answer without a status"))?;
        Ok((status, message.body))
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        303 => "See Other",
        400 => "Bad Request",
        404 => "Not Found",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

// === impl Message ===

impl Message {
    fn read(stream: &mut impl BufRead) -> io::Result<Self> {
        let mut message = Self {
            first: line(stream)?,
            forwarded_for: None,
            is_last: false,
            body: Vec::new(),
        };
        let mut length = 0;
        for _ in 0..HEADER_COUNT_MAX {
            let header = line(stream)?;
            if header.is_empty() {
                message.body = body(stream, length)?;
                return Ok(message);
            }
            let (name, value) = header.split_once(':').unwrap_or((&header, ""));
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    length = value.parse().map_err(|_| malformed("a length"))?;
                }
                "connection" => message.is_last |= value.eq_ignore_ascii_case("close"),
                "x-forwarded-for" => message.forwarded_for = Some(value.to_owned()),
                "transfer-encoding" => return Err(malformed("a body without a length")),
                _ => {}
            }
        }
        Err(malformed("too many headers"))
    }
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.take(LINE_BYTES_MAX).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.trim_end_matches('\r').to_owned()),
        None if line.len() < usize::try_from(LINE_BYTES_MAX).unwrap_or(usize::MAX) => {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
        None => Err(malformed("a long line")),
    }
}

fn body(stream: &mut impl BufRead, length: usize) -> io::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        return Err(malformed("a large body"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<Option<Request>> {
        Request::read(&mut text.as_bytes())
    }

    #[test]
    fn request_is_read_as_it_was_written() {
        let request = Request {
            method: "POST".to_owned(),
            path: "/entries".to_owned(),
            forwarded_for: Some("192.0.2.7".to_owned()),
            is_last: true,
            body: b"text=hello".to_vec(),
        };
        let mut bytes = Vec::new();
        request.write(&mut bytes, "api").unwrap();
        let mut stream = bytes.as_slice();
        assert_eq!(Request::read(&mut stream).unwrap(), Some(request));
        assert_eq!(Request::read(&mut stream).unwrap(), None);
    }

    #[test]
    fn answer_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        Response::text(503, "later")
            .write(&mut bytes, true)
            .unwrap();
        let (status, body) = Response::read(&mut bytes.as_slice()).unwrap();
        assert_eq!((status, body.as_slice()), (503, b"later".as_slice()));
    }

    #[test]
    fn connections_are_kept_unless_told_otherwise() {
        let is_last = |text| read(text).unwrap().unwrap().is_last;
        assert!(!is_last("GET / HTTP/1.1\r\n\r\n"));
        assert!(is_last("GET / HTTP/1.1\r\nconnection: Close\r\n\r\n"));
        assert!(is_last("GET / HTTP/1.0\r\n\r\n"));
    }

    #[test]
    fn what_is_no_request_or_too_much_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(10_000));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        let large = format!(
            "POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
            BODY_BYTES_MAX + 1
        );
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for text in ["nonsense\r\n\r\n", &long, &many, &large, chunked] {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
        }
        let cut = read("GET / HTTP/1.1\r\nHost: x").unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
