//! A node's side: hears that there is something to do, fetches it, does it.

use std::sync::Arc;

use skep_wire::peer::{
    ErrandNews, ErrandOrder, ListenErrands, errand_news, errand_order,
    errands_client::ErrandsClient,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::debug;

use crate::{
    Client, RpcError,
    connection::Connection,
    errands::{
        End, Failure, FailureKind, News, Runner,
        convert::{input, work},
    },
    error::ErrorChain,
    limits::{CALL_TIMEOUT, ERRAND_QUEUE, ERRANDS_MAX, LISTEN_RETRY, REQUEST_BYTES_MAX},
};

/// Does what managers want with `runner` until `shutdown`. Commands that run then go on.
pub async fn serve(client: Client, runner: Arc<dyn Runner>, shutdown: CancellationToken) {
    // Outlives the connection to one leader: what was begun goes on when it is lost.
    let mut running = JoinSet::new();
    let work = async {
        loop {
            if let Err(error) = listen(&client, &runner, &mut running).await {
                debug!(error = %ErrorChain(&error), "Errands are not heard");
            }
            sleep(LISTEN_RETRY).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

/// Hears one manager until it fails.
async fn listen(
    client: &Client,
    runner: &Arc<dyn Runner>,
    running: &mut JoinSet<()>,
) -> Result<(), RpcError> {
    let (addr, connection) = client.connect().await?;
    let mut leader = ErrandsClient::new(connection.clone());
    let call = timeout(CALL_TIMEOUT, leader.listen(ListenErrands {}));
    let mut errands = call
        .await
        .map_err(|_| RpcError::Deadline(addr))??
        .into_inner();
    loop {
        let errand = tokio::select! {
            errand = errands.message() => errand?,
            Some(_) = running.join_next() => continue,
        };
        let Some(errand) = errand else { return Ok(()) };
        if running.len() < ERRANDS_MAX {
            let (connection, runner) = (connection.clone(), Arc::clone(runner));
            running.spawn(async move {
                if let Err(status) = carry(connection, errand.id, runner).await {
                    debug!(reason = status.message(), "Errand was not given out");
                }
            });
        }
    }
}

/// Fetches an errand and does it.
async fn carry(connection: Connection, id: String, runner: Arc<dyn Runner>) -> Result<(), Status> {
    let leader = ErrandsClient::new(connection);
    let mut leader = leader.max_decoding_message_size(REQUEST_BYTES_MAX);
    let (told, rx) = mpsc::channel(ERRAND_QUEUE);
    let begin = ErrandNews {
        news: Some(errand_news::News::Begin(id)),
    };
    // There is room: nothing was sent yet.
    let _ = told.try_send(begin);
    let call = timeout(CALL_TIMEOUT, leader.carry(ReceiverStream::new(rx)));
    let late = |_| Status::deadline_exceeded("the leader did not answer in time");
    let mut orders = call.await.map_err(late)??.into_inner();
    let first = orders.message().await?.and_then(|order| order.order);
    let wanted = match first {
        Some(errand_order::Order::Start(start)) => work(start),
        _ => None,
    };
    let Some(wanted) = wanted else {
        let failure = Failure {
            kind: FailureKind::Invalid,
            message: "the node does not know what is wanted of it".to_owned(),
        };
        let _ = told.send(News::End(End::Failed(failure)).into()).await;
        drop(told);
        linger(&mut orders).await;
        return Ok(());
    };
    let (inputs, input_rx) = mpsc::channel(ERRAND_QUEUE);
    let (news, mut news_rx) = mpsc::channel(ERRAND_QUEUE);
    let run = async {
        let end = runner.run(wanted, input_rx, news.clone()).await;
        let _ = news.send(News::End(end)).await;
        drop(news);
    };
    let back = async {
        while let Some(news) = news_rx.recv().await {
            if told.send(news.into()).await.is_err() {
                // Nobody listens any more; what runs goes on without us.
                news_rx.close();
                while news_rx.recv().await.is_some() {}
            }
        }
    };
    let both = async { tokio::join!(run, back) };
    tokio::select! {
        ((), ()) = both => {}
        never = feed(&mut orders, inputs) => match never {},
    }
    drop(told);
    linger(&mut orders).await;
    Ok(())
}

/// Waits until the leader ends the call, as it does once it has read the end: who drops a call takes back what was not read of it.
async fn linger(orders: &mut Streaming<ErrandOrder>) {
    let rest = async { while let Ok(Some(_)) = orders.message().await {} };
    let _ = timeout(CALL_TIMEOUT, rest).await;
}

/// Passes input on for as long as there is any.
async fn feed(
    orders: &mut Streaming<ErrandOrder>,
    inputs: mpsc::Sender<crate::errands::Input>,
) -> std::convert::Infallible {
    while let Ok(Some(order)) = orders.message().await {
        if let Some(input) = input(order)
            && inputs.send(input).await.is_err()
        {
            break;
        }
    }
    // The command sees the end of its input, and goes on.
    drop(inputs);
    std::future::pending().await
}
