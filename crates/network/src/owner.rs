//! The owner thread: takes commands in batches, keeps the state, performs plans.
//!
//! Order within a batch, which makes a crash at any point harmless (`docs/design/node-network.md`): decide, write the state
//! file, change links and namespaces, change nft once for all, reply.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::apply::{ApplyError, Kernel};
use crate::config::{Config, Given, Layout};
use crate::endpoint::{Attachment, EndpointInfo, Mac};
use crate::error::{Error, ErrorChain, Report};
use crate::netlink::NetlinkError;
use crate::plan::{Desired, DesiredEndpoint};
use crate::pool::Pool;
use crate::ports::{HostPort, Protocol};
use crate::reservation::Reservations;
use crate::state::{EndpointState, State, StateDir, StateError};
use crate::sysctl;
use crate::watch::{Interest, Watch};

mod repair;
mod turn;

/// Endpoints of one node network: a Linux bridge has 1024 ports (`BR_MAX_PORTS`) and one is kept free.
pub(crate) const ENDPOINT_COUNT_MAX: usize = 1023;

/// Commands handled as one batch. A batch delays its first caller by about a millisecond per attach.
const BATCH_COUNT_MAX: usize = 64;

/// How long detached endpoints wait for others before their links are deleted together. Deleting costs one RCU grace period,
/// about 20 ms, in which no link can be made.
const REAP_DELAY: Duration = Duration::from_millis(20);

/// How often an owner with nothing to do looks whether somebody changed what is its own; also the shortest time between two repairs
/// of that kind, should somebody insist. A look costs two system calls.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Detached endpoints that are removed even though commands keep coming. Each keeps its address and a bridge port.
const DYING_COUNT_MAX: usize = 128;

/// A request to the owner thread.
#[derive(Debug)]
pub(crate) enum Command {
    Attach {
        id: String,
        request: Request,
        reply: Reply<Attachment>,
    },
    AttachNone {
        id: String,
        reply: Reply<PathBuf>,
    },
    Detach {
        id: String,
        reply: Reply<()>,
    },
    Reconcile {
        reply: Reply<Report>,
    },
    Doctor {
        reply: Reply<Vec<String>>,
    },
    Layout {
        reply: Reply<Layout>,
    },
    Resize {
        layout: Layout,
        reply: Reply<()>,
    },
    Endpoints {
        reply: Reply<BTreeMap<String, EndpointInfo>>,
    },
    Remove {
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
    /// Makes the owner die after some more steps.
    #[cfg(test)]
    Doom {
        steps: u32,
    },
    /// Makes the owner repair what tests break.
    #[cfg(test)]
    Heal,
}

/// What an endpoint is to have.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) ports: Vec<HostPort>,
    /// The leader's choice; without one the node chooses.
    pub(crate) given: Option<Given>,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// The state, and the hands that change the kernel.
#[derive(Debug)]
pub(crate) struct Owner {
    kernel: Kernel,
    dir: StateDir,
    desired: Desired,
    /// The layout of the configuration.
    configured: Layout,
    pool: Pool,
    reservations: Reservations,
    watch: Watch,
    /// Off in tests that break something and want to be told of it.
    is_healing: bool,
    /// Whether somebody changed something that has not been repaired yet.
    is_suspicious: bool,
    /// When somebody's change was last repaired.
    healed_at: Option<Instant>,
    /// Detached endpoints whose link and namespace still exist, with the address they keep.
    dying: BTreeMap<String, Dying>,
    /// Attaches whose given address an endpoint still has, and until when they wait.
    parked: Vec<(Attach, Instant)>,
    /// Endpoints the last repair could not complete.
    failures: BTreeMap<String, Arc<ApplyError>>,
    /// Obstacles already logged.
    known_obstacles: Vec<String>,
}

/// Attaches and detaches of different endpoints, done together.
#[derive(Debug, Default)]
struct Turn {
    ids: BTreeSet<String>,
    attaches: Vec<Attach>,
    detaches: Vec<(String, Reply<()>)>,
}

#[derive(Debug)]
struct Attach {
    id: String,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Node(Request, Reply<Attachment>),
    None(Reply<PathBuf>),
}

/// A detached endpoint that has not been removed yet.
#[derive(Debug)]
struct Dying {
    address: Option<IpAddr>,
    address6: Option<Ipv6Addr>,
    has_udp: bool,
}

/// What this kernel can have of a layout.
fn usable(layout: Layout) -> Layout {
    Layout {
        v6: layout.v6.filter(|_| sysctl::has_ipv6()),
        ..layout
    }
}

/// Tells a caller, if it still waits.
fn answer<T>(reply: Reply<T>, outcome: Result<T, Error>) {
    // A caller that has gone away does not need its answer.
    let _ = reply.send(outcome);
}

// === impl Owner ===

impl Owner {
    /// The thread's body.
    pub(crate) fn run(config: Config, commands: &Receiver<Command>, ready: Reply<()>) {
        let opened = Owner::open(&config).and_then(|mut owner| owner.adopt().map(|()| owner));
        let mut owner = match opened {
            Ok(owner) => owner,
            Err(error) => return answer(ready, Err(error)),
        };
        answer(ready, Ok(()));
        owner.watch.discard();
        owner.serve(commands);
    }

    fn open(config: &Config) -> Result<Owner, Error> {
        let mistakes = config.check();
        if !mistakes.is_empty() {
            return Err(Error::Config(mistakes));
        }
        let dir = StateDir::open(&config.run_dir).map_err(Arc::new)?;
        let state = dir.load().map_err(Arc::new)?;
        let mut desired = Desired::new(config);
        let configured = usable(config.layout);
        desired.layout = usable(state.layout.unwrap_or(config.layout));
        let Layout { v4, is_shared, .. } = desired.layout;
        let mut pool = Pool::new(v4, is_shared);
        for (id, endpoint) in state.endpoints {
            let EndpointState {
                address,
                address6,
                ports,
            } = endpoint;
            let is_ours = address.is_none_or(|address| pool.reserve(address).is_ok())
                && address6.is_none_or(|ip| desired.layout.v6.is_some_and(|v6| v6.contains(&ip)));
            if !is_ours {
                return Err(Error::SubnetChanged(v4.into()));
            }
            let endpoint = DesiredEndpoint {
                address,
                address6,
                ports,
            };
            desired.endpoints.insert(id, endpoint);
        }
        if let Some(cursor) = state.cursor {
            pool.set_cursor(cursor);
        }
        let kernel = Kernel::open(&config.run_dir).map_err(Arc::new)?;
        let watch = Watch::open(Interest {
            links: vec![config.bridge.clone()],
            link_prefix: Some(format!("{}-", config.bridge)),
            has_neighbours: false,
            rules_from: None,
            tables: &["skep"],
            is_everything: false,
        })
        .map_err(|source| Arc::new(ApplyError::from(NetlinkError::Socket(source))))?;
        let owner = Owner {
            watch,
            is_healing: !cfg!(test),
            is_suspicious: false,
            healed_at: None,
            kernel,
            dir,
            desired,
            configured,
            pool,
            reservations: Reservations::default(),
            dying: BTreeMap::new(),
            parked: Vec::new(),
            failures: BTreeMap::new(),
            known_obstacles: Vec::new(),
        };
        Ok(owner)
    }

    /// Brings the kernel to the state of the state file.
    fn adopt(&mut self) -> Result<(), Error> {
        let report = self.reconcile()?;
        info!(
            endpoints = self.desired.endpoints.len(),
            steps = report.steps.len(),
            "Node network is open"
        );
        Ok(())
    }

    /// Opens, and dies after `steps` steps.
    #[cfg(test)]
    pub(crate) fn open_doomed(config: &Config, steps: u32) {
        let mut owner = Owner::open(config).expect("the configuration is valid");
        owner.kernel.steps_left = Some(steps);
        // Succeeds when all steps are done before.
        let _ = owner.adopt();
    }

    /// Holds ports of adopted endpoints. One that a program of the node has is tried again by each reconciliation.
    fn reserve_adopted_ports(&mut self) {
        for (id, endpoint) in &self.desired.endpoints {
            if self.reservations.is_reserved(id) {
                continue;
            }
            let has_v6 = endpoint.address6.is_some();
            if let Err(error) = self.reservations.reserve(id, &endpoint.ports, has_v6) {
                warn!(endpoint.id = %id, error = %ErrorChain(&error), "Published port is used by a program of the node");
            }
        }
    }

    fn serve(&mut self, commands: &Receiver<Command>) {
        loop {
            let is_waiting = self.dying.is_empty() && self.parked.is_empty();
            let next = commands.recv_timeout(if is_waiting {
                LOOK_INTERVAL
            } else {
                REAP_DELAY
            });
            self.heal();
            let flow = match next {
                Ok(command) => {
                    let mut batch = vec![command];
                    batch.extend(commands.try_iter().take(BATCH_COUNT_MAX - 1));
                    self.handle_batch(batch)
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.reap();
                    self.expire_parked();
                    ControlFlow::Continue(())
                }
                Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
            };
            if (self.dying.len() > DYING_COUNT_MAX || flow.is_break()) && !self.is_killed() {
                self.reap();
            }
            if flow.is_break() {
                return;
            }
            self.watch.discard();
        }
    }

    /// Repairs what somebody broke since the last look.
    fn heal(&mut self) {
        if !self.is_healing {
            return;
        }
        self.is_suspicious |= self.watch.look();
        let is_due = |at: Instant| at.elapsed() >= LOOK_INTERVAL;
        if !self.is_suspicious || !self.healed_at.is_none_or(is_due) || self.is_killed() {
            return;
        }
        self.healed_at = Some(Instant::now());
        self.is_suspicious = false;
        match self.reconcile() {
            Ok(report) if report.steps.is_empty() => {}
            Ok(report) => {
                // Who breaks something may go on while it is repaired.
                self.is_suspicious = true;
                info!(steps = report.steps.len(), "Node network repaired");
            }
            Err(error) => warn!(error = %ErrorChain(&error), "Node network not repaired"),
        }
        self.watch.discard();
    }

    fn handle_batch(&mut self, batch: Vec<Command>) -> ControlFlow<()> {
        let mut turn = Turn::default();
        for command in batch {
            match command {
                Command::Attach { id, request, reply } => {
                    self.enter(&mut turn, &id)?;
                    turn.attaches.push(Attach {
                        id,
                        mode: Mode::Node(request, reply),
                    });
                }
                Command::AttachNone { id, reply } => {
                    self.enter(&mut turn, &id)?;
                    turn.attaches.push(Attach {
                        id,
                        mode: Mode::None(reply),
                    });
                }
                Command::Detach { id, reply } => {
                    self.enter(&mut turn, &id)?;
                    turn.detaches.push((id, reply));
                }
                Command::Reconcile { reply } => {
                    self.take(&mut turn)?;
                    let outcome = self.reconcile();
                    answer(reply, outcome.map_err(Error::from));
                }
                Command::Doctor { reply } => {
                    self.take(&mut turn)?;
                    let outcome = self.doctor();
                    answer(reply, outcome.map_err(Error::from));
                }
                Command::Layout { reply } => answer(reply, Ok(self.desired.layout)),
                Command::Resize { layout, reply } => {
                    self.take(&mut turn)?;
                    let outcome = self.resize(layout);
                    answer(reply, outcome);
                }
                Command::Endpoints { reply } => {
                    self.take(&mut turn)?;
                    let endpoints = self.desired.endpoints.iter();
                    let infos =
                        endpoints.map(|(id, endpoint)| (id.clone(), self.info(id, endpoint)));
                    answer(reply, Ok(infos.collect()));
                }
                Command::Remove { reply } => {
                    self.take(&mut turn)?;
                    let outcome = self.remove();
                    answer(reply, outcome);
                    return ControlFlow::Break(());
                }
                Command::Close { reply } => {
                    self.take(&mut turn)?;
                    self.reap();
                    answer(reply, Ok(()));
                    return ControlFlow::Break(());
                }
                #[cfg(test)]
                Command::Doom { steps } => self.kernel.steps_left = Some(steps),
                #[cfg(test)]
                Command::Heal => self.is_healing = true,
            }
        }
        self.take(&mut turn)
    }

    /// Makes room in the turn for a command on `id`: two on the same endpoint need two turns.
    fn enter(&mut self, turn: &mut Turn, id: &str) -> ControlFlow<()> {
        if turn.ids.contains(id) {
            self.take(turn)?;
        }
        turn.ids.insert(id.to_owned());
        ControlFlow::Continue(())
    }

    fn take(&mut self, turn: &mut Turn) -> ControlFlow<()> {
        let has_detaches = !turn.detaches.is_empty();
        self.commit(std::mem::take(turn));
        if has_detaches {
            self.unpark();
        }
        if self.is_killed() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn info(&self, id: &str, endpoint: &DesiredEndpoint) -> EndpointInfo {
        match endpoint.address {
            Some(address) => EndpointInfo::Attached(Attachment {
                netns_path: self.kernel.netns_path(id),
                address: self.desired.layout.in_subnet(address),
                gateway: self.desired.layout.gateway(),
                address6: endpoint
                    .address6
                    .map(|ip| self.desired.layout.in_subnet(ip.into())),
                gateway6: endpoint
                    .address6
                    .and_then(|_| self.desired.layout.gateway6()),
                mac: Mac::from_ip(address),
                ports: endpoint.ports.clone(),
            }),
            None => EndpointInfo::None {
                netns_path: self.kernel.netns_path(id),
            },
        }
    }

    fn save(&mut self) -> Result<(), Arc<StateError>> {
        let endpoints = self.desired.endpoints.iter().map(|(id, endpoint)| {
            let DesiredEndpoint {
                address,
                address6,
                ports,
            } = endpoint.clone();
            let endpoint = EndpointState {
                address,
                address6,
                ports,
            };
            (id.clone(), endpoint)
        });
        let layout = self.desired.layout;
        let layout = (layout != self.configured).then_some(layout);
        let state = State::new(self.pool.cursor(), layout, endpoints.collect());
        self.dir.save(&state).map_err(Arc::new)
    }

    /// Forgets an endpoint; its link and namespace go with the next reaping, which gives its address back.
    fn forget(&mut self, id: &str) -> Option<DesiredEndpoint> {
        let endpoint = self.desired.endpoints.remove(id)?;
        self.reservations.release(id);
        let has_udp = endpoint
            .ports
            .iter()
            .any(|port| port.protocol == Protocol::Udp);
        let dying = Dying {
            address: endpoint.address,
            address6: endpoint.address6,
            has_udp,
        };
        self.dying.insert(id.to_owned(), dying);
        Some(endpoint)
    }

    #[cfg(test)]
    fn is_killed(&self) -> bool {
        self.kernel.steps_left == Some(0)
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        reason = "only tests kill the owner between two steps"
    )]
    fn is_killed(&self) -> bool {
        false
    }
}
