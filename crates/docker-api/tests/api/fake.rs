//! A cluster and an engine in memory, just real enough for clients to be content.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use skep_docker_api::{
    ApiError, Backends, EventHub,
    backend::*,
    error::{Result, out_of_sequence},
};
use skep_model::{
    object::ServiceRevision,
    stack::{ApplyOptions, StackOutcome, StackSpec},
    *,
};

/// The state behind [`Fake`].
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) status: ClusterStatus,
    pub(crate) revision: u64,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) nodes: BTreeMap<NodeId, Arc<Node>>,
    pub(crate) services: BTreeMap<ServiceId, Arc<Service>>,
    pub(crate) tasks: BTreeMap<TaskId, Arc<Task>>,
    pub(crate) networks: BTreeMap<NetworkId, Arc<Network>>,
    pub(crate) secrets: BTreeMap<SecretId, Arc<Secret>>,
    pub(crate) configs: BTreeMap<ConfigId, Arc<Config>>,
    /// What the node's data plane was told.
    pub(crate) directory: Vec<directory::Entry>,
    pub(crate) rng: Rng,
}

/// All backends in one.
pub(crate) struct Fake(pub(crate) Mutex<State>);

pub(crate) const TIME: Timestamp = Timestamp(1_700_000_000_123_456_789);

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            status: ClusterStatus::default(),
            revision: 1,
            cluster: None,
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
            tasks: BTreeMap::new(),
            networks: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            directory: Vec::new(),
            rng: Rng::from_seed(1),
        })))
    }

    pub(crate) fn backends(self: &Arc<Self>) -> Backends {
        Backends {
            cluster: self.clone(),
            system: self.clone(),
            images: self.clone(),
            containers: self.clone(),
            volumes: self.clone(),
            events: Arc::new(EventHub::default()),
        }
    }

    fn meta(state: &mut State) -> Meta {
        state.revision += 1;
        Meta {
            version: Version(state.revision),
            created_at: TIME,
            updated_at: TIME,
        }
    }

    /// The same address on every network: allocation is not the API's business.
    fn places(state: &State, spec: &ServiceSpec) -> Vec<NetworkAttachment> {
        let targets = spec.task.networks.iter().map(|wanted| &wanted.target);
        let wanted = targets.filter_map(|id| state.networks.get(&id.parse().unwrap()));
        let node_network = state.networks.values().filter(|n| n.spec.is_node_network());
        let place = |network: &Arc<Network>| NetworkAttachment {
            network: network.clone(),
            addresses: vec!["10.0.1.3/24".parse().unwrap()],
            aliases: Vec::new(),
            driver_options: BTreeMap::new(),
        };
        wanted.chain(node_network).map(place).collect()
    }

    /// Makes the tasks that `service` wants, all running at once.
    fn reconcile(state: &mut State, service: &Arc<Service>) {
        let replicas = match service.spec.mode {
            ServiceMode::Replicated { replicas } => replicas,
            _ => 1,
        };
        state
            .tasks
            .retain(|_, task| task.service_id != Some(service.id));
        for slot in 1..=replicas {
            let meta = Self::meta(state);
            let id = TaskId::random(&mut state.rng);
            let is_global = service.spec.mode == ServiceMode::Global;
            let networks = Self::places(state, &service.spec);
            let task = Task {
                id,
                meta,
                spec: service.spec.task.clone(),
                spec_version: Some(service.spec_version),
                service_id: Some(service.id),
                slot: if is_global { 0 } else { slot },
                node_id: state.nodes.keys().next().copied(),
                annotations: Arc::default(),
                service_annotations: service.spec.annotations.clone(),
                status: TaskStatus {
                    timestamp: TIME,
                    state: TaskState::Running,
                    message: "started".to_owned(),
                    container: Some(ContainerStatus {
                        container_id: "c0ffee".repeat(10) + "c0ff",
                        pid: 42,
                        exit_code: 0,
                    }),
                    ..TaskStatus::default()
                },
                desired_state: TaskState::Running,
                endpoint: None,
                log_driver: None,
                networks,
                assigned_generic_resources: Vec::new(),
                job_iteration: None,
            };
            state.tasks.insert(id, Arc::new(task));
        }
    }
}

impl State {
    /// The spec before as 3, the present one as 4.
    fn revisions(&self, id: ServiceId) -> Vec<ServiceRevision> {
        let service = &self.services[&id];
        let kept = [service.previous_spec.as_ref(), Some(&service.spec)];
        let numbered = (3..).zip(kept);
        let revision = |(number, spec): (u64, Option<&Arc<ServiceSpec>>)| {
            let is_current = number == 4;
            Some(ServiceRevision {
                service: id,
                number,
                spec_version: if is_current {
                    service.spec_version
                } else {
                    Version(1)
                },
                created_at: TIME,
                previous: is_current.then_some(3),
                spec: Arc::clone(spec?),
            })
        };
        numbered.filter_map(revision).collect()
    }
}

impl ClusterView for State {
    fn revision(&self) -> Revision {
        Revision {
            services: self.revision,
            tasks: self.revision,
            nodes: self.revision,
        }
    }
    fn cluster(&self) -> Option<Arc<Cluster>> {
        self.cluster.clone()
    }
    fn tls_info(&self) -> NodeTlsInfo {
        NodeTlsInfo {
            trust_root: b"PEM".to_vec(),
            cert_issuer_subject: vec![1, 2, 3],
            cert_issuer_public_key: vec![4, 5],
        }
    }
    fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.nodes.get(&id).cloned()
    }
    fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.values().cloned().collect()
    }
    fn service(&self, id: ServiceId) -> Option<Arc<Service>> {
        self.services.get(&id).cloned()
    }
    fn revisions_of_service(&self, id: ServiceId) -> Vec<ServiceRevision> {
        self.revisions(id)
    }
    fn service_by_name(&self, name: &str) -> Option<Arc<Service>> {
        self.services
            .values()
            .find(|service| service.name().eq_ignore_ascii_case(name))
            .cloned()
    }
    fn services(&self) -> Vec<Arc<Service>> {
        self.services.values().cloned().collect()
    }
    fn network(&self, id: NetworkId) -> Option<Arc<Network>> {
        self.networks.get(&id).cloned()
    }
    fn network_by_name(&self, name: &str) -> Option<Arc<Network>> {
        let mut networks = self.networks.values();
        networks
            .find(|network| network.name().eq_ignore_ascii_case(name))
            .cloned()
    }
    fn secrets(&self) -> Vec<Arc<Secret>> {
        self.secrets.values().cloned().collect()
    }
    fn configs(&self) -> Vec<Arc<Config>> {
        self.configs.values().cloned().collect()
    }
    fn networks(&self) -> Vec<Arc<Network>> {
        self.networks.values().cloned().collect()
    }
    fn task(&self, id: TaskId) -> Option<Arc<Task>> {
        self.tasks.get(&id).cloned()
    }
    fn tasks(&self) -> Vec<Arc<Task>> {
        self.tasks.values().cloned().collect()
    }
    fn tasks_of_service(&self, id: ServiceId) -> Vec<Arc<Task>> {
        self.tasks
            .values()
            .filter(|task| task.service_id == Some(id))
            .cloned()
            .collect()
    }
    fn tasks_on_node(&self, id: NodeId) -> Vec<Arc<Task>> {
        self.tasks
            .values()
            .filter(|task| task.node_id == Some(id))
            .cloned()
            .collect()
    }
}

fn cluster(state: &mut State, spec: ClusterSpec) -> Cluster {
    let mut rng = state.rng.clone();
    let meta = Fake::meta(state);
    Cluster {
        id: ClusterId::random(&mut rng),
        meta,
        spec,
        root_ca: RootCa {
            ca_key: Redacted(b"TOP SECRET KEY".to_vec()),
            ca_cert: b"PEM".to_vec(),
            join_tokens: JoinTokens {
                worker: Redacted("SWMTKN-1-w".to_owned()),
                manager: Redacted("SWMTKN-1-m".to_owned()),
            },
            ..RootCa::default()
        },
        network_bootstrap_keys: Vec::new(),
        encryption_key_lamport_clock: 0,
        blacklisted_certificates: BTreeMap::new(),
        unlock_keys: Vec::new(),
        is_fips: false,
        default_address_pool: vec!["10.0.0.0/8".parse().expect("pool")],
        subnet_size: 24,
        vxlan_udp_port: 0,
    }
}

fn first_node(state: &mut State) -> Node {
    let id = NodeId::random(&mut state.rng);
    let meta = Fake::meta(state);
    Node {
        id,
        meta,
        spec: NodeSpec {
            desired_role: Role::Manager,
            membership: Membership::Accepted,
            ..NodeSpec::default()
        },
        description: Some(NodeDescription {
            hostname: "host1".to_owned(),
            platform: Platform {
                architecture: "x86_64".to_owned(),
                os: "linux".to_owned(),
            },
            resources: Resources {
                nano_cpus: 2_000_000_000,
                memory_bytes: 8 << 30,
                generic: vec![],
            },
            engine: EngineDescription {
                engine_version: "0.1.0".to_owned(),
                labels: BTreeMap::new(),
                plugins: vec![Plugin {
                    kind: "Log".to_owned(),
                    name: "json-file".to_owned(),
                }],
            },
            tls_info: None,
            is_fips: false,
        }),
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr: "192.0.2.1".to_owned(),
        },
        manager_status: Some(ManagerStatus {
            raft_id: 1,
            addr: "192.0.2.1:2377".to_owned(),
            is_leader: true,
            reachability: Reachability::Reachable,
        }),
        certificate: Certificate::default(),
        role: Role::Manager,
        attachments: Vec::new(),
        vxlan_udp_port: 0,
    }
}

#[async_trait]
impl ClusterBackend for Fake {
    fn status(&self) -> ClusterStatus {
        self.0.lock().unwrap().status.clone()
    }

    async fn view(&self) -> Result<Arc<dyn ClusterView>> {
        Ok(Arc::new(self.0.lock().unwrap().clone()))
    }

    async fn init(&self, request: InitRequest) -> Result<NodeId> {
        let state = &mut *self.0.lock().unwrap();
        let node = first_node(state);
        let id = node.id;
        state.cluster = Some(Arc::new(cluster(state, request.spec)));
        state.nodes.insert(id, Arc::new(node));
        state.status = ClusterStatus {
            state: LocalNodeState::Active,
            node_id: Some(id),
            node_addr: "192.0.2.1".to_owned(),
            manager: ManagerState::Active,
            ..ClusterStatus::default()
        };
        Ok(id)
    }

    async fn join(&self, request: JoinRequest) -> Result<()> {
        let state = &mut *self.0.lock().unwrap();
        if request.join_token != "SWMTKN-1-w" {
            return Err(ApiError::invalid("invalid join token"));
        }
        state.status = ClusterStatus {
            state: LocalNodeState::Active,
            node_id: Some(NodeId::random(&mut state.rng)),
            node_addr: request.advertise_addr,
            remote_managers: vec![Peer {
                node_id: NodeId::random(&mut state.rng),
                addr: request.remote_addrs[0].clone(),
            }],
            ..ClusterStatus::default()
        };
        Ok(())
    }

    async fn unlock(&self, key: &str) -> Result<()> {
        if key != "SWMKEY-1-right" {
            return Err(ApiError::new(
                skep_docker_api::ErrorKind::Unauthorized,
                "swarm could not be unlocked: invalid key provided",
            ));
        }
        let state = &mut *self.0.lock().unwrap();
        state.status.state = LocalNodeState::Active;
        state.status.manager = ManagerState::Active;
        Ok(())
    }

    async fn backup(&self) -> Result<ByteStream> {
        Ok(Box::pin(stream::iter([Ok(Bytes::from_static(
            b"the whole cluster",
        ))])))
    }

    async fn restore(&self, request: RestoreRequest) -> Result<NodeId> {
        let pieces: Vec<Bytes> = request.backup.try_collect().await.unwrap();
        if pieces.concat() != b"the whole cluster" {
            return Err(ApiError::invalid("this is no backup of a cluster"));
        }
        Ok(NodeId::random(&mut self.0.lock().unwrap().rng))
    }

    async fn leave(&self, force: bool) -> Result<()> {
        if !force {
            return Err(ApiError::unavailable(
                "You are attempting to leave the swarm",
            ));
        }
        let state = &mut *self.0.lock().unwrap();
        state.status = ClusterStatus::default();
        state.services.clear();
        state.tasks.clear();
        state.nodes.clear();
        Ok(())
    }

    async fn update_cluster(
        &self,
        version: Version,
        spec: ClusterSpec,
        _: RotateFlags,
    ) -> Result<()> {
        let state = &mut *self.0.lock().unwrap();
        let mut cluster = Cluster::clone(state.cluster.as_ref().expect("cluster"));
        if cluster.meta.version != version {
            return Err(out_of_sequence());
        }
        cluster.meta = Self::meta(state);
        cluster.spec = spec;
        state.cluster = Some(Arc::new(cluster));
        Ok(())
    }

    async fn unlock_key(&self) -> Result<String> {
        Ok(String::new())
    }

    async fn create_service(&self, spec: ServiceSpec) -> Result<CreatedService> {
        let state = &mut *self.0.lock().unwrap();
        let name = &spec.annotations.name;
        if state.service_by_name(name).is_some() {
            return Err(ApiError::conflict(format!(
                "rpc error: code = AlreadyExists desc = name conflicts with an existing object: \
                 service {name} already exists"
            )));
        }
        let id = ServiceId::random(&mut state.rng);
        let meta = Self::meta(state);
        let virtual_ip = |wanted: &NetworkAttachmentConfig| VirtualIp {
            network_id: wanted.target.clone(),
            addr: "10.0.1.2/24".to_owned(),
        };
        let endpoint = spec.endpoint.clone().map(|endpoint| Endpoint {
            ports: endpoint.ports.clone(),
            spec: Some(endpoint),
            virtual_ips: spec.task.networks.iter().map(virtual_ip).collect(),
        });
        let service = Arc::new(Service {
            id,
            meta,
            spec: Arc::new(spec),
            spec_version: meta.version,
            previous_spec: None,
            previous_spec_version: None,
            endpoint,
            update_status: None,
            job_status: None,
            is_pending_delete: false,
        });
        state.services.insert(id, service.clone());
        Self::reconcile(state, &service);
        Ok(CreatedService {
            id,
            warnings: Vec::new(),
        })
    }

    async fn update_service(
        &self,
        id: ServiceId,
        version: Version,
        update: ServiceUpdate,
    ) -> Result<Vec<String>> {
        let state = &mut *self.0.lock().unwrap();
        let mut service = Service::clone(&state.services[&id]);
        if service.meta.version != version {
            return Err(out_of_sequence());
        }
        service.meta = Self::meta(state);
        service.spec_version = service.meta.version;
        let old = service.spec.clone();
        service.spec = match update {
            ServiceUpdate::Set(spec) => Arc::new(spec),
            ServiceUpdate::RollBack => service.previous_spec.clone().expect("previous"),
            ServiceUpdate::RollBackTo(number) => {
                let kept = state.revisions(id);
                let found = kept.iter().find(|revision| revision.number == number);
                found.expect("a kept revision").spec.clone()
            }
        };
        service.previous_spec = Some(old);
        service.update_status = Some(UpdateStatus {
            state: UpdateState::Completed,
            started_at: Some(TIME),
            completed_at: Some(TIME),
            message: "update completed".to_owned(),
        });
        let service = Arc::new(service);
        state.services.insert(id, service.clone());
        Self::reconcile(state, &service);
        Ok(Vec::new())
    }

    async fn remove_service(&self, id: ServiceId) -> Result<()> {
        let state = &mut *self.0.lock().unwrap();
        state.revision += 1;
        state.services.remove(&id);
        state.tasks.retain(|_, task| task.service_id != Some(id));
        Ok(())
    }

    /// Gives every network the same subnet: allocation is not the API's business.
    async fn create_secret(&self, spec: SecretSpec) -> Result<SecretId> {
        let state = &mut *self.0.lock().unwrap();
        let secret = Secret {
            id: SecretId::random(&mut state.rng),
            meta: Self::meta(state),
            spec,
            is_internal: false,
        };
        let id = secret.id;
        state.secrets.insert(id, Arc::new(secret));
        Ok(id)
    }

    async fn update_secret(&self, id: SecretId, version: Version, spec: SecretSpec) -> Result<()> {
        let state = &mut *self.0.lock().unwrap();
        let mut secret = Secret::clone(&state.secrets[&id]);
        if secret.meta.version != version {
            return Err(out_of_sequence());
        }
        secret.spec.annotations.labels = spec.annotations.labels;
        secret.meta = Self::meta(state);
        state.secrets.insert(id, Arc::new(secret));
        Ok(())
    }

    async fn remove_secret(&self, id: SecretId) -> Result<()> {
        self.0.lock().unwrap().secrets.remove(&id);
        Ok(())
    }

    async fn create_config(&self, spec: ConfigSpec) -> Result<ConfigId> {
        let state = &mut *self.0.lock().unwrap();
        let config = Config {
            id: ConfigId::random(&mut state.rng),
            meta: Self::meta(state),
            spec,
        };
        let id = config.id;
        state.configs.insert(id, Arc::new(config));
        Ok(id)
    }

    async fn update_config(&self, id: ConfigId, version: Version, spec: ConfigSpec) -> Result<()> {
        let state = &mut *self.0.lock().unwrap();
        let mut config = Config::clone(&state.configs[&id]);
        if config.meta.version != version {
            return Err(out_of_sequence());
        }
        config.spec.annotations.labels = spec.annotations.labels;
        config.meta = Self::meta(state);
        state.configs.insert(id, Arc::new(config));
        Ok(())
    }

    async fn remove_config(&self, id: ConfigId) -> Result<()> {
        self.0.lock().unwrap().configs.remove(&id);
        Ok(())
    }

    async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkId> {
        let state = &mut *self.0.lock().unwrap();
        let id = NetworkId::random(&mut state.rng);
        let meta = Self::meta(state);
        let config = IpamConfig {
            family: AddressFamily::V4,
            subnet: Some("10.0.1.0/24".parse().unwrap()),
            gateway: Some("10.0.1.1".parse().unwrap()),
            ..IpamConfig::default()
        };
        let driver = |name: &str| Driver {
            name: name.to_owned(),
            ..Driver::default()
        };
        let mut driver_state = driver(spec.driver_name());
        let vxlan_ids = (VXLAN_IDS_OPTION.to_owned(), "4097".to_owned());
        driver_state.options.extend([vxlan_ids]);
        let network = Network {
            id,
            meta,
            spec,
            driver_state: Some(driver_state),
            ipam: Some(IpamOptions {
                driver: Some(driver("default")),
                configs: vec![config],
            }),
            is_pending_delete: false,
        };
        state.networks.insert(id, Arc::new(network));
        Ok(id)
    }

    async fn remove_network(&self, id: NetworkId) -> Result<()> {
        let state = &mut *self.0.lock().unwrap();
        let uses = |service: &Service| {
            let mut networks = service.spec.task.networks.iter();
            networks.any(|network| network.target == id.as_str())
        };
        if let Some(service) = state.services.values().find(|service| uses(service)) {
            return Err(ApiError::invalid(format!(
                "rpc error: code = FailedPrecondition desc = network {id} is in use by service {}",
                service.id
            )));
        }
        state.networks.remove(&id);
        Ok(())
    }

    async fn apply_stack(&self, _: StackSpec, _: ApplyOptions) -> Result<StackOutcome> {
        Err(ApiError::not_implemented("no stacks here"))
    }

    async fn roll_back_stack(&self, _: &str, _: Option<u64>) -> Result<StackOutcome> {
        Err(ApiError::not_implemented("no stacks here"))
    }

    async fn remove_stack(&self, _: &str) -> Result<StackOutcome> {
        Err(ApiError::not_implemented("no stacks here"))
    }

    async fn update_node(&self, id: NodeId, version: Version, spec: NodeSpec) -> Result<()> {
        let state = &mut *self.0.lock().unwrap();
        let mut node = Node::clone(&state.nodes[&id]);
        if node.meta.version != version {
            return Err(out_of_sequence());
        }
        node.meta = Self::meta(state);
        node.spec = spec;
        state.nodes.insert(id, Arc::new(node));
        Ok(())
    }

    async fn remove_node(&self, _: NodeId, _: bool) -> Result<()> {
        Err(ApiError::invalid("node is not down and can't be removed"))
    }

    async fn logs(
        &self,
        selector: LogSelector,
        _: LogOptions,
    ) -> Result<BoxStream<Result<Vec<LogMessage>>>> {
        let state = self.0.lock().unwrap();
        let tasks = state.tasks.values().filter(|task| {
            selector.tasks.contains(&task.id)
                || task
                    .service_id
                    .is_some_and(|id| selector.services.contains(&id))
        });
        let lines: Vec<_> = tasks
            .map(|task| LogMessage {
                source: LogSource::Stdout,
                time: TIME,
                data: Bytes::from(format!("hello from slot {}\n", task.slot)),
                attributes: Vec::new(),
                origin: Some(LogOrigin {
                    node: task.node_id.expect("placed"),
                    service: task.service_id.expect("of a service"),
                    task: task.id,
                }),
            })
            .collect();
        Ok(Box::pin(stream::iter([Ok(lines)])))
    }
}
