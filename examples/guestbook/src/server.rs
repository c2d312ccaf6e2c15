//! A server that drops no request when it is told to end.
//!
//! SIGTERM lets it answer what it was asked and say goodbye with `Connection: close`; it ends when no connection is left. Accepting
//! goes on until then: a connection the kernel has taken in must not be lost. Connections on which nothing is asked end by themselves.

use std::{
    io::{self, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

use crate::http::{Request, Response};

/// How long a connection may be silent between requests, and how long an answer may take to be sent. It must be shorter than the time
/// between stop signal and kill, which is ten seconds.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Most connections at once; more wait to be accepted. Each has a thread.
const CONNECTION_COUNT_MAX: usize = 512;

/// What a role does with requests.
pub(crate) trait Role: Send + Sync + 'static {
    /// Answers a request of a client at `peer`.
    fn answer(&self, request: &Request, peer: IpAddr) -> Response;
}

/// Counts connections, and lets others wait for the count.
#[derive(Debug, Default)]
struct Gate {
    open: Mutex<usize>,
    changed: Condvar,
}

/// Serves `role` until a signal to end, and then until no connection is left.
pub(crate) fn run(port: u16, role: impl Role) -> anyhow::Result<()> {
    // Blocked before there are threads, which inherit it: the signals wait for `wait` below.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals
        .thread_block()
        .context("failed to block the signals to end")?;
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .with_context(|| format!("failed to listen on port {port}"))?;
    let role: Arc<dyn Role> = Arc::new(role);
    let gate = Arc::new(Gate::default());
    let is_ending = Arc::new(AtomicBool::new(false));
    let (accepted, ending) = (Arc::clone(&gate), Arc::clone(&is_ending));
    thread::spawn(move || {
        loop {
            accepted.wait(|open| open < CONNECTION_COUNT_MAX);
            let Ok((stream, _)) = listener.accept() else {
                continue;
            };
            accepted.add(1);
            let (role, gate, ending) = (
                Arc::clone(&role),
                Arc::clone(&accepted),
                Arc::clone(&ending),
            );
            thread::spawn(move || {
                // A client that went away or spoke nonsense is its own affair.
                let _ = serve(stream, role.as_ref(), &ending);
                gate.add(-1);
            });
        }
    });
    signals
        .wait()
        .context("failed to wait for the signal to end")?;
    is_ending.store(true, Ordering::SeqCst);
    gate.wait(|open| open == 0);
    Ok(())
}

fn serve(mut stream: TcpStream, role: &dyn Role, is_ending: &AtomicBool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_MAX))?;
    stream.set_write_timeout(Some(IDLE_MAX))?;
    let peer = stream.peer_addr()?.ip().to_canonical();
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let request = match Request::read(&mut reader) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let response = Response::text(400, format!("not understood: {error}\n"));
                return response.write(&mut stream, true);
            }
            Err(error) => return Err(error),
        };
        let response = role.answer(&request, peer);
        let is_last = request.is_last || is_ending.load(Ordering::SeqCst);
        response.write(&mut stream, is_last)?;
        if is_last {
            return Ok(());
        }
    }
}

// === impl Gate ===

impl Gate {
    fn add(&self, change: isize) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open = open.saturating_add_signed(change);
        self.changed.notify_all();
    }

    fn wait(&self, is_wanted: impl Fn(usize) -> bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while !is_wanted(*open) {
            open = self
                .changed
                .wait(open)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
