//! How the daemon and the process `skep tunnel` talk, and the daemon's side of it.
//!
//! One connection per request, on `<run dir>/tunnel/control.sock`: a frame of JSON each way, its length (4 bytes, little endian) before it.
//! The daemon makes the listening socket and gives it to the process as its standard input, so there is no moment in which a started process
//! cannot be reached, and a socket nobody answers means that the process is dead.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Launch;
use super::device::{Device, DevicePeer, DeviceState, PeerState};
use super::key::{PrivateKey, PublicKey, Slot};

/// The socket, below the tunnels' directory.
pub(super) const SOCKET: &str = "control.sock";

/// Version of the protocol. A process that speaks another is replaced.
pub(super) const VERSION: u32 = 1;

/// Largest frame: 16,000 nodes with two keys on two devices, 150 bytes each.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// How long the other side may take. Setting up thousands of peers takes a tenth of a second.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// Why the process cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The socket cannot be made.
    #[error("failed to make `{}`", .path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The program cannot be started.
    #[error("failed to start `{}`", .program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It does not answer.
    #[error("the tunnel's process does not answer")]
    Silent(#[source] io::Error),
    /// It does not do what it is told.
    #[error("the tunnel's process refused: {0}")]
    Refused(String),
}

/// What the daemon asks.
#[derive(Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Request {
    /// Answered with everything, and the version.
    Status,
    /// Make a device, or give it other peers. With another key or port it is another device.
    Configure(DeviceRequest),
    /// End.
    Stop,
}

/// A device as it should be.
#[derive(Serialize, Deserialize)]
pub(super) struct DeviceRequest {
    pub(super) slot: u8,
    pub(super) private_key: Zeroizing<String>,
    pub(super) endpoint: SocketAddr,
    pub(super) peers: Vec<PeerRequest>,
}

/// A peer as it should be, and as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PeerRequest {
    pub(super) key: String,
    pub(super) endpoint: SocketAddr,
    pub(super) address: Ipv4Addr,
    pub(super) keepalive: bool,
    /// Milliseconds since the last handshake.
    #[serde(default)]
    pub(super) handshake_ms: Option<u64>,
}

/// What the process answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) version: u32,
    pub(super) error: Option<String>,
    #[serde(default)]
    pub(super) devices: Vec<DeviceAnswer>,
}

/// A device as it is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeviceAnswer {
    pub(super) slot: u8,
    pub(super) key: String,
    pub(super) port: u16,
    pub(super) peers: Vec<PeerRequest>,
}

/// The process, as the daemon sees it.
#[derive(Debug)]
pub(crate) struct Process {
    /// The tunnels' directory.
    dir: PathBuf,
}

/// Reads one frame.
pub(super) fn read_frame(stream: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

/// Writes one frame.
pub(super) fn write_frame(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let bytes = Zeroizing::new(serde_json::to_vec(message)?);
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(&bytes)
}

// === impl Process ===

impl Process {
    /// The process whose files are in `dir`, which must exist; it need not run.
    pub(crate) fn new(dir: PathBuf) -> Process {
        Process { dir }
    }

    /// The devices of the process, or none if it does not run or does not speak our version.
    pub(crate) fn state(&self) -> Result<Option<BTreeMap<Slot, DeviceState>>, ControlError> {
        match self.ask(&Request::Status) {
            Ok(answer) if answer.version == VERSION => {
                let devices = answer.devices.into_iter();
                Ok(Some(devices.filter_map(DeviceAnswer::state).collect()))
            }
            Ok(_) => Ok(None),
            Err(error) if is_dead(&error) => Ok(None),
            Err(error) => Err(ControlError::Silent(error)),
        }
    }

    /// Starts a process in the calling thread's network namespace. One that runs is ended first.
    pub(crate) fn start(&self, launch: &Launch) -> Result<(), ControlError> {
        self.stop()?;
        let path = self.dir.join(SOCKET);
        let listener = self.listen().map_err(|source| ControlError::Socket {
            path: path.clone(),
            source,
        })?;
        self.launch(launch, listener)
            .map_err(|source| ControlError::Start {
                program: launch.program.clone(),
                source,
            })
    }

    /// Makes or changes a device.
    pub(crate) fn configure(&self, device: &Device) -> Result<(), ControlError> {
        let peer = |(key, peer): (&PublicKey, &DevicePeer)| PeerRequest::new(*key, *peer, None);
        let request = DeviceRequest {
            slot: device.slot.number(),
            private_key: device.key.to_text(),
            endpoint: device.endpoint,
            peers: device.peers.iter().map(peer).collect(),
        };
        let answer = self.ask(&Request::Configure(request));
        match answer.map_err(ControlError::Silent)?.error {
            None => Ok(()),
            Some(error) => Err(ControlError::Refused(error)),
        }
    }

    /// Ends the process and waits for it. One that does not run is fine.
    pub(crate) fn stop(&self) -> Result<(), ControlError> {
        match self.ask(&Request::Stop) {
            Ok(_) => {}
            Err(error) if is_dead(&error) => {}
            Err(error) => return Err(ControlError::Silent(error)),
        }
        match fs::remove_file(self.dir.join(SOCKET)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ControlError::Socket {
                path: self.dir.join(SOCKET),
                source,
            }),
            _ => Ok(()),
        }
    }

    fn ask(&self, request: &Request) -> io::Result<Answer> {
        let dir = File::open(&self.dir)?;
        let mut stream = UnixStream::connect(short_path(&dir))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        write_frame(&mut stream, request)?;
        let answer = serde_json::from_slice(&read_frame(&mut stream)?)?;
        if matches!(request, Request::Stop) {
            // The connection ends with the process, after its devices.
            let _ = stream.read_to_end(&mut Vec::new());
        }
        Ok(answer)
    }

    fn listen(&self) -> io::Result<UnixListener> {
        let dir = File::open(&self.dir)?;
        UnixListener::bind(short_path(&dir))
    }

    fn launch(&self, launch: &Launch, listener: UnixListener) -> io::Result<()> {
        #[cfg(test)]
        if launch.program.as_os_str().is_empty() {
            // A thread of the test instead, in the same namespaces.
            let dir = self.dir.clone();
            let body = move || super::process::run(&dir, &listener);
            return std::thread::Builder::new().spawn(body).map(drop);
        }
        let listener = OwnedFd::from(listener);
        let mut command = Command::new(&launch.program);
        command.arg("tunnel").arg(&self.dir).args(&launch.cgroups);
        command.stdin(Stdio::from(listener)).stdout(Stdio::null());
        let log = File::create(self.dir.join("log"))?;
        let mut child = command.stderr(log).process_group(0).spawn()?;
        // Nobody waits for it: without this thread it would stay a zombie for as long as the daemon lives.
        std::thread::Builder::new()
            .name("skep-tunnel".to_owned())
            .spawn(move || child.wait())
            .map(drop)
    }
}

/// The socket's path below a directory's descriptor: the address of a socket has room for 107 bytes only.
fn short_path(dir: &File) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(SOCKET)
}

/// Whether nobody listens, or whoever did died while we asked.
fn is_dead(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

// === impl PeerRequest ===

impl PeerRequest {
    pub(super) fn new(key: PublicKey, peer: DevicePeer, handshake: Option<Duration>) -> Self {
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        PeerRequest {
            key: key.to_text(),
            endpoint: peer.endpoint,
            address: peer.address,
            keepalive: peer.is_kept_alive,
            handshake_ms: handshake.map(millis),
        }
    }

    pub(super) fn parse(&self) -> Option<(PublicKey, DevicePeer)> {
        let peer = DevicePeer {
            endpoint: self.endpoint,
            address: self.address,
            is_kept_alive: self.keepalive,
        };
        Some((PublicKey::from_text(&self.key)?, peer))
    }
}

// === impl DeviceRequest ===

impl DeviceRequest {
    /// None if it makes no sense.
    pub(super) fn parse(&self) -> Option<Device> {
        let peers = self.peers.iter().map(PeerRequest::parse);
        Some(Device {
            slot: slot(self.slot)?,
            key: PrivateKey::from_text(&self.private_key)?,
            endpoint: self.endpoint,
            peers: peers.collect::<Option<_>>()?,
        })
    }
}

// === impl DeviceAnswer ===

impl DeviceAnswer {
    fn state(self) -> Option<(Slot, DeviceState)> {
        let peers = self.peers.iter().filter_map(|peer| {
            let (key, device_peer) = peer.parse()?;
            let state = PeerState {
                peer: Some(device_peer),
                handshake: peer.handshake_ms.map(Duration::from_millis),
            };
            Some((key, state))
        });
        let state = DeviceState {
            key: PublicKey::from_text(&self.key),
            port: self.port,
            peers: peers.collect(),
        };
        Some((slot(self.slot)?, state))
    }
}

fn slot(number: u8) -> Option<Slot> {
    Slot::ALL.into_iter().find(|slot| slot.number() == number)
}
