//! The monitor's loop: one `poll` over signals, the socket, the container's stdio and the clients, until the container has ended.
//!
//! Requests are answered in `requests.rs`; bytes go through `output.rs` and `clients.rs`.

use std::{
    collections::VecDeque,
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::{
    signal::SigSet,
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, write},
    process::{WaitOptions, WaitStatus, wait},
};

use super::{
    clients::{CLIENT_COUNT_MAX, Client, Role},
    config::MonitorConfig,
    create::TAKEN_SIGNALS,
    output::{Chunk, Output, READ_BYTES, read_chunk},
    ports::Ports,
    protocol::{Kind, Reply, SOCKET_FILE},
    state::{Exit, Phase, State},
    stdio::ContainerIo,
};

/// Input for the container that it has not read yet; beyond it clients with stdin are not read.
const STDIN_BYTES_MAX: usize = 64 << 10;

/// After the end, how long clients may take to fetch their last bytes.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// Reads of one output stream in one turn, so that a flood cannot starve requests.
const READS_PER_TURN: usize = 4;

/// What creation leaves to the loop.
#[derive(Debug)]
pub(super) struct Created {
    pub(super) listener: UnixListener,
    pub(super) io: ContainerIo,
    pub(super) ports: Ports,
    /// Directory of the container's cgroup in the hierarchy that is hidden from the OCI runtime.
    pub(super) hidden_cgroups: Option<File>,
}

/// The monitor of a created container.
#[derive(Debug)]
pub(super) struct Monitor {
    pub(super) dir: PathBuf,
    pub(super) config: MonitorConfig,
    pub(super) state: State,
    pub(super) io: ContainerIo,
    pub(super) output: Output,
    pub(super) ports: Ports,
    pub(super) clients: Vec<Client>,
    /// The running `start` command.
    pub(super) starting: Option<i32>,
    pub(super) stdin: VecDeque<u8>,
    /// Close stdin once `stdin` is written.
    pub(super) is_stdin_ending: bool,
    listener: UnixListener,
    /// See [`Created::hidden_cgroups`].
    hidden_cgroups: Option<File>,
    signals: SignalFd,
    /// The container's wait status, while `start` has not returned yet or until it is recorded.
    ended: Option<i32>,
    buffer: Box<[u8]>,
}

/// What a polled descriptor is.
#[derive(Clone, Copy, Debug)]
enum Token {
    Signals,
    Listener,
    Output(Kind),
    Stdin,
    Client(usize),
}

// === impl Monitor ===

impl Monitor {
    pub(super) fn new(
        dir: PathBuf,
        config: MonitorConfig,
        state: State,
        created: Created,
    ) -> Result<Self, String> {
        let taken: SigSet = TAKEN_SIGNALS.into_iter().collect();
        let signals = SignalFd::with_flags(&taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(|error| format!("failed to make a signal descriptor: {error}"))?;
        created
            .listener
            .set_nonblocking(true)
            .map_err(|error| format!("failed to set up the socket: {error}"))?;
        Ok(Self {
            output: Output::new(config.log.clone()),
            dir,
            config,
            state,
            io: created.io,
            ports: created.ports,
            clients: Vec::new(),
            starting: None,
            stdin: VecDeque::new(),
            is_stdin_ending: false,
            listener: created.listener,
            hidden_cgroups: created.hidden_cgroups,
            signals,
            ended: None,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        })
    }

    /// Serves until the container has ended and everyone was told.
    pub(super) fn run(mut self) -> Result<(), String> {
        // The container may have died between its creation and the signal descriptor.
        self.reap();
        while !self.is_over() {
            self.turn(None)?;
        }
        self.finish()
    }

    fn is_over(&self) -> bool {
        self.ended.is_some() && self.starting.is_none()
    }

    /// One round of the loop.
    fn turn(&mut self, deadline: Option<Instant>) -> Result<(), String> {
        let now = Instant::now();
        let stall = self.clients.iter().filter_map(Client::stall_deadline).min();
        let wake_at = [deadline, stall].into_iter().flatten().min();
        for (token, flags) in self.poll(wake_at.map(|at| at.saturating_duration_since(now)))? {
            self.handle(token, flags);
        }
        let now = Instant::now();
        for client in &mut self.clients {
            client.check_stall(now);
        }
        self.clients.retain(|client| !client.is_gone);
        Ok(())
    }

    fn poll(&self, timeout: Option<Duration>) -> Result<Vec<(Token, PollFlags)>, String> {
        let interest = self.interest();
        let mut fds: Vec<PollFd<'_>> = interest
            .iter()
            .map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        let timeout = timeout.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(format!("failed to poll: {error}")),
        }
        let ready = interest
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready
            .map(|((token, ..), fd)| (*token, fd.revents()))
            .collect())
    }

    fn interest(&self) -> Vec<(Token, BorrowedFd<'_>, PollFlags)> {
        let mut interest = Vec::with_capacity(5 + self.clients.len());
        interest.push((Token::Signals, self.signals.as_fd(), PollFlags::IN));
        interest.push((Token::Listener, self.listener.as_fd(), PollFlags::IN));
        if !self.is_output_held() {
            for kind in [Kind::Stdout, Kind::Stderr] {
                if let Some(stream) = self.source(kind) {
                    interest.push((Token::Output(kind), stream.as_fd(), PollFlags::IN));
                }
            }
        }
        if !self.stdin.is_empty()
            && let Some(sink) = self.io.stdin.as_ref().or(self.io.terminal.as_ref())
        {
            interest.push((Token::Stdin, sink.as_fd(), PollFlags::OUT));
        }
        for (index, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            let feeds = matches!(client.role, Role::Attached { stdin: true, .. });
            flags.set(PollFlags::IN, !feeds || self.stdin.len() < STDIN_BYTES_MAX);
            flags.set(PollFlags::OUT, client.has_output());
            interest.push((Token::Client(index), client.stream.as_fd(), flags));
        }
        interest
    }

    /// Whether a full client holds up the container's output for now.
    fn is_output_held(&self) -> bool {
        self.clients
            .iter()
            .any(|client| client.stall_deadline().is_some())
    }

    fn source(&self, kind: Kind) -> Option<&OwnedFd> {
        match kind {
            Kind::Stderr => self.io.stderr.as_ref(),
            _ => self.io.stdout.as_ref().or(self.io.terminal.as_ref()),
        }
    }

    fn handle(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Signals => self.reap(),
            Token::Listener => self.accept(),
            Token::Output(kind) => self.read_output(kind, READS_PER_TURN),
            Token::Stdin => self.write_stdin(),
            Token::Client(index) => self.serve_client(index, flags),
        }
    }

    /// Collects every ended child: the container, a `start` command, and what they left behind.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            if self.state.process.is_some_and(|process| process.pid == pid) {
                self.ended = Some(exit_code(status));
            } else if self.starting == Some(pid) {
                self.starting = None;
                self.end_start(status);
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let is_usable = stream.set_nonblocking(true).is_ok();
            if is_usable && self.clients.len() < CLIENT_COUNT_MAX {
                self.clients.push(Client::new(stream));
            }
        }
    }

    /// Moves output to the log and to clients; closes the stream at its end.
    fn read_output(&mut self, kind: Kind, reads_max: usize) {
        for _ in 0..reads_max {
            let mut buffer = std::mem::take(&mut self.buffer);
            let chunk = match self.source(kind) {
                Some(stream) => read_chunk(stream, &mut buffer),
                None => Chunk::Empty,
            };
            if let Chunk::Bytes(count) = chunk {
                self.output.write(kind, &buffer[..count]);
                for client in self.clients.iter_mut().filter(|client| client.wants(kind)) {
                    client.send(kind, &buffer[..count]);
                }
            }
            self.buffer = buffer;
            match chunk {
                Chunk::Bytes(_) if !self.is_output_held() => {}
                Chunk::Bytes(_) | Chunk::Empty => return,
                Chunk::End => return self.close_output(kind),
            }
        }
    }

    fn close_output(&mut self, kind: Kind) {
        match kind {
            Kind::Stderr => self.io.stderr = None,
            _ if self.io.stdout.is_some() => self.io.stdout = None,
            _ => self.io.terminal = None,
        }
    }

    pub(super) fn write_stdin(&mut self) {
        while !self.stdin.is_empty() {
            let Some(sink) = self.io.stdin.as_ref().or(self.io.terminal.as_ref()) else {
                self.stdin = VecDeque::new();
                break;
            };
            match write(sink, self.stdin.as_slices().0) {
                Ok(count) => drop(self.stdin.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The container has closed its stdin.
                Err(_) => {
                    self.stdin = VecDeque::new();
                    self.io.stdin = None;
                }
            }
        }
        self.stdin.shrink_to(0);
        if self.is_stdin_ending {
            self.io.stdin = None;
        }
    }

    fn serve_client(&mut self, index: usize, flags: PollFlags) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        client.fill();
        while let Some((kind, payload)) = self.clients.get_mut(index).and_then(Client::next_frame) {
            self.handle_frame(index, kind, &payload);
        }
    }

    /// The container has ended: last output, record on disk, then everyone hears of it.
    fn finish(mut self) -> Result<(), String> {
        for kind in [Kind::Stdout, Kind::Stderr] {
            // Its processes are dead: whatever they wrote is in the pipe, and nothing more will come.
            self.read_rest(kind);
        }
        self.output.finish();
        let is_oom_killed = crate::runtime::cgroup::was_oom_killed(&self.config.cgroup_dirs);
        self.state.exit = Some(Exit {
            code: self.ended.unwrap_or(0),
            is_oom_killed,
            finished_at: super::unix_nanos(),
            error: String::new(),
        });
        self.state.phase = Phase::Exited;
        self.state.log_dropped = self.output.dropped();
        self.state
            .write(&self.dir)
            .map_err(|error| format!("failed to write state: {error}"))?;
        self.io = ContainerIo::default();
        let reply = Reply::Ok(Box::new(self.state.clone()));
        for client in &mut self.clients {
            match client.role {
                Role::Waiting => client.reply(&reply),
                Role::Attached { .. } => client.flush(),
                Role::Asking | Role::Starting => client.is_gone = true,
            }
        }
        remove_cgroups(&self.config);
        if let Some(parent) = &self.hidden_cgroups {
            crate::runtime::cgroup::remove_in(parent, &self.config.id);
        }
        remove_oci_state(&self.config);
        self.ports = Ports::default();
        // For `delete`: whatever has this container's name from now on is not ours.
        let _ = std::fs::remove_file(self.dir.join(SOCKET_FILE));
        self.linger()
    }

    fn read_rest(&mut self, kind: Kind) {
        // A process outside the container that holds the pipe could write for ever.
        for _ in 0..4096 {
            let held = self.source(kind).is_none();
            self.read_output(kind, 1);
            if held {
                return;
            }
        }
    }

    /// Lets clients read their last bytes, for a limited time.
    fn linger(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + LINGER_MAX;
        loop {
            self.clients
                .retain(|client| client.has_output() && !client.is_gone);
            if self.clients.is_empty() || Instant::now() >= deadline {
                return Ok(());
            }
            self.turn(Some(deadline))?;
        }
    }
}

/// Docker's exit code: the status, or 128 + signal.
pub(super) fn exit_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}

/// Kills what is left in the container's cgroups and removes those this process sees; the daemon's `delete` repeats it for all.
pub(super) fn remove_cgroups(config: &MonitorConfig) {
    let is_seen = |dir: &&PathBuf| {
        config
            .hidden_mount
            .as_ref()
            .is_none_or(|hidden| !dir.starts_with(hidden))
    };
    let seen: Vec<PathBuf> = config.cgroup_dirs.iter().filter(is_seen).cloned().collect();
    let _ = crate::runtime::cgroup::destroy(&seen);
}

/// With the cgroups gone the OCI runtime's `delete` would only remove its directory (there are no hooks): 7 ms of CPU saved.
fn remove_oci_state(config: &MonitorConfig) {
    let dir: &Path = &config.oci.root;
    let _ = std::fs::remove_dir_all(dir.join(&config.id));
}
