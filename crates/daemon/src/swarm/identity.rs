//! Who this node is in its cluster, and the files that say so.
//!
//! `identity.json` (ids and address), `certificates/` (Swarm's names), `raft/` (log, snapshots),
//! `raft-key` (the log's key).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use skep_ca::{CertificateDir, JoinToken, KeyRequest, PublicKey, RootCa, Subject};
use skep_docker_api::{
    backend::InitRequest,
    error::{ApiError, Result},
};
use skep_manager::{StartError, bootstrap::NewCluster};
use skep_model::{
    ClusterId, JoinTokens, NodeId, NodeTlsInfo, Redacted, Rng, Role, RootCa as StoredRootCa,
    Timestamp,
};
use skep_raft::{Dek, Disk, DiskError, KeyFile};

const FILE: &str = "identity.json";
const KEY_FILE: &str = "raft-key";
const VERSION: u32 = 1;

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node_id: NodeId,
    pub(crate) cluster_id: ClusterId,
    /// This manager's raft id.
    pub(crate) raft_id: u64,
    /// Address others reach this node at.
    pub(crate) addr: IpAddr,
    /// Swarm's control port at that address.
    pub(crate) port: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    node_id: String,
    cluster_id: String,
    raft_id: u64,
    addr: IpAddr,
    port: u16,
}

impl Identity {
    /// The identity stored in `dir`; `None` when there is none.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(dir.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let stored: Stored = serde_json::from_slice(&bytes)?;
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        if stored.version != VERSION {
            let message = format!("identity has unknown version {}", stored.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Some(Self {
            node_id: stored.node_id.parse().map_err(invalid)?,
            cluster_id: stored.cluster_id.parse().map_err(invalid)?,
            raft_id: stored.raft_id,
            addr: stored.addr,
            port: stored.port,
        }))
    }

    /// Stores it durably. Until then the membership does not exist.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let stored = Stored {
            version: VERSION,
            node_id: self.node_id.to_string(),
            cluster_id: self.cluster_id.to_string(),
            raft_id: self.raft_id,
            addr: self.addr,
            port: self.port,
        };
        let (path, temporary) = (dir.join(FILE), dir.join("identity.json.new"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(&stored)?)?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        fs::File::open(dir)?.sync_all()
    }

    /// `host:port` of this node's control port.
    pub(crate) fn manager_addr(&self) -> String {
        SocketAddr::new(self.addr, self.port).to_string()
    }

    /// Upper bits of this manager's request ids: never zero, which is what Docker's managers use.
    pub(super) fn request_prefix(&self) -> u16 {
        u16::try_from(self.raft_id >> 48).unwrap_or(0) | 1
    }
}

/// Makes a new cluster's identity, root and node certificate, and the log's key.
pub(super) fn found(
    dir: &Path,
    request: &InitRequest,
    addr: SocketAddr,
) -> Result<(Identity, NewCluster)> {
    let system = |error: Box<dyn std::error::Error + Send + Sync>| {
        ApiError::system(format!("failed to found a cluster: {error}"), error)
    };
    let mut rng = Rng::from_seed(entropy());
    let identity = Identity {
        node_id: NodeId::random(&mut rng),
        cluster_id: ClusterId::random(&mut rng),
        // 63 bits and not zero, as SwarmKit chooses them.
        raft_id: (rng.next_u64() >> 1) + 1,
        addr: addr.ip(),
        port: addr.port(),
    };
    let (root_ca, certificate) = make_root(dir, request, &identity).map_err(system)?;
    let pools = request.default_address_pool.iter().map(|(addr, prefix)| {
        ipnet::IpNet::new(*addr, *prefix)
            .map_err(|_| ApiError::invalid(format!("invalid address pool {addr}/{prefix}")))
    });
    let new = NewCluster {
        cluster_id: identity.cluster_id,
        node_id: identity.node_id,
        spec: request.spec.clone(),
        root_ca,
        certificate,
        availability: request.availability,
        raft_id: identity.raft_id,
        addr: identity.manager_addr(),
        data_path_port: request.data_path_port,
        default_address_pool: pools.collect::<Result<_>>()?,
        subnet_size: request.subnet_size,
    };
    Ok((identity, new))
}

fn make_root(
    dir: &Path,
    request: &InitRequest,
    identity: &Identity,
) -> Result<(StoredRootCa, Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let now = now();
    let root = RootCa::generate(now)?;
    let key = KeyRequest::generate()?;
    let subject = Subject {
        node_id: identity.node_id,
        role: Role::Manager,
        cluster_id: identity.cluster_id,
    };
    let public_key = PublicKey::from_csr_pem(key.csr_pem.as_bytes())?;
    let certificate = root.issue(&public_key, &subject, now, request.spec.ca.node_cert_expiry)?;
    let files = CertificateDir::open(&dir.join("certificates"))?;
    files.save_root(root.certificates_pem())?;
    files.save_identity(&certificate, &key.key_pem)?;
    let key_file = KeyFile {
        dek: Dek::generate(),
        kek_version: 0,
    };
    key_file.save(&dir.join(KEY_FILE), None)?;
    let bundle = root.certificates_pem().as_bytes();
    let stored = StoredRootCa {
        ca_key: Redacted(root.key_pem().as_bytes().to_vec()),
        ca_cert: bundle.to_vec(),
        ca_cert_hash: root.hash(),
        join_tokens: JoinTokens {
            worker: Redacted(join_token(bundle)),
            manager: Redacted(join_token(bundle)),
        },
        root_rotation: None,
        last_forced_rotation: 0,
    };
    Ok((stored, certificate.into_bytes()))
}

/// A new token for a root certificate bundle.
pub(super) fn join_token(bundle: &[u8]) -> String {
    JoinToken::generate(bundle).to_string()
}

/// What the API tells of the cluster's root; empty parts when it cannot be parsed.
pub(super) fn tls_info(dir: &Path, ca_cert: &[u8]) -> NodeTlsInfo {
    let chain = CertificateDir::open(&dir.join("certificates"))
        .and_then(|files| files.load_identity())
        .ok()
        .flatten();
    let info =
        chain.and_then(|identity| skep_ca::tls_info(identity.chain_pem.as_bytes(), ca_cert).ok());
    info.unwrap_or_else(|| NodeTlsInfo {
        trust_root: ca_cert.to_vec(),
        ..NodeTlsInfo::default()
    })
}

/// Opens the raft log of the membership in `dir`.
pub(super) fn open_log(dir: &Path) -> Result<Disk, StartError> {
    let key = KeyFile::load(&dir.join(KEY_FILE), None)
        .map_err(|error| DiskError::Engine(Box::new(error)))?;
    Ok(Disk::open(&dir.join("raft"), &key.dek)?)
}

/// 64 bits of the kernel's randomness.
pub(super) fn entropy() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    u64::from_ne_bytes(bytes)
}

fn now() -> Timestamp {
    Timestamp::ZERO
        + SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
}
