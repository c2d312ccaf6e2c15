//! A connection handed over to a command: input, sizes of the terminal, output and the exit code in frames, both ways.
//!
//! A frame is a kind, three zeros, a big-endian length and so many bytes, as Docker's framed output. From the client: [`INPUT`] (empty
//! for its end), [`RESIZE`] (rows and columns, two bytes each). To the client: [`STDOUT`], [`STDERR`], [`FAILURE`] (a text) and
//! [`EXIT`] (four bytes), of which one is the last.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use hyper::upgrade::OnUpgrade;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{ConsoleSize, TaskExec, TaskInput, TaskOutput},
    http::{hijack, request::Request, response::Response, server::Context},
};

/// From the client: input; empty at its end.
pub(crate) const INPUT: u8 = 0;
/// From the client: a new size.
pub(crate) const RESIZE: u8 = 5;
/// To the client: standard output.
pub(crate) const STDOUT: u8 = 1;
/// To the client: standard error.
pub(crate) const STDERR: u8 = 2;
/// To the client: why it was lost.
pub(crate) const FAILURE: u8 = 3;
/// To the client: the exit code.
pub(crate) const EXIT: u8 = 4;

/// Bytes of a frame's header.
pub(crate) const HEADER_LENGTH: usize = 8;
/// Most bytes of a client's frame; terminals send few, pipes what they are given.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 10;

/// A frame.
pub(crate) fn frame(kind: u8, data: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER_LENGTH + data.len());
    bytes.put_u32(u32::from(kind) << 24);
    bytes.put_u32(u32::try_from(data.len()).expect("a piece is far below 4 GiB"));
    bytes.put_slice(data);
    bytes.freeze()
}

/// The next frame; `None` where the sender ended.
///
/// # Errors
/// The connection broke, or a frame is longer than any may be.
pub(crate) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Bytes)>> {
    let mut header = [0; HEADER_LENGTH];
    match reader.read_exact(&mut header).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let [kind, _, _, _, length @ ..] = header;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut data = vec![0; length];
    reader.read_exact(&mut data).await?;
    Ok(Some((kind, data.into())))
}

/// Hands the connection over to a command.
pub(crate) fn hand_over(context: &Context, mut request: Request, exec: TaskExec) -> Response {
    let upgrade = hyper::upgrade::on(&mut request.http);
    let pump = pump(upgrade, exec, context.shutdown.clone());
    context.tasks.spawn(pump);
    hijack::switched("application/vnd.skep.console")
}

async fn pump(upgrade: OnUpgrade, exec: TaskExec, shutdown: CancellationToken) {
    let Some(connection) = hijack::connection(upgrade).await else {
        return;
    };
    let (mut reader, mut writer) = tokio::io::split(connection);
    let TaskExec { input, mut output } = exec;
    let output = async {
        while let Some(output) = output.next().await {
            let frame = match output {
                TaskOutput::Stdout(data) => frame(STDOUT, &data),
                TaskOutput::Stderr(data) => frame(STDERR, &data),
                TaskOutput::Failed(text) => frame(FAILURE, text.as_bytes()),
                TaskOutput::Exit(code) => frame(EXIT, &code.to_be_bytes()),
            };
            if writer.write_all(&frame).await.is_err() {
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
        hijack::linger(reader, &shutdown).await;
    }
}

/// Carries the client's frames. Returns when the client is gone: it keeps the connection for as long as it listens.
async fn feed(reader: &mut (impl AsyncRead + Unpin), input: mpsc::Sender<TaskInput>) {
    while let Ok(Some((kind, data))) = read(reader).await {
        let given = match (kind, &*data) {
            (INPUT, []) => TaskInput::End,
            (INPUT, _) => TaskInput::Data(data),
            (RESIZE, [a, b, c, d]) => TaskInput::Resize(ConsoleSize {
                height: u16::from_be_bytes([*a, *b]),
                width: u16::from_be_bytes([*c, *d]),
            }),
            // A client that speaks otherwise is none.
            _ => return,
        };
        // A command that reads no more does not end its output.
        let _ = input.send(given).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_survive_and_endless_ones_are_refused() {
        let sent = [
            frame(INPUT, b"abc"),
            frame(RESIZE, &[0, 24, 0, 80]),
            frame(INPUT, b""),
        ]
        .concat();
        let mut reader = &sent[..];
        for expect in [
            (INPUT, &b"abc"[..]),
            (RESIZE, &[0, 24, 0, 80]),
            (INPUT, b""),
        ] {
            let (kind, data) = read(&mut reader).await.unwrap().unwrap();
            assert_eq!((kind, &*data), expect);
        }
        assert_eq!(read(&mut reader).await.unwrap(), None);
        let mut endless = &[INPUT, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..];
        read(&mut endless).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_client_feeds_a_command_until_it_goes() {
        let sent = [
            frame(INPUT, b"x"),
            frame(RESIZE, &[0, 1, 0, 2]),
            frame(INPUT, b""),
        ]
        .concat();
        let (tx, mut rx) = mpsc::channel(9);
        feed(&mut &sent[..], tx).await;
        let size = ConsoleSize {
            height: 1,
            width: 2,
        };
        let expect = [
            TaskInput::Data(Bytes::from_static(b"x")),
            TaskInput::Resize(size),
            TaskInput::End,
        ];
        for expect in expect {
            assert_eq!(rx.recv().await, Some(expect));
        }
        assert_eq!(rx.recv().await, None);
    }
}
