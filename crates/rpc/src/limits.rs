//! Every limit of port 2377, with its reason. What a peer can make us hold is bounded by these.

use std::time::Duration;

/// Open connections. One agent needs one or two; 10,000 nodes fit, and at about 50 KiB each an attacker costs less than 1 GiB.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;
/// Open connections of callers without certificate. Joining takes two for a second; more wait.
pub(crate) const ANONYMOUS_MAX: usize = 512;
/// TLS handshakes at a time, about a millisecond of CPU each. More wait in the kernel's queue.
pub(crate) const HANDSHAKES_MAX: usize = 256;
/// Handshakes at a time from one address, so that one slow host cannot keep all others out. Many nodes behind one NAT address share it.
pub(crate) const HANDSHAKES_PER_ADDRESS_MAX: usize = 64;
/// Longest handshake. Two round trips; the rest is for busy machines.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest list of headers, decoded. Ours have below 1 KiB; forwarded identity adds as much.
pub(crate) const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Longest text of an error. It goes through a header, where it may become three times as long.
pub(crate) const TEXT_BYTES_MAX: usize = 4 << 10;
/// Streams at a time from a caller without certificate. Joining needs one.
pub(crate) const ANONYMOUS_STREAMS_MAX: u32 = 8;
/// Streams at a time from a worker: session, assignments, subscriptions, heartbeat, reports and a log stream per subscription.
pub(crate) const WORKER_STREAMS_MAX: u32 = 256;
/// Streams at a time from a manager, which passes on those of all agents connected to it.
pub(crate) const MANAGER_STREAMS_MAX: u32 = 65_536;
/// A connection of a caller without certificate that has no call under way ends after this.
pub(crate) const ANONYMOUS_IDLE: Duration = Duration::from_secs(10);
/// The same for callers with certificate; agents beat every few seconds.
pub(crate) const IDLE: Duration = Duration::from_secs(300);
/// Bytes on their way in one stream of a worker, which wait here when a reader is slow; and of a manager, which also sends snapshots.
pub(crate) const WORKER_STREAM_WINDOW: u32 = 64 << 10;
/// See [`WORKER_STREAM_WINDOW`].
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes on their way in all streams of a connection: more than streams that stand still can fill, because the same connection carries
/// heartbeats. For workers all streams together; for managers, which pass on those of many, as good as no limit.
pub(crate) const WORKER_WINDOW: u32 = 2 * WORKER_STREAMS_MAX * WORKER_STREAM_WINDOW;
/// See [`WORKER_WINDOW`].
pub(crate) const CONNECTION_WINDOW: u32 = 1 << 30;
/// Time between pings on an otherwise silent connection; with [`PING_TIMEOUT`], how long a vanished peer holds its place.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Longest wait for the answer of a ping.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Between managers a vanished peer must be noticed sooner: commands wait for it.
pub(crate) const PEER_PING_INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for a peer manager's answer of a ping.
pub(crate) const PEER_PING_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest message read from a caller. SwarmKit's servers read 4 MiB; reports of many tasks may be larger.
pub(crate) const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Largest message read from a manager: a complete set of assignments with many secrets. SwarmKit has no limit here.
pub(crate) const RESPONSE_BYTES_MAX: usize = 1 << 30;
/// Longest unary call served, from its first byte to its answer.
pub(crate) const UNARY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long `NodeCertificateStatus` waits for a certificate; SwarmKit's clients give up after 5 s and ask again.
pub(crate) const CERTIFICATE_WAIT: Duration = Duration::from_secs(30);
/// How long a stopping server lets calls finish. Streams never do, so this is what every stop takes.
pub(crate) const DRAIN: Duration = Duration::from_millis(500);

/// Longest wait for a TCP and TLS connection to a manager.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest unary call to a manager.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the first message of a session; SwarmKit's.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest a command or a read waits, for a leader and for its answer.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a leader that dials a joining manager back waits for its answer; SwarmKit's.
pub(crate) const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections a node keeps to managers. More managers than this do not make a sensible group.
pub(crate) const CHANNELS_MAX: usize = 64;

/// Raft messages waiting for one peer. Raft repeats what is dropped, so more would only be stale.
pub(crate) const PEER_QUEUE: usize = 1024;
/// Shortest and longest wait before a lost peer is dialled again.
pub(crate) const PEER_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_millis(500));
/// Longest call with one raft message or one chunk of a snapshot; SwarmKit's.
pub(crate) const RAFT_CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that nothing was sent to for so long is no longer a member, and its task ends.
pub(crate) const PEER_IDLE: Duration = Duration::from_secs(60);
/// Bytes of a snapshot in one chunk; with the message around it, below SwarmKit's limit of 4 MiB.
pub(crate) const SNAPSHOT_CHUNK_BYTES: usize = 3 << 20;
/// Largest snapshot taken from a peer. A million tasks are about 500 MB.
pub(crate) const SNAPSHOT_BYTES_MAX: usize = 2 << 30;
/// Snapshots received at a time. Only one leader sends; a second covers a change of leader.
pub(crate) const SNAPSHOTS_MAX: usize = 2;

/// Refused callers remembered, so that each is logged once per reason. About 100 bytes each.
pub(crate) const REFUSALS_REMEMBERED: usize = 1024;
/// Longest address of a manager.
pub(crate) const ADDR_BYTES_MAX: usize = 256;
/// Messages between a dispatcher's stream and its connection; the peer reads one at a time.
pub(crate) const STREAM_QUEUE: usize = 16;

/// Entries of a directory in one message: at most some hundred bytes each, so well below a megabyte.
pub(crate) const DIRECTORY_ENTRIES_MAX: usize = 1000;
/// Longest a manager that knows no leader goes on telling nodes what it knows. Elections take a tenth of it.
pub(crate) const LEADERLESS_MAX: Duration = Duration::from_secs(3);
/// How long a node believes that managers who know less than it does will catch up. Elections and restarts take seconds.
pub(crate) const DIRECTORY_TRUST: Duration = Duration::from_secs(30);
/// Wait before a node asks again for its directory after a failure.
pub(crate) const DIRECTORY_RETRY: Duration = Duration::from_millis(200);
/// Log subscriptions at a time, each a `docker service logs` somewhere.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 256;
/// Batches of log messages waiting for one reader. A slow reader slows the nodes, never the leader's memory.
pub(crate) const LOG_QUEUE: usize = 4;
/// Messages and bytes of one batch of log lines, whichever comes first.
pub(crate) const LOG_BATCH: (usize, usize) = (512, 64 << 10);
/// How long a new line waits for older ones of other nodes. Longer than a node's own wait and a round trip; less than a reader notices.
pub(crate) const LOG_WINDOW: Duration = Duration::from_millis(200);
/// Tasks named at the end because their logs could not be read.
pub(crate) const UNREADABLE_MAX: usize = 32;
/// How long a manager whose client reads logs looks for a leader that sends them. Elections take a tenth of it.
pub(crate) const LOGS_RETRY_MAX: Duration = Duration::from_secs(30);
/// Wait before it asks again.
pub(crate) const LOGS_RETRY: Duration = Duration::from_millis(200);
/// Time after the last moment a reader wants for the lines of that moment to arrive.
pub(crate) const LOGS_UNTIL_GRACE: Duration = Duration::from_secs(1);
/// Subscriptions waiting to be told to one node. One that lags further is taken for gone.
pub(crate) const LISTENER_QUEUE: usize = 64;
/// How long a reader that does not follow waits for nodes that do not listen; agents come back within it after a change of leader.
pub(crate) const LISTENER_WAIT: Duration = Duration::from_secs(3);
/// Changes of the cluster are looked at together, this often, for new tasks whose logs are followed.
pub(crate) const FOLLOW_PERIOD: Duration = Duration::from_millis(100);
/// How long an errand waits for its node to fetch it, and a stream for its first message.
pub(crate) const ERRAND_WAIT: Duration = Duration::from_secs(5);
/// Errands waiting for their nodes; each is a request of up to [`REQUEST_BYTES_MAX`].
pub(crate) const ERRANDS_WAITING_MAX: usize = 256;
/// Errands under way on one node, those included that nobody waits for any more. A stream each, of a worker's.
pub(crate) const ERRANDS_MAX: usize = 128;
/// Pieces of input or output waiting for the next hop.
pub(crate) const ERRAND_QUEUE: usize = 16;
/// Wait before a node asks again for subscriptions after a failure.
pub(crate) const LISTEN_RETRY: Duration = Duration::from_millis(500);
/// Subscriptions a node serves at a time; the leader has no more.
pub(crate) const PUBLISHERS_MAX: usize = SUBSCRIPTIONS_MAX;
