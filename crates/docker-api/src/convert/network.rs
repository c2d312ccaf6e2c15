//! Networks.

mod ipam;
mod members;

use std::collections::BTreeMap;

use skep_model::{
    Annotations, DEFAULT_IPAM_DRIVER, Driver, IpamConfig, IpamOptions, Network, NetworkAttachment,
    NetworkAttachmentConfig, NetworkSpec,
};

pub(crate) use self::{
    ipam::check_ipam,
    members::{Member, containers, peers, services},
};

use crate::{
    backend::NetworkDetail,
    dto::{Map, meta, network as dto},
    error::{ApiError, Result},
    http::timestamp::rfc3339_nano,
};

/// Scope of networks that the cluster has.
pub(crate) const SWARM_SCOPE: &str = "swarm";

impl From<NetworkDetail> for dto::Network {
    fn from(network: NetworkDetail) -> Self {
        let config = network.subnets.iter().map(dto::IpamConfig::from);
        Self {
            name: network.name,
            id: network.id,
            created: rfc3339_nano(network.created_at),
            scope: network.scope,
            driver: network.driver,
            has_ipv4: true,
            has_ipv6: network.has_ipv6,
            ipam: dto::Ipam {
                driver: DEFAULT_IPAM_DRIVER.to_owned(),
                options: None,
                config: Some(config.collect()),
            },
            internal: network.is_internal,
            attachable: network.is_attachable,
            ingress: false,
            config_from: dto::ConfigReference {
                network: network.config_from,
            },
            config_only: network.is_config_only,
            containers: Some(BTreeMap::new()),
            options: Some(network.options),
            labels: Some(network.labels),
            peers: Vec::new(),
            services: BTreeMap::new(),
        }
    }
}

impl From<&Network> for dto::Network {
    /// As Docker shows a network of the cluster: what was allocated, not what was wished for.
    fn from(network: &Network) -> Self {
        let spec = &network.spec;
        let state = network.driver_state.as_ref();
        let ipam = network.ipam.as_ref().map(|ipam| {
            let driver = ipam.driver.as_ref();
            dto::Ipam {
                driver: driver.map(|driver| driver.name.clone()).unwrap_or_default(),
                options: driver.and_then(|driver| unless_empty(&driver.options)),
                config: Some(ipam.configs.iter().map(Into::into).collect()),
            }
        });
        Self {
            name: network.name().to_owned(),
            id: network.id.to_string(),
            created: rfc3339_nano(network.meta.created_at),
            scope: SWARM_SCOPE.to_owned(),
            driver: state.map(|state| state.name.clone()).unwrap_or_default(),
            has_ipv4: true,
            has_ipv6: spec.has_ipv6,
            ipam: ipam.unwrap_or_default(),
            internal: spec.is_internal,
            attachable: spec.is_attachable,
            ingress: spec.is_ingress,
            config_from: dto::ConfigReference {
                network: spec.config_from.clone().unwrap_or_default(),
            },
            config_only: false,
            containers: None,
            options: state.and_then(|state| unless_empty(&state.options)),
            labels: unless_empty(&spec.annotations.labels),
            peers: Vec::new(),
            services: BTreeMap::new(),
        }
    }
}

impl From<&IpamConfig> for dto::IpamConfig {
    fn from(config: &IpamConfig) -> Self {
        let reserved = config.reserved.iter();
        Self {
            subnet: text(config.subnet.as_ref()),
            ip_range: text(config.range.as_ref()),
            gateway: text(config.gateway.as_ref()),
            auxiliary_addresses: reserved
                .map(|(name, ip)| (name.clone(), ip.to_string()))
                .collect(),
        }
    }
}

impl From<&NetworkAttachment> for dto::Attachment {
    fn from(attachment: &NetworkAttachment) -> Self {
        let addresses = attachment.addresses.iter();
        Self {
            network: (&*attachment.network).into(),
            addresses: addresses.map(ToString::to_string).collect(),
        }
    }
}

impl From<&Network> for dto::ClusterNetwork {
    fn from(network: &Network) -> Self {
        let spec = &network.spec;
        let config_from = spec.config_from.clone();
        Self {
            id: network.id.to_string(),
            meta: network.meta.into(),
            spec: dto::ClusterNetworkSpec {
                name: network.name().to_owned(),
                labels: unless_empty(&spec.annotations.labels),
                driver_configuration: spec.driver.as_ref().map(Into::into),
                has_ipv6: spec.has_ipv6,
                internal: spec.is_internal,
                attachable: spec.is_attachable,
                ingress: spec.is_ingress,
                ipam_options: spec.ipam.as_ref().map(Into::into),
                config_from: config_from.map(|network| dto::ConfigReference { network }),
                scope: SWARM_SCOPE,
            },
            driver_state: network
                .driver_state
                .as_ref()
                .map(Into::into)
                .unwrap_or_default(),
            ipam_options: network.ipam.as_ref().map(Into::into),
        }
    }
}

impl From<&IpamOptions> for dto::IpamOptions {
    fn from(ipam: &IpamOptions) -> Self {
        let configs = ipam.configs.iter().map(|config| dto::ClusterIpamConfig {
            subnet: text(config.subnet.as_ref()),
            range: text(config.range.as_ref()),
            gateway: text(config.gateway.as_ref()),
        });
        Self {
            driver: ipam
                .driver
                .as_ref()
                .map(meta::Driver::from)
                .unwrap_or_default(),
            configs: configs.collect(),
        }
    }
}

impl TryFrom<dto::CreateNetwork> for NetworkSpec {
    type Error = ApiError;

    fn try_from(create: dto::CreateNetwork) -> Result<Self> {
        let config_from = create.config_from.map(|reference| reference.network);
        Ok(Self {
            annotations: Annotations {
                name: create.name,
                labels: create.labels.unwrap_or_default(),
            },
            driver: Some(Driver {
                name: create.driver,
                options: create.options.unwrap_or_default(),
            }),
            has_ipv6: create.has_ipv6.unwrap_or(false),
            is_internal: create.internal,
            ipam: create.ipam.map(TryInto::try_into).transpose()?,
            is_attachable: create.attachable,
            is_ingress: create.ingress,
            config_from: config_from.filter(|name| !name.is_empty()),
        })
    }
}

impl From<&NetworkAttachmentConfig> for dto::AttachmentConfig {
    fn from(config: &NetworkAttachmentConfig) -> Self {
        Self {
            target: config.target.clone(),
            aliases: (!config.aliases.is_empty()).then(|| config.aliases.clone()),
            driver_opts: unless_empty(&config.driver_options),
        }
    }
}

impl From<dto::AttachmentConfig> for NetworkAttachmentConfig {
    fn from(config: dto::AttachmentConfig) -> Self {
        Self {
            target: config.target,
            aliases: config.aliases.unwrap_or_default(),
            addresses: Vec::new(),
            driver_options: config.driver_opts.unwrap_or_default(),
        }
    }
}

fn unless_empty(map: &Map) -> Option<Map> {
    (!map.is_empty()).then(|| map.clone())
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}
