//! The composition root: builds every part, serves until told to stop, takes it all down again.
//!
//! Containers are not taken down: they run under their monitors and are adopted at the next start.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prost::Message as _;
use skep_docker_api::{Backends, EventHub, Server};
use skep_executor::{
    dataplane::{self, Actor, Codec, Dataplane},
    engine::{Engine, EngineConfig, node_facts},
    image::{ImageStore, StoreConfig},
    runtime::{OciChoice, Runtime, RuntimeConfig, cgroup::Hierarchies},
};
use skep_network::{Layout, Network, tunnel::Launch};
use skep_wire::peer;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    args::Args,
    backend::{
        Execs, cluster::Cluster, containers::Containers, images::Images, system::System,
        volumes::NodeVolumes,
    },
    config::{Config, OciRuntime},
    events, logging, metrics,
    sockets::{self, Socket},
    swarm::{NodeNetwork, Settings, Swarm},
};

/// Parent of all containers' cgroups.
const CGROUP_PARENT: &str = "/skep";
/// Period of the node network's self-check.
const NETWORK_CHECK: Duration = Duration::from_secs(10);
/// How long clients may keep a stopping daemon waiting.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// The configuration is wrong, or a part cannot start.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let config = match Config::load(args) {
        Ok(config) => config,
        Err(mistakes) => {
            let texts: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            bail!("invalid configuration:\n  {}", texts.join("\n  "));
        }
    };
    logging::install(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the async runtime")?;
    runtime.block_on(serve(config))
}

/// Every client and every container costs descriptors, and service managers start programs with a
/// soft limit of 1,024; the hard one is the operator's word.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(error = %error, "Failed to raise the limit of open files");
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    make_directories(&config)?;
    let lock = lock(&config.data_dir)?;
    let sockets = sockets::bind(&config).await?;
    let metrics = metrics::bind(config.metrics_addr).await?;
    let node_network = NodeNetwork::choose(&config)
        .context("no subnet is free for the node network: name one with --bridge-subnet")?;
    let (dataplane, actor) = dataplane(&config)?;
    let plane_end = CancellationToken::new();
    let plane = tokio::spawn(actor.run(plane_end.clone()));
    let engine = engine(&config, (node_network.at_start, dataplane)).await?;
    let swarm = Swarm::open(Settings {
        data_dir: config.data_dir.clone(),
        engine: Arc::clone(&engine),
        is_compat: config.raft_compat,
        node_network,
    })
    .await
    .context("failed to open cluster state")?;
    let hub = Arc::new(EventHub::default());
    let backends = backends(&config, &engine, &swarm, &hub).await?;
    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(events::run(
        hub,
        Arc::clone(&engine),
        swarm.current(),
        shutdown.clone(),
    ));
    tasks.spawn(watch_network(Arc::clone(&engine), shutdown.clone()));
    if let Some(listener) = metrics {
        let served = metrics::serve(listener, Arc::clone(&swarm), shutdown.clone());
        tasks.spawn(served);
    }
    serve_clients(backends, sockets, (&tasks, &shutdown));
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        warn!(error = %error, "Failed to notify the service manager");
    }
    info!(version = env!("CARGO_PKG_VERSION"), "Daemon is ready");
    tokio::select! {
        _ = terminate.recv() => info!("Stopping on SIGTERM"),
        _ = interrupt.recv() => info!("Stopping on SIGINT"),
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    shutdown.cancel();
    tasks.close();
    if tokio::time::timeout(SHUTDOWN_WAIT_MAX, tasks.wait())
        .await
        .is_err()
    {
        warn!("Gave up waiting for clients");
    }
    swarm.stop().await;
    engine.close().await;
    plane_end.cancel();
    let _ = plane.await;
    drop(lock);
    info!("Daemon has stopped");
    Ok(())
}

/// Serves the Engine API on every socket.
fn serve_clients(
    backends: Backends,
    sockets: Vec<Socket>,
    (tasks, shutdown): (&TaskTracker, &CancellationToken),
) {
    let server = Arc::new(Server::new(backends));
    for socket in sockets {
        let (server, shutdown) = (Arc::clone(&server), shutdown.clone());
        tasks.spawn(async move {
            match socket {
                Socket::Unix(listener) => server.serve_unix(listener, shutdown).await,
                Socket::Tcp(listener) => server.serve_tcp(listener, shutdown).await,
            }
        });
    }
}

fn make_directories(config: &Config) -> anyhow::Result<()> {
    for dir in [&config.data_dir, &config.run_dir] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(dir)
            .with_context(|| format!("failed to create `{}`", dir.display()))?;
    }
    Ok(())
}

/// One daemon per data directory. The lock is the kernel's, so it dies with the process.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("daemon.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("failed to open `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            bail!(
                "another daemon (pid {}) uses data directory `{}`",
                pid.trim(),
                data_dir.display()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("failed to lock `{}`", path.display()));
        }
    }
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Overlay networks and the routing mesh; idle until a membership begins.
fn dataplane(config: &Config) -> anyhow::Result<(Dataplane, Actor)> {
    let hierarchies = Hierarchies::read().context("failed to read control groups")?;
    Ok(Dataplane::new(dataplane::Config {
        run_dir: config.run_dir.join("plane"),
        bridge: config.bridge.clone(),
        codec: Codec {
            encode: |message| peer::DirectoryMessage::from(message).encode_to_vec(),
            decode: |bytes| Ok(peer::DirectoryMessage::decode(bytes)?.try_into()?),
        },
        launch: Launch {
            program: std::env::current_exe().context("failed to find this program")?,
            cgroups: hierarchies.monitor_dirs(CGROUP_PARENT),
            is_always: false,
        },
    }))
}

async fn engine(
    config: &Config,
    (layout, dataplane): (Layout, Dataplane),
) -> anyhow::Result<Arc<Engine>> {
    let data = &config.data_dir;
    let settings = StoreConfig {
        insecure_registries: config.insecure_registries.clone(),
        ..StoreConfig::default()
    };
    let images = ImageStore::open_with(&data.join("images"), settings)
        .context("failed to open the image store")?;
    let executable = std::env::current_exe().context("failed to find this program")?;
    let runtime = Runtime::new(RuntimeConfig {
        root: data.join("runtime"),
        run_dir: config.run_dir.clone(),
        monitor_command: vec![executable.into_os_string(), "monitor".into()],
        oci: match &config.oci_runtime {
            OciRuntime::Auto => OciChoice::Auto,
            OciRuntime::Named(name) => match name.as_str() {
                "crun" => OciChoice::Crun,
                "runc" => OciChoice::Runc,
                path => OciChoice::Path(path.into()),
            },
        },
        cgroup_parent: CGROUP_PARENT.to_owned(),
        init: None,
    })
    .context("failed to open container state")?;
    let mut network = skep_network::Config::new(config.run_dir.clone());
    network.bridge.clone_from(&config.bridge);
    network.layout = layout;
    let network = Network::open(network)
        .await
        .context("failed to set up the node network")?;
    let settings = EngineConfig {
        containers_dir: data.join("containers"),
        volumes_dir: data.join("volumes"),
        networks_dir: data.join("networks"),
        node_bridge: config.bridge.clone(),
        supplies_dir: config.run_dir.join("supplies"),
        labels: config.labels.clone(),
        generic_resources: config.node_generic_resources.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Engine::open(settings, images, runtime, (network, dataplane))
        .await
        .context("failed to open the engine")
}

async fn backends(
    config: &Config,
    engine: &Arc<Engine>,
    swarm: &Arc<Swarm>,
    hub: &Arc<EventHub>,
) -> anyhow::Result<Backends> {
    let probe = match engine.runtime().probe().await {
        Ok(probe) => Some(probe.clone()),
        Err(error) => {
            warn!(error = %error, "Containers cannot run");
            None
        }
    };
    let system = System {
        engine: Arc::clone(engine),
        config: config.clone(),
        node: node_facts().context("failed to read facts about this node")?,
        probe,
        engine_id: engine_id(&config.data_dir, engine)?,
    };
    Ok(Backends {
        cluster: Arc::new(Cluster {
            swarm: Arc::clone(swarm),
        }),
        system: Arc::new(system),
        images: Arc::new(Images {
            engine: Arc::clone(engine),
        }),
        containers: Arc::new(Containers {
            engine: Arc::clone(engine),
            execs: Execs::default(),
        }),
        volumes: Arc::new(NodeVolumes {
            engine: Arc::clone(engine),
        }),
        events: Arc::clone(hub),
    })
}

/// The engine's id, made at the first start.
fn engine_id(data_dir: &Path, engine: &Engine) -> anyhow::Result<String> {
    let path = data_dir.join("engine-id");
    // An empty file is what a full disk left of an earlier attempt.
    if let Ok(id) = fs::read_to_string(&path)
        && !id.trim().is_empty()
    {
        return Ok(id.trim().to_owned());
    }
    let id = engine.random_name();
    fs::write(&path, &id).with_context(|| format!("failed to write `{}`", path.display()))?;
    Ok(id)
}

/// Heals the node network after somebody flushed rules or deleted links.
async fn watch_network(engine: Arc<Engine>, shutdown: CancellationToken) {
    let mut period = tokio::time::interval(NETWORK_CHECK);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = period.tick() => {
                if let Err(error) = engine.network().reconcile().await {
                    warn!(error = %error, "Failed to check the node network");
                }
            }
            () = shutdown.cancelled() => return,
        }
    }
}
