//! Nodes as stored, and what they say of themselves.

use skep_model as model;

use crate::{
    convert::field::{
        At, enum_pair, id, known, list, option, or_default, port, to_list, unsupported,
    },
    error::Error,
    proto::{
        self, NodeRole, issuance_status, node_status::State, raft_member_status::Reachability,
    },
};

enum_pair!(
    model::NodeState,
    State {
        Unknown,
        Down,
        Ready,
        Disconnected
    }
);
enum_pair!(
    model::Reachability,
    Reachability {
        Unknown,
        Unreachable,
        Reachable
    }
);
enum_pair!(
    model::CertificateState,
    issuance_status::State {
        Unknown,
        Renew,
        Pending,
        Issued,
        Failed,
        Rotate,
    }
);

impl From<&model::Node> for proto::Node {
    fn from(value: &model::Node) -> Self {
        Self {
            id: value.id.to_string(),
            meta: Some((&value.meta).into()),
            spec: Some((&value.spec).into()),
            description: value.description.as_ref().map(Into::into),
            status: Some((&value.status).into()),
            manager_status: value.manager_status.as_ref().map(Into::into),
            attachment: None,
            certificate: Some((&value.certificate).into()),
            role: NodeRole::from(value.role).into(),
            attachments: to_list(&value.attachments),
            vxlanudp_port: value.vxlan_udp_port.into(),
        }
    }
}

impl TryFrom<proto::Node> for model::Node {
    type Error = Error;

    fn try_from(value: proto::Node) -> Result<Self, Error> {
        unsupported(value.attachment.is_none()).at("attachment")?;
        Ok(Self {
            id: id(&value.id).at("id")?,
            meta: value.meta.unwrap_or_default().into(),
            spec: or_default(value.spec).at("spec")?,
            description: option(value.description).at("description")?,
            status: or_default(value.status).at("status")?,
            manager_status: option(value.manager_status).at("manager_status")?,
            certificate: or_default(value.certificate).at("certificate")?,
            role: known::<NodeRole, _>(value.role).at("role")?,
            attachments: list(value.attachments).at("attachments")?,
            vxlan_udp_port: port(value.vxlanudp_port).at("VXLANUDPPort")?,
        })
    }
}

impl From<&model::NodeDescription> for proto::NodeDescription {
    fn from(value: &model::NodeDescription) -> Self {
        Self {
            hostname: value.hostname.clone(),
            platform: Some((&value.platform).into()),
            resources: Some((&value.resources).into()),
            engine: Some((&value.engine).into()),
            tls_info: value.tls_info.as_ref().map(Into::into),
            fips: value.is_fips,
            csi_info: Vec::new(),
        }
    }
}

impl TryFrom<proto::NodeDescription> for model::NodeDescription {
    type Error = Error;

    fn try_from(value: proto::NodeDescription) -> Result<Self, Error> {
        unsupported(value.csi_info.is_empty()).at("csi_info")?;
        Ok(Self {
            hostname: value.hostname,
            platform: or_default(value.platform).at("platform")?,
            resources: or_default(value.resources).at("resources")?,
            engine: value.engine.unwrap_or_default().into(),
            tls_info: value.tls_info.map(Into::into),
            is_fips: value.fips,
        })
    }
}

impl From<&model::EngineDescription> for proto::EngineDescription {
    fn from(value: &model::EngineDescription) -> Self {
        Self {
            engine_version: value.engine_version.clone(),
            labels: value.labels.clone(),
            plugins: to_list(&value.plugins),
        }
    }
}

impl From<proto::EngineDescription> for model::EngineDescription {
    fn from(value: proto::EngineDescription) -> Self {
        Self {
            engine_version: value.engine_version,
            labels: value.labels,
            plugins: value.plugins.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<&model::Plugin> for proto::PluginDescription {
    fn from(value: &model::Plugin) -> Self {
        Self {
            r#type: value.kind.clone(),
            name: value.name.clone(),
        }
    }
}

impl From<proto::PluginDescription> for model::Plugin {
    fn from(value: proto::PluginDescription) -> Self {
        Self {
            kind: value.r#type,
            name: value.name,
        }
    }
}

impl From<&model::NodeTlsInfo> for proto::NodeTlsInfo {
    fn from(value: &model::NodeTlsInfo) -> Self {
        Self {
            trust_root: value.trust_root.clone(),
            cert_issuer_subject: value.cert_issuer_subject.clone(),
            cert_issuer_public_key: value.cert_issuer_public_key.clone(),
        }
    }
}

impl From<proto::NodeTlsInfo> for model::NodeTlsInfo {
    fn from(value: proto::NodeTlsInfo) -> Self {
        Self {
            trust_root: value.trust_root,
            cert_issuer_subject: value.cert_issuer_subject,
            cert_issuer_public_key: value.cert_issuer_public_key,
        }
    }
}

impl From<&model::NodeStatus> for proto::NodeStatus {
    fn from(value: &model::NodeStatus) -> Self {
        Self {
            state: State::from(value.state).into(),
            message: value.message.clone(),
            addr: value.addr.clone(),
        }
    }
}

impl TryFrom<proto::NodeStatus> for model::NodeStatus {
    type Error = Error;

    fn try_from(value: proto::NodeStatus) -> Result<Self, Error> {
        Ok(Self {
            state: known::<State, _>(value.state).at("state")?,
            message: value.message,
            addr: value.addr,
        })
    }
}

impl From<&model::ManagerStatus> for proto::ManagerStatus {
    fn from(value: &model::ManagerStatus) -> Self {
        Self {
            raft_id: value.raft_id,
            addr: value.addr.clone(),
            leader: value.is_leader,
            reachability: Reachability::from(value.reachability).into(),
        }
    }
}

impl TryFrom<proto::ManagerStatus> for model::ManagerStatus {
    type Error = Error;

    fn try_from(value: proto::ManagerStatus) -> Result<Self, Error> {
        Ok(Self {
            raft_id: value.raft_id,
            addr: value.addr,
            is_leader: value.leader,
            reachability: known::<Reachability, _>(value.reachability).at("reachability")?,
        })
    }
}

impl From<&model::Certificate> for proto::Certificate {
    fn from(value: &model::Certificate) -> Self {
        let status = proto::IssuanceStatus {
            state: issuance_status::State::from(value.state).into(),
            err: value.err.clone(),
        };
        Self {
            role: NodeRole::from(value.role).into(),
            csr: value.csr.clone(),
            status: Some(status),
            certificate: value.certificate.clone(),
            cn: value.cn.clone(),
        }
    }
}

impl TryFrom<proto::Certificate> for model::Certificate {
    type Error = Error;

    fn try_from(value: proto::Certificate) -> Result<Self, Error> {
        let status = value.status.unwrap_or_default();
        let state = known::<issuance_status::State, _>(status.state).at("state");
        Ok(Self {
            role: known::<NodeRole, _>(value.role).at("role")?,
            csr: value.csr,
            state: state.at("status")?,
            err: status.err,
            certificate: value.certificate,
            cn: value.cn,
        })
    }
}
