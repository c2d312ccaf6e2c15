//! What the tests are built from: nodes with certificates, managers that run, workers that only call.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use skep_ca::{JoinToken, KeyRequest, PublicKey, RootCa, Subject};
use skep_manager::{
    Config, Ended, Handle, Manager, Published, Start,
    bootstrap::NewCluster,
    command::{Answer, Command, CommandError},
    core,
    vault::SystemVault,
};
use skep_model::{
    Annotations, Availability, ClusterId, ClusterSpec, ContainerSpec, NodeId, Redacted, Rng, Role,
    ServiceMode, ServiceSpec, TaskSpec, Timestamp, dispatch::WeightedPeer,
};
use skep_raft::MemoryDisk;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Client, Cluster, Credentials, Remotes, Security, Server, carry, connection::Connection, join,
    security::now,
};

/// Longest wait for anything; the machine may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A node whose server listens, with or without a manager.
pub(super) struct Node {
    pub(super) security: Arc<Security>,
    pub(super) addr: SocketAddr,
    pub(super) server: Arc<Server>,
    manager: watch::Sender<Option<Handle>>,
    stop_server: CancellationToken,
    serving: JoinHandle<()>,
    running: Option<Running>,
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<Ended>,
    carrying: JoinHandle<()>,
}

/// What the first node made.
pub(super) struct Founder {
    pub(super) node: Node,
    pub(super) root: RootCa,
    pub(super) worker_token: JoinToken,
    pub(super) manager_token: JoinToken,
    pub(super) cluster_id: ClusterId,
}

pub(super) fn rng() -> Rng {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Rng::from_seed(u64::from(std::process::id()) << 32 | number)
}

/// Credentials a root gives.
pub(super) fn credentials(root: &RootCa, subject: &Subject, at: Timestamp) -> Credentials {
    let request = KeyRequest::generate().unwrap();
    let key = PublicKey::from_csr_pem(request.csr_pem.as_bytes()).unwrap();
    let lifetime = Duration::from_hours(24);
    Credentials {
        chain_pem: root.issue(&key, subject, at, lifetime).unwrap(),
        key_pem: request.key_pem,
        roots_pem: root.certificates_pem().to_owned(),
    }
}

// === impl Founder ===

impl Founder {
    /// A cluster of one manager that leads.
    pub(super) async fn start() -> Self {
        Self::start_with(ClusterSpec::default()).await
    }

    pub(super) async fn start_with(spec: ClusterSpec) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let mut rng = rng();
        let root = RootCa::generate(now()).unwrap();
        let cluster_id = ClusterId::random(&mut rng);
        let subject = Subject {
            node_id: NodeId::random(&mut rng),
            role: Role::Manager,
            cluster_id,
        };
        let credentials = credentials(&root, &subject, now());
        let bundle = root.certificates_pem().as_bytes();
        let worker_token = JoinToken::generate(bundle);
        let manager_token = JoinToken::generate(bundle);
        let text = |token: &JoinToken| Redacted(token.as_str().to_owned());
        let new = NewCluster {
            cluster_id,
            node_id: subject.node_id,
            spec,
            root_ca: skep_model::RootCa {
                ca_key: Redacted(root.key_pem().as_bytes().to_vec()),
                ca_cert: bundle.to_vec(),
                ca_cert_hash: root.hash(),
                join_tokens: skep_model::JoinTokens {
                    worker: text(&worker_token),
                    manager: text(&manager_token),
                },
                ..skep_model::RootCa::default()
            },
            certificate: credentials.chain_pem.as_bytes().to_vec(),
            availability: Availability::Active,
            data_path_port: 0,
            default_address_pool: Vec::new(),
            subnet_size: 0,
            node_pool: None,
        };
        let mut node = Node::listen(Security::new(credentials).unwrap()).await;
        node.run(1, Start::New(new.into()));
        let this = Self {
            node,
            root,
            worker_token,
            manager_token,
            cluster_id,
        };
        this.node
            .until("it leads", |view| {
                view.is_leader && view.store.cluster().is_some() && view.store.node_count() == 1
            })
            .await;
        this
    }

    pub(super) fn addr(&self) -> String {
        self.node.addr.to_string()
    }

    /// Credentials of a node that joined with `token` through the manager at `addr`.
    pub(super) async fn join_through(&self, addr: &str, token: &JoinToken) -> Arc<Security> {
        let roots_pem = join::fetch_root(addr, token).await.unwrap();
        let request = KeyRequest::generate().unwrap();
        let availability = Availability::Active;
        let csr = &request.csr_pem;
        let issued = join::request_certificate(addr, &roots_pem, csr, token, availability).await;
        let issued = issued.unwrap();
        let security = Security::new(Credentials {
            chain_pem: issued.chain_pem,
            key_pem: request.key_pem,
            roots_pem,
        });
        let security = security.unwrap();
        assert_eq!(security.node_id(), issued.node_id);
        security
    }

    /// A worker.
    pub(super) async fn worker(&self) -> Arc<Security> {
        self.join_through(&self.addr(), &self.worker_token).await
    }

    /// Another manager that runs, joined through the node at `addr`.
    pub(super) async fn manager_through(&self, addr: &str) -> Node {
        let security = self.join_through(addr, &self.manager_token).await;
        let mut node = Node::listen(security).await;
        let client = node.client_of(addr);
        let joined = client.join_group(&node.addr.to_string()).await.unwrap();
        let members = joined.members;
        node.run(joined.raft_id, Start::Joined { members });
        node
    }

    pub(super) async fn manager(&self) -> Node {
        self.manager_through(&self.addr()).await
    }
}

// === impl Node ===

impl Node {
    /// Listens; no manager yet.
    pub(super) async fn listen(security: Arc<Security>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let manager = watch::Sender::new(None);
        let server = Arc::new(Server::new(Arc::clone(&security), manager.subscribe()));
        let stop_server = CancellationToken::new();
        let serving = Arc::clone(&server).serve(listener, stop_server.clone());
        Self {
            security,
            addr,
            server,
            manager,
            stop_server,
            serving: tokio::spawn(serving),
            running: None,
        }
    }

    pub(super) fn run(&mut self, raft_id: u64, start: Start) {
        let config = Config {
            core: core::Config {
                node_id: self.security.node_id(),
                seed: rng().next_u64(),
                request_prefix: u16::try_from(rng().below(60_000)).unwrap() + 1,
                bootstrap: None,
                reconcile: core::reconcile,
            },
            raft_id,
            addr: self.addr.to_string(),
            start,
            is_compat: false,
        };
        let disk = Box::new(MemoryDisk::new());
        let opened = Manager::open(config, disk, Box::new(SystemVault));
        let (manager, handle, outbox) = opened.unwrap();
        let (stop, stopped) = watch::channel(false);
        let security = Arc::clone(&self.security);
        let carrying = carry(outbox, handle.clone(), security, CancellationToken::new());
        self.running = Some(Running {
            stop,
            task: tokio::spawn(manager.run(stopped)),
            carrying: tokio::spawn(carrying),
        });
        self.manager.send_replace(Some(handle));
    }

    pub(super) fn handle(&self) -> Handle {
        self.manager.borrow().clone().unwrap()
    }

    pub(super) fn cluster(&self) -> Cluster {
        Cluster::new(self.handle(), Arc::clone(&self.security))
    }

    pub(super) fn client_of(&self, addr: &str) -> Client {
        client(&self.security, addr)
    }

    pub(super) async fn until(&self, what: &str, is_met: impl Fn(&Published) -> bool) {
        let handle = self.handle();
        let poll = async {
            while !is_met(&handle.view()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let met = timeout(PATIENCE, poll).await;
        met.unwrap_or_else(|_| panic!("not seen: {what}"));
    }

    /// Dies as a process does: nothing is said, sockets close.
    pub(super) fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
            running.carrying.abort();
        }
        self.serving.abort();
        self.stop_server.cancel();
    }

    /// How the manager ended by itself.
    pub(super) async fn ended(&mut self) -> Ended {
        let running = self.running.take().unwrap();
        let ended = timeout(PATIENCE, running.task).await;
        running.carrying.abort();
        drop(running.stop);
        ended.unwrap().unwrap()
    }
}

pub(super) fn client(security: &Arc<Security>, addr: &str) -> Client {
    let peer = WeightedPeer {
        node_id: NodeId::random(&mut rng()),
        addr: addr.to_owned(),
        weight: 10,
    };
    Client::new(Arc::clone(security), Remotes::new(vec![peer]))
}

/// A connection that shows the certificate of `security`.
pub(super) async fn connect(security: &Security, addr: &str) -> Connection {
    let identity = security.current();
    Connection::dial(identity.target(addr).unwrap())
        .await
        .unwrap()
}

pub(super) fn service(name: &str) -> ServiceSpec {
    let container = ContainerSpec {
        image: "img".to_owned(),
        ..ContainerSpec::default()
    };
    ServiceSpec {
        annotations: Arc::new(Annotations {
            name: name.to_owned(),
            ..Annotations::default()
        }),
        task: Arc::new(TaskSpec {
            container,
            ..TaskSpec::default()
        }),
        mode: ServiceMode::Replicated { replicas: 0 },
        ..ServiceSpec::default()
    }
}

pub(super) async fn create(cluster: &Cluster, name: &str) -> Result<Answer, CommandError> {
    let spec = Box::new(service(name));
    cluster.command(Command::CreateService { spec }).await
}
