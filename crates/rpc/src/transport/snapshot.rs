//! Sends a snapshot in chunks small enough for any manager; each repeats the message around its piece of the data.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use skep_raft::Message;
use skep_wire::proto::{StreamRaftMessageRequest, raft_client::RaftClient};
use tokio::time::timeout;
use tonic::Status;

use crate::{
    connection::Connection,
    limits::{RAFT_CALL_TIMEOUT, SNAPSHOT_CHUNK_BYTES},
};

/// Longest time for the receiver to take up a whole snapshot, besides its transfer.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn send(connection: Connection, message: Message) -> Result<(), Status> {
    let bytes = message.snapshot.as_ref().map_or(0, |it| it.data.len());
    let count = bytes.div_ceil(SNAPSHOT_CHUNK_BYTES);
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let limit = RESTORE_TIMEOUT + RAFT_CALL_TIMEOUT.saturating_mul(count);
    let requests = chunks(message, SNAPSHOT_CHUNK_BYTES);
    let mut client = RaftClient::new(connection);
    let call = client.stream_raft_message(tokio_stream::iter(requests));
    match timeout(limit, call).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// The chunks, each made when it is wanted.
fn chunks(
    mut message: Message,
    bytes_max: usize,
) -> impl Iterator<Item = StreamRaftMessageRequest> {
    let data = message
        .snapshot
        .as_mut()
        .map_or_else(Bytes::new, |snapshot| std::mem::take(&mut snapshot.data));
    // A message without data is one chunk too.
    let count = data.len().div_ceil(bytes_max).max(1);
    (0..count).map(move |number| {
        let start = number * bytes_max;
        let piece = data.slice(start..data.len().min(start + bytes_max));
        let mut chunk = message.clone();
        if let Some(snapshot) = &mut chunk.snapshot {
            snapshot.data = piece;
        }
        StreamRaftMessageRequest {
            message: chunk.encode_to_vec(),
        }
    })
}

#[cfg(test)]
mod tests {
    use skep_raft::Snapshot;

    use super::*;

    #[test]
    fn pieces_put_together_are_the_snapshot() {
        let data: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let snapshot = Snapshot {
            data: data.clone().into(),
            ..Snapshot::default()
        };
        let message = Message {
            to: 2,
            from: 1,
            snapshot: Some(snapshot),
            ..Message::default()
        };
        for bytes_max in [1, 7, 999, 1000, 1001] {
            let requests: Vec<_> = chunks(message.clone(), bytes_max).collect();
            assert_eq!(requests.len(), 1000_usize.div_ceil(bytes_max));
            let mut whole = Vec::new();
            for request in requests {
                let chunk = Message::decode(&*request.message).unwrap();
                assert_eq!((chunk.to, chunk.from), (2, 1));
                whole.extend_from_slice(&chunk.snapshot.unwrap().data);
            }
            assert_eq!(whole, data);
        }
    }
}
