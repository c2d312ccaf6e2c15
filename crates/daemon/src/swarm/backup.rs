//! The backup file: who made it of what, the state, a checksum. Format: `docs/design/node.md`.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use skep_manager::entry;
use skep_model::ClusterId;
use skep_wire::member::Member;

use super::alone::State;

/// Largest file read. A cluster of a million tasks takes about half; the whole is held in memory.
pub(super) const FILE_BYTES_MAX: usize = 1 << 30;
const MAGIC: &[u8; 7] = b"SKEPBAK";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 32;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cluster_id: ClusterId,
    /// The manager that made it.
    pub(super) made_by: Member,
    /// Log index of the state.
    pub(super) index: u64,
    /// Seconds since 1970, UTC.
    pub(super) made_at: i64,
}

#[derive(Serialize, Deserialize)]
struct StoredHeader {
    cluster_id: String,
    node_id: String,
    raft_id: u64,
    addr: String,
    index: u64,
    made_at: i64,
    /// Version of Skep, for people.
    skep: String,
}

/// Why a file is no backup to restore from.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackupError {
    #[error("this is no backup of a Skep cluster")]
    Foreign,
    #[error("backup has version {0}, this version of Skep reads {VERSION}")]
    Version(u8),
    #[error("backup is cut off or damaged")]
    Damaged,
    #[error("backup is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("backup has a malformed header")]
    Header,
    #[error("backup holds a malformed state: {0}")]
    State(String),
    #[error("backup holds the state of another cluster than it says")]
    OtherCluster,
}

/// The file of a state.
pub(super) fn encode(header: &Header, snapshot: &[u8]) -> Vec<u8> {
    let stored = StoredHeader {
        cluster_id: header.cluster_id.to_string(),
        node_id: header.made_by.node_id.to_string(),
        raft_id: header.made_by.raft_id,
        addr: header.made_by.addr.clone(),
        index: header.index,
        made_at: header.made_at,
        skep: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let json = serde_json::to_vec(&stored).expect("plain values are JSON");
    let mut file = Vec::with_capacity(snapshot.len() + json.len() + 64);
    file.extend(MAGIC);
    file.push(VERSION);
    for part in [&json[..], snapshot] {
        let length = u64::try_from(part.len()).expect("lengths fit 64 bits");
        file.extend(length.to_be_bytes());
        file.extend(part);
    }
    let checksum = Sha256::digest(&file);
    file.extend(checksum);
    file
}

/// The state in a file, checked as a whole.
pub(super) fn decode(file: &[u8]) -> Result<(Header, State), BackupError> {
    let rest = file.strip_prefix(MAGIC).ok_or(BackupError::Foreign)?;
    match rest.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(BackupError::Version(other)),
        None => return Err(BackupError::Damaged),
    }
    let (content, checksum) = file
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(BackupError::Damaged)?;
    if <[u8; CHECKSUM_BYTES]>::from(Sha256::digest(content)) != *checksum {
        return Err(BackupError::Damaged);
    }
    let rest = content.get(MAGIC.len() + 1..).ok_or(BackupError::Damaged)?;
    let (json, rest) = part(rest)?;
    let (snapshot, rest) = part(rest)?;
    if !rest.is_empty() {
        return Err(BackupError::Damaged);
    }
    let header = header(json)?;
    let (decoded, store) = entry::decode_snapshot(snapshot).map_err(BackupError::State)?;
    let cluster_id = store.cluster().map(|cluster| cluster.id);
    if cluster_id != Some(header.cluster_id) {
        return Err(BackupError::OtherCluster);
    }
    let state = State {
        store,
        membership: decoded.membership,
        index: header.index,
        term: 0,
    };
    Ok((header, state))
}

/// A part behind its length, and what follows.
fn part(bytes: &[u8]) -> Result<(&[u8], &[u8]), BackupError> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or(BackupError::Damaged)?;
    let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| BackupError::Damaged)?;
    rest.split_at_checked(length).ok_or(BackupError::Damaged)
}

fn header(json: &[u8]) -> Result<Header, BackupError> {
    let stored: StoredHeader = serde_json::from_slice(json).map_err(|_| BackupError::Header)?;
    let parsed = || -> Option<Header> {
        Some(Header {
            cluster_id: stored.cluster_id.parse().ok()?,
            made_by: Member {
                raft_id: stored.raft_id,
                node_id: stored.node_id.parse().ok()?,
                addr: stored.addr.clone(),
            },
            index: stored.index,
            made_at: stored.made_at,
        })
    };
    parsed().ok_or(BackupError::Header)
}

#[cfg(test)]
mod tests;
