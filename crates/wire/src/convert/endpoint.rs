//! Ports and endpoints.

use skep_model as model;

use crate::{
    convert::field::{At, enum_pair, known, list, option, port, to_list},
    error::Error,
    proto::{self, endpoint as wire, endpoint_spec, port_config},
};

enum_pair!(model::ResolutionMode, endpoint_spec::ResolutionMode { Vip, DnsRr = Dnsrr });
enum_pair!(model::Protocol, port_config::Protocol { Tcp, Udp, Sctp });
enum_pair!(
    model::PublishMode,
    port_config::PublishMode { Ingress, Host }
);

impl From<&model::PortConfig> for proto::PortConfig {
    fn from(value: &model::PortConfig) -> Self {
        Self {
            name: value.name.clone(),
            protocol: port_config::Protocol::from(value.protocol).into(),
            target_port: value.target_port.into(),
            published_port: value.published_port.into(),
            publish_mode: port_config::PublishMode::from(value.publish_mode).into(),
        }
    }
}

impl TryFrom<proto::PortConfig> for model::PortConfig {
    type Error = Error;

    fn try_from(value: proto::PortConfig) -> Result<Self, Error> {
        let publish_mode = known::<port_config::PublishMode, _>(value.publish_mode);
        Ok(Self {
            name: value.name,
            protocol: known::<port_config::Protocol, _>(value.protocol).at("protocol")?,
            target_port: port(value.target_port).at("target_port")?,
            published_port: port(value.published_port).at("published_port")?,
            publish_mode: publish_mode.at("publish_mode")?,
        })
    }
}

impl From<&model::EndpointSpec> for proto::EndpointSpec {
    fn from(value: &model::EndpointSpec) -> Self {
        Self {
            mode: endpoint_spec::ResolutionMode::from(value.mode).into(),
            ports: to_list(&value.ports),
        }
    }
}

impl TryFrom<proto::EndpointSpec> for model::EndpointSpec {
    type Error = Error;

    fn try_from(value: proto::EndpointSpec) -> Result<Self, Error> {
        Ok(Self {
            mode: known::<endpoint_spec::ResolutionMode, _>(value.mode).at("mode")?,
            ports: list(value.ports).at("ports")?,
        })
    }
}

impl From<&model::Endpoint> for proto::Endpoint {
    fn from(value: &model::Endpoint) -> Self {
        Self {
            spec: value.spec.as_ref().map(Into::into),
            ports: to_list(&value.ports),
            virtual_ips: to_list(&value.virtual_ips),
        }
    }
}

impl TryFrom<proto::Endpoint> for model::Endpoint {
    type Error = Error;

    fn try_from(value: proto::Endpoint) -> Result<Self, Error> {
        Ok(Self {
            spec: option(value.spec).at("spec")?,
            ports: list(value.ports).at("ports")?,
            virtual_ips: value.virtual_ips.into_iter().map(Into::into).collect(),
        })
    }
}

impl From<&model::VirtualIp> for wire::VirtualIp {
    fn from(value: &model::VirtualIp) -> Self {
        Self {
            network_id: value.network_id.clone(),
            addr: value.addr.clone(),
        }
    }
}

impl From<wire::VirtualIp> for model::VirtualIp {
    fn from(value: wire::VirtualIp) -> Self {
        Self {
            network_id: value.network_id,
            addr: value.addr,
        }
    }
}
