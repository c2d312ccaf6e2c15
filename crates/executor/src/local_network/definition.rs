//! A network of this node, as it is kept.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use skep_model::{
    AddressFamily, BRIDGE_DRIVER, BridgeOptions, IpamConfig, IpamOptions, MACVLAN_DRIVER,
    MacvlanMode, MacvlanOptions, NetworkSpec, Timestamp,
};
use skep_network::local::{Kind, LocalNetwork, Mode};

use super::Error;

/// The version of the files this code writes.
const VERSION: u32 = 1;
/// Digits of an id that make a name of a link, as in Docker.
const ID_DIGITS: usize = 12;
/// Driver that Docker shows of networks that are settings only.
const NULL_DRIVER: &str = "null";

/// A network of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Format version.
    pub version: u32,
    /// 64 hex digits, or the id of the cluster's network.
    pub id: String,
    /// Unique among networks of this node.
    pub name: String,
    /// `bridge` or `macvlan`; `null` for settings only.
    pub driver: String,
    /// Whose network it is.
    pub scope: Scope,
    /// Nanoseconds since the epoch.
    pub created_at_ns: i64,
    /// Whether it has IPv6.
    pub has_ipv6: bool,
    /// Without a way out.
    pub is_internal: bool,
    /// As wished; containers outside of services there are none yet.
    pub is_attachable: bool,
    /// Whether it is settings for other networks only.
    pub is_config_only: bool,
    /// Network with its settings; empty: they are its own.
    pub config_from: String,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
}

/// Whose network it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This node's.
    #[default]
    Local,
    /// The cluster's; this is the node's part of it.
    Swarm,
}

/// One subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet.
    pub subnet: IpNet,
    /// The part of it that addresses are taken from.
    #[serde(default)]
    pub range: Option<IpNet>,
    /// The gateway.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Addresses in use by others, by name.
    #[serde(default)]
    pub reserved: BTreeMap<String, IpAddr>,
}

// === impl Definition ===

impl Definition {
    /// What `spec` says.
    pub(super) fn of(spec: &NetworkSpec, (id, now): (String, Timestamp)) -> Self {
        let driver = spec.driver.as_ref();
        let configs = spec.ipam.iter().flat_map(|ipam| &ipam.configs);
        Self {
            version: VERSION,
            id,
            name: spec.annotations.name.clone(),
            driver: match spec.driver.as_ref().map_or("", |driver| &driver.name) {
                "" => BRIDGE_DRIVER.to_owned(),
                name => name.to_owned(),
            },
            scope: Scope::Local,
            created_at_ns: now.0,
            has_ipv6: spec.has_ipv6,
            is_internal: spec.is_internal,
            is_attachable: spec.is_attachable,
            is_config_only: false,
            config_from: spec.config_from.clone().unwrap_or_default(),
            labels: spec.annotations.labels.clone(),
            options: driver
                .map(|driver| driver.options.clone())
                .unwrap_or_default(),
            subnets: configs.filter_map(Subnet::of).collect(),
        }
    }

    /// Whether this code can read it.
    pub(super) fn is_known_version(&self) -> bool {
        self.version == VERSION
    }

    /// Settings are of the network, not of its use. The texts are Docker's.
    pub(super) fn check_settings(&mut self, spec: &NetworkSpec) -> Result<(), Error> {
        if !self.config_from.is_empty() {
            let message = "a configuration network cannot depend on another configuration network";
            return Err(Error::Forbidden(message.to_owned()));
        }
        if spec.is_ingress || spec.is_internal || spec.is_attachable {
            let message = "configuration network can only contain network specific fields. Network \
                           operator fields like [ ingress | internal | attachable | scope ] are not \
                           supported.";
            return Err(Error::Forbidden(message.to_owned()));
        }
        NULL_DRIVER.clone_into(&mut self.driver);
        let problems = skep_model::validate::ipam_of(spec);
        if problems.is_empty() {
            return Ok(());
        }
        let texts = problems.into_iter().map(|problem| problem.0);
        Err(Error::Invalid(texts.collect()))
    }

    /// A network with settings of another has none of its own. The texts are Docker's.
    pub(super) fn check_dependent(&self) -> Result<(), Error> {
        let message = if self.has_ipv6 || !self.labels.is_empty() || !self.subnets.is_empty() {
            "user specified configurations are not supported if the network depends on a \
             configuration network"
        } else if !self.options.is_empty() {
            "network driver options are not supported if the network depends on a configuration \
             network"
        } else {
            return Ok(());
        };
        Err(Error::Forbidden(message.to_owned()))
    }

    /// Takes over what the settings say.
    pub(super) fn take_settings(&mut self, settings: &Self) {
        self.has_ipv6 = settings.has_ipv6;
        self.options.clone_from(&settings.options);
        self.subnets.clone_from(&settings.subnets);
        for (key, value) in &settings.labels {
            let label = self.labels.entry(key.clone());
            label.or_insert_with(|| value.clone());
        }
    }

    /// Its addresses as the model says them.
    pub fn ipam(&self) -> IpamOptions {
        IpamOptions {
            driver: None,
            configs: self.subnets.iter().map(Subnet::to_config).collect(),
        }
    }

    /// The gateways of its subnets, the first of each family.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let of = |is_v4: bool| {
            let mut gateways = self.subnets.iter().filter_map(|subnet| subnet.gateway);
            gateways.find(|ip| ip.is_ipv4() == is_v4)
        };
        [of(true), of(false)].into_iter().flatten().collect()
    }

    /// The address of the node on which ports of its containers are published by default.
    pub fn host_binding(&self) -> Option<IpAddr> {
        let options = BridgeOptions::parse(&self.options).ok()?;
        options
            .host_binding
            .filter(|_| self.driver == BRIDGE_DRIVER)
    }

    /// Name of its bridge.
    pub fn bridge(&self) -> Option<String> {
        let options = BridgeOptions::parse(&self.options).ok()?;
        let is_bridge = self.driver == BRIDGE_DRIVER;
        is_bridge.then(|| options.name.unwrap_or_else(|| self.link_name("br-")))
    }

    /// As the kernel is to have it; `None` for settings only.
    pub(super) fn to_kernel(&self) -> Result<Option<LocalNetwork>, Error> {
        if self.is_config_only {
            return Ok(None);
        }
        let (kind, mtu, is_closed) = match self.driver.as_str() {
            BRIDGE_DRIVER => {
                let options = BridgeOptions::parse(&self.options).map_err(Error::Invalid)?;
                let kind = Kind::Bridge {
                    name: options.name.unwrap_or_else(|| self.link_name("br-")),
                    has_icc: options.has_icc,
                    has_masquerade: options.has_masquerade,
                };
                (kind, options.mtu, false)
            }
            MACVLAN_DRIVER => {
                let options = MacvlanOptions::parse(&self.options).map_err(Error::Invalid)?;
                // Without a way out it leads to nobody but its own, as in Docker.
                let parent = options.parent.filter(|_| !self.is_internal);
                let is_dummy = parent.is_none();
                let kind = Kind::Macvlan {
                    parent: parent.unwrap_or_else(|| self.link_name("dm-")),
                    is_dummy,
                    mode: mode(options.mode),
                };
                (kind, options.mtu, is_dummy)
            }
            other => {
                return Err(Error::Invalid(vec![format!(
                    "network {} has driver {other}, which this node does not have",
                    self.name
                )]));
            }
        };
        let subnets = self.subnets.iter();
        Ok(Some(LocalNetwork {
            kind,
            subnets: subnets.map(|one| (one.subnet, one.gateway)).collect(),
            is_internal: self.is_internal || is_closed,
            mtu,
        }))
    }

    /// Whether nothing leads out of it.
    pub fn is_closed(&self) -> bool {
        let network = self.to_kernel().ok().flatten();
        network.is_none_or(|network| network.is_internal)
    }

    fn link_name(&self, prefix: &str) -> String {
        let digits: String = self.id.chars().take(ID_DIGITS).collect();
        format!("{prefix}{digits}")
    }
}

// === impl Subnet ===

impl Subnet {
    fn of(config: &IpamConfig) -> Option<Self> {
        Some(Self {
            subnet: config.subnet?,
            range: config.range,
            gateway: config.gateway,
            reserved: config.reserved.clone(),
        })
    }

    pub(super) fn to_config(&self) -> IpamConfig {
        IpamConfig {
            family: AddressFamily::Unknown,
            subnet: Some(self.subnet),
            range: self.range,
            gateway: self.gateway,
            reserved: self.reserved.clone(),
        }
    }
}

fn mode(mode: MacvlanMode) -> Mode {
    match mode {
        MacvlanMode::Bridge => Mode::Bridge,
        MacvlanMode::Private => Mode::Private,
        MacvlanMode::Vepa => Mode::Vepa,
        MacvlanMode::Passthru => Mode::Passthru,
    }
}
