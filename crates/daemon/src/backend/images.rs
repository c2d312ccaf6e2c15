//! The image side of the Engine API, over the engine's image store.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    pin::pin,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use skep_docker_api::{
    backend::{
        ByteStream, DistributionInfo, HistoryEntry, ImageBackend, ImageConfig, ImageDetail,
        ImagePlatform, ImagePruneRequest, ImageSummary, ImportRequest, LoadRequest, LoginOutcome,
        Progress, ProgressDetail, ProgressStream, PullRequest, RegistryAuth, RemovedImage,
    },
    error::{ApiError, ErrorKind, Result},
};
use skep_executor::{
    engine::Engine,
    image::{self, Filters, ImageDetails, ImageStore, ImportOptions, Platform, Reference},
};
use skep_model::{Protocol, Timestamp};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

/// Messages of a long operation that may wait for the client.
const PROGRESS_QUEUE: usize = 64;
/// Bytes read and dropped behind the end of an archive. Some writers pad to 10 KiB, others to much more.
const READ_OUT_BYTES_MAX: u64 = 64 << 20;
/// Bytes between the writer of an archive and the client.
const PIPE_BYTES: usize = 256 << 10;

/// See the module's documentation.
pub(crate) struct Images {
    pub(crate) engine: Arc<Engine>,
}

impl Images {
    fn store(&self) -> ImageStore {
        self.engine.images().clone()
    }

    /// Runs what blocks on the disk off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(ImageStore) -> image::Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.store();
        match tokio::task::spawn_blocking(move || work(store)).await {
            Ok(result) => result.map_err(from_image),
            Err(error) => Err(ApiError::system("image operation was interrupted", error)),
        }
    }
}

#[async_trait]
impl ImageBackend for Images {
    async fn images(&self) -> Result<Vec<ImageSummary>> {
        let list = self
            .blocking(|store| store.list(&Filters::default()))
            .await?;
        Ok(list.into_iter().map(summary).collect())
    }

    async fn image(&self, reference: &str) -> Result<ImageDetail> {
        let reference = reference.to_owned();
        let details = self
            .blocking(move |store| store.inspect(&reference))
            .await?;
        let id = details.id.to_string();
        let mut detail = detail(details);
        detail.summary.container_count = self.engine.container_count_of_image(&id);
        Ok(detail)
    }

    async fn history(&self, reference: &str) -> Result<Vec<HistoryEntry>> {
        let reference = reference.to_owned();
        let entries = self
            .blocking(move |store| store.history(&reference))
            .await?;
        Ok(entries.into_iter().map(history_entry).collect())
    }

    async fn pull(&self, request: PullRequest) -> Result<ProgressStream> {
        if request.all_tags {
            return Err(ApiError::not_implemented(
                "pulling all tags is not supported",
            ));
        }
        let reference = parse(&request.reference)?;
        let platform = parse_platform(&request.platform)?;
        let auth = request.auth.as_ref().map(auth);
        let (progress, messages) = mpsc::channel(PROGRESS_QUEUE);
        let (events_tx, mut events) = mpsc::channel::<image::PullEvent>(PROGRESS_QUEUE);
        let store = self.store();
        let engine = Arc::clone(&self.engine);
        // The client's stream ends when this task does; a client that goes away ends the pull.
        tokio::spawn(async move {
            let mut work =
                pin!(store.pull(&reference, platform.as_ref(), auth.as_ref(), events_tx));
            let outcome = loop {
                tokio::select! {
                    Some(event) = events.recv() => {
                        let _ = progress.send(Ok(pull_progress(event))).await;
                    }
                    outcome = &mut work => break outcome,
                    () = progress.closed() => return,
                }
            };
            while let Ok(event) = events.try_recv() {
                let _ = progress.send(Ok(pull_progress(event))).await;
            }
            match outcome {
                Ok(_) => engine.note_image("pull", &reference.familiar()),
                Err(error) => {
                    let _ = progress.send(Err(from_image(error))).await;
                }
            }
        });
        Ok(Box::pin(ReceiverStream::new(messages)))
    }

    async fn load(&self, archive: ByteStream, _request: LoadRequest) -> Result<ProgressStream> {
        let source = reader(archive);
        let work = move |store: ImageStore| {
            let mut source = source;
            let loaded = store.load(&mut source);
            read_out(source);
            loaded
        };
        let loaded = self.blocking(work).await?;
        for line in &loaded.images {
            self.engine.note_image("load", &line.id.to_string());
        }
        let lines = loaded.lines.into_iter().map(|line| {
            Ok(Progress {
                stream: format!("{}\n", line.trim_end()),
                ..Progress::default()
            })
        });
        Ok(Box::pin(stream::iter(lines.collect::<Vec<_>>())))
    }

    async fn import(&self, archive: ByteStream, request: ImportRequest) -> Result<ProgressStream> {
        let reference = if request.name.is_empty() {
            None
        } else {
            Some(parse(&request.name)?.or_latest())
        };
        let options = ImportOptions {
            reference,
            changes: request.changes,
            message: request.message,
            platform: parse_platform(&request.platform)?,
        };
        let source = reader(archive);
        let id = self
            .blocking(move |store| {
                let mut source = source;
                let id = store.import(&mut source, &options);
                read_out(source);
                id
            })
            .await?;
        self.engine.note_image("import", &id.to_string());
        let message = Progress {
            status: id.to_string(),
            ..Progress::default()
        };
        Ok(Box::pin(stream::iter([Ok(message)])))
    }

    async fn save(&self, references: Vec<String>) -> Result<ByteStream> {
        // What does not exist is told before the archive begins.
        let names = references.clone();
        self.blocking(move |store| {
            names
                .iter()
                .try_for_each(|name| store.resolve(name).map(drop))
        })
        .await?;
        let (reader, writer) = tokio::io::duplex(PIPE_BYTES);
        let store = self.store();
        tokio::task::spawn_blocking(move || {
            let names: Vec<&str> = references.iter().map(String::as_str).collect();
            if let Err(error) = store.save(&names, SyncIoBridge::new(writer)) {
                tracing::warn!(error = %error, "Failed to write an image archive");
            }
        });
        Ok(Box::pin(ReaderStream::new(reader)))
    }

    async fn tag(&self, reference: &str, name: &str) -> Result<()> {
        let target = parse(name)?.or_latest();
        let (source, familiar) = (reference.to_owned(), target.familiar());
        self.blocking(move |store| store.tag(&source, &target))
            .await?;
        self.engine.note_image("tag", &familiar);
        Ok(())
    }

    async fn remove(&self, reference: &str, force: bool) -> Result<Vec<RemovedImage>> {
        let (reference, engine) = (reference.to_owned(), Arc::clone(&self.engine));
        let removed = self
            .blocking(move |store| {
                store.remove(&reference, force, &|owner| engine.is_running(owner))
            })
            .await?;
        Ok(self.note_removed(removed))
    }

    async fn prune(&self, request: ImagePruneRequest) -> Result<(Vec<RemovedImage>, u64)> {
        let filters = Filters {
            label: request.labels,
            label_not: request.labels_absent,
            until: request.until.map(to_jiff),
            ..Filters::default()
        };
        let all = !request.dangling_only;
        let pruned = self
            .blocking(move |store| store.prune(all, &filters))
            .await?;
        Ok((self.note_removed(pruned.removed), pruned.reclaimed_bytes))
    }

    async fn layers_bytes(&self) -> Result<u64> {
        let list = self
            .blocking(|store| store.list(&Filters::default()))
            .await?;
        Ok(list.iter().map(|image| image.size_bytes).sum())
    }

    async fn distribution(
        &self,
        reference: &str,
        registry_auth: Option<RegistryAuth>,
    ) -> Result<DistributionInfo> {
        let reference = parse(reference)?.or_latest();
        let auth = registry_auth.as_ref().map(auth);
        let store = self.store();
        let remote = store
            .resolve_remote(&reference, auth.as_ref())
            .await
            .map_err(from_image)?;
        Ok(DistributionInfo {
            media_type: remote.media_type,
            digest: remote.digest.to_string(),
            size_bytes: i64::try_from(remote.size_bytes).unwrap_or(i64::MAX),
            platforms: remote.platforms.into_iter().map(platform).collect(),
        })
    }

    async fn login(&self, _auth: RegistryAuth) -> Result<LoginOutcome> {
        Err(ApiError::not_implemented(
            "not supported yet: checking credentials; `DOCKER_HOST=unix:///none docker login` stores them without the daemon",
        ))
    }
}

impl Images {
    fn note_removed(&self, removed: Vec<image::Removed>) -> Vec<RemovedImage> {
        let note = |removed: image::Removed| match removed {
            image::Removed::Untagged(name) => {
                self.engine.note_image("untag", &name);
                RemovedImage::Untagged(name)
            }
            image::Removed::Deleted(id) => {
                self.engine.note_image("delete", &id.to_string());
                RemovedImage::Deleted(id.to_string())
            }
        };
        removed.into_iter().map(note).collect()
    }
}

/// The request body as the blocking reader the store wants.
/// Reads what follows an archive's end, or what a refusal left: a client that is still sending
/// would see a broken connection instead of the answer.
fn read_out(source: impl Read) {
    let _ = io::copy(&mut source.take(READ_OUT_BYTES_MAX), &mut io::sink());
}

fn reader(archive: ByteStream) -> SyncIoBridge<StreamReader<ByteStream, Bytes>> {
    SyncIoBridge::new(StreamReader::new(archive))
}

pub(crate) fn from_image(error: image::Error) -> ApiError {
    let kind = match error.kind() {
        image::ErrorKind::InvalidArgument => ErrorKind::InvalidArgument,
        image::ErrorKind::NotFound => ErrorKind::NotFound,
        image::ErrorKind::Conflict => ErrorKind::Conflict,
        image::ErrorKind::Unauthorized => ErrorKind::Unauthorized,
        image::ErrorKind::Unavailable | image::ErrorKind::Internal => ErrorKind::System,
    };
    ApiError {
        kind,
        message: error.to_string(),
        source: io::Error::other(error).into_inner(),
    }
}

fn parse(reference: &str) -> Result<Reference> {
    reference
        .parse()
        .map_err(|error: image::ReferenceParseError| ApiError::invalid(error.to_string()))
}

fn parse_platform(platform: &str) -> Result<Option<Platform>> {
    if platform.is_empty() {
        return Ok(None);
    }
    let mut parts = platform.splitn(3, '/');
    match (parts.next(), parts.next()) {
        (Some(os), Some(architecture)) if !os.is_empty() && !architecture.is_empty() => Ok(Some(
            Platform::new(os, architecture, parts.next().unwrap_or_default()),
        )),
        _ => Err(ApiError::invalid(format!(
            "\"{platform}\" is an invalid platform: want os/architecture[/variant]"
        ))),
    }
}

fn auth(auth: &RegistryAuth) -> image::RegistryAuth {
    image::RegistryAuth {
        username: auth.username.clone(),
        password: auth.password.0.clone(),
        identity_token: auth.identity_token.0.clone(),
        server: auth.server_address.clone(),
    }
}

fn pull_progress(event: image::PullEvent) -> Progress {
    Progress {
        id: event.id.unwrap_or_default(),
        status: event.status,
        detail: event.progress.map(|at| ProgressDetail {
            current: at.current,
            total: at.total,
        }),
        ..Progress::default()
    }
}

fn summary(image: image::ImageSummary) -> ImageSummary {
    ImageSummary {
        id: image.id.to_string(),
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        created_at: image.created.map_or(Timestamp::ZERO, from_jiff),
        size_bytes: i64::try_from(image.size_bytes).unwrap_or(i64::MAX),
        labels: image.labels,
        container_count: u64::try_from(image.container_count).unwrap_or(u64::MAX),
    }
}

fn detail(details: ImageDetails) -> ImageDetail {
    let document = details.document;
    let config = document.config.clone();
    ImageDetail {
        summary: ImageSummary {
            id: details.id.to_string(),
            repo_tags: details.repo_tags,
            repo_digests: details.repo_digests,
            created_at: document.created_at().map_or(Timestamp::ZERO, from_jiff),
            size_bytes: i64::try_from(details.size_bytes).unwrap_or(i64::MAX),
            labels: config.labels.clone(),
            container_count: 0,
        },
        comment: document.comment,
        author: document.author,
        architecture: document.architecture,
        variant: document.variant,
        os: document.os,
        os_version: document.os_version,
        layers: document
            .rootfs
            .diff_ids
            .iter()
            .map(ToString::to_string)
            .collect(),
        config: image_config(config),
        storage_driver: details.graph_driver.name.to_owned(),
        storage_data: owned(details.graph_driver.data),
        last_tagged_at: details.last_tag_time.map_or(Timestamp::ZERO, from_jiff),
    }
}

fn image_config(config: image::ImageConfig) -> ImageConfig {
    ImageConfig {
        user: config.user,
        exposed_ports: config
            .exposed_ports
            .keys()
            .filter_map(|port| exposed_port(port))
            .collect(),
        env: config.env,
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        volumes: config.volumes.into_keys().collect(),
        working_dir: config.working_dir,
        labels: config.labels,
        stop_signal: config.stop_signal,
        on_build: config.on_build,
        shell: config.shell,
        health: config.healthcheck.as_ref().map(Into::into),
    }
}

/// `80/tcp`, or `80` for TCP.
pub(crate) fn exposed_port(text: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    Some((port.parse().ok()?, protocol))
}

fn history_entry(entry: image::HistoryEntry) -> HistoryEntry {
    HistoryEntry {
        id: entry.id.map_or("<missing>".to_owned(), |id| id.to_string()),
        created_at: entry.created.map_or(Timestamp::ZERO, from_jiff),
        created_by: entry.created_by,
        tags: entry.tags,
        size_bytes: i64::try_from(entry.size_bytes).unwrap_or(i64::MAX),
        comment: entry.comment,
    }
}

fn platform(platform: Platform) -> ImagePlatform {
    ImagePlatform {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        os_version: String::new(),
    }
}

fn owned(data: BTreeMap<&'static str, String>) -> BTreeMap<String, String> {
    data.into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

fn from_jiff(time: jiff::Timestamp) -> Timestamp {
    Timestamp(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
}

fn to_jiff(time: Timestamp) -> jiff::Timestamp {
    let (seconds, nanos) = time.to_parts();
    jiff::Timestamp::new(seconds, nanos).unwrap_or_default()
}
