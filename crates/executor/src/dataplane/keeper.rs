//! The directory on disk, so that a daemon without managers knows what its predecessor knew.
//!
//! One file: a line of JSON about the membership, then the directory as one complete set in the words
//! that managers use on the wire. Written whole beside the old one and renamed, off the actor's path,
//! at most one at a time, and with pauses that bound what it costs.

use std::{
    error::Error,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use skep_model::{
    NodeId,
    directory::{Message, Slice},
};
use tokio::task::JoinHandle;
use tracing::warn;

/// Version of the file. Others are not read: it is as old as the last start of the machine at most.
const VERSION: u32 = 1;
/// Name of the file in the data plane's directory.
const FILE: &str = "directory";
/// Longest file read or written; 100,000 tasks take some 30 MiB.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// A write is followed by a pause this many times as long, so that writing takes a tenth of one core at most.
const PAUSE_FACTOR: u32 = 9;
/// Least pause: a rollout changes the directory every few milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(100);

type DecodeError = Box<dyn Error + Send + Sync>;

/// How messages are written.
#[derive(Debug, Clone, Copy)]
pub struct Codec {
    /// A message's bytes.
    pub encode: fn(&Message) -> Vec<u8>,
    /// A message from its bytes.
    pub decode: fn(&[u8]) -> Result<Message, DecodeError>,
}

/// What is kept besides the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) node_id: NodeId,
    pub(super) data_path: IpAddr,
    pub(super) port: u16,
    pub(super) slice: Option<Slice>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    node_id: String,
    data_path: IpAddr,
    port: u16,
    slice: Option<(u16, Ipv4Net, Option<Ipv6Net>)>,
}

/// Keeps one file.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    codec: Codec,
    writing: Option<JoinHandle<Duration>>,
    resting_until: Option<tokio::time::Instant>,
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(run_dir: &Path, codec: Codec) -> Self {
        Self {
            path: run_dir.join(FILE),
            codec,
            writing: None,
            resting_until: None,
        }
    }

    /// What an earlier daemon of the same membership left. Something unreadable counts as nothing.
    pub(super) fn read(&self, node_id: NodeId) -> Option<(Kept, Message)> {
        match read(&self.path, self.codec) {
            Ok((kept, message)) => (kept.node_id == node_id).then_some((kept, message)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %self.path.display(), error = %error, "Directory on disk is unreadable");
                None
            }
        }
    }

    /// Whether a write may begin now.
    pub(super) fn is_idle(&self) -> bool {
        let is_resting = self
            .resting_until
            .is_some_and(|at| at > tokio::time::Instant::now());
        self.writing.is_none() && !is_resting
    }

    /// Begins to write. To be called when idle.
    pub(super) fn write(&mut self, kept: &Kept, message: Message) {
        let (path, codec, kept) = (self.path.clone(), self.codec, kept.clone());
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            if let Err(error) = write(&path, &kept, &(codec.encode)(&message)) {
                warn!(path = %path.display(), error = %error, "Failed to keep the directory");
            }
            begun.elapsed()
        }));
    }

    /// Returns when the write under way and the pause after it are over; never without any.
    /// Cancel-safe.
    pub(super) async fn rest(&mut self) {
        if let Some(writing) = &mut self.writing {
            let took = writing.await.unwrap_or_default();
            self.writing = None;
            let pause = (took * PAUSE_FACTOR).max(PAUSE_MIN);
            self.resting_until = Some(tokio::time::Instant::now() + pause);
        }
        match self.resting_until {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.resting_until = None;
    }

    /// Waits for the write under way.
    pub(super) async fn finish(&mut self) {
        if let Some(writing) = self.writing.take() {
            // A writer that failed has said so.
            let _ = writing.await;
        }
    }

    /// Forgets the directory.
    pub(super) async fn remove(&mut self) {
        self.finish().await;
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(path = %self.path.display(), error = %error, "Failed to remove the directory");
        }
    }
}

fn read(path: &Path, codec: Codec) -> io::Result<(Kept, Message)> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is too long"));
    }
    let bytes = fs::read(path)?;
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| io::Error::other("it has no header"))?;
    let header: Header = serde_json::from_slice(&bytes[..end])?;
    if header.version != VERSION {
        return Err(io::Error::other(format!(
            "it has version {}",
            header.version
        )));
    }
    let kept = Kept {
        node_id: header.node_id.parse().map_err(io::Error::other)?,
        data_path: header.data_path,
        port: header.port,
        slice: header
            .slice
            .map(|(number, v4, v6)| Slice { number, v4, v6 }),
    };
    let message = (codec.decode)(&bytes[end + 1..]).map_err(io::Error::other)?;
    Ok((kept, message))
}

fn write(path: &Path, kept: &Kept, message: &[u8]) -> io::Result<()> {
    let header = Header {
        version: VERSION,
        node_id: kept.node_id.to_string(),
        data_path: kept.data_path,
        port: kept.port,
        slice: kept.slice.map(|slice| (slice.number, slice.v4, slice.v6)),
    };
    let mut bytes = serde_json::to_vec(&header)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(message);
    let temporary = path.with_extension("new");
    fs::write(&temporary, &bytes)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use skep_model::Rng;

    use super::*;

    fn codec() -> Codec {
        Codec {
            encode: |message| message.index.to_be_bytes().to_vec(),
            decode: |bytes| {
                Ok(Message {
                    index: u64::from_be_bytes(bytes.try_into()?),
                    is_complete: true,
                    is_last: true,
                    changes: Vec::new(),
                })
            },
        }
    }

    fn kept(number: u64) -> Kept {
        Kept {
            node_id: NodeId::random(&mut Rng::from_seed(number)),
            data_path: [192, 0, 2, 1].into(),
            port: 4789,
            slice: Some(Slice {
                number: 7,
                v4: "10.252.28.1/22".parse().unwrap(),
                v6: Some("fd00::1/64".parse().unwrap()),
            }),
        }
    }

    #[tokio::test]
    async fn what_was_kept_is_found_by_the_same_node_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new(dir.path(), codec());
        assert!(keeper.read(kept(1).node_id).is_none());
        let message = (codec().decode)(&77u64.to_be_bytes()).unwrap();
        assert!(keeper.is_idle());
        keeper.write(&kept(1), message.clone());
        assert!(!keeper.is_idle());
        keeper.rest().await;
        assert!(keeper.is_idle());
        assert_eq!(keeper.read(kept(1).node_id), Some((kept(1), message)));
        assert!(keeper.read(kept(2).node_id).is_none());
        keeper.remove().await;
        assert!(keeper.read(kept(1).node_id).is_none());
    }

    #[test]
    fn what_is_damaged_counts_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(dir.path(), codec());
        let header = r#"{"version":1,"node_id":"8l4db4kgsryvb0q0vah4cr1if","data_path":"192.0.2.1","port":1,"slice":null}"#;
        for text in [
            "",
            "\n",
            "{}\n",
            header,
            &format!("{header}\nshort"),
            &header.replace("1,", "2,"),
        ] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert!(
                keeper
                    .read("8l4db4kgsryvb0q0vah4cr1if".parse().unwrap())
                    .is_none(),
                "{text}"
            );
        }
    }
}
