//! Nodes.

use skep_model as model;
use skep_model::NodeId;

use crate::arbitrary::Draw;

const ROLES: [model::Role; 2] = [model::Role::Worker, model::Role::Manager];

impl Draw {
    /// A node.
    pub fn node(&mut self) -> model::Node {
        model::Node {
            id: NodeId::random(&mut self.0),
            meta: self.meta(),
            spec: self.node_spec(),
            description: self.option(Self::node_description),
            status: self.node_status(),
            manager_status: self.option(Self::manager_status),
            certificate: self.certificate(),
            role: self.one_of(&ROLES),
            attachments: self.list(Self::attachment),
            vxlan_udp_port: self.port_number(),
        }
    }

    fn node_spec(&mut self) -> model::NodeSpec {
        use model::{Availability, Membership};
        model::NodeSpec {
            annotations: self.annotations(),
            desired_role: self.one_of(&ROLES),
            membership: self.one_of(&[Membership::Pending, Membership::Accepted]),
            availability: self.one_of(&[
                Availability::Active,
                Availability::Pause,
                Availability::Drain,
            ]),
        }
    }

    pub(super) fn node_description(&mut self) -> model::NodeDescription {
        model::NodeDescription {
            hostname: self.text(),
            platform: self.platform(),
            resources: self.resources(),
            engine: model::EngineDescription {
                engine_version: self.text(),
                labels: self.map(),
                plugins: self.list(|draw| model::Plugin {
                    kind: draw.text(),
                    name: draw.text(),
                }),
            },
            tls_info: self.option(|draw| model::NodeTlsInfo {
                trust_root: draw.bytes(),
                cert_issuer_subject: draw.bytes(),
                cert_issuer_public_key: draw.bytes(),
            }),
            is_fips: self.flag(),
        }
    }

    fn node_status(&mut self) -> model::NodeStatus {
        use model::NodeState;
        model::NodeStatus {
            state: self.one_of(&[
                NodeState::Unknown,
                NodeState::Down,
                NodeState::Ready,
                NodeState::Disconnected,
            ]),
            message: self.text(),
            addr: self.text(),
        }
    }

    fn manager_status(&mut self) -> model::ManagerStatus {
        use model::Reachability;
        model::ManagerStatus {
            raft_id: self.number(),
            addr: self.text(),
            is_leader: self.flag(),
            reachability: self.one_of(&[
                Reachability::Unknown,
                Reachability::Unreachable,
                Reachability::Reachable,
            ]),
        }
    }

    fn certificate(&mut self) -> model::Certificate {
        use model::CertificateState;
        model::Certificate {
            role: self.one_of(&ROLES),
            csr: self.bytes(),
            state: self.one_of(&[
                CertificateState::Unknown,
                CertificateState::Renew,
                CertificateState::Pending,
                CertificateState::Issued,
                CertificateState::Failed,
                CertificateState::Rotate,
            ]),
            err: self.text(),
            certificate: self.bytes(),
            cn: self.text(),
        }
    }
}
