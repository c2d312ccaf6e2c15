//! The engine half of [`Fake`]: one image, one container, one volume.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use skep_docker_api::{ApiError, ErrorKind, backend::*, error::Result};
use skep_model::{Driver, Protocol, Redacted};

use crate::fake::{Fake, TIME};

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

    async fn directory(&self) -> Result<Vec<skep_model::directory::Entry>> {
        Ok(self.0.lock().unwrap().directory.clone())
    }
}

pub(crate) fn image() -> ImageDetail {
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

pub(crate) fn container() -> ContainerDetail {
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
    async fn logs(&self, id: &str, _: LogOptions) -> Result<BoxStream<Result<Vec<LogMessage>>>> {
        self.container(id, false).await?;
        let line = |source, data: &'static str| LogMessage {
            source,
            time: TIME,
            data: Bytes::from_static(data.as_bytes()),
            attributes: Vec::new(),
            origin: None,
        };
        let lines = vec![
            line(LogSource::Stdout, "out\n"),
            line(LogSource::Stderr, "err\n"),
        ];
        Ok(Box::pin(stream::iter([Ok(lines)])))
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
    async fn volumes(&self) -> Result<VolumeListing> {
        Ok(VolumeListing {
            volumes: vec![self.volume("data").await?],
            warnings: Vec::new(),
        })
    }
    async fn size_bytes(&self, _: &str) -> Result<Option<i64>> {
        Ok(None)
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
