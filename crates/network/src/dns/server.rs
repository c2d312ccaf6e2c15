//! One thread that serves all containers. Its sockets are opened by others inside the containers' namespaces and work from here.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::answer::{Answer, Transport, answer};
use super::bucket::Bucket;
use super::forward::{self, Way, read_message, write_message};
use super::{SERVER_PORT, View};
use crate::netns::NetnsThread;

/// Containers that may wait to be taken. Each is a kilobyte.
const COMMAND_COUNT_MAX: usize = 4096;

/// Queries of one container that wait for upstream servers; more are answered with a failure at once. Each holds a socket.
const FORWARD_COUNT_MAX: usize = 128;

/// Connections of one container; more wait in the kernel.
const CONNECTION_COUNT_MAX: usize = 32;

/// How long a connection may be silent.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a socket failed for a reason that may pass (no memory, no descriptors).
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Largest query. What is longer is cut, and then malformed.
const QUERY_BYTES_MAX: usize = 4096;

/// A container's sockets, opened inside its namespace.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

/// The thread, and the views of the containers it serves.
#[derive(Debug)]
pub(crate) struct Server {
    commands: mpsc::Sender<Command>,
    /// Enters containers for queries that start there.
    netns: Arc<std::sync::Mutex<NetnsThread>>,
    views: BTreeMap<String, (PathBuf, Arc<ArcSwap<View>>)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command {
    Add(String, Box<Client>),
    Remove(String),
}

/// A container, as the thread sees it.
#[derive(Debug)]
struct Client {
    sockets: Sockets,
    view: Arc<ArcSwap<View>>,
    way: Way,
}

/// What all tasks of one container share.
#[derive(Debug)]
struct Shared {
    view: Arc<ArcSwap<View>>,
    way: Way,
    turn: AtomicUsize,
    bucket: Mutex<Bucket>,
    forwards: Semaphore,
    connections: Arc<Semaphore>,
}

// === impl Sockets ===

impl Sockets {
    /// Opens sockets in the calling thread's namespace, whose loopback interface must be up.
    pub(crate) fn open() -> io::Result<Sockets> {
        let address = SocketAddr::new(super::SERVER.ip(), SERVER_PORT);
        let udp = std::net::UdpSocket::bind(address)?;
        udp.set_nonblocking(true)?;
        let tcp = std::net::TcpListener::bind(address)?;
        tcp.set_nonblocking(true)?;
        Ok(Sockets { udp, tcp })
    }
}

// === impl Server ===

impl Server {
    /// Starts the thread in the calling thread's namespace, where queries to the node's own servers start.
    pub(crate) fn start() -> io::Result<Server> {
        let netns = Arc::new(std::sync::Mutex::new(NetnsThread::spawn()?));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let (commands, inbox) = mpsc::channel(COMMAND_COUNT_MAX);
        let thread = std::thread::Builder::new()
            .name("skep-dns".to_owned())
            .spawn(move || runtime.block_on(run(inbox)))?;
        Ok(Server {
            commands,
            netns,
            views: BTreeMap::new(),
            thread: Some(thread),
        })
    }

    /// Whether a container with this namespace is served.
    pub(crate) fn is_serving(&self, id: &str, netns_path: &Path) -> bool {
        self.views
            .get(id)
            .is_some_and(|(path, _)| path == netns_path)
    }

    /// Serves a container. One that is served already gets the new sockets.
    pub(crate) fn add(&mut self, id: &str, netns_path: &Path, sockets: Sockets) {
        let way = Way {
            netns: Arc::clone(&self.netns),
            netns_path: netns_path.into(),
        };
        let view = Arc::new(ArcSwap::from_pointee(View::default()));
        let client = Client {
            sockets,
            view: Arc::clone(&view),
            way,
        };
        let command = Command::Add(id.to_owned(), Box::new(client));
        if self.commands.blocking_send(command).is_ok() {
            self.views
                .insert(id.to_owned(), (netns_path.to_owned(), view));
        }
    }

    /// Changes what a container can ask for, at once.
    pub(crate) fn set_view(&self, id: &str, view: View) {
        if let Some((_, slot)) = self.views.get(id)
            && **slot.load() != view
        {
            slot.store(Arc::new(view));
        }
    }

    /// Serves only these containers from now on.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self
            .views
            .keys()
            .filter(|id| !is_wanted(id))
            .cloned()
            .collect();
        for id in gone {
            self.views.remove(&id);
            // A thread that has ended serves nobody.
            let _ = self.commands.blocking_send(Command::Remove(id));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The closed channel ends the thread.
        let (commands, _) = mpsc::channel(1);
        self.commands = commands;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(mut inbox: mpsc::Receiver<Command>) {
    let mut tasks = JoinSet::new();
    let mut handles: BTreeMap<String, AbortHandle> = BTreeMap::new();
    while let Some(command) = inbox.recv().await {
        let (id, client) = match command {
            Command::Add(id, client) => (id, Some(client)),
            Command::Remove(id) => (id, None),
        };
        if let Some(handle) = handles.remove(&id) {
            handle.abort();
        }
        if let Some(client) = client {
            handles.insert(
                id.clone(),
                tasks.spawn(async move {
                    if let Err(error) = serve(*client).await {
                        debug!(endpoint.id = %id, %error, "Names are not served");
                    }
                }),
            );
        }
        // Tasks that ended are forgotten.
        while tasks.try_join_next().is_some() {}
    }
}

/// Serves one container until aborted; what it started ends with it.
async fn serve(client: Client) -> io::Result<()> {
    let Client { sockets, view, way } = client;
    let udp = Arc::new(UdpSocket::from_std(sockets.udp)?);
    let tcp = TcpListener::from_std(sockets.tcp)?;
    let shared = Arc::new(Shared {
        view,
        way,
        turn: AtomicUsize::new(0),
        bucket: Mutex::new(Bucket::new(Instant::now())),
        forwards: Semaphore::new(FORWARD_COUNT_MAX),
        connections: Arc::new(Semaphore::new(CONNECTION_COUNT_MAX)),
    });
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; QUERY_BYTES_MAX];
    loop {
        // Receiving and accepting are cancel-safe.
        tokio::select! {
            received = udp.recv_from(&mut buffer) => match received {
                Ok((length, peer)) => datagram(&shared, &udp, &buffer[..length], peer, &mut tasks).await,
                Err(_) => sleep(FAILURE_PAUSE).await,
            },
            accepted = accept(&shared, &tcp) => match accepted {
                Ok((stream, permit)) => {
                    let shared = Arc::clone(&shared);
                    tasks.spawn(async move {
                        connection(&shared, stream).await;
                        drop(permit);
                    });
                }
                Err(_) => sleep(FAILURE_PAUSE).await,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn accept(
    shared: &Shared,
    tcp: &TcpListener,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(&shared.connections).acquire_owned().await;
    let permit = permit.map_err(io::Error::other)?;
    let (stream, _) = tcp.accept().await?;
    Ok((stream, permit))
}

/// Handles a datagram. What exceeds the rate is dropped: a stub resolver asks again, later and later.
async fn datagram(
    shared: &Arc<Shared>,
    udp: &Arc<UdpSocket>,
    query: &[u8],
    peer: SocketAddr,
    tasks: &mut JoinSet<()>,
) {
    if !shared.bucket.lock().await.take(Instant::now()) {
        return;
    }
    match shared.answer(query, Transport::Datagram) {
        // A client that has gone away needs no answer.
        Answer::Reply(bytes) => drop(udp.try_send_to(&bytes, peer)),
        Answer::Forward(failure) => {
            let (shared, udp, query) = (Arc::clone(shared), Arc::clone(udp), query.to_vec());
            tasks.spawn(async move {
                let bytes = shared.forward(&query, Transport::Datagram, failure).await;
                let _ = udp.send_to(&bytes, peer).await;
            });
        }
        Answer::Silence => {}
    }
}

/// Serves a connection, query by query, until it is closed, silent, or wrong. What exceeds the rate waits.
async fn connection(shared: &Shared, mut stream: TcpStream) {
    while let Ok(Ok(query)) = timeout(CONNECTION_TIMEOUT, read_message(&mut stream)).await {
        while !shared.bucket.lock().await.take(Instant::now()) {
            sleep(Bucket::pause()).await;
        }
        let bytes = match shared.answer(&query, Transport::Stream) {
            Answer::Reply(bytes) => bytes,
            Answer::Forward(failure) => shared.forward(&query, Transport::Stream, failure).await,
            Answer::Silence => return,
        };
        let written = timeout(CONNECTION_TIMEOUT, write_message(&mut stream, &bytes)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

// === impl Shared ===

impl Shared {
    fn answer(&self, query: &[u8], transport: Transport) -> Answer {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        answer(&self.view.load(), query, transport, turn)
    }

    async fn forward(&self, query: &[u8], transport: Transport, failure: Vec<u8>) -> Vec<u8> {
        let Ok(_permit) = self.forwards.try_acquire() else {
            return failure;
        };
        let view = self.view.load_full();
        let answer = forward::ask(&self.way, &view.upstreams, query, transport).await;
        answer.unwrap_or(failure)
    }
}
