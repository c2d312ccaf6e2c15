//! Networks as stored, and places on them.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr, sync::Arc};

use ipnet::IpNet;
use skep_model as model;

use crate::{
    convert::field::{At, enum_pair, id, known, list, option, or_default, to_list, unsupported},
    error::{Error, Problem},
    proto::{self, ipam_config, network_spec::ConfigFrom},
};

enum_pair!(
    model::AddressFamily,
    ipam_config::AddressFamily { Unknown, V4 = Ipv4, V6 = Ipv6 }
);

impl From<&model::Network> for proto::Network {
    fn from(value: &model::Network) -> Self {
        Self {
            id: value.id.to_string(),
            meta: Some((&value.meta).into()),
            spec: Some((&value.spec).into()),
            driver_state: value.driver_state.as_ref().map(Into::into),
            ipam: value.ipam.as_ref().map(Into::into),
            pending_delete: value.is_pending_delete,
            extra: None,
        }
    }
}

impl TryFrom<proto::Network> for model::Network {
    type Error = Error;

    fn try_from(value: proto::Network) -> Result<Self, Error> {
        // Docker's managers put the state of a running network here in answers, never in the store.
        unsupported(value.extra.is_none()).at("extra")?;
        Ok(Self {
            id: id(&value.id).at("id")?,
            meta: value.meta.unwrap_or_default().into(),
            spec: or_default(value.spec).at("spec")?,
            driver_state: value.driver_state.map(Into::into),
            ipam: option(value.ipam).at("ipam")?,
            is_pending_delete: value.pending_delete,
        })
    }
}

impl From<&model::NetworkSpec> for proto::NetworkSpec {
    fn from(value: &model::NetworkSpec) -> Self {
        Self {
            annotations: Some((&value.annotations).into()),
            driver_config: value.driver.as_ref().map(Into::into),
            ipv6_enabled: value.has_ipv6,
            internal: value.is_internal,
            ipam: value.ipam.as_ref().map(Into::into),
            attachable: value.is_attachable,
            ingress: value.is_ingress,
            config_from: value.config_from.clone().map(ConfigFrom::Network),
        }
    }
}

impl TryFrom<proto::NetworkSpec> for model::NetworkSpec {
    type Error = Error;

    fn try_from(value: proto::NetworkSpec) -> Result<Self, Error> {
        Ok(Self {
            annotations: or_default(value.annotations).at("annotations")?,
            driver: value.driver_config.map(Into::into),
            has_ipv6: value.ipv6_enabled,
            is_internal: value.internal,
            ipam: option(value.ipam).at("ipam")?,
            is_attachable: value.attachable,
            is_ingress: value.ingress,
            config_from: value.config_from.map(|ConfigFrom::Network(name)| name),
        })
    }
}

impl From<&model::IpamOptions> for proto::IpamOptions {
    fn from(value: &model::IpamOptions) -> Self {
        Self {
            driver: value.driver.as_ref().map(Into::into),
            configs: to_list(&value.configs),
        }
    }
}

impl TryFrom<proto::IpamOptions> for model::IpamOptions {
    type Error = Error;

    fn try_from(value: proto::IpamOptions) -> Result<Self, Error> {
        Ok(Self {
            driver: value.driver.map(Into::into),
            configs: list(value.configs).at("configs")?,
        })
    }
}

impl From<&model::IpamConfig> for proto::IpamConfig {
    fn from(value: &model::IpamConfig) -> Self {
        let reserved = value.reserved.iter();
        Self {
            family: ipam_config::AddressFamily::from(value.family).into(),
            subnet: text(value.subnet.as_ref()),
            range: text(value.range.as_ref()),
            gateway: text(value.gateway.as_ref()),
            reserved: reserved
                .map(|(name, ip)| (name.clone(), ip.to_string()))
                .collect(),
        }
    }
}

impl TryFrom<proto::IpamConfig> for model::IpamConfig {
    type Error = Error;

    fn try_from(value: proto::IpamConfig) -> Result<Self, Error> {
        let reserved = value.reserved.into_iter().map(|(name, text)| {
            let ip: IpAddr = address(&text)?;
            Ok::<_, Problem>((name, ip))
        });
        let reserved: Result<BTreeMap<_, _>, _> = reserved.collect();
        Ok(Self {
            family: known::<ipam_config::AddressFamily, _>(value.family).at("family")?,
            subnet: optional_address(&value.subnet).at("subnet")?,
            range: optional_address(&value.range).at("range")?,
            gateway: optional_address(&value.gateway).at("gateway")?,
            reserved: reserved.at("reserved")?,
        })
    }
}

impl From<&model::NetworkAttachment> for proto::NetworkAttachment {
    fn from(value: &model::NetworkAttachment) -> Self {
        Self {
            network: Some((&*value.network).into()),
            ..Self::without_network(value)
        }
    }
}

impl proto::NetworkAttachment {
    /// `value` with `network` left out.
    pub(crate) fn without_network(value: &model::NetworkAttachment) -> Self {
        Self {
            network: None,
            addresses: value.addresses.iter().map(IpNet::to_string).collect(),
            aliases: value.aliases.clone(),
            driver_attachment_opts: value.driver_options.clone(),
        }
    }

    /// The model's form of this place, on `network`.
    pub(crate) fn into_model_on(
        self,
        network: Arc<model::Network>,
    ) -> Result<model::NetworkAttachment, Error> {
        let addresses = self.addresses.iter().map(|text| address(text));
        let addresses: Result<Vec<IpNet>, _> = addresses.collect();
        Ok(model::NetworkAttachment {
            network,
            addresses: addresses.at("addresses")?,
            aliases: self.aliases,
            driver_options: self.driver_attachment_opts,
        })
    }
}

impl TryFrom<proto::NetworkAttachment> for model::NetworkAttachment {
    type Error = Error;

    fn try_from(mut value: proto::NetworkAttachment) -> Result<Self, Error> {
        let network = model::Network::try_from(value.network.take().at("network")?);
        value.into_model_on(Arc::new(network.at("network")?))
    }
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

fn address<T: FromStr>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::invalid_network(text))
}

fn optional_address<T: FromStr>(text: &str) -> Result<Option<T>, Problem> {
    if text.is_empty() {
        Ok(None)
    } else {
        address(text).map(Some)
    }
}
