//! Commands run in containers beside their main process: sessions of `docker exec`.
//!
//! A session's output and exit are read by a task of its own, so that its exit code is known even
//! when the client goes away first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use skep_docker_api::{
    backend::{AttachedIo, ConsoleSize, ExecConfig, ExecDetail, ExecStart, LogSource, OutputChunk},
    error::{ApiError, Result},
};
use skep_executor::{
    engine::Container,
    runtime::{self, Exec, ExecControl},
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

use crate::backend::containers::from_runtime;

/// Sessions remembered; the oldest ended ones are forgotten first.
const SESSIONS_MAX: usize = 4096;
/// Pieces of output that may wait for the client; then the command waits.
const OUTPUT_QUEUE: usize = 64;
/// Bytes read in one go.
const READ_BYTES: usize = 32 << 10;

/// All sessions of this daemon's life.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    sessions: Arc<Mutex<BTreeMap<String, Session>>>,
    readers: TaskTracker,
}

#[derive(Debug)]
struct Session {
    number: u64,
    detail: ExecDetail,
    container: Arc<Container>,
    control: Option<ExecControl>,
}

impl Execs {
    /// Remembers a command to run and returns its id.
    pub(crate) fn create(
        &self,
        id: String,
        container: &Arc<Container>,
        config: ExecConfig,
    ) -> String {
        let mut sessions = self.lock();
        if sessions.len() >= SESSIONS_MAX {
            let ended = sessions
                .iter()
                .filter(|(_, session)| !session.detail.is_running);
            let oldest = ended
                .min_by_key(|(_, session)| session.number)
                .map(|(id, _)| id.clone());
            oldest.map(|id| sessions.remove(&id));
        }
        let number = sessions
            .values()
            .map(|session| session.number)
            .max()
            .unwrap_or(0)
            + 1;
        let container_id = container.record().id.to_string();
        let detail = ExecDetail {
            id: id.clone(),
            container_id,
            config,
            ..ExecDetail::default()
        };
        let container = Arc::clone(container);
        sessions.insert(
            id.clone(),
            Session {
                number,
                detail,
                container,
                control: None,
            },
        );
        id
    }

    /// Ids of sessions that run in a container.
    pub(crate) fn running_in(&self, container_id: &str) -> Vec<String> {
        let sessions = self.lock();
        let running = sessions.values().filter(|session| {
            session.detail.is_running && session.detail.container_id == container_id
        });
        running.map(|session| session.detail.id.clone()).collect()
    }

    /// What is known of a session.
    pub(crate) fn detail(&self, id: &str) -> Result<ExecDetail> {
        let sessions = self.lock();
        sessions
            .get(id)
            .map(|session| session.detail.clone())
            .ok_or_else(|| unknown(id))
    }

    /// Sets the size of a session's terminal.
    pub(crate) fn resize(&self, id: &str, size: ConsoleSize) -> Result<()> {
        let sessions = self.lock();
        let session = sessions.get(id).ok_or_else(|| unknown(id))?;
        let Some(control) = &session.control else {
            return Err(ApiError::conflict(format!("exec {id} is not running")));
        };
        control
            .resize(size.height, size.width)
            .map_err(|error| ApiError::system("failed to resize the terminal", error))
    }

    /// Runs the command.
    pub(crate) async fn start(&self, id: &str, start: ExecStart) -> Result<AttachedIo> {
        let (container, config) = self.claim(id)?;
        let size = start.console_size.or(config.console_size);
        let wanted = runtime::ExecConfig {
            args: config.command.clone(),
            env: config.env.clone(),
            user: config.user.clone(),
            cwd: config.working_dir.clone(),
            has_tty: config.has_tty,
            tty_size: size.map(|size| (size.height, size.width)),
            has_stdin: config.attach_stdin && !start.is_detached,
            is_privileged: config.is_privileged,
            time_limit: None,
        };
        let started = container.handle().exec(wanted).await;
        let mut exec = match started {
            Ok(exec) => exec,
            Err(error) => {
                let code = match &error {
                    runtime::Error::NotRun { code, .. } => *code,
                    _ => 126,
                };
                self.note_end(id, code);
                let error = from_runtime(error);
                if start.is_detached {
                    return Err(error);
                }
                return Ok(refusal(config.has_tty, &error));
            }
        };
        self.note_start(id, &exec);
        let input = exec.stdin.take().map(|input| Box::pin(input) as _);
        let (pieces, output) = mpsc::channel(OUTPUT_QUEUE);
        self.read(id.to_owned(), exec, (!start.is_detached).then_some(pieces));
        Ok(AttachedIo {
            has_tty: config.has_tty,
            output: Box::pin(ReceiverStream::new(output)),
            input,
        })
    }

    /// Follows a session to its end; without a client its output is read and dropped.
    fn read(&self, id: String, mut exec: Exec, pieces: Option<Pieces>) {
        let sessions = Arc::clone(&self.sessions);
        self.readers.spawn(async move {
            let outputs = (exec.stdout.take(), exec.stderr.take());
            let stdout = copy(outputs.0, LogSource::Stdout, pieces.clone());
            let stderr = copy(outputs.1, LogSource::Stderr, pieces.clone());
            // The exit code comes first: a client that sees the end of output asks for it. So the
            // output stays open, even when the command closed it, until the code is known.
            let ended = async {
                let code = exec.wait().await.unwrap_or(UNKNOWN_CODE);
                end(&sessions, &id, code);
                drop(pieces);
            };
            tokio::join!(ended, stdout, stderr);
        });
    }

    fn claim(&self, id: &str) -> Result<(Arc<Container>, ExecConfig)> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(id).ok_or_else(|| unknown(id))?;
        if session.detail.is_running || session.detail.exit_code.is_some() {
            return Err(ApiError::conflict(format!("exec {id} has already run")));
        }
        if !session.container.status().is_running() {
            let id = &session.container.record().id;
            return Err(ApiError::conflict(format!("container {id} is not running")));
        }
        session.detail.is_running = true;
        Ok((
            Arc::clone(&session.container),
            session.detail.config.clone(),
        ))
    }

    fn note_start(&self, id: &str, exec: &Exec) {
        if let Some(session) = self.lock().get_mut(id) {
            session.detail.pid = exec.pid;
            session.control = Some(exec.control());
        }
    }

    fn note_end(&self, id: &str, code: i32) {
        end(&self.sessions, id, code);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client that wants the streams sees of a command that could not be started: it reads the
/// reason as output and then asks for the exit code, as from Docker.
fn refusal(has_tty: bool, error: &ApiError) -> AttachedIo {
    let data = format!("{}\r\n", error.message).into();
    let source = LogSource::Stdout;
    AttachedIo {
        has_tty,
        output: Box::pin(tokio_stream::once(Ok(OutputChunk { source, data }))),
        input: None,
    }
}

/// Exit code when the helper that knew it died.
const UNKNOWN_CODE: i32 = 137;

type Pieces = mpsc::Sender<std::io::Result<OutputChunk>>;

fn end(sessions: &Mutex<BTreeMap<String, Session>>, id: &str, code: i32) {
    let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(session) = sessions.get_mut(id) {
        session.detail.is_running = false;
        session.detail.exit_code = Some(code);
        session.detail.pid = 0;
        session.control = None;
    }
}

async fn copy(
    output: Option<impl AsyncRead + Unpin>,
    source: LogSource,
    mut pieces: Option<Pieces>,
) {
    let Some(mut output) = output else { return };
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let data = bytes::Bytes::copy_from_slice(&buffer[..count]);
        let Some(to) = &pieces else { continue };
        if to.send(Ok(OutputChunk { source, data })).await.is_err() {
            // The client is gone; the command goes on and must not block.
            pieces = None;
        }
    }
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("No such exec instance: {id}"))
}
