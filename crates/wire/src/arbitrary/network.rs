//! Networks and places on them.

use std::{net::IpAddr, sync::Arc};

use skep_model as model;
use skep_model::{AddressFamily, NetworkId};

use crate::arbitrary::Draw;

impl Draw {
    /// A network.
    pub fn network(&mut self) -> model::Network {
        model::Network {
            id: NetworkId::random(&mut self.0),
            meta: self.meta(),
            spec: self.network_spec(),
            driver_state: self.option(Self::driver),
            ipam: self.option(Self::ipam),
            is_pending_delete: self.flag(),
        }
    }

    /// What a network is.
    pub fn network_spec(&mut self) -> model::NetworkSpec {
        model::NetworkSpec {
            annotations: self.annotations(),
            driver: self.option(Self::driver),
            has_ipv6: self.flag(),
            is_internal: self.flag(),
            ipam: self.option(Self::ipam),
            is_attachable: self.flag(),
            is_ingress: self.flag(),
            config_from: self.option(Self::text),
        }
    }

    /// A place on a network.
    pub(super) fn attachment(&mut self) -> model::NetworkAttachment {
        model::NetworkAttachment {
            network: Arc::new(self.network()),
            addresses: self.list(Self::subnet),
            aliases: self.texts(),
            driver_options: self.map(),
        }
    }

    fn ipam(&mut self) -> model::IpamOptions {
        model::IpamOptions {
            driver: self.option(Self::driver),
            configs: self.list(|draw| model::IpamConfig {
                family: draw.one_of(&[
                    AddressFamily::Unknown,
                    AddressFamily::V4,
                    AddressFamily::V6,
                ]),
                subnet: draw.option(Self::subnet),
                range: draw.option(Self::subnet),
                gateway: draw.option(Self::address),
                reserved: draw
                    .list(|draw| (draw.text(), draw.address()))
                    .into_iter()
                    .collect(),
            }),
        }
    }

    pub(super) fn address(&mut self) -> IpAddr {
        self.subnet().addr()
    }
}
