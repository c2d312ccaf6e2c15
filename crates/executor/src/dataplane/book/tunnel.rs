//! What encrypted networks need: this node's keys and number, and the others'.

use std::{collections::BTreeMap, sync::Arc};

use skep_model::{
    NodeId,
    directory::{NodeEntry, Slice},
};
use skep_network::tunnel::{self, Keys, Launch, Peer, PublicKey};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct TunnelState {
    own: Option<(Keys, Launch)>,
    /// Others with an address and a number.
    peers: BTreeMap<NodeId, (u16, Peer)>,
    /// The last value made, and of which number.
    made: Option<Arc<tunnel::Config>>,
}

// === impl TunnelState ===

impl TunnelState {
    /// The node's own keys, and how its process is started.
    pub(super) fn set_own(&mut self, keys: Keys, launch: Launch) {
        self.own = Some((keys, launch));
        self.made = None;
    }

    /// Another node came, went or changed. A key costs a tenth of a millisecond to check, so only what is new is.
    pub(super) fn note_node(&mut self, old: Option<&NodeEntry>, new: Option<&NodeEntry>) {
        let facts = |node: Option<&NodeEntry>| {
            node.map(|node| (node.data_path, node.slice, node.tunnel_keys.clone()))
        };
        let Some(id) = old.or(new).map(|node| node.id) else {
            return;
        };
        if facts(old) == facts(new) {
            return;
        }
        self.made = None;
        self.peers.remove(&id);
        if let Some(peer) = new.and_then(peer) {
            self.peers.insert(id, peer);
        }
    }

    /// The plane's value; `None` as long as the node has no keys or no number.
    pub(super) fn config(&mut self, slice: Option<Slice>) -> Option<Arc<tunnel::Config>> {
        let (keys, launch) = self.own.as_ref()?;
        let number = slice?.number;
        if self.made.as_ref().is_none_or(|made| made.number != number) {
            let others = self.peers.values();
            let others = others.filter(|(other, _)| *other != number);
            self.made = Some(Arc::new(tunnel::Config {
                number,
                port: tunnel::PORT,
                keys: keys.clone(),
                peers: others.cloned().collect(),
                launch: launch.clone(),
            }));
        }
        self.made.clone()
    }
}

fn peer(node: &NodeEntry) -> Option<(u16, Peer)> {
    let keys = node.tunnel_keys.iter();
    let peer = Peer {
        node: node.data_path?,
        keys: keys.filter_map(|key| PublicKey::new(*key)).collect(),
    };
    Some((node.slice?.number, peer))
}
