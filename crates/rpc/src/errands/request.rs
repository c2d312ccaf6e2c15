//! A manager's side: has the leader find the node, and speaks with it.

use skep_manager::command::{Code, CommandError};
use skep_model::NodeId;
use skep_wire::peer::{ErrandNews, ErrandOrder, errands_client::ErrandsClient};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Cluster,
    convert::command_error,
    errands::{
        End, Failure, FailureKind, Input, News, Work,
        convert::{news, start},
    },
    limits::{ERRAND_QUEUE, ERRAND_WAIT, REQUEST_BYTES_MAX},
};

/// An errand under way. When it is dropped nobody hears of it any more.
#[derive(Debug)]
pub struct Session {
    /// To the node.
    pub input: mpsc::Sender<Input>,
    /// From the node; the last is [`News::End`].
    pub news: mpsc::Receiver<News>,
}

impl Cluster {
    /// Has a node do something. It is asked once: what fails was not done, or not to its end.
    ///
    /// # Errors
    /// There is no leader, or it does not answer. Whether the node can be reached is told by the end.
    pub async fn errand(&self, node_id: NodeId, work: Work) -> Result<Session, CommandError> {
        let connection = self.leader_connection().await?;
        let client = ErrandsClient::new(connection);
        let mut client = client.max_decoding_message_size(REQUEST_BYTES_MAX);
        let (orders, rx) = mpsc::channel(ERRAND_QUEUE);
        // There is room: nothing was sent yet.
        let _ = orders.try_send(start(node_id.to_string(), work));
        let late =
            |_| CommandError::new(Code::DeadlineExceeded, "the leader did not answer in time");
        let answer = timeout(ERRAND_WAIT * 2, client.request(ReceiverStream::new(rx)));
        let answer = answer.await.map_err(late)?;
        let told = answer.map_err(|status| command_error(&status))?;
        let (input, inputs) = mpsc::channel(ERRAND_QUEUE);
        let (tx, news) = mpsc::channel(ERRAND_QUEUE);
        // Ends with the errand, or when the session is dropped.
        tokio::spawn(pass_on(told.into_inner(), tx, inputs, orders));
        Ok(Session { input, news })
    }
}

/// Carries both directions until one ends.
async fn pass_on(
    mut told: Streaming<ErrandNews>,
    tx: mpsc::Sender<News>,
    mut inputs: mpsc::Receiver<Input>,
    orders: mpsc::Sender<ErrandOrder>,
) {
    let forward = async {
        while let Some(input) = inputs.recv().await {
            if orders.send(input.into()).await.is_err() {
                break;
            }
        }
        // Whoever gives no more input may still want to hear.
        std::future::pending::<()>().await;
    };
    let back = async {
        loop {
            let told = match told.message().await {
                Ok(Some(told)) => told,
                Ok(None) => return lost(&tx, "the leader ended the connection").await,
                Err(status) => return lost(&tx, status.message()).await,
            };
            let Some(told) = news(told) else { continue };
            let is_end = matches!(told, News::End(_));
            if tx.send(told).await.is_err() || is_end {
                return;
            }
        }
    };
    tokio::select! {
        () = forward => {}
        () = back => {}
        () = tx.closed() => {}
    }
}

/// Tells of an end that the node did not tell.
async fn lost(tx: &mpsc::Sender<News>, reason: &str) {
    let failure = Failure {
        kind: FailureKind::Unavailable,
        message: format!("the connection to the node was lost: {reason}"),
    };
    let _ = tx.send(News::End(End::Failed(failure))).await;
}
