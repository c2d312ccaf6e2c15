//! Raft transport to a manager that knows SwarmKit's calls only, and that offers no ALPN, as Docker before 28 after a renewal.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use hyper::{Request, body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use skep_manager::Outbound;
use skep_raft::{Message, MessageKind, Snapshot};
use skep_wire::{
    member::Member,
    proto::{
        StreamRaftMessageRequest, StreamRaftMessageResponse,
        raft_server::{self, RaftServer},
    },
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming, async_trait, body::Body};
use tower::Service as _;

use super::rig::{Founder, PATIENCE};
use crate::{Security, carry, limits::SNAPSHOT_CHUNK_BYTES, service::SENDER_ADDR};

/// Keeps each call's chunks.
struct Recorder {
    chunks: mpsc::Sender<Vec<Message>>,
    /// Where callers last said that they listen.
    sender: Arc<Mutex<Option<String>>>,
}

#[async_trait]
impl raft_server::Raft for Recorder {
    async fn stream_raft_message(
        &self,
        request: tonic::Request<Streaming<StreamRaftMessageRequest>>,
    ) -> Result<Response<StreamRaftMessageResponse>, Status> {
        if let Some(addr) = request.metadata().get(SENDER_ADDR) {
            *self.sender.lock().unwrap() = Some(addr.to_str().unwrap().to_owned());
        }
        let mut stream = request.into_inner();
        let mut chunks = Vec::new();
        while let Some(chunk) = stream.message().await? {
            chunks.push(Message::decode(&*chunk.message).unwrap());
        }
        self.chunks.send(chunks).await.unwrap();
        Ok(Response::new(StreamRaftMessageResponse {}))
    }
}

/// A manager of another kind; its address, and what it is sent.
async fn other_manager(
    security: &Security,
    sender: Arc<Mutex<Option<String>>>,
) -> (String, mpsc::Receiver<Vec<Message>>) {
    let mut config = rustls::ServerConfig::clone(&security.current().server);
    config.alpn_protocols.clear();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (tx, rx) = mpsc::channel(16);
    let raft = RaftServer::new(Recorder { chunks: tx, sender });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let raft = raft.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let mut raft = raft.clone();
                async move {
                    let answer = raft.call(request.map(Body::new)).await;
                    Ok::<_, Infallible>(answer.unwrap())
                }
            });
            let connection =
                Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (addr, rx)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_snapshots_reach_a_manager_of_another_kind() {
    let founder = Founder::start().await;
    let other = founder
        .join_through(&founder.addr(), &founder.manager_token)
        .await;
    let sender = Arc::default();
    let (addr, mut received) = other_manager(&other, Arc::clone(&sender)).await;
    let to = Member {
        raft_id: 99,
        node_id: other.node_id(),
        addr,
    };
    let (outbox, messages) = mpsc::channel(16);
    let shutdown = CancellationToken::new();
    let carrying = tokio::spawn(carry(
        messages,
        founder.node.handle(),
        Arc::clone(&founder.node.security),
        shutdown.clone(),
    ));
    let message = |kind: MessageKind, index: u64| Message {
        kind: kind as i32,
        to: 99,
        from: 1,
        term: 2,
        index,
        ..Message::default()
    };
    for index in 1..=3 {
        let message = message(MessageKind::Append, index);
        let to = to.clone();
        outbox.send(Outbound { to, message }).await.unwrap();
    }
    for index in 1..=3 {
        let chunks = timeout(PATIENCE, received.recv()).await.unwrap().unwrap();
        assert_eq!(chunks, [message(MessageKind::Append, index)]);
    }
    assert_eq!(*sender.lock().unwrap(), Some(founder.addr()));
    let mut announced = message(MessageKind::Snapshot, 0);
    announced.snapshot = Some(Snapshot {
        data: Bytes::from(vec![7; SNAPSHOT_CHUNK_BYTES + 1]),
        ..Snapshot::default()
    });
    let snapshot = Outbound {
        to,
        message: announced,
    };
    outbox.send(snapshot).await.unwrap();
    let chunks = timeout(PATIENCE, received.recv()).await.unwrap().unwrap();
    let lengths: Vec<usize> = chunks
        .iter()
        .map(|chunk| chunk.snapshot.as_ref().unwrap().data.len())
        .collect();
    assert_eq!(lengths, [SNAPSHOT_CHUNK_BYTES, 1]);
    shutdown.cancel();
    timeout(PATIENCE, carrying).await.unwrap().unwrap();
}
