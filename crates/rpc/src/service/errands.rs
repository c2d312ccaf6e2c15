//! The leader's side of errands: nodes listen for them, managers have them done, and what both say is passed on.
//!
//! An errand waits here until its node fetches it, for seconds at most. Whoever fetches it takes it away, so it is done once at most;
//! one that was not fetched in time is told to have failed, and can be fetched no more.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use skep_model::{Id, NodeId, Rng};
use skep_wire::peer::{
    Errand, ErrandNews, ErrandOrder, ErrandStart, ListenErrands, errand_news, errand_order,
    errands_server,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, async_trait, codegen::BoxStream};

use crate::{
    convert::no_leader,
    errands::{End, Failure, News},
    limits::{ERRAND_QUEUE, ERRAND_WAIT, ERRANDS_WAITING_MAX, LISTENER_QUEUE},
    service::{caller, handle, log_broker::deposed},
};

/// See the module's documentation. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Errands(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    listeners: BTreeMap<NodeId, Listener>,
    waiting: BTreeMap<String, Waiting>,
    next_listener: u64,
}

#[derive(Debug)]
struct Listener {
    number: u64,
    tx: mpsc::Sender<Result<Errand, Status>>,
}

/// An errand that its node has not fetched yet.
#[derive(Debug)]
struct Waiting {
    node_id: NodeId,
    start: ErrandStart,
    orders: Streaming<ErrandOrder>,
    news: mpsc::Sender<Result<ErrandNews, Status>>,
}

impl Errands {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an errand wait for its node, which is told. Gives it back with what to say when that is not possible.
    fn put(&self, id: &str, waiting: Waiting) -> Option<(Waiting, String)> {
        let mut state = self.lock();
        let node_id = waiting.node_id;
        if state.waiting.len() >= ERRANDS_WAITING_MAX {
            return Some((
                waiting,
                "too many commands are waiting for their nodes".to_owned(),
            ));
        }
        let errand = Errand { id: id.to_owned() };
        let is_told = state
            .listeners
            .get(&node_id)
            .is_some_and(|listener| listener.tx.try_send(Ok(errand)).is_ok());
        if !is_told {
            return Some((waiting, format!("node {node_id} is not available")));
        }
        state.waiting.insert(id.to_owned(), waiting);
        None
    }

    /// Takes an errand away that nobody fetched.
    async fn expire(self, id: String) {
        tokio::time::sleep(ERRAND_WAIT).await;
        let waiting = self.lock().waiting.remove(&id);
        if let Some(waiting) = waiting {
            let node_id = waiting.node_id;
            fail(&waiting.news, format!("node {node_id} did not answer")).await;
        }
    }
}

#[async_trait]
impl errands_server::Errands for Errands {
    async fn listen(
        &self,
        request: Request<ListenErrands>,
    ) -> Result<Response<BoxStream<Errand>>, Status> {
        let (node_id, handle) = (caller(&request)?, handle(&request)?);
        let (tx, rx) = mpsc::channel(LISTENER_QUEUE);
        let number = {
            let mut state = self.lock();
            state.next_listener += 1;
            let number = state.next_listener;
            let tx = tx.clone();
            state.listeners.insert(node_id, Listener { number, tx });
            number
        };
        let errands = self.clone();
        // Ends when the node goes, or when this manager leads no more.
        tokio::spawn(async move {
            tokio::select! {
                () = tx.closed() => {}
                () = deposed(handle) => drop(tx.try_send(Err(no_leader()))),
            }
            let mut state = errands.lock();
            let listener = state.listeners.get(&node_id);
            if listener.is_some_and(|listener| listener.number == number) {
                state.listeners.remove(&node_id);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn carry(
        &self,
        request: Request<Streaming<ErrandNews>>,
    ) -> Result<Response<BoxStream<ErrandOrder>>, Status> {
        let node_id = caller(&request)?;
        let mut carried = request.into_inner();
        let first = timeout(ERRAND_WAIT, carried.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no errand was named"))??;
        let Some(errand_news::News::Begin(id)) = first.and_then(|first| first.news) else {
            return Err(Status::invalid_argument("no errand was named"));
        };
        let waiting = {
            let mut state = self.lock();
            let is_its = |waiting: &Waiting| waiting.node_id == node_id;
            let found = state.waiting.get(&id).is_some_and(is_its);
            found.then(|| state.waiting.remove(&id)).flatten()
        };
        let waiting = waiting.ok_or_else(|| Status::not_found("errand not found"))?;
        let start = ErrandOrder {
            order: Some(errand_order::Order::Start(waiting.start)),
        };
        // Ends with the errand, or when nobody wants to hear of it.
        tokio::spawn(pass_on(node_id, carried, waiting.news));
        let orders = tokio_stream::once(Ok(start)).chain(waiting.orders);
        Ok(Response::new(Box::pin(orders)))
    }

    async fn request(
        &self,
        request: Request<Streaming<ErrandOrder>>,
    ) -> Result<Response<BoxStream<ErrandNews>>, Status> {
        let mut orders = request.into_inner();
        let first = timeout(ERRAND_WAIT, orders.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("nothing was asked for"))??;
        let Some(errand_order::Order::Start(start)) = first.and_then(|first| first.order) else {
            return Err(Status::invalid_argument("nothing was asked for"));
        };
        let node_id = start.node_id.parse();
        let node_id = node_id.map_err(|_| Status::invalid_argument("node id is malformed"))?;
        let (news, rx) = mpsc::channel(ERRAND_QUEUE);
        let id = new_id();
        let waiting = Waiting {
            node_id,
            start,
            orders,
            news,
        };
        match self.put(&id, waiting) {
            // Lasts for seconds.
            None => drop(tokio::spawn(self.clone().expire(id))),
            Some((waiting, reason)) => fail(&waiting.news, reason).await,
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

/// Passes on what a node tells, until its end.
async fn pass_on(
    node_id: NodeId,
    mut carried: Streaming<ErrandNews>,
    news: mpsc::Sender<Result<ErrandNews, Status>>,
) {
    loop {
        let told = tokio::select! {
            told = carried.message() => told,
            () = news.closed() => return,
        };
        let Ok(Some(told)) = told else {
            let reason = format!(
                "node {node_id} disconnected; it is not known whether what was begun there goes on"
            );
            return fail(&news, reason).await;
        };
        let is_end = matches!(told.news, Some(errand_news::News::End(_)));
        if news.send(Ok(told)).await.is_err() || is_end {
            return;
        }
    }
}

async fn fail(news: &mpsc::Sender<Result<ErrandNews, Status>>, reason: String) {
    let end = News::End(End::Failed(Failure::unavailable(reason)));
    let _ = news.send(Ok(end.into())).await;
}

fn new_id() -> String {
    let seed = RandomState::new().hash_one(());
    Id::random(&mut Rng::from_seed(seed)).to_string()
}
