//! Log lines of services and tasks, from the nodes they were written on to the API of any manager.
//!
//! [`Cluster::logs`] asks the leader's broker. Each node runs [`serve`], which hears from the broker what is wanted, reads it from its
//! [`LogSource`] and sends it back. Memory is bounded on the way: a slow reader slows the nodes that read for it.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use skep_manager::command::{Code, CommandError};
use skep_model::{NodeId, ServiceId, TaskId, Timestamp};
use skep_wire::proto::{self, logs_client::LogsClient};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    Cluster,
    convert::command_error,
    limits::{COMMAND_TIMEOUT, LOG_QUEUE, RESPONSE_BYTES_MAX},
};

mod convert;
mod publisher;

pub use self::{convert::Malformed, publisher::serve};

/// Whose lines are wanted; all of what is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSelector {
    /// All tasks of these services.
    pub services: Vec<ServiceId>,
    /// All tasks on these nodes.
    pub nodes: Vec<NodeId>,
    /// These tasks.
    pub tasks: Vec<TaskId>,
}

/// Which of their lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Include standard output.
    pub stdout: bool,
    /// Include standard error.
    pub stderr: bool,
    /// Go on with new lines, and with tasks that come later.
    pub follow: bool,
    /// Only so many last lines of each task; `None` for all.
    pub tail: Option<u64>,
    /// Only lines at or after this time.
    pub since: Option<Timestamp>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogMessage {
    /// Service of the task, if it has one.
    pub service_id: Option<ServiceId>,
    /// Node of the task.
    pub node_id: NodeId,
    /// The task.
    pub task_id: TaskId,
    /// When it was written.
    pub time: Timestamp,
    /// Whether it was written to standard error.
    pub is_stderr: bool,
    /// The text with its newline.
    pub data: Bytes,
    /// Details of the log driver, sorted by key.
    pub attributes: Vec<(String, String)>,
}

/// Lines as they come; ends after an error.
pub type LogStream = mpsc::Receiver<Result<LogMessage, CommandError>>;

/// The containers of this node, as far as their logs go.
pub trait LogSource: Send + Sync + 'static {
    /// The lines of this node's tasks that `selector` names, each task's in order. Ends when all are read; with `follow` it goes on
    /// with tasks that arrive later, and never ends by itself. Dropping it ends the reading.
    fn read(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Pin<Box<dyn Stream<Item = LogMessage> + Send>>;
}

impl Cluster {
    /// The lines `selector` and `options` name, from all nodes, merged as they come. Nodes that cannot be reached are named in an
    /// error at the end.
    ///
    /// # Errors
    /// There is no leader, or it refuses.
    pub async fn logs(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Result<LogStream, CommandError> {
        let connection = self.leader_connection().await?;
        let mut client = LogsClient::new(connection).max_decoding_message_size(RESPONSE_BYTES_MAX);
        let request = proto::SubscribeLogsRequest {
            selector: Some((&selector).into()),
            options: Some((&options).into()),
        };
        let answer = timeout(COMMAND_TIMEOUT, client.subscribe_logs(request)).await;
        let late =
            || CommandError::new(Code::DeadlineExceeded, "the leader did not answer in time");
        let answer = answer.map_err(|_| late())?;
        let mut batches = answer
            .map_err(|status| command_error(&status))?
            .into_inner();
        let (tx, rx) = mpsc::channel(LOG_QUEUE * 16);
        // Ends with the stream, or when the reader drops the receiver.
        tokio::spawn(async move {
            loop {
                let batch = tokio::select! {
                    batch = batches.message() => batch,
                    () = tx.closed() => return,
                };
                let messages = match batch {
                    Ok(Some(batch)) => batch.messages,
                    Ok(None) => return,
                    Err(status) => {
                        let _ = tx.send(Err(command_error(&status))).await;
                        return;
                    }
                };
                for message in messages {
                    // A line that cannot be read is one we do not have.
                    let Ok(message) = LogMessage::try_from(message) else {
                        continue;
                    };
                    if tx.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(rx)
    }
}
