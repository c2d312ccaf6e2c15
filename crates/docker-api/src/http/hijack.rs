//! Handing a connection over to a container: attach and exec.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use hyper::{
    StatusCode,
    header::{CONNECTION, HeaderValue, UPGRADE},
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    backend::{AttachedIo, OutputChunk},
    http::{
        request::Request,
        response::{self, RAW_STREAM, Response},
        server::Context,
        stdcopy,
    },
};

/// Bytes of input read at once; terminals send few, pipes fill it.
const INPUT_BUFFER_BYTES: usize = 32 << 10;

/// How long a client may take to read the end and close; one that only half does is left then.
const LINGER: Duration = Duration::from_secs(5);

/// A connection that was HTTP's.
pub(super) type Connection = TokioIo<Upgraded>;

/// Answers with the streams of `io`: over the bare connection when the client offered it, else as
/// a body with the output alone.
pub(crate) fn hijack(context: &Context, mut request: Request, io: AttachedIo) -> Response {
    if !request.wants_upgrade() {
        let has_tty = io.has_tty;
        let output = io
            .output
            .map(move |chunk| chunk.map(|chunk| encode(has_tty, &chunk)));
        return response::stream(RAW_STREAM, output, &context.shutdown);
    }
    let content_type = response::output_type(request.version, io.has_tty);
    let upgrade = hyper::upgrade::on(&mut request.http);
    context
        .tasks
        .spawn(pump(upgrade, io, context.shutdown.clone()));
    switched(content_type)
}

/// The answer after which the connection is no longer HTTP's.
pub(super) fn switched(content_type: &'static str) -> Response {
    let mut response = response::full(StatusCode::SWITCHING_PROTOCOLS, content_type, Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    response
}

/// The connection once it is handed over; `None` if the client went away before.
pub(super) async fn connection(upgrade: OnUpgrade) -> Option<Connection> {
    match upgrade.await {
        Ok(connection) => Some(TokioIo::new(connection)),
        Err(error) => {
            debug!(%error, "Client went away before the connection was handed over");
            None
        }
    }
}

/// Reads on until the client closes: a socket closed while bytes of the client's wait in it is reset, and the
/// client then loses what it has yet to read.
pub(super) async fn linger(mut reader: impl AsyncRead + Unpin, shutdown: &CancellationToken) {
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        _ = timeout(LINGER, tokio::io::copy(&mut reader, &mut nowhere)) => {}
        () = shutdown.cancelled() => {}
    }
}

fn encode(has_tty: bool, chunk: &OutputChunk) -> Bytes {
    if has_tty {
        chunk.data.clone()
    } else {
        stdcopy::frame(chunk.source, &chunk.data)
    }
}

/// Carries bytes both ways until the output ends, the client goes, or the server stops. The end of
/// the client's input only closes the process's stdin.
async fn pump(upgrade: OnUpgrade, io: AttachedIo, shutdown: CancellationToken) {
    let Some(connection) = connection(upgrade).await else {
        return;
    };
    let (mut reader, mut writer) = tokio::io::split(connection);
    let AttachedIo {
        has_tty,
        mut output,
        input,
    } = io;
    let output = async {
        while let Some(Ok(chunk)) = output.next().await {
            if writer.write_all(&encode(has_tty, &chunk)).await.is_err() {
                return;
            }
        }
        // The client may be gone already; there is nobody to tell.
        let _ = writer.shutdown().await;
    };
    // Both arms only move bytes; on the first end of `output` nothing that was read matters.
    let has_ended = tokio::select! {
        () = output => true,
        () = feed(&mut reader, input) => false,
        () = shutdown.cancelled() => false,
    };
    if has_ended {
        linger(reader, &shutdown).await;
    }
}

/// Carries the client's bytes to `input`. Returns only when the connection broke.
async fn feed(mut reader: impl AsyncRead + Unpin, input: Option<Pin<Box<dyn AsyncWrite + Send>>>) {
    let mut input = input;
    let mut buffer = vec![0; INPUT_BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer).await {
            Err(_) => return,
            Ok(0) => break,
            Ok(count) => {
                let Some(sink) = &mut input else { continue };
                if sink.write_all(&buffer[..count]).await.is_err() {
                    input = None;
                }
            }
        }
    }
    if let Some(mut input) = input {
        // A process that closed its stdin does not care.
        let _ = input.shutdown().await;
    }
    std::future::pending().await
}
