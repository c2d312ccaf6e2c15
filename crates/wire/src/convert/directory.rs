//! What nodes are told of each other.

use std::{net::IpAddr, sync::Arc};

use ipnet::{Ipv4Net, Ipv6Net};
use prost::Message as _;
use skep_model::{
    Network, PortConfig,
    directory::{
        Change, Entry, Key, Message, NodeEntry, ServiceEntry, ServicePlace, Slice, Standing,
        TaskEntry, TaskPlace,
    },
};

use crate::{
    convert::field::{At, enum_pair, id, known, list, option, optional_id, to_list},
    error::{Error, Problem},
    peer::{self, directory_change::Change as Wire, gone, task_entry},
    proto,
};

enum_pair!(
    Standing,
    task_entry::Standing {
        Starting,
        Ready,
        Leaving,
        Unready
    }
);

impl From<&Message> for peer::DirectoryMessage {
    fn from(value: &Message) -> Self {
        Self {
            index: value.index,
            is_complete: value.is_complete,
            is_last: value.is_last,
            changes: to_list(&value.changes),
        }
    }
}

impl TryFrom<peer::DirectoryMessage> for Message {
    type Error = Error;

    fn try_from(value: peer::DirectoryMessage) -> Result<Self, Error> {
        Ok(Self {
            index: value.index,
            is_complete: value.is_complete,
            is_last: value.is_last,
            changes: list(value.changes).at("changes")?,
        })
    }
}

impl From<&Change> for peer::DirectoryChange {
    fn from(value: &Change) -> Self {
        let change = match value {
            Change::Set(Entry::Network(network)) => {
                Wire::Network(proto::Network::from(network.as_ref()).encode_to_vec())
            }
            Change::Set(Entry::Service(service)) => Wire::Service(service.as_ref().into()),
            Change::Set(Entry::Task(task)) => Wire::Task(task.as_ref().into()),
            Change::Set(Entry::Node(node)) => Wire::Node(node.as_ref().into()),
            Change::Remove(key) => {
                let (kind, id) = match key {
                    Key::Network(id) => (gone::Kind::Network, id.to_string()),
                    Key::Service(id) => (gone::Kind::Service, id.to_string()),
                    Key::Task(id) => (gone::Kind::Task, id.to_string()),
                    Key::Node(id) => (gone::Kind::Node, id.to_string()),
                };
                let kind = kind.into();
                Wire::Gone(peer::Gone { kind, id })
            }
        };
        Self {
            change: Some(change),
        }
    }
}

impl TryFrom<peer::DirectoryChange> for Change {
    type Error = Error;

    fn try_from(value: peer::DirectoryChange) -> Result<Self, Error> {
        let entry = match value.change.at("change")? {
            Wire::Network(bytes) => {
                let network = proto::Network::decode(bytes.as_slice())?;
                Entry::Network(Arc::new(Network::try_from(network).at("network")?))
            }
            Wire::Service(service) => {
                Entry::Service(Arc::new(ServiceEntry::try_from(service).at("service")?))
            }
            Wire::Task(task) => Entry::Task(Arc::new(TaskEntry::try_from(task).at("task")?)),
            Wire::Node(node) => Entry::Node(Arc::new(NodeEntry::try_from(node).at("node")?)),
            Wire::Gone(gone) => return Ok(Self::Remove(key(&gone).at("gone")?)),
        };
        Ok(Self::Set(entry))
    }
}

fn key(gone: &peer::Gone) -> Result<Key, Error> {
    let kind = gone::Kind::try_from(gone.kind);
    let kind = kind.map_err(|_| Error::field("kind", Problem::UnknownValue(gone.kind)))?;
    Ok(match kind {
        gone::Kind::Network => Key::Network(id(&gone.id).at("id")?),
        gone::Kind::Service => Key::Service(id(&gone.id).at("id")?),
        gone::Kind::Task => Key::Task(id(&gone.id).at("id")?),
        gone::Kind::Node => Key::Node(id(&gone.id).at("id")?),
    })
}

impl From<&ServiceEntry> for peer::ServiceEntry {
    fn from(value: &ServiceEntry) -> Self {
        let ports = value.ports.iter().map(proto::PortConfig::from);
        Self {
            id: value.id.to_string(),
            name: value.name.clone(),
            networks: to_list(&value.networks),
            ports: ports.map(|port| port.encode_to_vec()).collect(),
            is_local_first: value.is_local_first,
            publish_address: value.publish_address.map(octets).unwrap_or_default(),
        }
    }
}

impl TryFrom<peer::ServiceEntry> for ServiceEntry {
    type Error = Error;

    fn try_from(value: peer::ServiceEntry) -> Result<Self, Error> {
        let ports = value.ports.iter().map(|bytes| {
            let port = proto::PortConfig::decode(bytes.as_slice())?;
            PortConfig::try_from(port).at("ports")
        });
        Ok(Self {
            id: id(&value.id).at("id")?,
            name: value.name,
            networks: list(value.networks).at("networks")?,
            ports: ports.collect::<Result<_, Error>>()?,
            is_local_first: value.is_local_first,
            publish_address: optional_address(&value.publish_address).at("publish_address")?,
        })
    }
}

impl From<&ServicePlace> for peer::ServicePlace {
    fn from(value: &ServicePlace) -> Self {
        Self {
            network: value.network.to_string(),
            vips: value.vips.iter().copied().map(octets).collect(),
            aliases: value.aliases.clone(),
        }
    }
}

impl TryFrom<peer::ServicePlace> for ServicePlace {
    type Error = Error;

    fn try_from(value: peer::ServicePlace) -> Result<Self, Error> {
        Ok(Self {
            network: id(&value.network).at("network")?,
            vips: addresses(&value.vips).at("vips")?,
            aliases: value.aliases,
        })
    }
}

impl From<&TaskEntry> for peer::TaskEntry {
    fn from(value: &TaskEntry) -> Self {
        let service_id = value.service_id.map(|id| id.to_string());
        Self {
            id: value.id.to_string(),
            service_id: service_id.unwrap_or_default(),
            slot: value.slot,
            name: value.name.clone(),
            container_id: value.container_id.clone(),
            node_id: value.node_id.to_string(),
            places: to_list(&value.places),
            node_addresses: value.node_addresses.iter().copied().map(octets).collect(),
            standing: task_entry::Standing::from(value.standing).into(),
        }
    }
}

impl TryFrom<peer::TaskEntry> for TaskEntry {
    type Error = Error;

    fn try_from(value: peer::TaskEntry) -> Result<Self, Error> {
        Ok(Self {
            id: id(&value.id).at("id")?,
            service_id: optional_id(&value.service_id).at("service_id")?,
            slot: value.slot,
            name: value.name,
            container_id: value.container_id,
            node_id: id(&value.node_id).at("node_id")?,
            places: list(value.places).at("places")?,
            node_addresses: addresses(&value.node_addresses).at("node_addresses")?,
            standing: known::<task_entry::Standing, _>(value.standing).at("standing")?,
        })
    }
}

impl From<&TaskPlace> for peer::TaskPlace {
    fn from(value: &TaskPlace) -> Self {
        Self {
            network: value.network.to_string(),
            addresses: value.addresses.iter().copied().map(octets).collect(),
        }
    }
}

impl TryFrom<peer::TaskPlace> for TaskPlace {
    type Error = Error;

    fn try_from(value: peer::TaskPlace) -> Result<Self, Error> {
        Ok(Self {
            network: id(&value.network).at("network")?,
            addresses: addresses(&value.addresses).at("addresses")?,
        })
    }
}

impl From<&NodeEntry> for peer::NodeEntry {
    fn from(value: &NodeEntry) -> Self {
        Self {
            id: value.id.to_string(),
            data_path: value.data_path.map(octets).unwrap_or_default(),
            addresses: value.addresses.iter().copied().map(octets).collect(),
            slice: value.slice.as_ref().map(Into::into),
            is_down: value.is_down,
            tunnel_keys: value.tunnel_keys.iter().map(|key| key.to_vec()).collect(),
        }
    }
}

impl TryFrom<peer::NodeEntry> for NodeEntry {
    type Error = Error;

    fn try_from(value: peer::NodeEntry) -> Result<Self, Error> {
        let keys = value.tunnel_keys.into_iter().map(|key| {
            let length = length_of(&key);
            key.try_into().map_err(|_| Problem::OutOfRange(length))
        });
        Ok(Self {
            id: id(&value.id).at("id")?,
            data_path: optional_address(&value.data_path).at("data_path")?,
            addresses: addresses(&value.addresses).at("addresses")?,
            slice: option(value.slice).at("slice")?,
            is_down: value.is_down,
            tunnel_keys: keys.collect::<Result<_, Problem>>().at("tunnel_keys")?,
        })
    }
}

impl From<&Slice> for peer::Slice {
    fn from(value: &Slice) -> Self {
        Self {
            number: value.number.into(),
            v4: value.v4.addr().octets().to_vec(),
            v4_prefix_len: value.v4.prefix_len().into(),
            v6: value
                .v6
                .map(|net| net.addr().octets().to_vec())
                .unwrap_or_default(),
            v6_prefix_len: value.v6.map_or(0, |net| net.prefix_len().into()),
        }
    }
}

impl TryFrom<peer::Slice> for Slice {
    type Error = Error;

    fn try_from(value: peer::Slice) -> Result<Self, Error> {
        let number = u16::try_from(value.number)
            .ok()
            .filter(|number| *number > 0);
        let v4 = <[u8; 4]>::try_from(value.v4.as_slice())
            .ok()
            .and_then(|octets| Ipv4Net::new(octets.into(), prefix_len(value.v4_prefix_len)?).ok());
        let v6 = <[u8; 16]>::try_from(value.v6.as_slice())
            .ok()
            .and_then(|octets| Ipv6Net::new(octets.into(), prefix_len(value.v6_prefix_len)?).ok());
        if v6.is_none() && !value.v6.is_empty() {
            return Err(Error::field(
                "v6",
                Problem::OutOfRange(length_of(&value.v6)),
            ));
        }
        let out_of_range = Problem::OutOfRange(value.number.into());
        Ok(Self {
            number: number.ok_or_else(|| Error::field("number", out_of_range))?,
            v4: v4.ok_or_else(|| Error::field("v4", Problem::OutOfRange(length_of(&value.v4))))?,
            v6,
        })
    }
}

fn prefix_len(number: u32) -> Option<u8> {
    u8::try_from(number).ok()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn addresses(list: &[Vec<u8>]) -> Result<Vec<IpAddr>, Problem> {
    list.iter().map(|octets| address(octets)).collect()
}

fn optional_address(octets: &[u8]) -> Result<Option<IpAddr>, Problem> {
    (!octets.is_empty()).then(|| address(octets)).transpose()
}

fn address(octets: &[u8]) -> Result<IpAddr, Problem> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| v6())
        .map_err(|_| Problem::OutOfRange(length_of(octets)))
}

/// For the error: how many bytes there are.
fn length_of(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}
