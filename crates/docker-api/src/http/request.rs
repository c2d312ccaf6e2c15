//! A request as handlers see it, and the reading of its body.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::{BodyDataStream, BodyExt};
use hyper::{
    Method,
    body::Body,
    header::{CONTENT_TYPE, HeaderName, UPGRADE},
};
use serde::de::DeserializeOwned;

use crate::{
    backend::ByteStream,
    error::{ApiError, ErrorKind, Result},
    http::{
        leftover::RequestBody,
        query::{Query, percent_decode},
        version::{ApiVersion, VERSION_MAX},
    },
};

/// Bytes of a JSON body. The largest useful one is a stack with its configs; a service is below 1.5 MiB.
pub(crate) const JSON_BODY_BYTES_MAX: usize = 4 << 20;
/// Bytes of a body beyond its limit that are still read, to tell how large it is.
const JSON_BODY_BYTES_DROPPED_MAX: usize = 16 << 20;
/// Time a client may take to send a JSON body; longer holds a connection for nothing.
const JSON_BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two pieces of a streamed body. Generous: `xz -d | docker load` may stall.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Segments of a path; image names have few.
const PATH_SEGMENT_COUNT_MAX: usize = 32;

/// A request without its path, which the dispatcher has taken apart.
#[derive(Debug)]
pub(crate) struct Request {
    /// Version asked for.
    pub(crate) version: ApiVersion,
    /// Decoded query.
    pub(crate) query: Query,
    /// The request itself, for headers, body and upgrade.
    pub(crate) http: hyper::Request<RequestBody>,
}

/// The path of a request: version taken off, decoded, in segments.
#[derive(Debug)]
pub(crate) struct Path {
    /// The version prefix, if there was one.
    pub(crate) version: Option<ApiVersion>,
    /// What lies between the slashes.
    pub(crate) segments: Vec<String>,
}

impl Path {
    /// Takes `path` apart; `None` when no route can match it.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let decoded = percent_decode(path, false)?;
        let (version, rest) = ApiVersion::split(&decoded);
        let segments: Vec<_> = rest
            .strip_prefix('/')?
            .split('/')
            .map(str::to_owned)
            .collect();
        (segments.len() <= PATH_SEGMENT_COUNT_MAX).then_some(Self { version, segments })
    }
}

impl Request {
    /// Pairs a request with the version from its path.
    pub(crate) fn new(http: hyper::Request<RequestBody>, version: Option<ApiVersion>) -> Self {
        let query = http.uri().query().map(Query::parse).unwrap_or_default();
        Self {
            version: version.unwrap_or(VERSION_MAX),
            query,
            http,
        }
    }

    /// The method.
    pub(crate) fn method(&self) -> &Method {
        self.http.method()
    }

    /// A header's text, empty when missing or not text.
    pub(crate) fn header(&self, name: &HeaderName) -> &str {
        self.http
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// Whether the client offers to hand over the connection.
    pub(crate) fn wants_upgrade(&self) -> bool {
        self.http.headers().contains_key(UPGRADE)
    }

    /// Reads the body as JSON. No body gives the default, as Docker does.
    pub(crate) async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T> {
        if self.http.body().is_end_stream() {
            return Ok(T::default());
        }
        check_content_type(self.header(&CONTENT_TYPE))?;
        let body = tokio::time::timeout(JSON_BODY_TIMEOUT, read_body(self.http.body_mut()))
            .await
            .map_err(|_| ApiError::invalid("timed out while reading request body"))??;
        decode_json(&body)
    }

    /// The body as a stream of pieces.
    pub(crate) fn into_stream(self) -> ByteStream {
        let stream = BodyDataStream::new(self.http.into_body());
        let stream = tokio_stream::StreamExt::timeout(stream, STREAM_IDLE_TIMEOUT);
        Box::pin(stream.map(|piece| match piece {
            Ok(piece) => piece.map_err(io::Error::other),
            Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
        }))
    }
}

/// Reads a body up to its limit. Of what exceeds it a little the length is told.
async fn read_body(body: &mut RequestBody) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ApiError::invalid("failed to read request body").with_source(error))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length <= JSON_BODY_BYTES_MAX {
            bytes.extend_from_slice(&data);
        } else if length > JSON_BODY_BYTES_DROPPED_MAX {
            break;
        }
    }
    if length > JSON_BODY_BYTES_MAX {
        return Err(too_large(length));
    }
    Ok(bytes.freeze())
}

fn too_large(length: usize) -> ApiError {
    let size = match length > JSON_BODY_BYTES_DROPPED_MAX {
        true => format!("more than {JSON_BODY_BYTES_DROPPED_MAX}"),
        false => length.to_string(),
    };
    let message = format!(
        "request body too large: it has {size} bytes, and the limit is {JSON_BODY_BYTES_MAX} (4 MiB)"
    );
    ApiError::new(ErrorKind::TooLarge, message)
}

fn check_content_type(header: &str) -> Result<()> {
    let media_type = header.split(';').next().unwrap_or("").trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::invalid(if media_type.is_empty() {
        format!("malformed Content-Type header ({header}): mime: no media type")
    } else {
        format!("unsupported Content-Type header ({header}): must be 'application/json'")
    }))
}

/// Decodes JSON as Go would where serde differs: a `null` leaves a field at its default.
///
/// Go also ignores the case of keys; that is not done, every known client writes them exactly.
fn decode_json<T: DeserializeOwned>(body: &Bytes) -> Result<T> {
    let first = match serde_json::from_slice(body) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let value: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| invalid_json(body, &error))?;
    serde_json::from_value(without_nulls(value)).map_err(|_| invalid_json(body, &first))
}

fn invalid_json(body: &Bytes, error: &serde_json::Error) -> ApiError {
    ApiError::invalid(if body.iter().all(u8::is_ascii_whitespace) {
        "invalid JSON: got EOF while reading request body".to_owned()
    } else if error.is_eof() {
        "invalid JSON: unexpected EOF".to_owned()
    } else if error.to_string().starts_with("trailing characters") {
        "unexpected content after JSON".to_owned()
    } else {
        format!("invalid JSON: {error}")
    })
}

fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check(body: &str, expect: Result<&str, &str>) {
        let decoded: Result<BTreeMap<String, Vec<u8>>> =
            decode_json(&Bytes::copy_from_slice(body.as_bytes()));
        let decoded = decoded
            .map(|map| format!("{map:?}"))
            .map_err(|error| error.message);
        match expect {
            Ok(text) => assert_eq!(decoded.as_deref(), Ok(text), "{body}"),
            Err(text) => {
                let message = decoded.expect_err(body);
                assert!(message.starts_with(text), "{body}: {message}");
            }
        }
    }

    #[test]
    fn malformed_json_is_explained() {
        check(r#"{"a":[1]}"#, Ok(r#"{"a": [1]}"#));
        check(r#"{"a":null}"#, Ok("{}"));
        check(
            "  ",
            Err("invalid JSON: got EOF while reading request body"),
        );
        check(r#"{"a":"#, Err("invalid JSON: unexpected EOF"));
        check(r#"{"a":[1]} x"#, Err("unexpected content after JSON"));
        check(r#"{"a":"text"}"#, Err("invalid JSON: invalid type: string"));
    }

    #[test]
    fn what_is_too_large_is_told_the_limit() {
        assert_eq!(
            too_large(5 << 20).message,
            "request body too large: it has 5242880 bytes, and the limit is 4194304 (4 MiB)"
        );
        let message = too_large(17 << 20).message;
        assert!(
            message.contains("has more than 16777216 bytes"),
            "{message}"
        );
    }

    #[test]
    fn other_media_types_are_refused() {
        assert!(check_content_type("application/json; charset=utf-8").is_ok());
        assert_eq!(
            check_content_type("text/plain").expect_err("text").message,
            "unsupported Content-Type header (text/plain): must be 'application/json'"
        );
        assert_eq!(
            check_content_type("").expect_err("none").message,
            "malformed Content-Type header (): mime: no media type"
        );
    }

    #[test]
    fn paths_are_taken_apart() {
        let path = Path::parse("/v1.41/images/a%2Fb/json").expect("path");
        assert_eq!(path.version, Some(ApiVersion(1, 41)));
        assert_eq!(path.segments, ["images", "a", "b", "json"]);
        assert!(Path::parse(&"/x".repeat(100)).is_none());
        assert!(Path::parse("/%zz").is_none());
    }
}
