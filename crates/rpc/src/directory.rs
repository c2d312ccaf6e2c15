//! A node's side of the directory: finds a manager that knows at least what the node knows, and passes on what it says.

use skep_model::directory::Message;
use skep_wire::peer::{WatchRequest, directory_client::DirectoryClient};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    Client, RpcError,
    error::ErrorChain,
    join::deadline,
    limits::{CALL_TIMEOUT, DIRECTORY_RETRY, DIRECTORY_TRUST, RESPONSE_BYTES_MAX},
};

/// Keeps `sink` told of the cluster until `shutdown`, or until nobody listens. `index` is what the node knows already; each stream
/// begins with a complete set, and messages of different streams are never mixed within a set. A slow sink slows the manager's
/// stream, never its memory.
///
/// A cluster restored from a backup may be behind what its nodes know, for ever. So a node that no manager served for
/// 30 s takes what it can get.
pub async fn follow(
    client: Client,
    mut index: u64,
    sink: mpsc::Sender<Message>,
    shutdown: CancellationToken,
) {
    let work = async {
        let mut served_at = Instant::now();
        while !sink.is_closed() {
            if let Err(error) = listen(&client, &mut index, &mut served_at, &sink).await {
                debug!(error = %ErrorChain(&error), "The directory is not heard");
            }
            if index > 0 && served_at.elapsed() > DIRECTORY_TRUST {
                warn!(
                    index,
                    "No manager knows what this node knows; taking what they know"
                );
                index = 0;
            }
            sleep(DIRECTORY_RETRY).await;
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
    index: &mut u64,
    served_at: &mut Instant,
    sink: &mpsc::Sender<Message>,
) -> Result<(), RpcError> {
    let (addr, connection) = client.connect().await?;
    let mut directory =
        DirectoryClient::new(connection).max_decoding_message_size(RESPONSE_BYTES_MAX);
    // A manager that is behind waits as long as a call lasts; it should get to answer.
    let limit = Instant::now() + CALL_TIMEOUT * 2;
    let call = directory.watch(WatchRequest { index: *index });
    let answer = deadline(&addr, limit, call).await;
    client.observe(&addr, answer.as_ref().err());
    let mut stream = answer?;
    loop {
        let answer = stream.message().await;
        // A stream that says nothing for hours is one on which nothing happens.
        *served_at = Instant::now();
        let message = match answer {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(status) => {
                let error = RpcError::from(status);
                client.observe(&addr, Some(&error));
                return Err(error);
            }
        };
        let message = Message::try_from(message).map_err(|error| RpcError::Malformed {
            addr: addr.clone(),
            problem: ErrorChain(&error).to_string(),
        })?;
        if message.is_last {
            *index = (*index).max(message.index);
        }
        if sink.send(message).await.is_err() {
            return Ok(());
        }
    }
}
