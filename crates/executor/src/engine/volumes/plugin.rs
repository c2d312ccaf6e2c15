//! Volume plugins of Docker's plugin protocol, version 1: found by a file, asked over HTTP.
//!
//! A plugin is somebody else's program. Every call has a deadline, every answer a limit, and a plugin
//! that hangs or is dead is named in the error. Leaves out TLS and plugins that Docker installs itself. How
//! plugins are found and how they are asked change together, so they are one file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::watch,
    time::{sleep, timeout},
};

use super::silence::Silence;

/// Where plugins put their sockets.
const SOCKETS_DIR: &str = "/run/docker/plugins";
/// Where they say where they listen.
const SPECS_DIRS: [&str; 2] = ["/etc/docker/plugins", "/usr/lib/docker/plugins"];
/// Plugins of one node; more are a mistake, and each costs a connection per scan.
const PLUGINS_MAX: usize = 64;
/// Longest file that says where a plugin listens.
const SPEC_BYTES_MAX: u64 = 64 * 1024;
/// Longest answer: a list of some ten thousand volumes.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Between two looks for plugins that came or went.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);
/// Looks between two probes of a plugin that answers; one that does not is probed with every look.
const SCANS_PER_PROBE: u32 = 6;
/// For what all plugins are asked: a list, whether one has a volume of some name, whether it is alive.
/// Somebody waits who may have nothing to do with them.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// For what a plugin has in its head.
const SHORT_TIMEOUT: Duration = Duration::from_secs(10);
/// For unmounting, which must end for a task to end.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(30);
/// For what may ask a server: Docker's.
const LONG_TIMEOUT: Duration = Duration::from_secs(120);
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";
/// What a plugin of volumes says it is.
const INTERFACE: &str = "VolumeDriver";

/// Why a plugin did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name. The text is Docker's.
    #[error("error looking up volume plugin {0}: plugin \"{0}\" not found")]
    NotFound(String),
    /// It is one, but of something else. The text is Docker's.
    #[error("error looking up volume plugin {0}: plugin does not implement the requested driver")]
    OtherKind(String),
    /// It does not listen.
    #[error("volume plugin {plugin} cannot be reached: {reason}")]
    Unreachable {
        /// Name of the plugin.
        plugin: String,
        /// Why.
        reason: String,
    },
    /// It does not answer.
    #[error("volume plugin {plugin} did not answer {method} within {} s", .after.as_secs())]
    Timeout {
        /// Name of the plugin.
        plugin: String,
        /// What it was asked.
        method: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// It did not answer somebody else a moment ago, and was not asked.
    #[error("volume plugin {plugin} does not answer: last tried {} s ago", .since.as_secs())]
    Silent {
        /// Name of the plugin.
        plugin: String,
        /// How long ago that was.
        since: Duration,
    },
    /// It refused. Docker's form.
    #[error("{method}: {reason}")]
    Refused {
        /// What it was asked.
        method: &'static str,
        /// What it said.
        reason: String,
    },
}

/// A volume as a plugin tells of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct PluginVolume {
    pub(super) name: String,
    /// Where it is mounted; empty while it is not.
    pub(super) mountpoint: String,
    /// When it was made, in RFC 3339; empty: not known.
    pub(super) created_at: String,
    /// Whatever the plugin tells.
    pub(super) status: Option<serde_json::Map<String, Value>>,
}

/// What a plugin answers, all in one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    err: String,
    implements: Vec<String>,
    mountpoint: String,
    volume: PluginVolume,
    volumes: Option<Vec<PluginVolume>>,
}

/// Where a plugin listens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    Tcp(String),
}

/// The plugins of this node.
#[derive(Debug)]
pub struct Plugins {
    sockets: PathBuf,
    specs: Vec<PathBuf>,
    /// Those that have said they are of volumes, by name.
    active: Mutex<BTreeMap<String, Address>>,
    names: watch::Sender<BTreeSet<String>>,
    silence: Silence,
    /// Looks so far.
    scans: AtomicU32,
}

// === impl Plugins ===

impl Default for Plugins {
    /// Those found where Docker looks.
    fn default() -> Self {
        Self::found_in(
            Path::new(SOCKETS_DIR),
            SPECS_DIRS.map(PathBuf::from).to_vec(),
        )
    }
}

impl Plugins {
    pub(super) fn found_in(sockets: &Path, specs: Vec<PathBuf>) -> Self {
        Self {
            sockets: sockets.to_owned(),
            specs,
            active: Mutex::default(),
            names: watch::Sender::default(),
            silence: Silence::default(),
            scans: AtomicU32::new(0),
        }
    }

    /// Names of the volume plugins that listen, as last looked.
    pub fn names(&self) -> watch::Receiver<BTreeSet<String>> {
        self.names.subscribe()
    }

    /// Looks for plugins for ever.
    pub(crate) async fn watch(&self) {
        loop {
            self.scan().await;
            sleep(SCAN_INTERVAL).await;
        }
    }

    pub(super) async fn scan(&self) {
        let scans = self.scans.fetch_add(1, Ordering::Relaxed);
        let is_due = scans.is_multiple_of(SCANS_PER_PROBE);
        let found = join_all(self.discover().into_iter().map(async |(name, address)| {
            let is_active = self.is_active(&name, &address);
            let is_there = if !is_active {
                let activating = timeout(LOOK_TIMEOUT, self.activate(&name, &address));
                activating.await.is_ok_and(|it| it.is_ok())
            } else if is_due || self.silence.of(&name).is_some() {
                let probed = self.probe(&name, "VolumeDriver.Capabilities", json!({}));
                !matches!(probed.await, Err(Error::Unreachable { .. }))
            } else {
                let connecting = timeout(LOOK_TIMEOUT, connect(&address));
                connecting.await.is_ok_and(|it| it.is_ok())
            };
            is_there.then_some(name)
        }));
        let found: BTreeSet<String> = found.await.into_iter().flatten().collect();
        self.lock().retain(|name, _| found.contains(name));
        self.names.send_if_modified(|names| {
            let is_new = *names != found;
            *names = found;
            is_new
        });
    }

    /// Makes a volume.
    pub(super) async fn create(
        &self,
        plugin: &str,
        name: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let body = json!({ "Name": name, "Opts": options });
        let asked = ("VolumeDriver.Create", LONG_TIMEOUT);
        self.ask(plugin, asked, body).await.map(drop)
    }

    /// Removes a volume.
    pub(super) async fn remove(&self, plugin: &str, name: &str) -> Result<(), Error> {
        let asked = ("VolumeDriver.Remove", LONG_TIMEOUT);
        self.ask(plugin, asked, json!({ "Name": name }))
            .await
            .map(drop)
    }

    /// Mounts a volume for `owner`; returns where.
    pub(super) async fn mount(
        &self,
        plugin: &str,
        name: &str,
        owner: &str,
    ) -> Result<PathBuf, Error> {
        let method = "VolumeDriver.Mount";
        let body = json!({ "Name": name, "ID": owner });
        let answer = self.ask(plugin, (method, LONG_TIMEOUT), body).await?;
        let path = PathBuf::from(answer.mountpoint);
        if path.is_absolute() {
            return Ok(path);
        }
        let reason = format!("{} is no mountpoint", path.display());
        Err(Error::Refused { method, reason })
    }

    /// Ends what [`Self::mount`] began.
    pub(super) async fn unmount(&self, plugin: &str, name: &str, owner: &str) -> Result<(), Error> {
        let asked = ("VolumeDriver.Unmount", UNMOUNT_TIMEOUT);
        let body = json!({ "Name": name, "ID": owner });
        self.ask(plugin, asked, body).await.map(drop)
    }

    /// One volume of a plugin.
    pub(super) async fn get(&self, plugin: &str, name: &str) -> Result<PluginVolume, Error> {
        let asked = ("VolumeDriver.Get", SHORT_TIMEOUT);
        let answer = self.ask(plugin, asked, json!({ "Name": name })).await?;
        Ok(answer.volume)
    }

    /// A volume that the plugin may have; one that hangs is soon given up.
    pub(super) async fn look_for(&self, plugin: &str, name: &str) -> Result<PluginVolume, Error> {
        let body = json!({ "Name": name });
        let answer = self.look(plugin, "VolumeDriver.Get", body).await?;
        Ok(answer.volume)
    }

    /// All volumes of a plugin; one that hangs is soon given up.
    pub(super) async fn list(&self, plugin: &str) -> Result<Vec<PluginVolume>, Error> {
        let answer = self.look(plugin, "VolumeDriver.List", json!({})).await?;
        Ok(answer.volumes.unwrap_or_default())
    }

    /// Asks on behalf of somebody who asks all plugins.
    async fn look(&self, plugin: &str, method: &'static str, body: Value) -> Result<Answer, Error> {
        match self.silence.of(plugin) {
            Some(since) => Err(Error::Silent {
                plugin: plugin.to_owned(),
                since,
            }),
            None => self.probe(plugin, method, body).await,
        }
    }

    /// Asks, and notes whether there was an answer, whatever it was.
    async fn probe(
        &self,
        plugin: &str,
        method: &'static str,
        body: Value,
    ) -> Result<Answer, Error> {
        let after = LOOK_TIMEOUT;
        let asking = self.ask(plugin, (method, after), body);
        // It may have to be activated first.
        let answer = timeout(after, asking).await.unwrap_or_else(|_| {
            Err(Error::Timeout {
                plugin: plugin.to_owned(),
                method,
                after,
            })
        });
        match &answer {
            Err(Error::Timeout { .. }) => self.silence.note(plugin),
            _ => self.silence.lift(plugin),
        }
        answer
    }

    async fn ask(
        &self,
        plugin: &str,
        (method, after): (&'static str, Duration),
        body: Value,
    ) -> Result<Answer, Error> {
        let address = self.address(plugin).await?;
        ask(plugin, &address, (method, after), body).await
    }

    async fn address(&self, plugin: &str) -> Result<Address, Error> {
        let plugin = plugin.strip_suffix(":latest").unwrap_or(plugin);
        let found = self.discover().remove(plugin);
        let address = found.ok_or_else(|| Error::NotFound(plugin.to_owned()))?;
        if !self.is_active(plugin, &address) {
            self.activate(plugin, &address).await?;
        }
        Ok(address)
    }

    async fn activate(&self, plugin: &str, address: &Address) -> Result<(), Error> {
        let asked = ("Plugin.Activate", SHORT_TIMEOUT);
        let answer = ask(plugin, address, asked, Value::Null).await?;
        if !answer.implements.iter().any(|name| name == INTERFACE) {
            return Err(Error::OtherKind(plugin.to_owned()));
        }
        self.lock().insert(plugin.to_owned(), address.clone());
        Ok(())
    }

    fn is_active(&self, plugin: &str, address: &Address) -> bool {
        self.lock().get(plugin) == Some(address)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Address>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plugins by name: sockets first, as in Docker. What cannot be read is no plugin.
    fn discover(&self) -> BTreeMap<String, Address> {
        let mut found = BTreeMap::new();
        for path in candidates(&self.sockets, &["sock"]) {
            found.entry(stem(&path)).or_insert(Address::Unix(path));
        }
        for dir in &self.specs {
            for path in candidates(dir, &["spec", "json"]) {
                if let Some(address) = read_spec(&path) {
                    found.entry(stem(&path)).or_insert(address);
                }
            }
        }
        while found.len() > PLUGINS_MAX {
            found.pop_last();
        }
        found
    }
}

/// Files with these endings in `dir`, and in directories of the same name below it.
fn candidates(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.path()).take(4 * PLUGINS_MAX) {
        if path.is_dir() {
            let inner = endings.iter().map(|ending| {
                let name = format!("{}.{ending}", stem(&path));
                path.join(name)
            });
            found.extend(inner.filter(|inner| inner.exists()));
        } else if path
            .extension()
            .is_some_and(|it| endings.iter().any(|ending| it == *ending))
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn read_spec(path: &Path) -> Option<Address> {
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Spec {
        addr: String,
    }
    let is_short = fs::metadata(path).ok()?.len() <= SPEC_BYTES_MAX;
    let text = is_short.then(|| fs::read_to_string(path).ok())??;
    let address = if path.extension().is_some_and(|ending| ending == "json") {
        serde_json::from_str::<Spec>(&text).ok()?.addr
    } else {
        text.trim().to_owned()
    };
    if let Some(path) = address.strip_prefix("unix://") {
        return Some(Address::Unix(PathBuf::from(path)));
    }
    let rest = address
        .strip_prefix("tcp://")
        .or_else(|| address.strip_prefix("http://"))?;
    Some(Address::Tcp(rest.trim_end_matches('/').to_owned()))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(address: &Address) -> io::Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Address::Tcp(host) => Box::new(TcpStream::connect(host).await?),
    })
}

async fn ask(
    plugin: &str,
    address: &Address,
    (method, after): (&'static str, Duration),
    body: Value,
) -> Result<Answer, Error> {
    let asking = async {
        let stream = connect(address).await.map_err(|error| Error::Unreachable {
            plugin: plugin.to_owned(),
            reason: format!("{address}: {error}"),
        })?;
        exchange(stream, method, body)
            .await
            .map_err(|reason| Error::Refused {
                method,
                reason: format!("plugin {plugin}: {reason}"),
            })
    };
    let answer = timeout(after, asking).await.map_err(|_| Error::Timeout {
        plugin: plugin.to_owned(),
        method,
        after,
    })??;
    if answer.err.is_empty() {
        return Ok(answer);
    }
    let reason = answer.err;
    Err(Error::Refused { method, reason })
}

/// One request over a connection of its own.
async fn exchange(
    stream: Box<dyn Stream>,
    method: &str,
    body: Value,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let body = match body {
        Value::Null => Bytes::new(),
        body => Bytes::from(body.to_string()),
    };
    let request = Request::post(format!("/{method}"))
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, MEDIA_TYPE)
        .header(header::CONTENT_TYPE, MEDIA_TYPE)
        .body(Full::new(body))?;
    let answering = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let bytes = body.collect().await?.to_bytes();
        let answer = serde_json::from_slice::<Answer>(&bytes);
        if status.is_success() {
            return Ok(answer?);
        }
        // Many plugins send their error with a status of its own.
        match answer {
            Ok(answer) if !answer.err.is_empty() => Ok(answer),
            _ => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]);
                Err(format!("status {status}: {}", text.trim()).into())
            }
        }
    };
    tokio::pin!(answering);
    tokio::pin!(connection);
    // The connection ends with the exchange; it is nobody's task.
    tokio::select! {
        answer = &mut answering => answer,
        ended = &mut connection => match ended {
            Ok(()) => answering.await,
            Err(error) => Err(error.into()),
        },
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(host) => f.write_str(host),
        }
    }
}
