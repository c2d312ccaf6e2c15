//! Clusters.

use skep_model as model;
use skep_model::{ClusterId, Redacted, object::RootRotation};

use crate::arbitrary::Draw;

impl Draw {
    /// A cluster.
    pub fn cluster(&mut self) -> model::Cluster {
        let blacklisted = self.list(|draw| (draw.text(), draw.time()));
        model::Cluster {
            id: ClusterId::random(&mut self.0),
            meta: self.meta(),
            spec: self.cluster_spec(),
            root_ca: self.root_ca(),
            network_bootstrap_keys: self.list(Self::encryption_key),
            encryption_key_lamport_clock: self.number(),
            blacklisted_certificates: blacklisted.into_iter().collect(),
            unlock_keys: self.list(Self::encryption_key),
            is_fips: self.flag(),
            default_address_pool: self.list(Self::subnet),
            subnet_size: self.small(),
            vxlan_udp_port: self.port_number(),
        }
    }

    fn cluster_spec(&mut self) -> model::ClusterSpec {
        model::ClusterSpec {
            annotations: self.annotations(),
            task_history_limit: self.signed(),
            raft: model::RaftSettings {
                snapshot_interval: self.number(),
                keep_old_snapshots: self.number(),
                log_entries_for_slow_followers: self.number(),
                heartbeat_tick: self.small(),
                election_tick: self.small(),
            },
            heartbeat_period: self.duration(),
            ca: model::CaConfig {
                node_cert_expiry: self.duration(),
                external_cas: self.list(|draw| model::ExternalCa {
                    url: draw.text(),
                    options: draw.map(),
                    ca_cert: draw.bytes(),
                }),
                signing_ca_cert: self.bytes(),
                signing_ca_key: self.secret_bytes(),
                force_rotate: self.number(),
            },
            default_log_driver: self.option(Self::driver),
            auto_lock_managers: self.flag(),
        }
    }

    fn root_ca(&mut self) -> model::RootCa {
        model::RootCa {
            ca_key: self.secret_bytes(),
            ca_cert: self.bytes(),
            ca_cert_hash: self.text(),
            join_tokens: model::JoinTokens {
                worker: Redacted(self.text()),
                manager: Redacted(self.text()),
            },
            root_rotation: self.option(|draw| RootRotation {
                ca_cert: draw.bytes(),
                ca_key: draw.secret_bytes(),
                cross_signed_ca_cert: draw.bytes(),
            }),
            last_forced_rotation: self.number(),
        }
    }

    pub(super) fn encryption_key(&mut self) -> model::EncryptionKey {
        model::EncryptionKey {
            subsystem: self.text(),
            key: self.secret_bytes(),
            lamport_time: self.number(),
        }
    }
}
