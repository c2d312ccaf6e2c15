//! A cluster and an engine in memory, just real enough for clients to be content.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use skep_docker_api::{
    ApiError, Backends, ErrorKind, EventHub,
    backend::*,
    error::{Result, out_of_sequence},
};
use skep_model::*;

/// The state behind [`Fake`].
#[derive(Clone)]
pub struct State {
    pub status: ClusterStatus,
    pub revision: u64,
    pub cluster: Option<Arc<Cluster>>,
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    pub services: BTreeMap<ServiceId, Arc<Service>>,
    pub tasks: BTreeMap<TaskId, Arc<Task>>,
    pub rng: Rng,
}

/// All backends in one.
pub struct Fake(pub Mutex<State>);

pub const TIME: Timestamp = Timestamp(1_700_000_000_123_456_789);

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            status: ClusterStatus::default(),
            revision: 1,
            cluster: None,
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
            tasks: BTreeMap::new(),
            rng: Rng::from_seed(1),
        })))
    }

    pub fn backends(self: &Arc<Self>) -> Backends {
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
                assigned_generic_resources: Vec::new(),
                job_iteration: None,
            };
            state.tasks.insert(id, Arc::new(task));
        }
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
    fn service_by_name(&self, name: &str) -> Option<Arc<Service>> {
        self.services
            .values()
            .find(|service| service.name().eq_ignore_ascii_case(name))
            .cloned()
    }
    fn services(&self) -> Vec<Arc<Service>> {
        self.services.values().cloned().collect()
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
            is_manager: true,
            ..ClusterStatus::default()
        };
        Ok(id)
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
        let service = Arc::new(Service {
            id,
            meta,
            spec: Arc::new(spec),
            spec_version: meta.version,
            previous_spec: None,
            previous_spec_version: None,
            endpoint: None,
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
    ) -> Result<BoxStream<Result<LogMessage>>> {
        let state = self.0.lock().unwrap();
        let tasks = state.tasks.values().filter(|task| {
            selector.tasks.contains(&task.id)
                || task
                    .service_id
                    .is_some_and(|id| selector.services.contains(&id))
        });
        let lines: Vec<_> = tasks
            .map(|task| {
                Ok(LogMessage {
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
            })
            .collect();
        Ok(Box::pin(stream::iter(lines)))
    }
}

#[async_trait]
impl SystemBackend for Fake {
    fn facts(&self) -> EngineFacts {
        EngineFacts {
            id: "fake".to_owned(),
            version: "0.1.0".to_owned(),
            architecture: "x86_64".to_owned(),
            kernel_version: "6.1".to_owned(),
            operating_system: "Debian".to_owned(),
            name: "host1".to_owned(),
            cpu_count: 2,
            memory_bytes: 8 << 30,
            storage_driver: "overlay2".to_owned(),
            log_driver: "json-file".to_owned(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: 2,
            default_runtime: "crun".to_owned(),
            runtimes: BTreeMap::from([(
                "crun".to_owned(),
                RuntimeFacts {
                    path: "/usr/bin/crun".to_owned(),
                    version: "1.8.1".to_owned(),
                },
            )]),
            has_memory_limit: true,
            has_swap_limit: true,
            has_cpu_quota: true,
            has_cpu_set: true,
            has_pids_limit: true,
            has_ipv4_forwarding: true,
            ..EngineFacts::default()
        }
    }

    async fn totals(&self) -> Result<EngineTotals> {
        Ok(EngineTotals {
            running: 1,
            paused: 0,
            stopped: 1,
            images: 1,
        })
    }

    async fn networks(&self) -> Result<Vec<NetworkDetail>> {
        let network = |name: &str, driver: &str| NetworkDetail {
            id: name.repeat(64).chars().take(64).collect(),
            name: name.to_owned(),
            driver: driver.to_owned(),
            scope: "local".to_owned(),
            ..NetworkDetail::default()
        };
        Ok(vec![
            network("bridge", "bridge"),
            network("host", "host"),
            network("none", "null"),
        ])
    }
}

pub fn image() -> ImageDetail {
    ImageDetail {
        summary: ImageSummary {
            id: format!("sha256:{}", "ab".repeat(32)),
            repo_tags: vec!["busybox:latest".to_owned()],
            repo_digests: vec![format!("busybox@sha256:{}", "cd".repeat(32))],
            created_at: TIME,
            size_bytes: 4_000_000,
            ..ImageSummary::default()
        },
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        config: ImageConfig {
            cmd: vec!["sh".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            exposed_ports: vec![(80, Protocol::Tcp)],
            ..ImageConfig::default()
        },
        layers: vec![format!("sha256:{}", "ef".repeat(32))],
        storage_driver: "overlay2".to_owned(),
        ..ImageDetail::default()
    }
}

fn messages(messages: Vec<Progress>) -> ProgressStream {
    Box::pin(stream::iter(messages.into_iter().map(Ok)))
}

fn status(id: &str, status: &str) -> Progress {
    Progress {
        id: id.to_owned(),
        status: status.to_owned(),
        ..Progress::default()
    }
}

fn no_such_image(reference: &str) -> ApiError {
    ApiError::not_found(format!("No such image: {reference}"))
}

#[async_trait]
impl ImageBackend for Fake {
    async fn images(&self) -> Result<Vec<ImageSummary>> {
        Ok(vec![image().summary])
    }
    async fn image(&self, reference: &str) -> Result<ImageDetail> {
        match reference {
            "busybox" | "busybox:latest" | "registry:5000/a/busybox" => Ok(image()),
            other => Err(no_such_image(other)),
        }
    }
    async fn history(&self, _: &str) -> Result<Vec<HistoryEntry>> {
        Ok(vec![HistoryEntry {
            id: "<missing>".to_owned(),
            created_at: TIME,
            created_by: "CMD sh".to_owned(),
            ..HistoryEntry::default()
        }])
    }
    async fn pull(&self, request: PullRequest) -> Result<ProgressStream> {
        if request.reference.contains("private") && request.auth.is_none() {
            let error = Err(ApiError::new(
                ErrorKind::Unauthorized,
                "no basic auth credentials",
            ));
            return Ok(Box::pin(stream::iter([error])));
        }
        let detail = Some(ProgressDetail {
            current: 50,
            total: 100,
        });
        Ok(messages(vec![
            status("latest", "Pulling from library/busybox"),
            Progress {
                detail,
                ..status("a1b2c3d4e5f6", "Downloading")
            },
            status("a1b2c3d4e5f6", "Pull complete"),
            status("", "Digest: sha256:cdcd"),
            status(
                "",
                &format!("Status: Downloaded newer image for {}", request.reference),
            ),
        ]))
    }
    async fn load(&self, mut archive: ByteStream, _: LoadRequest) -> Result<ProgressStream> {
        let mut count = 0;
        while let Some(piece) = archive.next().await {
            count += piece
                .map_err(|error| ApiError::system("failed to read", error))?
                .len();
        }
        let stream = format!("Loaded image: busybox:latest ({count} bytes)\n");
        Ok(messages(vec![Progress {
            stream,
            ..Progress::default()
        }]))
    }
    async fn import(&self, mut archive: ByteStream, _: ImportRequest) -> Result<ProgressStream> {
        while archive.next().await.is_some() {}
        Ok(messages(vec![status("", &image().summary.id)]))
    }
    async fn save(&self, _: Vec<String>) -> Result<ByteStream> {
        Ok(Box::pin(stream::iter([Ok(Bytes::from_static(b"tar"))])))
    }
    async fn tag(&self, reference: &str, _: &str) -> Result<()> {
        ImageBackend::image(self, reference).await.map(drop)
    }
    async fn remove(&self, reference: &str, _: bool) -> Result<Vec<RemovedImage>> {
        ImageBackend::image(self, reference).await?;
        Ok(vec![
            RemovedImage::Untagged("busybox:latest".to_owned()),
            RemovedImage::Deleted(image().summary.id),
        ])
    }
    async fn prune(&self, _: ImagePruneRequest) -> Result<(Vec<RemovedImage>, u64)> {
        Ok((vec![RemovedImage::Deleted("sha256:00".to_owned())], 123))
    }
    async fn layers_bytes(&self) -> Result<u64> {
        Ok(4_000_000)
    }
    async fn distribution(&self, _: &str, _: Option<RegistryAuth>) -> Result<DistributionInfo> {
        Err(ApiError::new(ErrorKind::Forbidden, "no registry here"))
    }
    async fn login(&self, auth: RegistryAuth) -> Result<LoginOutcome> {
        if auth.password.0 != "secret" {
            return Err(ApiError::new(
                ErrorKind::Unauthorized,
                "incorrect username or password",
            ));
        }
        let status = "Login Succeeded".to_owned();
        Ok(LoginOutcome {
            status,
            identity_token: Redacted::default(),
        })
    }
}

pub fn container() -> ContainerDetail {
    let local = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    ContainerDetail {
        summary: ContainerSummary {
            id: "c0ffee".repeat(10) + "c0ff",
            name: "web.1.abc".to_owned(),
            image: "busybox:latest".to_owned(),
            image_id: image().summary.id,
            command: vec!["sleep".to_owned(), "1000".to_owned()],
            created_at: TIME,
            labels: BTreeMap::from([("com.docker.swarm.task.id".to_owned(), "abc".to_owned())]),
            state: ContainerRuntimeState {
                state: ContainerState::Running,
                pid: 42,
                started_at: TIME,
                ..ContainerRuntimeState::default()
            },
            ports: vec![PortBinding {
                container_port: 80,
                protocol: Protocol::Tcp,
                host: Some((local, 8080)),
            }],
            ..ContainerSummary::default()
        },
        storage_driver: "overlay2".to_owned(),
        log_driver: Driver {
            name: "json-file".to_owned(),
            options: BTreeMap::new(),
        },
        runtime: "crun".to_owned(),
        hostname: "c0ffeec0ffee".to_owned(),
        env: vec!["PATH=/bin".to_owned()],
        cmd: vec!["sleep".to_owned(), "1000".to_owned()],
        stop_signal: "SIGTERM".to_owned(),
        ..ContainerDetail::default()
    }
}

fn echo(has_tty: bool) -> AttachedIo {
    let (near, far) = tokio::io::duplex(1024);
    let (reader, writer) = tokio::io::split(near);
    let (far_reader, mut far_writer) = tokio::io::split(far);
    // What comes in goes out again: `cat`.
    tokio::spawn(async move {
        let mut far_reader = far_reader;
        let _ = tokio::io::copy(&mut far_reader, &mut far_writer).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut far_writer).await;
    });
    let output = tokio_util::io::ReaderStream::new(reader).map(|piece| {
        piece.map(|data| OutputChunk {
            source: LogSource::Stdout,
            data,
        })
    });
    AttachedIo {
        has_tty,
        output: Box::pin(output),
        input: Some(Box::pin(writer)),
    }
}

#[async_trait]
impl ContainerBackend for Fake {
    async fn containers(&self, _: bool) -> Result<Vec<ContainerSummary>> {
        let mut exited = container().summary;
        exited.id = "dead".repeat(16);
        exited.name = "old".to_owned();
        exited.state.state = ContainerState::Exited;
        exited.state.exit_code = 3;
        Ok(vec![container().summary, exited])
    }
    async fn container(&self, id: &str, _: bool) -> Result<ContainerDetail> {
        let container = container();
        if container.summary.id.starts_with(id) || container.summary.name == id {
            return Ok(container);
        }
        Err(ApiError::not_found(format!("No such container: {id}")))
    }
    async fn logs(&self, id: &str, _: LogOptions) -> Result<BoxStream<Result<LogMessage>>> {
        self.container(id, false).await?;
        let line = |source, data: &'static str| {
            Ok(LogMessage {
                source,
                time: TIME,
                data: Bytes::from_static(data.as_bytes()),
                attributes: Vec::new(),
                origin: None,
            })
        };
        let lines = [
            line(LogSource::Stdout, "out\n"),
            line(LogSource::Stderr, "err\n"),
        ];
        Ok(Box::pin(stream::iter(lines)))
    }
    async fn top(&self, _: &str, _: &str) -> Result<ProcessTable> {
        Ok(ProcessTable {
            titles: vec!["PID".to_owned(), "CMD".to_owned()],
            processes: vec![vec!["42".to_owned(), "sleep 1000".to_owned()]],
        })
    }
    async fn stats(&self, _: &str, _: StatsMode) -> Result<BoxStream<StatsSample>> {
        let sample = |second: u64| StatsSample {
            id: container().summary.id,
            name: "web.1.abc".to_owned(),
            time: TIME + Duration::from_secs(second),
            cpu: CpuSample {
                total_ns: second * 500_000_000,
                system_ns: second * 2_000_000_000,
                online_cpus: 2,
                ..CpuSample::default()
            },
            memory: MemorySample {
                usage_bytes: 1 << 20,
                limit_bytes: 8 << 30,
                ..MemorySample::default()
            },
            pids_current: 1,
            ..StatsSample::default()
        };
        Ok(Box::pin(stream::iter([sample(1), sample(2)])))
    }
    async fn attach(&self, _: &str, _: AttachOptions) -> Result<AttachedIo> {
        Ok(echo(false))
    }
    async fn resize(&self, _: &str, _: ConsoleSize) -> Result<()> {
        Ok(())
    }
    async fn stop(&self, id: &str, _: Option<&str>, _: Option<Option<Duration>>) -> Result<()> {
        self.container(id, false).await.map(drop)
    }
    async fn kill(&self, id: &str, _: &str) -> Result<()> {
        self.container(id, false).await.map(drop)
    }
    async fn remove(&self, id: &str, options: RemoveContainerOptions) -> Result<()> {
        self.container(id, false).await?;
        match options.force {
            true => Ok(()),
            false => Err(ApiError::conflict(
                "cannot remove container \"/web.1.abc\": container is running: stop the container \
                 before removing or force remove",
            )),
        }
    }
    async fn wait(
        &self,
        _: &str,
        _: WaitCondition,
    ) -> Result<Pin<Box<dyn Future<Output = Result<WaitOutcome>> + Send>>> {
        Ok(Box::pin(async {
            Ok(WaitOutcome {
                exit_code: 7,
                error: None,
            })
        }))
    }
    async fn prunable(&self) -> Result<Vec<ContainerSummary>> {
        Ok(Vec::new())
    }
    async fn exec_create(&self, id: &str, config: ExecConfig) -> Result<String> {
        self.container(id, false).await?;
        Ok(if config.has_tty {
            "exec-tty"
        } else {
            "exec-raw"
        }
        .to_owned())
    }
    async fn exec_start(&self, exec_id: &str, _: ExecStart) -> Result<AttachedIo> {
        Ok(echo(exec_id == "exec-tty"))
    }
    async fn exec_resize(&self, _: &str, _: ConsoleSize) -> Result<()> {
        Ok(())
    }
    async fn exec(&self, exec_id: &str) -> Result<ExecDetail> {
        Ok(ExecDetail {
            id: exec_id.to_owned(),
            exit_code: Some(5),
            ..ExecDetail::default()
        })
    }
}

#[async_trait]
impl VolumeBackend for Fake {
    async fn volumes(&self) -> Result<Vec<VolumeDetail>> {
        Ok(vec![self.volume("data").await?])
    }
    async fn volume(&self, name: &str) -> Result<VolumeDetail> {
        if name != "data" {
            return Err(ApiError::not_found(format!("get {name}: no such volume")));
        }
        Ok(VolumeDetail {
            name: name.to_owned(),
            driver: "local".to_owned(),
            mountpoint: "/var/lib/skep/volumes/data/_data".to_owned(),
            created_at: TIME,
            ..VolumeDetail::default()
        })
    }
    async fn create(&self, request: CreateVolumeRequest) -> Result<VolumeDetail> {
        let volume = self.volume("data").await?;
        Ok(VolumeDetail {
            name: request.name,
            labels: request.labels,
            ..volume
        })
    }
    async fn remove(&self, name: &str, _: bool) -> Result<()> {
        self.volume(name).await.map(drop)
    }
}
