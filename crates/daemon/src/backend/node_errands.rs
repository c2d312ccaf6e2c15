//! What this node does for managers: commands in its tasks' containers, examinations of its networks.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use skep_docker_api::error::{ApiError, ErrorKind};
use skep_executor::{
    engine::{Container, Engine},
    runtime::{self, Exec, ExecControl, ExecInput, ExecOutput},
};
use skep_model::TaskId;
use skep_rpc::errands::{End, Failure, FailureKind, Input, News, Runner, TaskCommand, Work};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use crate::backend::{containers::from_runtime, node_logs::LABEL_TASK_ID};

/// Bytes read in one go.
const READ_BYTES: usize = 32 << 10;
/// Exit code when the helper that knew it died.
const UNKNOWN_CODE: i32 = 137;

/// See the module's documentation.
pub(crate) struct NodeErrands {
    pub(crate) engine: Arc<Engine>,
}

#[async_trait]
impl Runner for NodeErrands {
    async fn run(&self, work: Work, input: mpsc::Receiver<Input>, news: mpsc::Sender<News>) -> End {
        match work {
            Work::Command(command) => self.command(command, input, news).await,
            Work::Examination { heal } => End::Report(self.examine(heal).await),
        }
    }
}

impl NodeErrands {
    async fn examine(&self, heal: bool) -> String {
        let repaired = match heal {
            true => Some(self.engine.heal_networks().await),
            false => Some(self.engine.repaired_networks().await).filter(|all| !all.is_empty()),
        };
        let findings = self.engine.examine_networks().await;
        let mut report = json!({ "Node": host_name(), "Findings": findings });
        if let Some(repaired) = repaired {
            report["Repaired"] = repaired.into();
        }
        report.to_string()
    }

    async fn command(
        &self,
        command: TaskCommand,
        input: mpsc::Receiver<Input>,
        news: mpsc::Sender<News>,
    ) -> End {
        let container = match self.container(command.task_id) {
            Ok(container) => container,
            Err(failure) => return End::Failed(failure),
        };
        let is_detached = command.is_detached;
        let wanted = runtime::ExecConfig {
            args: command.args,
            env: command.env,
            user: command.user,
            cwd: command.dir,
            has_tty: command.has_tty,
            tty_size: command.size.map(|size| (size.rows, size.columns)),
            has_stdin: command.has_input,
            is_privileged: command.is_privileged,
            time_limit: None,
        };
        let exec = match container.handle().exec(wanted).await {
            Ok(exec) => exec,
            Err(runtime::Error::NotRun { code, message }) if !is_detached => {
                let text = Bytes::from(format!("{message}\r\n"));
                let _ = news.send(News::Stderr(text)).await;
                return End::Exit(code);
            }
            Err(error) => return End::Failed(failure(&from_runtime(error))),
        };
        let _ = news.send(News::Started).await;
        let heard = (!is_detached).then_some(news);
        End::Exit(attend(exec, input, heard).await)
    }

    fn container(&self, task_id: TaskId) -> Result<Arc<Container>, Failure> {
        let id = task_id.to_string();
        let is_its = |container: &Arc<Container>| {
            let labels = &container.record().labels;
            labels.get(LABEL_TASK_ID) == Some(&id)
        };
        let found = self.engine.containers().into_iter().find(is_its);
        let found = found.ok_or_else(|| Failure {
            kind: FailureKind::NotFound,
            message: format!("the node has no container of task {id}"),
        })?;
        if found.status().is_running() {
            return Ok(found);
        }
        Err(Failure {
            kind: FailureKind::Conflict,
            message: format!("container {} is not running", found.record().id),
        })
    }
}

/// Carries a command's streams to its end; its exit code. Whoever hears it may go, and it goes on.
async fn attend(
    mut exec: Exec,
    input: mpsc::Receiver<Input>,
    heard: Option<mpsc::Sender<News>>,
) -> i32 {
    let control = exec.control();
    let stdin = exec.stdin.take();
    let stdout = copy(exec.stdout.take(), heard.clone(), News::Stdout);
    let stderr = copy(exec.stderr.take(), heard, News::Stderr);
    let ended = async {
        let (code, (), ()) = tokio::join!(exec.wait(), stdout, stderr);
        code.unwrap_or(UNKNOWN_CODE)
    };
    tokio::select! {
        code = ended => code,
        never = feed(stdin, input, control) => match never {},
    }
}

/// Gives a command what comes for it.
async fn feed(
    mut stdin: Option<ExecInput>,
    mut input: mpsc::Receiver<Input>,
    control: ExecControl,
) -> std::convert::Infallible {
    while let Some(input) = input.recv().await {
        match input {
            Input::Data(data) => {
                if let Some(to) = &mut stdin
                    && to.write_all(&data).await.is_err()
                {
                    // It reads no more.
                    stdin = None;
                }
            }
            Input::End => stdin = None,
            // A terminal that is gone needs no size.
            Input::Resize(size) => drop(control.resize(size.rows, size.columns)),
        }
    }
    drop(stdin);
    std::future::pending().await
}

/// Reads output to its end, whether or not anybody hears it.
async fn copy(
    output: Option<ExecOutput>,
    mut heard: Option<mpsc::Sender<News>>,
    news: impl Fn(Bytes) -> News,
) {
    let Some(mut output) = output else { return };
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let Some(to) = &heard else { continue };
        let piece = Bytes::copy_from_slice(&buffer[..count]);
        if to.send(news(piece)).await.is_err() {
            heard = None;
        }
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn failure(error: &ApiError) -> Failure {
    let kind = match error.kind {
        ErrorKind::NotFound => FailureKind::NotFound,
        ErrorKind::Conflict => FailureKind::Conflict,
        ErrorKind::InvalidArgument => FailureKind::Invalid,
        _ => FailureKind::System,
    };
    Failure {
        kind,
        message: error.message.clone(),
    }
}
