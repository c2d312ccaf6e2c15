//! Carries raft messages to the other managers.
//!
//! One task per peer, owned by [`carry`]. Each keeps a connection and, where the peer knows it, one long stream; SwarmKit's managers
//! get a call per message. Queues are short: raft repeats what is dropped. A connection that is refused or lost is told to raft at once.

use std::{collections::BTreeMap, sync::Arc};

use skep_manager::{Handle, Outbound, Outbox};
use skep_raft::{Message, MessageKind};
use skep_wire::member::Member;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{limits::PEER_QUEUE, security::Security};

mod link;
mod snapshot;

use self::link::Link;

/// Carries what `outbox` holds until it ends or `shutdown`.
pub async fn carry(
    mut outbox: Outbox,
    handle: Handle,
    security: Arc<Security>,
    shutdown: CancellationToken,
) {
    let mut carrier = Carrier {
        handle,
        security,
        peers: BTreeMap::new(),
        tasks: JoinSet::new(),
    };
    loop {
        tokio::select! {
            message = outbox.recv() => match message {
                Some(message) => carrier.send(message).await,
                None => break,
            },
            // An ended task is found by its closed queue.
            Some(_) = carrier.tasks.join_next() => {}
            () = shutdown.cancelled() => break,
        }
    }
    carrier.tasks.shutdown().await;
}

struct Carrier {
    handle: Handle,
    security: Arc<Security>,
    peers: BTreeMap<u64, Peer>,
    tasks: JoinSet<()>,
}

struct Peer {
    member: Member,
    queue: mpsc::Sender<Message>,
    task: AbortHandle,
}

impl Carrier {
    async fn send(&mut self, outbound: Outbound) {
        let Outbound { to, mut message } = outbound;
        // Twice, because the task may have ended for want of messages.
        for _ in 0..2 {
            let peer = self.peer(&to);
            match peer.queue.try_send(message) {
                Ok(()) => return,
                Err(TrySendError::Full(message)) => {
                    dropped(&self.handle, &message).await;
                    return;
                }
                Err(TrySendError::Closed(back)) => message = back,
            }
            self.peers.remove(&to.raft_id);
        }
        dropped(&self.handle, &message).await;
    }

    /// The task of a member, started if there is none or if the member moved.
    fn peer(&mut self, to: &Member) -> &Peer {
        if let Some(peer) = self.peers.get(&to.raft_id)
            && peer.member != *to
        {
            peer.task.abort();
            self.peers.remove(&to.raft_id);
        }
        self.peers.entry(to.raft_id).or_insert_with(|| {
            let (queue, messages) = mpsc::channel(PEER_QUEUE);
            let link = Link::new(
                self.handle.clone(),
                Arc::clone(&self.security),
                to.clone(),
                messages,
            );
            Peer {
                member: to.clone(),
                queue,
                task: self.tasks.spawn(link.run()),
            }
        })
    }
}

/// Raft repeats what is lost, but waits for news of a snapshot.
async fn dropped(handle: &Handle, message: &Message) {
    if message.kind == MessageKind::Snapshot as i32 {
        handle.report_snapshot(message.to, false).await;
    }
}
