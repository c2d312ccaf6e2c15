//! `skep tunnel`: WireGuard outside the kernel. One process per node, which outlives the daemon and keeps keys in memory only.
//!
//! ```text
//! tunnels' namespace           this process                      node's namespace
//!   wg0 (TUN) ── transmit ──► peers: Noise sessions ──────────► UDP socket
//!            ◄── receive  ───                      ◄──────────
//! ```
//!
//! Threads: one that answers the daemon, one for timers, two per device (`transmit`, `receive`). No async runtime, no logging framework:
//! [`main`] must be the first thing the process does. The Noise protocol is `defguard_boringtun`'s; the data path is ours.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};

use super::control::{self, Answer, DeviceAnswer, PeerRequest, Request, read_frame, write_frame};
use super::key::Slot;

mod device;
mod limits;
mod peers;
mod receive;
mod run;
mod sys;
mod transmit;

use device::Running;

/// The tunnels' namespace, below the tunnels' directory.
pub(crate) const NETNS: &str = "netns";

/// How often timers are looked at. WireGuard's are seconds.
const TICK: Duration = Duration::from_millis(200);

/// How often the process looks whether it can still be reached. Until it gives up its ports and devices are taken.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after the listening socket failed for a reason that may pass (no memory).
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// The devices of the process.
type Devices = Arc<Mutex<BTreeMap<Slot, Running>>>;

/// The socket's place in the file system.
#[derive(Debug)]
struct Door {
    path: PathBuf,
    /// Device and inode as they were at the start; none if it was lost before.
    identity: Option<(u64, u64)>,
    listener: Option<UnixListener>,
    is_lost: Arc<AtomicBool>,
}

/// Runs `skep tunnel DIR [CGROUP…]` with the listening socket as standard input. `args` lacks the program's name and the word `tunnel`.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut args = args.into_iter().map(PathBuf::from);
    let outcome = match args.next() {
        Some(dir) => limits::enter(args).and_then(|()| {
            let listener = io::stdin().as_fd().try_clone_to_owned()?;
            run(&dir, &UnixListener::from(listener));
            Ok(())
        }),
        None => Err(io::Error::other("usage: tunnel DIR [CGROUP…]")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Stderr is a file in the directory; when it is gone nobody is left to tell.
            let _ = writeln!(io::stderr(), "skep tunnel: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until told to stop, or until nobody can reach it any more because its socket was deleted or replaced: the daemon then
/// starts another process, which needs what this one holds.
pub(super) fn run(dir: &Path, listener: &UnixListener) {
    let devices = Devices::default();
    let (stop, stopped) = sync_channel::<()>(0);
    let ticking = Arc::clone(&devices);
    let door = Door::new(dir, listener);
    let is_lost = Arc::clone(&door.is_lost);
    let ticker = std::thread::Builder::new()
        .name("timers".to_owned())
        .spawn(move || {
            let mut looked_at = Instant::now();
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                for running in lock(&ticking).values() {
                    running.device.tick();
                }
                if looked_at.elapsed() >= LOOK_INTERVAL {
                    looked_at = Instant::now();
                    door.look();
                }
            }
        });
    let last = serve(dir, listener, (&devices, &is_lost));
    let all: Vec<Running> = std::mem::take(&mut *lock(&devices)).into_values().collect();
    all.into_iter().for_each(Running::stop);
    drop(stop);
    let _ = ticker.map(JoinHandle::join);
    // Who asked for the end waits for this.
    drop(last);
}

/// Answers the daemon until it wants the end; returns the connection it waits on. None when it cannot come any more.
fn serve(
    dir: &Path,
    listener: &UnixListener,
    (devices, is_lost): (&Devices, &AtomicBool),
) -> Option<UnixStream> {
    loop {
        let Ok((mut stream, _)) = listener.accept() else {
            if is_lost.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::sleep(FAILURE_PAUSE);
            continue;
        };
        // A daemon that died while asking needs no answer.
        if answer(dir, &mut stream, devices).is_ok_and(|is_last| is_last) {
            return Some(stream);
        }
    }
}

/// Answers one request; says whether it was the last.
fn answer(dir: &Path, stream: &mut UnixStream, devices: &Devices) -> io::Result<bool> {
    stream.set_read_timeout(Some(control::TIMEOUT))?;
    stream.set_write_timeout(Some(control::TIMEOUT))?;
    let request: Request = serde_json::from_slice(&read_frame(stream)?)?;
    let mut answer = Answer {
        version: control::VERSION,
        ..Answer::default()
    };
    let mut is_last = false;
    match request {
        Request::Status => answer.devices = status(devices),
        Request::Stop => is_last = true,
        Request::Configure(request) => {
            answer.error = match request.parse() {
                None => Some("the device makes no sense".to_owned()),
                Some(device) => device::configure(dir, devices, &device)
                    .err()
                    .map(|error| error.to_string()),
            };
        }
    }
    write_frame(stream, &answer)?;
    Ok(is_last)
}

fn status(devices: &Devices) -> Vec<DeviceAnswer> {
    let devices = lock(devices);
    let answers = devices.iter().map(|(slot, running)| {
        let peers = running.device.peers();
        let peers = peers
            .all()
            .map(|peer| PeerRequest::new(peer.key(), peer.config(), peer.handshake_age()));
        DeviceAnswer {
            slot: slot.number(),
            key: running.device.public().to_text(),
            port: running.device.endpoint().port(),
            peers: peers.collect(),
        }
    });
    answers.collect()
}

// === impl Door ===

impl Door {
    fn new(dir: &Path, listener: &UnixListener) -> Door {
        let path = dir.join(control::SOCKET);
        Door {
            identity: identity(&path),
            path,
            listener: listener.try_clone().ok(),
            is_lost: Arc::default(),
        }
    }

    /// Wakes who waits there for the daemon, if it cannot come any more.
    fn look(&self) {
        let is_there = identity(&self.path) == self.identity && self.identity.is_some();
        if let Some(listener) = self.listener.as_ref().filter(|_| !is_there) {
            self.is_lost.store(true, Ordering::Relaxed);
            // One that is shut down already is fine.
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// A thread that panicked left nothing half done that would be worse than stopping.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
