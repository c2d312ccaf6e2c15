//! A manager's side of what other nodes do for its clients: commands beside tasks, examinations.

use futures_util::{StreamExt, stream};
use skep_docker_api::{
    backend::{ConsoleSize, ExecConfig, ExecStart, TaskExec, TaskInput, TaskOutput},
    error::{ApiError, ErrorKind, Result},
};
use skep_model::{NodeId, TaskId};
use skep_rpc::errands::{End, Failure, FailureKind, Input, News, TaskCommand, WindowSize, Work};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::{backend::errors::from_command, swarm::Active};

/// Longest wait for a command to run: its node starts a helper and the OCI runtime, slowly under load.
const START_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(70);
/// Longest wait for an examination: a node compares everything with its kernel.
const REPORT_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(55);
/// Pieces of input waiting for the way to the node.
const INPUT_QUEUE: usize = 16;

/// Runs a command beside a task.
pub(crate) async fn exec(
    active: &Active,
    node: NodeId,
    (task_id, config, start): (TaskId, ExecConfig, ExecStart),
) -> Result<TaskExec> {
    let size = start.console_size.or(config.console_size);
    let command = TaskCommand {
        task_id,
        args: config.command,
        env: config.env,
        user: config.user,
        dir: config.working_dir,
        has_tty: config.has_tty,
        has_input: config.attach_stdin && !start.is_detached,
        is_privileged: config.is_privileged,
        is_detached: start.is_detached,
        size: size.map(window),
    };
    let errand = active.cluster.errand(node, Work::Command(command)).await;
    let mut session = errand.map_err(|error| from_command(&error))?;
    let first = timeout(START_WAIT_MAX, session.news.recv()).await;
    let first = match first.map_err(|_| unavailable("the node did not answer in time"))? {
        Some(News::End(End::Failed(failure))) => return Err(refusal(failure)),
        // A program that could not be run has said so, or there is nothing to say.
        Some(News::Started) | None => None,
        Some(news) => output(news),
    };
    let (input, inputs) = mpsc::channel(INPUT_QUEUE);
    let to_node = session.input;
    let carry = async move {
        let mut inputs: mpsc::Receiver<TaskInput> = inputs;
        while let Some(input) = inputs.recv().await {
            let input = match input {
                TaskInput::Data(data) => Input::Data(data),
                TaskInput::End => Input::End,
                TaskInput::Resize(size) => Input::Resize(window(size)),
            };
            if to_node.send(input).await.is_err() {
                return;
            }
        }
    };
    // Ends when the client drops its side.
    tokio::spawn(carry);
    let news = ReceiverStream::new(session.news);
    let rest = news.filter_map(|news| async { output(news) });
    Ok(TaskExec {
        input,
        output: Box::pin(stream::iter(first).chain(rest)),
    })
}

/// What a node says of its networks.
pub(crate) async fn examine(active: &Active, node: NodeId, heal: bool) -> Result<String> {
    let work = Work::Examination { heal };
    let errand = active.cluster.errand(node, work).await;
    let mut session = errand.map_err(|error| from_command(&error))?;
    let report = async {
        while let Some(news) = session.news.recv().await {
            match news {
                News::End(End::Report(report)) => return Ok(report),
                News::End(End::Failed(failure)) => return Err(refusal(failure)),
                News::End(End::Exit(_)) => break,
                News::Started | News::Stdout(_) | News::Stderr(_) => {}
            }
        }
        Err(unavailable("the node reported nothing"))
    };
    let late = |_| unavailable("the node did not answer in time");
    timeout(REPORT_WAIT_MAX, report).await.map_err(late)?
}

fn output(news: News) -> Option<TaskOutput> {
    Some(match news {
        News::Started => return None,
        News::Stdout(data) => TaskOutput::Stdout(data),
        News::Stderr(data) => TaskOutput::Stderr(data),
        News::End(End::Exit(code)) => TaskOutput::Exit(code),
        News::End(End::Failed(failure)) => TaskOutput::Failed(failure.message),
        News::End(End::Report(_)) => TaskOutput::Failed("the node did something else".to_owned()),
    })
}

fn window(size: ConsoleSize) -> WindowSize {
    WindowSize {
        rows: size.height,
        columns: size.width,
    }
}

fn refusal(failure: Failure) -> ApiError {
    let kind = match failure.kind {
        FailureKind::System => ErrorKind::System,
        FailureKind::NotFound => ErrorKind::NotFound,
        FailureKind::Conflict => ErrorKind::Conflict,
        FailureKind::Invalid => ErrorKind::InvalidArgument,
        FailureKind::Unavailable => ErrorKind::Unavailable,
    };
    ApiError::new(kind, failure.message)
}

fn unavailable(message: &str) -> ApiError {
    ApiError::new(ErrorKind::Unavailable, message)
}
