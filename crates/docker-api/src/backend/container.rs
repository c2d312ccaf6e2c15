//! Containers of this node.

use std::{collections::BTreeMap, net::IpAddr, pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use skep_model::{Driver, HealthConfig, Mount, Protocol, ResourceRequirements, Timestamp, Ulimit};
use tokio::io::AsyncWrite;

use crate::{
    backend::{
        BoxStream, ExecConfig, ExecDetail, ExecStart, LogMessage, LogOptions, LogSource, StatsMode,
        StatsSample,
    },
    error::Result,
};

/// Container side of the API.
///
/// `id` is what the client sent: a whole id, a name (with or without leading `/`), or a unique id
/// prefix. Unknown: [`ErrorKind::NotFound`] with `No such container: <id>`; not unique:
/// [`ErrorKind::InvalidArgument`] with `Multiple IDs found with provided prefix: <id>`.
/// Where a running container is needed: [`ErrorKind::Conflict`] with
/// `container <whole id> is not running`.
///
/// [`ErrorKind::NotFound`]: crate::error::ErrorKind::NotFound
/// [`ErrorKind::InvalidArgument`]: crate::error::ErrorKind::InvalidArgument
/// [`ErrorKind::Conflict`]: crate::error::ErrorKind::Conflict
#[async_trait]
pub trait ContainerBackend: Send + Sync + 'static {
    /// All containers, newest first, stopped ones too; the API filters. `size` asks for
    /// [`ContainerSummary::size_rw_bytes`], which is costly.
    async fn containers(&self, size: bool) -> Result<Vec<ContainerSummary>>;

    /// One container in full.
    async fn container(&self, id: &str, size: bool) -> Result<ContainerDetail>;

    /// Its log lines in batches. Ends at the container's end, or at the log's end without `follow`.
    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<Result<Vec<LogMessage>>>>;

    /// Its processes as `ps` with `ps_args` shows them (default `-ef`).
    async fn top(&self, id: &str, ps_args: &str) -> Result<ProcessTable>;

    /// Its resource use. A stopped container gives a sample with everything zero, as Docker does.
    async fn stats(&self, id: &str, mode: StatsMode) -> Result<BoxStream<StatsSample>>;

    /// Joins the container's streams. Output starts with the log when `options.logs`.
    async fn attach(&self, id: &str, options: AttachOptions) -> Result<AttachedIo>;

    /// Sets the size of the container's terminal.
    async fn resize(&self, id: &str, size: ConsoleSize) -> Result<()>;

    /// Sends `signal` (default: the container's stop signal), then SIGKILL after `grace` (default:
    /// the container's; `None` inside is forever). Already stopped:
    /// [`ErrorKind::NotModified`](crate::error::ErrorKind::NotModified).
    async fn stop(
        &self,
        id: &str,
        signal: Option<&str>,
        grace: Option<Option<Duration>>,
    ) -> Result<()>;

    /// Sends `signal` (default KILL; name with or without SIG, or number). Unknown:
    /// `invalid signal: X`.
    async fn kill(&self, id: &str, signal: &str) -> Result<()>;

    /// Removes a container; a running one only with `force`, else
    /// [`ErrorKind::Conflict`](crate::error::ErrorKind::Conflict) with `cannot remove container
    /// "/name": container is running: stop the container before removing or force remove`.
    async fn remove(&self, id: &str, options: RemoveContainerOptions) -> Result<()>;

    /// Waits for `condition`. The outer future ends once the wait is registered (the API then
    /// sends its headers), the inner one when the condition holds.
    async fn wait(
        &self,
        id: &str,
        condition: WaitCondition,
    ) -> Result<Pin<Box<dyn Future<Output = Result<WaitOutcome>> + Send>>>;

    /// Removes stopped containers that are not under the agent's care; label and time filters have
    /// been applied by the API, which calls [`remove`](Self::remove) for each.
    async fn prunable(&self) -> Result<Vec<ContainerSummary>>;

    /// Prepares a command in a running container and returns its exec id.
    async fn exec_create(&self, id: &str, config: ExecConfig) -> Result<String>;

    /// Runs it. Detached: returns once it runs, with empty streams. Unknown:
    /// [`ErrorKind::NotFound`](crate::error::ErrorKind::NotFound) with `No such exec instance: X`.
    async fn exec_start(&self, exec_id: &str, start: ExecStart) -> Result<AttachedIo>;

    /// Sets the size of its terminal.
    async fn exec_resize(&self, exec_id: &str, size: ConsoleSize) -> Result<()>;

    /// What is known of it; kept for some time after its end.
    async fn exec(&self, exec_id: &str) -> Result<ExecDetail>;
}

/// State of a container, with Docker's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ContainerState {
    /// `created`.
    #[default]
    Created,
    /// `running`.
    Running,
    /// `paused`.
    Paused,
    /// `removing`.
    Removing,
    /// `exited`.
    Exited,
    /// `dead`: removal failed.
    Dead,
}

impl ContainerState {
    /// The lower-case name Docker's API shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// A container in a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerSummary {
    /// 64 hex digits.
    pub id: String,
    /// Name without slash.
    pub name: String,
    /// Image as asked for, without digest when it had a tag.
    pub image: String,
    /// `sha256:…` of the image's config.
    pub image_id: String,
    /// Path and arguments.
    pub command: Vec<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// State with times and exit code; the API makes `Up 5 minutes` of it.
    pub state: ContainerRuntimeState,
    /// Published ports.
    pub ports: Vec<PortBinding>,
    /// Networks by name.
    pub networks: BTreeMap<String, ContainerNetwork>,
    /// Mounts in effect.
    pub mounts: Vec<MountPoint>,
    /// Bytes of the writable layer, when asked for.
    pub size_rw_bytes: Option<i64>,
    /// Bytes of all layers, when asked for.
    pub size_root_bytes: Option<i64>,
}

/// What a container does right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerRuntimeState {
    /// State.
    pub state: ContainerState,
    /// Was ended by the OOM killer.
    pub is_oom_killed: bool,
    /// Process id on the host; 0 when it does not run.
    pub pid: i32,
    /// Exit code; 0 while it runs.
    pub exit_code: i32,
    /// Why it could not start.
    pub error: String,
    /// When it last started; zero: never.
    pub started_at: Timestamp,
    /// When it last ended; zero: never.
    pub finished_at: Timestamp,
    /// Its health; `None` without a health check.
    pub health: Option<ContainerHealth>,
}

/// Health of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerHealth {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: &'static str,
    /// Failures that count since the last success.
    pub failing_streak: u32,
    /// The last probes, oldest first.
    pub log: Vec<HealthProbe>,
}

/// One run of a health check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthProbe {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// 0: healthy.
    pub exit_code: i32,
    /// What it wrote.
    pub output: String,
}

/// A container in full.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerDetail {
    /// What lists show too.
    pub summary: ContainerSummary,
    /// Log file, empty without one.
    pub log_path: String,
    /// `resolv.conf` on the host.
    pub resolv_conf_path: String,
    /// `hostname` file on the host.
    pub hostname_path: String,
    /// `hosts` file on the host.
    pub hosts_path: String,
    /// Storage driver, e.g. `overlay2`.
    pub storage_driver: String,
    /// Its data (`MergedDir`, …).
    pub storage_data: BTreeMap<String, String>,
    /// Runs of `exec` under way.
    pub exec_ids: Vec<String>,
    /// AppArmor profile in force.
    pub apparmor_profile: String,
    /// OCI runtime, e.g. `crun`.
    pub runtime: String,
    /// Host name.
    pub hostname: String,
    /// User as given.
    pub user: String,
    /// `KEY=value`, as the process sees them.
    pub env: Vec<String>,
    /// Entrypoint in force.
    pub entrypoint: Vec<String>,
    /// Arguments in force.
    pub cmd: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// Has a terminal.
    pub has_tty: bool,
    /// Stdin is open.
    pub has_open_stdin: bool,
    /// Health check in force.
    pub health_check: Option<HealthConfig>,
    /// Stop signal.
    pub stop_signal: String,
    /// Seconds until SIGKILL.
    pub stop_timeout_seconds: Option<i64>,
    /// Ports the image exposes.
    pub exposed_ports: Vec<(u16, Protocol)>,
    /// Read-only root.
    pub is_read_only: bool,
    /// Runs an init process.
    pub has_init: Option<bool>,
    /// Capabilities added.
    pub capability_add: Vec<String>,
    /// Capabilities dropped.
    pub capability_drop: Vec<String>,
    /// Additional groups.
    pub groups: Vec<String>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Mounts as asked for.
    pub mounts: Vec<Mount>,
    /// Log driver.
    pub log_driver: Driver,
    /// Limits.
    pub resources: ResourceSettings,
    /// What a service asks for by labels of Skep's.
    pub run: RunSettings,
    /// Parent cgroup.
    pub cgroup_parent: String,
    /// Host directory or file of the network namespace.
    pub sandbox_key: String,
}

/// What a container shares with its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunSettings {
    /// With all capabilities and devices.
    pub is_privileged: bool,
    /// The node's processes.
    pub is_pid_host: bool,
    /// The node's shared memory.
    pub is_ipc_host: bool,
    /// The node's name.
    pub is_uts_host: bool,
    /// Options as `docker run --security-opt` takes them.
    pub security_options: Vec<String>,
    /// Devices: path on the node, path in the container, permissions.
    pub devices: Vec<[String; 3]>,
}

/// Limits of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceSettings {
    /// As in the task.
    pub requirements: ResourceRequirements,
    /// Process limits.
    pub ulimits: Vec<Ulimit>,
    /// OOM killer preference.
    pub oom_score_adj: i64,
    /// Bytes of `/dev/shm`.
    pub shm_bytes: i64,
}

/// A mount in effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountPoint {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: String,
    /// Volume name.
    pub name: String,
    /// Host path.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// Volume driver.
    pub driver: String,
    /// Raw mode (`z`, …).
    pub mode: String,
    /// May be written to.
    pub is_writable: bool,
    /// Propagation (`rprivate`, …).
    pub propagation: String,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortBinding {
    /// Port in the container.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Where it is published; `None`: only exposed.
    pub host: Option<(IpAddr, u16)>,
}

/// A container's place in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerNetwork {
    /// Network id.
    pub network_id: String,
    /// Endpoint id.
    pub endpoint_id: String,
    /// Gateway in IPv4.
    pub gateway: Option<IpAddr>,
    /// Own address in IPv4.
    pub ip: Option<IpAddr>,
    /// Its prefix length.
    pub prefix_length: u8,
    /// Gateway in IPv6.
    pub gateway6: Option<IpAddr>,
    /// Own address in IPv6.
    pub ip6: Option<IpAddr>,
    /// Its prefix length.
    pub prefix_length6: u8,
    /// Link address, `02:42:…`.
    pub mac: String,
    /// Extra names.
    pub aliases: Vec<String>,
    /// All names that others on the network find it by.
    pub dns_names: Vec<String>,
}

/// What `top` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessTable {
    /// Column names.
    pub titles: Vec<String>,
    /// One row per process.
    pub processes: Vec<Vec<String>>,
}

/// What attach wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// First what was written so far.
    pub logs: bool,
    /// Then what is written from now on.
    pub stream: bool,
    /// Send input.
    pub stdin: bool,
    /// Receive standard output.
    pub stdout: bool,
    /// Receive standard error.
    pub stderr: bool,
}

/// Streams of a container or exec.
#[expect(missing_debug_implementations, reason = "holds streams only")]
pub struct AttachedIo {
    /// With a terminal output is raw, without it is framed.
    pub has_tty: bool,
    /// Output; ends with the process.
    pub output: BoxStream<std::io::Result<OutputChunk>>,
    /// Input; shutting it down closes the process's stdin. `None`: not wanted.
    pub input: Option<Pin<Box<dyn AsyncWrite + Send>>>,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Which stream.
    pub source: LogSource,
    /// The bytes.
    pub data: Bytes,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// How to remove a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveContainerOptions {
    /// Kill it first.
    pub force: bool,
    /// Remove its anonymous volumes.
    pub volumes: bool,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run; true at once for a stopped one.
    #[default]
    NotRunning,
    /// Its next end.
    NextExit,
    /// Its removal.
    Removed,
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaitOutcome {
    /// Exit code.
    pub exit_code: i64,
    /// What went wrong with the wait itself.
    pub error: Option<String>,
}

/// What a prune freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedSpace {
    /// Removed objects.
    pub removed: Vec<String>,
    /// Bytes freed.
    pub reclaimed_bytes: u64,
}
