//! A client's reading of logs, at the manager it asked: from whichever leader there is, each line once.

use skep_manager::command::{Code, CommandError};
use skep_model::Timestamp;
use skep_wire::peer::{LogLines, log_reading_client::LogReadingClient};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tonic::Streaming;

use crate::{
    Cluster,
    convert::command_error,
    limits::{
        COMMAND_TIMEOUT, LOG_QUEUE, LOGS_RETRY, LOGS_RETRY_MAX, LOGS_UNTIL_GRACE,
        RESPONSE_BYTES_MAX,
    },
    logs::{
        LogMessage, LogOptions, LogSelector, LogStream,
        convert::{message, origins, read_logs},
        positions::Positions,
    },
    security::now,
};

impl Cluster {
    /// The lines `selector` and `options` name, from all nodes, by time. Lost leaders are replaced. What could not be read is named in
    /// an error at the end.
    ///
    /// # Errors
    /// There is no leader, or it refuses.
    pub async fn logs(
        &self,
        selector: LogSelector,
        mut options: LogOptions,
    ) -> Result<LogStream, CommandError> {
        options.follow &= options.until.is_none_or(|until| until > now());
        let (tx, rx) = mpsc::channel(LOG_QUEUE);
        let mut reading = Reading {
            cluster: self.clone(),
            selector,
            options,
            positions: Positions::default(),
            tx,
        };
        let first = reading.begin().await?;
        // Ends with the lines, or when the reader drops the receiver.
        tokio::spawn(reading.run(first));
        Ok(rx)
    }
}

/// See the module's documentation.
struct Reading {
    cluster: Cluster,
    selector: LogSelector,
    options: LogOptions,
    positions: Positions,
    tx: mpsc::Sender<Result<Vec<LogMessage>, CommandError>>,
}

/// How a reading ends.
enum End {
    /// All lines were read, or the client went.
    Over,
    /// The leader was lost, or says no.
    Failed(CommandError),
}

impl Reading {
    async fn run(mut self, first: Streaming<LogLines>) {
        let mut lines = Some(first);
        let mut lost_at = None;
        let gone = self.tx.clone();
        let work = async {
            loop {
                let end = match lines.take() {
                    Some(lines) => {
                        lost_at = None;
                        self.pass_on(lines).await
                    }
                    None => match self.begin().await {
                        Ok(begun) => {
                            lines = Some(begun);
                            continue;
                        }
                        Err(error) => End::Failed(error),
                    },
                };
                let End::Failed(error) = end else { return };
                let lost_at = *lost_at.get_or_insert_with(Instant::now);
                if is_final(&error) || lost_at.elapsed() > LOGS_RETRY_MAX {
                    let _ = self.tx.send(Err(error)).await;
                    return;
                }
                sleep(LOGS_RETRY).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = gone.closed() => {}
        }
    }

    /// Asks the leader of now, for what was not read yet.
    async fn begin(&mut self) -> Result<Streaming<LogLines>, CommandError> {
        let known: Vec<_> = self.positions.nodes().collect();
        for (node_id, _) in &known {
            self.positions.begin_anew(*node_id);
        }
        let connection = self.cluster.leader_connection().await?;
        let client = LogReadingClient::new(connection);
        let mut client = client.max_decoding_message_size(RESPONSE_BYTES_MAX);
        let request = read_logs(&self.selector, &self.options, known.into_iter());
        let late =
            |_| CommandError::new(Code::DeadlineExceeded, "the leader did not answer in time");
        let answer = timeout(COMMAND_TIMEOUT, client.read(request));
        let answer = answer.await.map_err(late)?;
        Ok(answer
            .map_err(|status| command_error(&status))?
            .into_inner())
    }

    async fn pass_on(&mut self, mut lines: Streaming<LogLines>) -> End {
        let until = self.options.until;
        let past_until = end_of(until);
        let mut past_until = std::pin::pin!(past_until);
        loop {
            let batch = tokio::select! {
                batch = lines.message() => batch,
                () = &mut past_until, if self.options.follow => return End::Over,
            };
            let batch = match batch {
                Ok(Some(batch)) => batch,
                Ok(None) => return End::Over,
                Err(status) => return End::Failed(command_error(&status)),
            };
            let warning = batch.warning.clone();
            let mut messages = self.new_lines(batch);
            let wanted = messages.len();
            messages.retain(|line| until.is_none_or(|until| line.time <= until));
            // By time, so that only later ones follow; new lines only nearly so.
            let is_over = messages.len() < wanted && !self.options.follow;
            if !messages.is_empty() && self.tx.send(Ok(messages)).await.is_err() {
                return End::Over;
            }
            if !warning.is_empty() {
                let warning = CommandError::new(Code::Unknown, warning);
                let _ = self.tx.send(Err(warning)).await;
                return End::Over;
            }
            if is_over {
                return End::Over;
            }
        }
    }

    /// The lines of a batch that were not read before. A line that cannot be read is one we do not have.
    fn new_lines(&mut self, batch: LogLines) -> Vec<LogMessage> {
        let known = origins(&batch.origins);
        let mut messages = Vec::with_capacity(batch.lines.len());
        for line in batch.lines {
            let place = usize::try_from(line.origin).unwrap_or(usize::MAX);
            if let Some(Some(origin)) = known.get(place).copied()
                && let task = &batch.origins[place].task_id
                && self
                    .positions
                    .is_new(origin.node_id, task, Timestamp(line.time))
            {
                messages.push(message(origin, line));
            }
        }
        messages
    }
}

/// Returns when the last lines up to this time have arrived.
async fn end_of(until: Option<Timestamp>) {
    let Some(until) = until else {
        return std::future::pending().await;
    };
    sleep(until.since(now()) + LOGS_UNTIL_GRACE).await;
}

/// Whether another leader would say the same.
fn is_final(error: &CommandError) -> bool {
    matches!(
        error.code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::Unimplemented
    )
}
