//! What nodes are told of each other.

use ipnet::{Ipv4Net, Ipv6Net};
use skep_model::{
    NetworkId, NodeId, ServiceId, TaskId,
    directory::{
        Change, Entry, Key, Message, NodeEntry, ServiceEntry, ServicePlace, Slice, Standing,
        TaskEntry, TaskPlace,
    },
};

use crate::arbitrary::Draw;

impl Draw {
    /// A message of the directory.
    pub fn directory_message(&mut self) -> Message {
        Message {
            index: self.number(),
            is_complete: self.flag(),
            is_last: self.flag(),
            changes: self.list(Self::directory_change),
        }
    }

    fn directory_change(&mut self) -> Change {
        let kind = self.one_of(&[0, 1, 2, 3]);
        if self.flag() {
            return Change::Remove(match kind {
                0 => Key::Network(NetworkId::random(&mut self.0)),
                1 => Key::Service(ServiceId::random(&mut self.0)),
                2 => Key::Task(TaskId::random(&mut self.0)),
                _ => Key::Node(NodeId::random(&mut self.0)),
            });
        }
        Change::Set(match kind {
            0 => Entry::Network(self.network().into()),
            1 => Entry::Service(self.service_entry().into()),
            2 => Entry::Task(self.task_entry().into()),
            _ => Entry::Node(self.node_entry().into()),
        })
    }

    fn service_entry(&mut self) -> ServiceEntry {
        ServiceEntry {
            id: ServiceId::random(&mut self.0),
            name: self.text(),
            networks: self.list(|draw| ServicePlace {
                network: NetworkId::random(&mut draw.0),
                vips: draw.list(Self::address),
                aliases: draw.texts(),
            }),
            ports: self.list(Self::port),
            is_local_first: self.flag(),
            publish_address: self.option(Self::address),
        }
    }

    fn task_entry(&mut self) -> TaskEntry {
        TaskEntry {
            id: TaskId::random(&mut self.0),
            service_id: self.option(|draw| ServiceId::random(&mut draw.0)),
            slot: self.number(),
            name: self.text(),
            container_id: self.text(),
            node_id: NodeId::random(&mut self.0),
            places: self.list(|draw| TaskPlace {
                network: NetworkId::random(&mut draw.0),
                addresses: draw.list(Self::address),
            }),
            node_addresses: self.list(Self::address),
            standing: self.one_of(&[
                Standing::Starting,
                Standing::Ready,
                Standing::Leaving,
                Standing::Unready,
            ]),
        }
    }

    fn node_entry(&mut self) -> NodeEntry {
        NodeEntry {
            id: NodeId::random(&mut self.0),
            data_path: self.option(Self::address),
            addresses: self.list(Self::address),
            slice: self.option(Self::slice),
            is_down: self.flag(),
            tunnel_keys: self.list(|draw| [draw.one_of(&[0, 7, u8::MAX]); 32]),
        }
    }

    fn slice(&mut self) -> Slice {
        let v4 = self.0.next_u64().to_be_bytes();
        let v4 = [v4[0], v4[1], v4[2], v4[3]];
        let v6 = u128::from(self.number()) << 64 | u128::from(self.number());
        Slice {
            number: self.port_number().max(1),
            v4: Ipv4Net::new(v4.into(), self.one_of(&[0, 22, 32])).expect("up to 32 bits"),
            v6: self.option(|draw| {
                let prefix_len = draw.one_of(&[0, 64, 128]);
                Ipv6Net::new(v6.into(), prefix_len).expect("up to 128 bits")
            }),
        }
    }
}
