//! Answers: JSON, streams, errors.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    StatusCode,
    body::Frame,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{ByteStream, ProgressStream},
    error::{ApiError, ErrorKind, Result},
    http::version::ApiVersion,
};

/// Body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
/// An answer.
pub(crate) type Response = hyper::Response<Body>;

/// Media type of single objects, and of streams of them before 1.52.
pub(crate) const JSON: &str = "application/json";
/// Media type of raw bytes of a terminal, and of framed ones before 1.42.
pub(crate) const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// Media type of framed bytes.
pub(crate) const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

/// The media type of output with or without a terminal.
pub(crate) fn output_type(version: ApiVersion, has_tty: bool) -> &'static str {
    if !has_tty && version.at_least(42) {
        MULTIPLEXED_STREAM
    } else {
        RAW_STREAM
    }
}

/// An answer without body.
pub(crate) fn empty(status: StatusCode) -> Response {
    respond(
        status,
        None,
        Empty::new().map_err(|never| match never {}).boxed_unsync(),
    )
}

/// An answer of bytes that are there.
pub(crate) fn full(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response {
    let body = Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync();
    respond(status, Some(content_type), body)
}

/// `value` as JSON, with a newline as Go's encoder ends it.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes> {
    let mut buffer = BytesMut::with_capacity(1024).writer();
    serde_json::to_writer(&mut buffer, value)
        .map_err(|error| ApiError::system("failed to encode the answer", error))?;
    let mut bytes = buffer.into_inner();
    bytes.put_u8(b'\n');
    Ok(bytes.freeze())
}

/// An answer of `value` as JSON with status 200.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<Response> {
    json_with(StatusCode::OK, value)
}

/// An answer of `value` as JSON.
pub(crate) fn json_with<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Result<Response> {
    Ok(full(status, JSON, encode(value)?))
}

/// An answer whose bytes come over time; headers go out at once. Ends with `shutdown`.
pub(crate) fn stream(
    content_type: &'static str,
    bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    shutdown: &CancellationToken,
) -> Response {
    let frames = bytes
        .take_until(shutdown.clone().cancelled_owned())
        .map(|bytes| bytes.map(Frame::data));
    let body = StreamBody::new(frames).boxed_unsync();
    respond(StatusCode::OK, Some(content_type), body)
}

/// A file-like answer: an error in `bytes` breaks the connection so that the client notices.
pub(crate) fn file(bytes: ByteStream, shutdown: &CancellationToken) -> Response {
    stream("application/x-tar", bytes, shutdown)
}

/// Messages of a long operation as Docker's JSON lines. An error becomes the last line.
pub(crate) fn progress(messages: ProgressStream, shutdown: &CancellationToken) -> Response {
    let lines = messages.map(|message| {
        let line = match message {
            Ok(message) => encode(&crate::dto::progress::Message::from(message)),
            Err(error) => encode(&crate::dto::progress::Failure::from(error)),
        };
        line.map_err(io::Error::other)
    });
    stream(JSON, lines, shutdown)
}

/// The answer to a refused or failed request.
pub(crate) fn failure(error: &ApiError, version: Option<ApiVersion>) -> Response {
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    let status = error.kind.status();
    if error.kind == ErrorKind::NotModified {
        return empty(status);
    }
    // A client this old expects plain text, and reads why it is refused.
    if version.is_some_and(|version| version < ApiVersion(1, 24)) {
        let text = Bytes::from(format!("{}\n", error.message));
        return full(status, "text/plain; charset=utf-8", text);
    }
    json_with(
        status,
        &Message {
            message: &error.message,
        },
    )
    .unwrap_or_else(|_| empty(StatusCode::INTERNAL_SERVER_ERROR))
}

fn respond(status: StatusCode, content_type: Option<&'static str>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}
