//! What a node is told of the others, from this manager's committed store; leader or not. Design: `docs/design/directory.md`.
//!
//! One task per watching node. It ends with the node's interest, and when this manager has known no leader for a while: it may
//! have been cut off, and others know more.

use std::sync::Arc;

use skep_control::directory::Feed;
use skep_manager::{Feed as Committed, Handle, group::Group};
use skep_model::{
    NodeId,
    directory::{Change, Message},
};
use skep_store::Store;
use skep_wire::peer::{DirectoryMessage, WatchRequest, directory_server};
use tokio::{
    sync::{
        broadcast,
        broadcast::error::{RecvError, TryRecvError},
        mpsc, watch,
    },
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait, codegen::BoxStream};

use crate::{
    convert::{no_leader, not_executed},
    limits::{CALL_TIMEOUT, DIRECTORY_ENTRIES_MAX, LEADERLESS_MAX, STREAM_QUEUE},
    service::{caller, handle},
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Directory;

#[async_trait]
impl directory_server::Directory for Directory {
    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<BoxStream<DirectoryMessage>>, Status> {
        let (node, handle) = (caller(&request)?, handle(&request)?);
        let known = request.into_inner().index;
        let applied = timeout(CALL_TIMEOUT, handle.wait_applied(known)).await;
        let is_behind = !matches!(applied, Ok(Ok(())));
        if is_behind {
            return Err(not_executed("this manager is behind what the node knows"));
        }
        let (tx, rx) = mpsc::channel(STREAM_QUEUE);
        let watched = Watched { node, tx };
        // Ends when the node drops its stream, or with this manager's knowledge.
        tokio::spawn(watched.run(handle));
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

/// One node that is told.
struct Watched {
    node: NodeId,
    tx: mpsc::Sender<Result<DirectoryMessage, Status>>,
}

/// The node is gone.
struct Gone;

impl Watched {
    async fn run(self, handle: Handle) {
        let told = tokio::select! {
            told = self.tell(&handle) => told,
            () = leaderless(handle.group()) => Ok(()),
            () = self.tx.closed() => Err(Gone),
        };
        if told.is_ok() {
            // A node that hears this at the wrong moment sees a broken stream: the same to it.
            let _ = self.tx.try_send(Err(no_leader()));
        }
    }

    /// Tells everything and then what changes, until the manager ends.
    async fn tell(&self, handle: &Handle) -> Result<(), Gone> {
        // Before the state is looked at, so that nothing is missed in between.
        let mut commits = handle.changes();
        let view = handle.view();
        let mut index = view.index;
        let mut feed = self.tell_all(&view.store, index).await?;
        drop(view);
        loop {
            let first = match commits.recv().await {
                Ok(commit) => commit,
                Err(RecvError::Lagged(_)) => {
                    let view = handle.view();
                    index = view.index;
                    feed = self.tell_all(&view.store, index).await?;
                    continue;
                }
                Err(RecvError::Closed) => return Ok(()),
            };
            let (batch, has_lagged) = queued(first, &mut commits);
            let Some(last) = batch.last().filter(|last| last.index > index) else {
                continue;
            };
            if last.store.node(self.node).is_none() {
                return Ok(());
            }
            let news = batch.iter().filter(|commit| commit.index > index);
            if has_lagged || news.clone().any(|commit| commit.is_whole) {
                feed = self.tell_all(&last.store, last.index).await?;
            } else {
                let changes: Vec<_> = news
                    .flat_map(|commit| commit.changes.iter().cloned())
                    .collect();
                let changes = feed.follow(&last.store, &changes);
                if !changes.is_empty() {
                    self.send(last.index, false, changes).await?;
                }
            }
            index = last.index;
        }
    }

    async fn tell_all(&self, store: &Store, index: u64) -> Result<Feed, Gone> {
        let (feed, changes) = Feed::open(store, self.node);
        self.send(index, true, changes).await?;
        Ok(feed)
    }

    async fn send(&self, index: u64, is_complete: bool, changes: Vec<Change>) -> Result<(), Gone> {
        let mut rest = changes.into_iter().peekable();
        let mut is_first = true;
        loop {
            let part: Vec<Change> = rest.by_ref().take(DIRECTORY_ENTRIES_MAX).collect();
            let is_last = rest.peek().is_none();
            let message = Message {
                index,
                is_complete: is_complete && is_first,
                is_last,
                changes: part,
            };
            let sent = self.tx.send(Ok((&message).into())).await;
            sent.map_err(|_| Gone)?;
            is_first = false;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// `first` and all commits that are there already, and whether some between them were missed.
fn queued(
    first: Committed,
    commits: &mut broadcast::Receiver<Committed>,
) -> (Vec<Committed>, bool) {
    let mut batch = vec![first];
    let mut has_lagged = false;
    loop {
        match commits.try_recv() {
            Ok(commit) => batch.push(commit),
            Err(TryRecvError::Lagged(_)) => has_lagged = true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return (batch, has_lagged),
        }
    }
}

/// Returns when no leader has been known for [`LEADERLESS_MAX`], or the manager ended.
async fn leaderless(mut group: watch::Receiver<Arc<Group>>) {
    loop {
        let lost = group.wait_for(|group| group.leader().is_none()).await;
        if lost.map(drop).is_err() {
            return;
        }
        let found = async {
            let found = group.wait_for(|group| group.leader().is_some()).await;
            found.map(drop).is_ok()
        };
        if !matches!(timeout(LEADERLESS_MAX, found).await, Ok(true)) {
            return;
        }
    }
}
