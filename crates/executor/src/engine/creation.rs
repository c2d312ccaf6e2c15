//! Making a task's container: image, volumes, network, files, then the OCI runtime.
//!
//! Every step can be undone and is when a later one fails, so a failed creation leaves nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use futures_util::future::BoxFuture;
use skep_model::{
    AppArmorMode, Task, TaskSpec,
    reserved::service::run::{ALLOW, Power},
    template::{self, Context, ExpandError, NodeLabels},
};

use super::{
    Container, Engine,
    container::ContainerStatusView,
    describe, files,
    networking::Attached,
    places::{self, HOST_GATEWAY, NetworkPlan, NodeMode, PlaceError},
    plan::{self, ContainerPlan, VolumeUse},
    record::{MountRecord, RECORD_VERSION, Record},
    supplies::SupplyError,
    volume_fill,
    volumes::{self, Fill, LOCAL_DRIVER, Volume},
};
use crate::{
    dataplane::AttachError,
    image::{self, Image, RegistryAuth},
    local_network,
    runtime::{
        self, ContainerConfig, ContainerId, Handle, Runtime,
        config::{Mount, MountKind, NetworkNamespace, Propagation, Rootfs, SharedNamespace},
    },
};

/// Hex digits of the container id that make its default host name, as in Docker.
const HOSTNAME_DIGITS: usize = 12;
/// Says `Y` where the kernel has AppArmor and uses it.
const APPARMOR_SWITCH: &str = "/sys/module/apparmor/parameters/enabled";

/// Why a container could not be made. Texts reach `docker service ps`.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// No image.
    #[error("{0}")]
    Image(String),
    /// The image store failed.
    #[error(transparent)]
    Store(#[from] image::Error),
    /// A template of the spec fails.
    #[error(transparent)]
    Template(#[from] ExpandError),
    /// The spec cannot be honoured.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// The node's operator does not allow it, or no manager has told so yet.
    #[error("not allowed by this node's label `{ALLOW}`: {}", .0.join(", "))]
    NotAllowed(Vec<&'static str>),
    /// A bind mount's source is missing. The text is Docker's.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {0}")]
    MissingSource(String),
    /// A volume could not be made.
    #[error(transparent)]
    Volume(#[from] volumes::Error),
    /// The task's networks cannot be.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The node does not have the slice that the task's address is from.
    #[error("this node waits for its part of the node network")]
    NoSlice,
    /// The data plane refused.
    #[error(transparent)]
    Dataplane(#[from] AttachError),
    /// A network that the node has for itself cannot be, or has no place left.
    #[error(transparent)]
    LocalNetwork(#[from] local_network::Error),
    /// The node network refused.
    #[error(transparent)]
    Network(#[from] skep_network::Error),
    /// Its secrets and configs cannot be given to it.
    #[error(transparent)]
    Supplies(#[from] SupplyError),
    /// The OCI runtime refused.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The file system failed.
    #[error("failed to prepare container files: {0}")]
    Files(#[source] io::Error),
}

impl CreateError {
    /// Whether the same may succeed a little later on this node.
    pub fn is_temporary(&self) -> bool {
        match self {
            // The label may still be on its way.
            Self::NoSlice | Self::NotAllowed(_) => true,
            Self::Supplies(error) => error.is_temporary(),
            Self::Template(error) => error.is_temporary(),
            Self::Dataplane(error) => error.is_temporary(),
            Self::Image(_)
            | Self::Store(_)
            | Self::Plan(_)
            | Self::MissingSource(_)
            | Self::Volume(_)
            | Self::Place(_)
            | Self::Network(_)
            | Self::LocalNetwork(_)
            | Self::Runtime(_)
            | Self::Files(_) => false,
        }
    }
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
        let context = self.template_context(task);
        let task = &expanded(task, &context)?;
        let spec = &task.spec.container;
        let image_id = self
            .ensure_image(&spec.image, auth)
            .await
            .map_err(CreateError::Image)?;
        let image = self.images().image(image_id)?;
        let plan = plan::plan(task, &image)?;
        self.check_powers(&plan.powers)?;
        let networks = places::plan(task)?;
        let id: ContainerId = self
            .random_name()
            .parse()
            .expect("hex digits are a container id");
        self.images().lease(image_id, id.as_str())?;
        let supplied = self.supplies.write(&id, spec, &context);
        let made = match supplied {
            Ok(supplied) => {
                let parts = (plan, networks, supplied);
                self.make(&id, task, image, parts).await
            }
            Err(error) => Err(error.into()),
        };
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
        self.note_places(container.record(), "connect");
        Ok(container)
    }

    async fn make(
        self: &Arc<Self>,
        id: &ContainerId,
        task: &Task,
        image: Image,
        (mut plan, networks, supplied): (ContainerPlan, NetworkPlan, Vec<Mount>),
    ) -> Result<(Record, Handle), CreateError> {
        check_sources(&plan)?;
        check_apparmor(task)?;
        let dir = self.container_dir(id);
        for part in ["upper", "work"] {
            fs::create_dir_all(dir.join(part)).map_err(CreateError::Files)?;
        }
        let image_id = image.id;
        let anonymous_volumes = self.mount_volumes(id, &mut plan, &image).await?;
        let name = (id, plan.name.as_str());
        let attached = self.attach(name, (&networks, &plan.ports)).await?;
        if plan.hostname.is_empty() {
            let is_host = plan.config.namespaces.uts == SharedNamespace::Host;
            let mode = if is_host {
                NodeMode::Host
            } else {
                networks.mode
            };
            plan.hostname = default_hostname(id, mode);
        }
        let generated = write_files(&dir, &plan, &networks, &attached);
        let mut config = plan.config;
        config.mounts.extend(generated.map_err(CreateError::Files)?);
        config.mounts.extend(supplied);
        config.hostname.clone_from(&plan.hostname);
        config.namespaces.network = match &attached.netns_path {
            Some(path) => NetworkNamespace::Path(path.clone()),
            None => NetworkNamespace::Host,
        };
        config.rootfs = Rootfs::Overlay {
            lower: image.layer_dirs().to_vec(),
            upper: dir.join("upper"),
            work: dir.join("work"),
        };
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
            network: attached.network,
            node_mode: networks.mode,
            places: networks.places,
            local_places: attached.local,
            dns: networks.dns,
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
        id: &ContainerId,
        plan: &mut ContainerPlan,
        image: &Image,
    ) -> Result<Vec<String>, CreateError> {
        let mut anonymous = Vec::new();
        for used in std::mem::take(&mut plan.volumes) {
            let name = match &used.name {
                Some(name) => name.clone(),
                None => self.random_name(),
            };
            if used.name.is_none() {
                anonymous.push(name.clone());
            }
            let driver = self.ensure_volume(&name, &used).await?;
            let fill: Option<Fill> = if used.is_no_copy {
                None
            } else {
                let (image, target) = (image.clone(), used.target.clone());
                Some(Box::new(move |data| {
                    volume_fill::fill(&image, &target, data)
                }))
            };
            let source = self.volumes().hold(&name, id.as_str(), fill).await?;
            plan.mounts.push(MountRecord {
                kind: "volume".to_owned(),
                name,
                source: source.join(&used.subpath).display().to_string(),
                destination: used.target.clone(),
                driver,
                is_writable: !used.is_read_only,
                propagation: String::new(),
            });
            let kind = MountKind::Bind {
                source,
                propagation: Propagation::Rprivate,
                is_recursive: true,
                is_readonly_below: true,
                subpath: used.subpath,
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

    /// Makes a volume unless there is one; returns its driver.
    async fn ensure_volume(&self, name: &str, used: &VolumeUse) -> Result<String, volumes::Error> {
        let driver = match (&used.driver, &used.name) {
            (Some(driver), _) => driver.clone(),
            (None, Some(name)) if used.options.is_empty() => self.volumes().driver_of(name).await,
            (None, _) => LOCAL_DRIVER.to_owned(),
        };
        let volume = Volume {
            name: name.to_owned(),
            driver: driver.clone(),
            labels: used.labels.clone(),
            options: used.options.clone(),
            created_at_ns: self.now().0,
            is_anonymous: used.name.is_none(),
        };
        if self.volumes().create(&volume).await? {
            self.note_volume("create", name);
        }
        Ok(driver)
    }

    /// What templates of `task` may speak of.
    fn template_context(&self, task: &Task) -> Context {
        let (hostname, platform) = describe::identity();
        let known = self
            .node_labels
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let labels = known.clone().map_or(NodeLabels::Untold, NodeLabels::Known);
        Context::new(task, &hostname, &platform, labels)
    }

    /// Takes what the node's operator says of it.
    pub(super) fn set_node_labels(&self, labels: &BTreeMap<String, String>) {
        let mut known = self
            .node_labels
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *known = Some(labels.clone());
    }

    /// The scheduler has asked the same; but what has power over this node is this node's own business.
    fn check_powers(&self, powers: &BTreeSet<Power>) -> Result<(), CreateError> {
        let known = self
            .node_labels
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let missing = Power::missing(powers, known.as_ref().unwrap_or(&BTreeMap::new()));
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.into_iter().map(Power::name);
        Err(CreateError::NotAllowed(names.collect()))
    }

    /// Where the engine keeps a container's files.
    pub(super) fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.config().containers_dir.join(id.as_str())
    }
}

/// The task with its templates expanded.
fn expanded(task: &Task, context: &Context) -> Result<Task, ExpandError> {
    let mut task = task.clone();
    let mut spec = TaskSpec::clone(&task.spec);
    spec.container = template::container(context, &spec.container)?;
    task.spec = Arc::new(spec);
    Ok(task)
}

/// Docker's: the container's short id, or the node's name where its network or its name is shared.
fn default_hostname(id: &ContainerId, mode: NodeMode) -> String {
    match mode {
        NodeMode::Host => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        NodeMode::Attached | NodeMode::Closed => id.as_str()[..HOSTNAME_DIGITS].to_owned(),
    }
}

/// Writes the generated files; returns their mounts.
fn write_files(
    dir: &Path,
    plan: &ContainerPlan,
    networks: &NetworkPlan,
    attached: &Attached,
) -> io::Result<Vec<Mount>> {
    let gateway = attached
        .network
        .as_ref()
        .map(|network| network.gateway.clone());
    let gateway = gateway.unwrap_or_else(|| "127.0.0.1".to_owned());
    let resolved = |(address, names): &(String, Vec<String>)| {
        let address = if address == HOST_GATEWAY {
            &gateway
        } else {
            address
        };
        (address.clone(), names.clone())
    };
    let hosts: Vec<_> = networks.hosts.iter().map(resolved).collect();
    let mode = networks.mode;
    let has_places = !networks.places.is_empty() || !networks.local.is_empty();
    let identity = files::Identity {
        hostname: &plan.hostname,
        addresses: &attached.addresses(&networks.places),
        hosts: &hosts,
        is_host: mode == NodeMode::Host,
        resolv_conf: &files::resolv_conf(mode, has_places, &networks.dns.settings()),
    };
    files::write(dir, &identity, &plan.config.mounts)
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

/// Docker puts containers under a profile of its own where the kernel has AppArmor; Skep has none.
/// Who asks for it by name shall not go without.
fn check_apparmor(task: &Task) -> Result<(), CreateError> {
    let privileges = task.spec.container.privileges.as_ref();
    let mode = privileges.and_then(|privileges| privileges.apparmor);
    let is_wanted = mode == Some(AppArmorMode::Default);
    if is_wanted && fs::read(APPARMOR_SWITCH).is_ok_and(|text| text.starts_with(b"Y")) {
        return Err(plan::Error::Unsupported("Privileges.AppArmor.Mode=default").into());
    }
    Ok(())
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
