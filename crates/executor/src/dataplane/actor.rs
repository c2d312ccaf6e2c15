//! The one owner of book and plane: takes what came in, makes one value of it, follows it, answers.
//!
//! Whatever arrives while the plane works is one value afterwards. Decisions are the book's and the
//! plane's; here is only the order of things.

mod telling;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use skep_model::{
    DEFAULT_DATA_PATH_PORT, NodeId,
    directory::{Message, Slice},
};
use skep_network::plane::{DataPath, Desired, Failure, Plane, Report};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    AttachError, Book, Config, LocalContainer, Membership, NetworkSummary, Status,
    keeper::{Keeper, Kept},
    own_keys::OwnKeys,
    paths::Paths,
    traffic::Carried,
    waiting::Waiting,
};

/// Period of the comparison with the kernel.
const RECONCILE_EVERY: Duration = Duration::from_secs(30);
/// First pause before what failed is tried again; doubles up to [`RECONCILE_EVERY`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// How long a node may be down until its tasks count as gone. A daemon is restarted in less, and its
/// containers go on meanwhile; longer keeps clients of a dead node waiting. New connections are not
/// led there from the first moment.
const BURY_AFTER: Duration = Duration::from_secs(10);
/// Containers that ended before a membership was known and are remembered for it. One whose node has
/// more ended tasks at a start without managers leads to some of them until a manager answers.
const ENDED_COUNT_MAX: usize = 4096;
/// Messages and commands taken in before a value is made of them: bounds how long a newcomer waits.
const BATCH_COUNT_MAX: usize = 1024;

type Done = oneshot::Sender<()>;

/// What others ask for.
#[derive(Debug)]
pub(super) enum Command {
    Join(Membership, oneshot::Sender<Option<Slice>>),
    Index(oneshot::Sender<u64>),
    Configure(u16, Option<Slice>, Done),
    Leave(Done),
    Adopt(String, LocalContainer, Done),
    Attach(
        String,
        LocalContainer,
        oneshot::Sender<Result<(), AttachError>>,
    ),
    Detach(String, Done),
    Parted(String, Done),
    Doctor(oneshot::Sender<Vec<String>>),
    Repairs(oneshot::Sender<Vec<String>>),
    Heal(Done),
    Carried(oneshot::Sender<Carried>),
    Directory(oneshot::Sender<Option<Message>>),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Actor {
    config: Config,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<Arc<Status>>,
    plane: Option<Plane>,
    keeper: Keeper,
    keys: OwnKeys,
    member: Option<Member>,
    /// All containers with places; they may be known before a membership is.
    containers: BTreeMap<String, LocalContainer>,
    /// Containers that ended before a membership was known.
    ended: Vec<String>,
    waiting: Waiting,
    /// Since when other nodes are down.
    down: BTreeMap<NodeId, Instant>,
    /// Whoever waits until a container is gone from the value.
    leaving: Vec<Done>,
    /// Whoever waits until new connections are led to others than a container.
    parting: Vec<(String, Done)>,
    /// When the kernel is looked at next, and the pause after a failure.
    reconcile_at: Instant,
    retry: Duration,
    /// What the plane said last that works less well than it should.
    noted: BTreeSet<String>,
    paths: Paths,
    /// The plane refused the last value; the next reconciliation offers a newer one.
    is_refused: bool,
}

/// The membership followed.
#[derive(Debug)]
struct Member {
    book: Book,
    kept: Kept,
    messages: mpsc::Receiver<Message>,
    /// The directory on disk is older than the book's.
    is_unkept: bool,
}

// === impl Actor ===

impl Actor {
    pub(super) fn new(
        config: Config,
        commands: mpsc::Receiver<Command>,
        (status, told_keys): (watch::Sender<Arc<Status>>, watch::Sender<Vec<[u8; 32]>>),
    ) -> Self {
        Self {
            keys: OwnKeys::new(config.run_dir.clone(), told_keys),
            keeper: Keeper::new(&config.run_dir, config.codec),
            config,
            commands,
            status,
            plane: None,
            member: None,
            containers: BTreeMap::new(),
            ended: Vec::new(),
            waiting: Waiting::default(),
            down: BTreeMap::new(),
            leaving: Vec::new(),
            parting: Vec::new(),
            reconcile_at: Instant::now() + RECONCILE_EVERY,
            retry: RETRY_MIN,
            noted: BTreeSet::new(),
            paths: Paths::default(),
            is_refused: false,
        }
    }

    /// Runs until `shutdown`; what the kernel has stays.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let deadline = self.waiting.deadline().into_iter();
            let deadline = deadline.chain(self.down.values().map(|since| *since + BURY_AFTER));
            let deadline = deadline.min();
            tokio::select! {
                () = shutdown.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.take_commands(command).await,
                    None => break,
                },
                message = next_message(&mut self.member) => self.take_messages(message),
                () = tokio::time::sleep_until(self.reconcile_at) => self.reconcile().await,
                () = sleep_until(deadline) => {}
                () = self.keeper.rest() => {}
                () = self.paths.finished() => self.tell_problems(),
            }
            self.bury();
            self.follow().await;
            self.settle();
            self.keep();
        }
        self.waiting.clear();
        self.keeper.finish().await;
        if let Some(plane) = &self.plane {
            plane.close().await;
        }
    }

    async fn take_commands(&mut self, first: Command) {
        self.perform(first).await;
        for _ in 0..BATCH_COUNT_MAX {
            let Ok(command) = self.commands.try_recv() else {
                break;
            };
            self.perform(command).await;
        }
    }

    fn take_messages(&mut self, first: Option<Message>) {
        let Some(member) = &mut self.member else {
            return;
        };
        let Some(first) = first else {
            return;
        };
        member.book.take(first);
        for _ in 0..BATCH_COUNT_MAX {
            let Ok(message) = member.messages.try_recv() else {
                break;
            };
            member.book.take(message);
        }
        member.is_unkept = true;
    }

    /// Callers that went away need no answers.
    async fn perform(&mut self, command: Command) {
        match command {
            Command::Join(membership, reply) => {
                let slice = self.join(membership);
                let _ = reply.send(slice);
            }
            Command::Index(reply) => {
                let index = self.member.as_ref().and_then(|member| member.book.index());
                let _ = reply.send(index.unwrap_or(0));
            }
            Command::Configure(port, slice, done) => {
                self.configure(port, slice);
                let _ = done.send(());
            }
            Command::Leave(done) => {
                self.leave().await;
                let _ = done.send(());
            }
            Command::Adopt(id, container, done) => {
                self.set_container(&id, container);
                let _ = done.send(());
            }
            Command::Attach(id, container, reply) => self.attach(&id, container, reply),
            Command::Detach(id, done) => {
                self.waiting.remove(&id);
                let is_known = self.remove_container(&id);
                let is_led_to = self.end_container(&id);
                if (is_known || is_led_to) && self.plane.is_some() {
                    self.leaving.push(done);
                } else {
                    let _ = done.send(());
                }
            }
            Command::Parted(id, done) => self.parting.push((id, done)),
            Command::Doctor(reply) => drop(reply.send(self.doctor().await)),
            Command::Repairs(reply) => drop(reply.send(self.repairs().await)),
            Command::Heal(done) => {
                self.reconcile().await;
                let _ = done.send(());
            }
            Command::Carried(reply) => drop(reply.send(self.carried().await)),
            Command::Directory(reply) => {
                let directory = self
                    .member
                    .as_ref()
                    .and_then(|member| member.book.directory());
                let _ = reply.send(directory);
            }
        }
    }

    fn join(&mut self, membership: Membership) -> Option<Slice> {
        let Membership {
            node_id,
            data_path,
            messages,
        } = membership;
        let mut kept = Kept {
            node_id,
            data_path,
            port: DEFAULT_DATA_PATH_PORT,
            slice: None,
        };
        let found = self.keeper.read(node_id);
        if let Some((found, _)) = &found {
            kept.port = found.port;
            kept.slice = found.slice;
        }
        let mut book = Book::new(node_id, &self.config.bridge, path(&kept));
        book.set_slice(kept.slice);
        if let Some((_, message)) = found {
            info!(
                index = message.index,
                "Data plane goes on from the directory on disk"
            );
            book.take(message);
        }
        for (id, container) in &self.containers {
            book.set_container(id, container.clone());
        }
        for id in self.ended.drain(..) {
            book.end_container(&id);
        }
        match self.keys.open() {
            Ok(keys) => book.set_tunnel(keys, self.config.launch.clone()),
            Err(error) => warn!(error = %Chain(&error), "No encrypted networks"),
        }
        let slice = kept.slice;
        self.member = Some(Member {
            book,
            kept,
            messages,
            is_unkept: false,
        });
        slice
    }

    fn configure(&mut self, port: u16, slice: Option<Slice>) {
        let Some(member) = &mut self.member else {
            return;
        };
        let port = if port == 0 {
            DEFAULT_DATA_PATH_PORT
        } else {
            port
        };
        if (member.kept.port, member.kept.slice) == (port, slice) {
            return;
        }
        member.kept.port = port;
        member.kept.slice = slice;
        member.book.set_data_path(path(&member.kept));
        member.book.set_slice(slice);
        member.is_unkept = true;
    }

    async fn leave(&mut self) {
        self.member = None;
        self.noted.clear();
        self.paths.clear();
        self.keys.close();
        self.containers.clear();
        self.ended.clear();
        self.waiting.clear();
        self.leaving.clear();
        self.parting.clear();
        self.keeper.remove().await;
        if self.plane.is_none() && !self.config.run_dir.exists() {
            return self.tell(|status| *status = Status::default());
        }
        let mut problems = BTreeSet::new();
        let removed = match self.open().await {
            Ok(plane) => plane.remove().await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            let text = format!("failed to take the data plane down: {}", Chain(&error));
            problems.insert(text);
        }
        self.plane = None;
        let status = Status {
            problems,
            ..Status::default()
        };
        self.tell(|old| *old = status);
    }

    fn attach(
        &mut self,
        id: &str,
        container: LocalContainer,
        reply: oneshot::Sender<Result<(), AttachError>>,
    ) {
        let is_homeless = |place: &&super::Place| place.mac().is_none();
        if let Some(place) = container.places.iter().find(is_homeless) {
            let error = AttachError::NoAddress(place.network.name.clone());
            let _ = reply.send(Err(error));
            return;
        }
        let Some(member) = &self.member else {
            let _ = reply.send(Err(AttachError::Stopped));
            return;
        };
        if let Some((network, other)) = member.book.rival_of(&container) {
            let error = AttachError::VxlanId { network, other };
            let _ = reply.send(Err(error));
            return;
        }
        self.waiting.insert(id, &container, reply);
        self.set_container(id, container);
    }

    fn set_container(&mut self, id: &str, container: LocalContainer) {
        if let Some(member) = &mut self.member {
            member.book.set_container(id, container.clone());
        }
        self.containers.insert(id.to_owned(), container);
    }

    /// Whether it had places.
    fn remove_container(&mut self, id: &str) -> bool {
        let is_known = self.containers.remove(id).is_some();
        match &mut self.member {
            Some(member) if is_known => {
                member.book.remove_container(id);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether others were led to it.
    fn end_container(&mut self, id: &str) -> bool {
        match &mut self.member {
            Some(member) => member.book.end_container(id),
            None => {
                // Found at the start of the daemon, before it follows a cluster.
                if self.ended.len() < ENDED_COUNT_MAX {
                    self.ended.push(id.to_owned());
                }
                false
            }
        }
    }

    /// Gives up nodes that have been down for long enough.
    fn bury(&mut self) {
        let Some(member) = &mut self.member else {
            return self.down.clear();
        };
        let now = Instant::now();
        let mut down: BTreeMap<NodeId, Instant> = BTreeMap::new();
        for id in member.book.down() {
            down.insert(id, self.down.get(&id).copied().unwrap_or(now));
        }
        down.retain(|id, since| {
            let is_due = *since + BURY_AFTER <= now;
            if is_due {
                member.book.bury(*id);
            }
            !is_due
        });
        self.down = down;
    }

    /// Makes the plane follow what the book says now.
    async fn follow(&mut self) {
        let is_due = |member: &mut Member| member.book.index().is_some() && member.book.is_stale();
        if self.member.as_mut().is_some_and(is_due) {
            let plane = self.open().await;
            let Some(member) = &mut self.member else {
                return;
            };
            let desired = member.book.desired();
            let networks = summaries(&member.book, &desired);
            let outcome = match plane {
                Ok(plane) => plane.update(desired).await,
                Err(error) => Err(error),
            };
            self.is_refused = outcome.is_err();
            self.answer(&outcome);
            self.note(outcome);
            self.tell(|status| status.networks = networks);
        }
        for done in self.leaving.drain(..) {
            let _ = done.send(());
        }
        let book = self.member.as_ref().map(|member| &member.book);
        let is_led_to = |id: &str| book.is_some_and(|book| book.is_led_to(id));
        let waits = |(id, done): &mut (String, Done)| is_led_to(id) && !done.is_closed();
        for (_, done) in self.parting.extract_if(.., |one| !waits(one)) {
            let _ = done.send(());
        }
    }

    async fn reconcile(&mut self) {
        self.reconcile_at = Instant::now() + RECONCILE_EVERY;
        self.turn_keys();
        if let Some(member) = &mut self.member
            && self.is_refused
        {
            return member.book.renew();
        }
        if let Some(member) = &self.member {
            let local = member.book.data_path();
            self.paths.follow(local, member.book.node_addresses());
        }
        let Some(plane) = self.plane.clone() else {
            return;
        };
        let outcome = plane.reconcile().await;
        self.note(outcome);
    }

    /// Changes the node's keys if it is time, and others know the last ones.
    fn turn_keys(&mut self) {
        let Some(member) = &mut self.member else {
            return;
        };
        match self.keys.turn(member.book.own_tunnel_keys()) {
            Ok(Some(keys)) => {
                info!("Keys of encrypted networks change");
                let launch = self.config.launch.clone();
                member.book.set_tunnel(keys, launch);
            }
            Ok(None) => {}
            Err(error) => warn!(error = %Chain(&error), "Keys of encrypted networks stay"),
        }
    }

    /// Tells those that wait whether the value that has them could be followed.
    fn answer(&mut self, outcome: &Result<Report, skep_network::plane::Error>) {
        let Some(member) = &self.member else {
            return;
        };
        let failed = match outcome {
            Ok(report) => self.waiting.on_report(&member.book, report),
            Err(error) => self.waiting.on_error(&Chain(error).to_string()),
        };
        for id in failed {
            self.remove_container(&id);
        }
    }

    /// Takes note of what the plane did.
    fn note(&mut self, outcome: Result<Report, skep_network::plane::Error>) {
        let Some(member) = &self.member else {
            return;
        };
        let (mut problems, mut is_failed) = (BTreeSet::new(), true);
        match &outcome {
            Ok(report) => {
                is_failed = !report.failures.is_empty();
                let failures = report.failures.iter();
                problems.extend(failures.map(|failure| text_of(&member.book, failure)));
                problems.extend(report.warnings.iter().map(|text| named(&member.book, text)));
            }
            Err(error) => {
                problems.insert(Chain(error).to_string());
            }
        }
        if is_failed {
            self.reconcile_at = self.reconcile_at.min(Instant::now() + self.retry);
            self.retry = (self.retry * 2).min(RECONCILE_EVERY);
        } else {
            self.retry = RETRY_MIN;
        }
        let index = member.book.index();
        let generation = outcome.ok().map(|report| report.generation);
        self.noted = problems;
        self.tell(|status| {
            status.index = index;
            status.generation = generation.unwrap_or(status.generation);
        });
        self.tell_problems();
    }

    fn settle(&mut self) {
        let Some(member) = &self.member else {
            return self.waiting.clear();
        };
        for id in self.waiting.settle(&member.book) {
            self.remove_container(&id);
        }
    }

    fn keep(&mut self) {
        let Some(member) = &mut self.member else {
            return;
        };
        if !member.is_unkept || !self.keeper.is_idle() || self.plane.is_none() {
            return;
        }
        if let Some(directory) = member.book.directory() {
            self.keeper.write(&member.kept, directory);
            member.is_unkept = false;
        }
    }

    async fn doctor(&self) -> Vec<String> {
        let Some(member) = &self.member else {
            return Vec::new();
        };
        if member.book.index().is_none() {
            return vec![AttachError::NoDirectory.to_string()];
        }
        let status = Arc::clone(&self.status.borrow());
        let mut findings: Vec<String> = status.problems.iter().cloned().collect();
        match &self.plane {
            Some(plane) => match plane.doctor().await {
                Ok(found) => {
                    let found = found.iter().map(|text| named(&member.book, text));
                    let found: Vec<String> = found
                        .filter(|text| !status.problems.contains(text))
                        .collect();
                    findings.extend(found);
                }
                Err(error) => findings.push(Chain(&error).to_string()),
            },
            None => findings.push(AttachError::Stopped.to_string()),
        }
        findings
    }

    /// What was repaired lately, with when.
    async fn repairs(&self) -> Vec<String> {
        let (Some(member), Some(plane)) = (&self.member, &self.plane) else {
            return Vec::new();
        };
        let repairs = plane.repairs().await.unwrap_or_default();
        let texts = repairs.iter().map(|repair| {
            let ago = repair.at.elapsed().as_secs();
            format!("{ago} s ago: {}", named(&member.book, &repair.text))
        });
        texts.collect()
    }

    async fn open(&mut self) -> Result<Plane, skep_network::plane::Error> {
        if let Some(plane) = &self.plane {
            return Ok(plane.clone());
        }
        let plane = Plane::open(&self.config.run_dir).await?;
        self.plane = Some(plane.clone());
        Ok(plane)
    }
}

/// What there is of each network, for metrics.
fn summaries(book: &Book, desired: &Desired) -> BTreeMap<String, NetworkSummary> {
    let summary = |(id, overlay): (&String, &Arc<skep_network::plane::Overlay>)| {
        let places = desired.containers.values();
        let places = places.filter(|container| container.attachments.contains_key(id));
        let name = book.name_of(id).unwrap_or(id).to_owned();
        let summary = NetworkSummary {
            container_count: places.count(),
            remote_count: overlay.remotes.len(),
            service_count: overlay.services.len(),
        };
        (name, summary)
    };
    desired.networks.iter().map(summary).collect()
}

fn path(kept: &Kept) -> DataPath {
    DataPath {
        address: kept.data_path,
        port: kept.port,
    }
}

/// The next message. A stream that ended is not asked again: the membership ends, or begins anew.
async fn next_message(member: &mut Option<Member>) -> Option<Message> {
    let Some(member) = member else {
        return std::future::pending().await;
    };
    match member.messages.recv().await {
        Some(message) => Some(message),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A failure in words.
pub(super) fn text_of(book: &Book, failure: &Failure) -> String {
    let text = format!("{}: {}", failure.scope, Chain(&*failure.error));
    named(book, &text)
}

/// A text with the names of networks in place of their ids.
fn named(book: &Book, text: &str) -> String {
    let words = text.split_inclusive([' ', ':', '`']);
    let words = words.map(|word| {
        let id = word.trim_end_matches([' ', ':', '`']);
        match book.name_of(id) {
            Some(name) => word.replacen(id, name, 1),
            None => word.to_owned(),
        }
    });
    words.collect()
}

/// Prints an error with its causes.
pub(super) struct Chain<'a>(pub(super) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
