//! The container's stdin, stdout and stderr: three pipes, or one pty received over the console socket.

use std::{
    fs,
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    io::{Errno, ioctl_fionbio},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    pipe::{PipeFlags, pipe_with},
    termios::{Winsize, tcsetwinsize},
};

use super::config::MonitorConfig;

/// The console socket inside the directory.
const CONSOLE_FILE: &str = "console.sock";

/// The monitor's ends, all non-blocking.
#[derive(Debug, Default)]
pub(super) struct ContainerIo {
    /// Of a pty, both directions.
    pub(super) terminal: Option<OwnedFd>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// A console socket waiting for the OCI runtime to hand over the pty.
#[derive(Debug)]
pub(super) struct Console {
    listener: UnixListener,
    dir: fs::File,
}

/// Gives `command` its stdio and returns the other ends, or the console socket of a pty.
pub(super) fn connect(
    command: &mut Command,
    dir: &Path,
    config: &MonitorConfig,
) -> Result<(ContainerIo, Option<Console>), String> {
    let failed = |error: Errno| format!("failed to make the container's pipes: {error}");
    if config.has_tty {
        let console = Console::listen(dir).map_err(failed)?;
        command.arg("--console-socket").arg(console.path());
        return Ok((ContainerIo::default(), Some(console)));
    }
    let mut io = ContainerIo::default();
    if config.has_stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        ioctl_fionbio(&write, true).map_err(failed)?;
        command.stdin(Stdio::from(read));
        io.stdin = Some(write);
    }
    for is_stderr in [false, true] {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        ioctl_fionbio(&read, true).map_err(failed)?;
        if is_stderr {
            command.stderr(Stdio::from(write));
            io.stderr = Some(read);
        } else {
            command.stdout(Stdio::from(write));
            io.stdout = Some(read);
        }
    }
    Ok((io, None))
}

// === impl Console ===

impl Console {
    fn listen(dir: &Path) -> Result<Self, Errno> {
        let path = dir.join(CONSOLE_FILE);
        let _ = fs::remove_file(&path);
        let listener = bind_in(dir, CONSOLE_FILE).map_err(|e| from_io(&e))?;
        let dir = fs::File::open(dir).map_err(|e| from_io(&e))?;
        Ok(Self { listener, dir })
    }

    /// A path for other processes that always fits into a socket address.
    fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}/{CONSOLE_FILE}",
            std::process::id(),
            self.dir.as_raw_fd()
        )
    }

    /// Takes the pty that a finished `create` has sent; never blocks.
    pub(super) fn receive(&self, size: Option<(u16, u16)>) -> Result<OwnedFd, String> {
        let failed = |error: Errno| format!("failed to receive the pty: {error}");
        self.listener
            .set_nonblocking(true)
            .map_err(|e| failed(from_io(&e)))?;
        let (stream, _) = self.listener.accept().map_err(|e| failed(from_io(&e)))?;
        stream
            .set_nonblocking(true)
            .map_err(|e| failed(from_io(&e)))?;
        let terminal = receive_fd(&stream).map_err(failed)?;
        ioctl_fionbio(&terminal, true).map_err(failed)?;
        if let Some((rows, columns)) = size {
            resize(&terminal, rows, columns).map_err(failed)?;
        }
        Ok(terminal)
    }
}

/// Sets a pty's size.
pub(super) fn resize(terminal: &OwnedFd, rows: u16, columns: u16) -> Result<(), Errno> {
    tcsetwinsize(
        terminal,
        Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )
}

/// Binds a socket in a directory whose path may be longer than a socket address.
pub(crate) fn bind_in(dir: &Path, name: &str) -> std::io::Result<UnixListener> {
    let handle = fs::File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
}

/// Connects to a socket made by [`bind_in`].
pub(crate) fn connect_in(dir: &Path, name: &str) -> std::io::Result<UnixStream> {
    let handle = fs::File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
}

/// Receives one descriptor; further ones are closed.
pub(crate) fn receive_fd(stream: &UnixStream) -> Result<OwnedFd, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 64];
    let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
    recvmsg(stream, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .ok_or(Errno::NOMSG)
}

fn from_io(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
