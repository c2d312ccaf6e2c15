//! What the API needs from the rest of Skep: traits it owns and others implement.
//!
//! Cluster objects travel as model types; engine things (containers, images, volumes) as the
//! neutral structs here, never as Docker JSON. A method's texts reach the client unchanged, so
//! where its documentation quotes a text, that text is Docker's. Filtering, name lookup, version
//! gates and JSON are the API's own work, not the backends'.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::stream::Stream;

use crate::{error::Result, event::EventHub};

mod cluster;
mod container;
mod exec;
mod image;
mod log;
mod stack;
mod stats;
mod system;
mod volume;

pub use self::{
    cluster::{
        ClusterBackend, ClusterStatus, ClusterView, CreatedService, InitRequest, JoinRequest,
        LocalNodeState, LogSelector, ManagerState, Peer, PlannedMove, RestoreRequest, Revision,
        RotateFlags, ServiceUpdate,
    },
    container::{
        AttachOptions, AttachedIo, ConsoleSize, ContainerBackend, ContainerDetail, ContainerHealth,
        ContainerNetwork, ContainerRuntimeState, ContainerState, ContainerSummary, HealthProbe,
        MountPoint, OutputChunk, PortBinding, ProcessTable, PrunedSpace, RemoveContainerOptions,
        ResourceSettings, RunSettings, WaitCondition, WaitOutcome,
    },
    exec::{ExecConfig, ExecDetail, ExecStart, TaskExec, TaskInput, TaskOutput},
    image::{
        DistributionInfo, HistoryEntry, ImageBackend, ImageConfig, ImageDetail, ImagePlatform,
        ImagePruneRequest, ImageSummary, ImportRequest, LoadRequest, LoginOutcome, Progress,
        ProgressDetail, PullRequest, RegistryAuth, RemovedImage,
    },
    log::{LogMessage, LogOptions, LogOrigin, LogSource, Tail},
    stack::{PlannedPlacement, PlannedStack},
    stats::{BlockIoEntry, CpuSample, MemorySample, NetworkSample, StatsMode, StatsSample},
    system::{EngineFacts, EngineTotals, NetworkDetail, RuntimeFacts, SystemBackend},
    volume::{CreateVolumeRequest, VolumeBackend, VolumeDetail, VolumeListing},
};

/// A stream that owns what it needs.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send + 'static>>;

/// Bytes of a request or response body; an error ends it.
pub type ByteStream = BoxStream<std::io::Result<Bytes>>;

/// Messages of a long operation; an error ends it and is shown to the client.
pub type ProgressStream = BoxStream<Result<Progress>>;

/// Everything the server serves from.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "holds trait objects only")]
pub struct Backends {
    /// Cluster objects.
    pub cluster: Arc<dyn ClusterBackend>,
    /// Facts about this node.
    pub system: Arc<dyn SystemBackend>,
    /// Images of this node.
    pub images: Arc<dyn ImageBackend>,
    /// Containers of this node.
    pub containers: Arc<dyn ContainerBackend>,
    /// Volumes of this node.
    pub volumes: Arc<dyn VolumeBackend>,
    /// Where events are published; the daemon fills it.
    pub events: Arc<EventHub>,
}
