//! Making a task's container: image, volumes, network, files, then the OCI runtime.
//!
//! Every step can be undone and is when a later one fails, so a failed creation leaves nothing.

use std::{fs, io, path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use skep_model::Task;

use super::{
    Container, Engine,
    container::ContainerStatusView,
    files,
    plan::{self, ContainerPlan, VolumeUse},
    record::{MountRecord, NetworkRecord, RECORD_VERSION, Record},
    volume_fill,
    volumes::{self, Volume},
};
use crate::{
    image::{self, Image, RegistryAuth},
    runtime::{
        self, ContainerConfig, ContainerId, Handle, Runtime,
        config::{Mount, MountKind, NetworkNamespace, Propagation, Rootfs},
    },
};

/// Hex digits of the container id that make its default host name, as in Docker.
const HOSTNAME_DIGITS: usize = 12;

/// Why a container could not be made. Texts reach `docker service ps`.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// No image.
    #[error("{0}")]
    Image(String),
    /// The image store failed.
    #[error(transparent)]
    Store(#[from] image::Error),
    /// The spec cannot be honoured.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// A bind mount's source is missing. The text is Docker's.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {0}")]
    MissingSource(String),
    /// A volume could not be made.
    #[error(transparent)]
    Volume(#[from] volumes::Error),
    /// The node network refused.
    #[error(transparent)]
    Network(#[from] skep_network::Error),
    /// The OCI runtime refused.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The file system failed.
    #[error("failed to prepare container files: {0}")]
    Files(#[source] io::Error),
}

impl Engine {
    /// Makes the container of `task`; it waits to be started.
    ///
    /// # Errors
    /// Nothing is left of the container.
    pub async fn create_for_task(
        self: &Arc<Self>,
        task: &Task,
        auth: Option<RegistryAuth>,
    ) -> Result<Arc<Container>, CreateError> {
        let spec = &task.spec.container;
        let image_id = self
            .ensure_image(&spec.image, auth)
            .await
            .map_err(CreateError::Image)?;
        let image = self.images().image(image_id)?;
        let plan = plan::plan(task, &image)?;
        let id: ContainerId = self
            .random_name()
            .parse()
            .expect("hex digits are a container id");
        self.images().lease(image_id, id.as_str())?;
        let made = self.make(&id, task, image, plan).await;
        if made.is_err() {
            self.discard(&id).await;
        }
        let (record, handle) = made?;
        let container = Arc::new(Container::new(
            record,
            handle,
            ContainerStatusView::default(),
        ));
        self.insert(&container);
        self.note_container(&container, "create", &[]);
        Ok(container)
    }

    async fn make(
        self: &Arc<Self>,
        id: &ContainerId,
        task: &Task,
        image: Image,
        mut plan: ContainerPlan,
    ) -> Result<(Record, Handle), CreateError> {
        check_sources(&plan)?;
        let dir = self.container_dir(id);
        for part in ["upper", "work"] {
            fs::create_dir_all(dir.join(part)).map_err(CreateError::Files)?;
        }
        let image_id = image.id;
        let anonymous_volumes = self.mount_volumes(&mut plan, &image).await?;
        let network = self.attach(id, &plan).await?;
        if plan.hostname.is_empty() {
            plan.hostname = id.as_str()[..HOSTNAME_DIGITS].to_owned();
        }
        let address = network.as_ref().and_then(|network| {
            network
                .address
                .split('/')
                .next()
                .and_then(|address| address.parse().ok())
        });
        let identity = files::Identity {
            hostname: &plan.hostname,
            address,
        };
        let generated = files::write(&dir, &identity, &plan.config.mounts);
        let mut config = plan.config;
        config.mounts.extend(generated.map_err(CreateError::Files)?);
        config.hostname.clone_from(&plan.hostname);
        config.rootfs = Rootfs::Overlay {
            lower: image.layer_dirs().to_vec(),
            upper: dir.join("upper"),
            work: dir.join("work"),
        };
        if let Some(network) = &network {
            let path = PathBuf::from(&network.netns_path);
            config.namespaces.network = NetworkNamespace::Path(path);
        }
        let record = Record {
            version: RECORD_VERSION,
            id: id.clone(),
            name: plan.name,
            image: task.spec.container.image.clone(),
            image_id: image_id.to_string(),
            created_at_ns: self.now().0,
            labels: plan.labels,
            task_id: Some(task.id.to_string()),
            entrypoint: plan.entrypoint,
            cmd: plan.cmd,
            exposed_ports: image.config().exposed_ports.keys().cloned().collect(),
            stop_grace_ms: u64::try_from(plan.stop_grace.as_millis()).unwrap_or(u64::MAX),
            stop_signal: plan.stop_signal,
            healthcheck: plan.healthcheck,
            log_driver: plan.log_driver,
            mounts: plan.mounts,
            anonymous_volumes,
            network,
            config,
        };
        // The record comes first: whatever the runtime then makes has an owner.
        record.write(&dir).map_err(CreateError::Files)?;
        let handle = create_container(self.runtime(), id, record.config.clone()).await?;
        Ok((record, handle))
    }

    /// Makes the plan's volumes and adds their mounts; returns the anonymous ones.
    async fn mount_volumes(
        self: &Arc<Self>,
        plan: &mut ContainerPlan,
        image: &Image,
    ) -> Result<Vec<String>, CreateError> {
        let mut anonymous = Vec::new();
        for used in std::mem::take(&mut plan.volumes) {
            let is_anonymous = used.name.is_none();
            let name = used.name.clone().unwrap_or_else(|| self.random_name());
            if is_anonymous {
                anonymous.push(name.clone());
            }
            let (engine, image, volume_use) = (Arc::clone(self), image.clone(), used.clone());
            let volume = Volume {
                name: name.clone(),
                labels: used.labels.clone(),
                created_at_ns: self.now().0,
                is_anonymous,
            };
            let work = move || engine.ensure_volume(&volume, &volume_use, &image);
            let made = tokio::task::spawn_blocking(work).await;
            made.map_err(|error| CreateError::Files(io::Error::other(error)))??;
            let source = self
                .volumes()
                .path(&name)
                .join(used.subpath.trim_start_matches('/'));
            plan.mounts.push(MountRecord {
                kind: "volume".to_owned(),
                name,
                source: source.display().to_string(),
                destination: used.target.clone(),
                driver: "local".to_owned(),
                is_writable: !used.is_read_only,
                propagation: String::new(),
            });
            let kind = MountKind::Bind {
                source,
                propagation: Propagation::Rprivate,
                is_recursive: true,
            };
            let mount = Mount {
                destination: used.target,
                is_readonly: used.is_read_only,
                kind,
            };
            plan.config.mounts.push(mount);
        }
        plan.config
            .mounts
            .sort_by_key(|mount| mount.destination.matches('/').count());
        Ok(anonymous)
    }

    fn ensure_volume(
        &self,
        volume: &Volume,
        used: &VolumeUse,
        image: &Image,
    ) -> Result<(), volumes::Error> {
        let is_new = self.volumes().ensure(volume, |data| {
            if used.is_no_copy {
                Ok(())
            } else {
                volume_fill::fill(image, &used.target, data)
            }
        })?;
        if is_new {
            self.note_volume("create", &volume.name);
        }
        Ok(())
    }

    async fn attach(
        &self,
        id: &ContainerId,
        plan: &ContainerPlan,
    ) -> Result<Option<NetworkRecord>, CreateError> {
        let attachment = self.network().attach(id.as_str(), &plan.ports, None).await?;
        Ok(Some(NetworkRecord {
            address: attachment.address.to_string(),
            gateway: attachment.gateway.to_string(),
            mac: attachment.mac.to_string(),
            netns_path: attachment.netns_path.display().to_string(),
            ports: attachment.ports,
        }))
    }

    /// Where the engine keeps a container's files.
    pub(super) fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.config().containers_dir.join(id.as_str())
    }
}

/// `Runtime::create` behind a box: its own future has a type that the compiler cannot prove `Send`
/// for every lifetime (rust-lang/rust#102211).
fn create_container<'a>(
    runtime: &'a Runtime,
    id: &'a ContainerId,
    config: ContainerConfig,
) -> BoxFuture<'a, Result<Handle, runtime::Error>> {
    Box::pin(runtime.create(id, config))
}

/// Bind sources must exist, unless the user wants them made.
fn check_sources(plan: &ContainerPlan) -> Result<(), CreateError> {
    for source in &plan.sources_to_create {
        fs::create_dir_all(source).map_err(CreateError::Files)?;
    }
    for mount in &plan.config.mounts {
        if let MountKind::Bind { source, .. } = &mount.kind
            && !source.exists()
        {
            return Err(CreateError::MissingSource(source.display().to_string()));
        }
    }
    Ok(())
}
