//! Answers to the requests of `protocol.rs`.

use rustix::process::WaitStatus;

use super::{
    clients::Role,
    oci::{self, Operation},
    protocol::{Kind, Refusal, RefusalKind, Reply, Request},
    serve::Monitor,
    state::Phase,
    stdio, sys,
};

/// Rotation files a client may ask for; each costs a rename per rotation.
const LOG_FILES_MAX: u32 = 1000;

impl Monitor {
    /// One frame of one client.
    pub(super) fn handle_frame(&mut self, index: usize, kind: Kind, payload: &[u8]) {
        let client = &mut self.clients[index];
        match (kind, client.role) {
            (Kind::Request, Role::Asking) => match serde_json::from_slice(payload) {
                Ok(request) => self.handle_request(index, request),
                Err(_) => client.is_gone = true,
            },
            (Kind::Stdin, Role::Attached { stdin: true, .. }) => {
                if !self.is_stdin_ending {
                    self.stdin.extend(payload);
                    self.write_stdin();
                }
            }
            (Kind::StdinEnd, Role::Attached { stdin: true, .. }) => {
                if self.config.is_stdin_once && !self.config.has_tty {
                    self.is_stdin_ending = true;
                    self.write_stdin();
                }
            }
            _ => client.is_gone = true,
        }
    }

    fn handle_request(&mut self, index: usize, request: Request) {
        let answer = match request {
            Request::State => Ok(()),
            Request::Start => match self.begin_start() {
                Ok(()) => {
                    self.clients[index].role = Role::Starting;
                    return;
                }
                Err(refusal) => Err(refusal),
            },
            Request::Signal { signal } => self.signal(signal),
            Request::Resize { rows, columns } => self.resize(rows, columns),
            Request::Attach {
                stdin,
                stdout,
                stderr,
            } => {
                self.reply(index, Ok(()));
                self.clients[index].role = Role::Attached {
                    stdin,
                    stdout,
                    stderr,
                };
                return;
            }
            Request::Wait => {
                self.clients[index].role = Role::Waiting;
                return;
            }
            Request::SetLog {
                max_size,
                max_files,
            } => self.set_log(max_size, max_files),
            Request::ReleasePort { port } => {
                self.ports.release(&port);
                Ok(())
            }
        };
        self.reply(index, answer);
    }

    fn reply(&mut self, index: usize, answer: Result<(), Refusal>) {
        self.state.log_dropped = self.output.dropped();
        let reply = match answer {
            Ok(()) => Reply::Ok(Box::new(self.state.clone())),
            Err(refusal) => Reply::Error(refusal),
        };
        self.clients[index].reply(&reply);
    }

    fn begin_start(&mut self) -> Result<(), Refusal> {
        if self.state.phase != Phase::Created || self.starting.is_some() {
            let message = "the container is not waiting for its start".to_owned();
            return Err(Refusal {
                kind: RefusalKind::WrongPhase,
                message,
            });
        }
        oci::clear_log(&self.dir);
        let mut command = oci::command(&self.config.oci, &self.dir);
        let child = command
            .arg("start")
            .arg(&self.config.id)
            .spawn()
            .map_err(|error| Refusal {
                kind: RefusalKind::Failed,
                message: format!(
                    "failed to run `{}`: {error}",
                    self.config.oci.path.display()
                ),
            })?;
        self.starting = i32::try_from(child.id()).ok();
        Ok(())
    }

    /// The `start` command has ended.
    pub(super) fn end_start(&mut self, status: WaitStatus) {
        let answer = if status.exit_status() == Some(0) {
            self.state.phase = Phase::Running;
            self.state.started_at = Some(super::unix_nanos());
            self.state.write(&self.dir).map_err(|error| Refusal {
                kind: RefusalKind::Failed,
                message: format!("failed to write state: {error}"),
            })
        } else {
            let ending = format!("status {}", super::serve::exit_code(status));
            let raw = oci::last_error(&self.dir, &ending);
            let (kind, program) = (self.config.oci.kind, &self.config.program);
            let (_, message) = oci::describe(Operation::Start, kind, program, &raw);
            Err(Refusal {
                kind: RefusalKind::Failed,
                message,
            })
        };
        for index in 0..self.clients.len() {
            if self.clients[index].role == Role::Starting {
                self.clients[index].role = Role::Asking;
                self.reply(index, answer.clone());
            }
        }
    }

    fn signal(&self, signal: i32) -> Result<(), Refusal> {
        let pid = self.state.process.map_or(0, |process| process.pid);
        sys::kill(pid, signal).map_err(|errno| Refusal {
            kind: match errno {
                rustix::io::Errno::SRCH => RefusalKind::Gone,
                _ => RefusalKind::Failed,
            },
            message: format!("failed to send signal {signal}: {errno}"),
        })
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<(), Refusal> {
        let Some(terminal) = &self.io.terminal else {
            let message = "the container has no terminal".to_owned();
            return Err(Refusal {
                kind: RefusalKind::Unsupported,
                message,
            });
        };
        stdio::resize(terminal, rows, columns).map_err(|errno| Refusal {
            kind: RefusalKind::Failed,
            message: format!("failed to resize the terminal: {errno}"),
        })
    }

    fn set_log(&mut self, max_size: u64, max_files: u32) -> Result<(), Refusal> {
        if max_files <= LOG_FILES_MAX && self.output.set_rotation(max_size, max_files) {
            return Ok(());
        }
        let message = "the container has no log that can rotate so".to_owned();
        Err(Refusal {
            kind: RefusalKind::Unsupported,
            message,
        })
    }
}
