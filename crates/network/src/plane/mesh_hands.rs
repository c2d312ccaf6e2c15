//! Reads and changes what the routing mesh needs of the node.

use super::hands::{ActionError, Hands};
use super::mesh::{self, Action, Elements, MAPS, State, TABLE, Tables, Wish};
use super::observe;
use super::sandbox::LinkState;
use crate::netlink::{TunnelRequest, Way};
use crate::nfnl::Family;
use crate::nfnl::elements::Batches;
use crate::nft;
use crate::rules::mesh_link;
use crate::sysctl;

// === impl Hands ===

impl Hands {
    /// What the node holds of the mesh.
    pub(crate) fn observe_mesh(&mut self, wish: &Wish) -> Result<State, ActionError> {
        let mut state = State::default();
        let link = observe::tunnel(&mut self.node, &wish.link)?;
        if let Some((index, tunnel, mac, link)) = link {
            let is_ready = link.is_ready
                && switches(&wish.link)
                    .iter()
                    .all(|(key, value)| sysctl::is(key, value));
            state.link = Some((tunnel, mac, LinkState { is_ready, ..link }));
            let (forwarding, neighbours) = observe::tables(&mut self.node, index)?;
            let ways = observe::ways(&mut self.node, index)?;
            state.tables = Tables {
                forwarding,
                neighbours,
                ..ways
            };
        }
        let rules = self.node.mark_rules(&wish.bridge)?;
        let numbers: Vec<u16> = rules.into_iter().filter_map(mesh::number_in).collect();
        // A way back needs its rule and its table.
        let tables = std::mem::take(&mut state.tables.returns);
        for number in numbers {
            let gateway = tables.get(&number).copied();
            let nowhere = std::net::Ipv4Addr::UNSPECIFIED.into();
            state
                .tables
                .returns
                .insert(number, gateway.unwrap_or(nowhere));
        }
        let (chains, rule_count) = self.flows.chains(Family::V4, TABLE)?;
        if mesh::is_whole(wish, &chains, rule_count) {
            let mut elements = Elements::new();
            for map in MAPS {
                let listed = self.flows.elements(Family::V4, TABLE, map)?;
                elements.extend(listed.into_iter().map(|(key, data)| ((map, key), data)));
            }
            state.elements = Some(elements);
        }
        Ok(state)
    }

    /// Performs one action. `state` is what was observed or is believed.
    pub(crate) fn perform_mesh(
        &mut self,
        wish: &Wish,
        state: &State,
        action: &Action,
    ) -> Result<(), ActionError> {
        self.count_action()?;
        match action {
            Action::DeleteTunnel => self.node.delete_link(&wish.link)?,
            Action::CreateTunnel => self.node.create_tunnel(&TunnelRequest {
                name: &wish.link,
                tunnel: wish.tunnel,
                mtu: wish.mtu,
                mac: Some(wish.mac),
                netns: None,
                is_proxy: false,
            })?,
            Action::SetTunnel => {
                for (key, value) in switches(&wish.link) {
                    sysctl::set(&key, value)?;
                }
                self.node.set_mtu_and_up(&wish.link, wish.mtu)?;
            }
            Action::ChangeRemotes(remotes) => {
                let index = self.node.link_index(&wish.link)?;
                super::hands::change_remotes(&mut self.node, index, remotes)?;
            }
            Action::RemoveWays { routes, returns } => {
                let index = self.node.link_index(&wish.link)?;
                for &slice in routes {
                    self.node.remove_way(Way::to(slice, index))?;
                }
                for &number in returns {
                    let mark = mesh::MARK | u32::from(number);
                    self.node.remove_mark_rule(&wish.bridge, mark)?;
                    self.node.remove_way(Way::back(mark, index))?;
                }
            }
            Action::AddWays { routes, returns } => {
                let index = self.node.link_index(&wish.link)?;
                for (&slice, &gateway) in routes {
                    self.node.add_way(Way::to(slice, index), gateway)?;
                }
                for (&number, &gateway) in returns {
                    let mark = mesh::MARK | u32::from(number);
                    self.node.add_way(Way::back(mark, index), gateway)?;
                    self.node
                        .add_mark_rule(&wish.bridge, mark, mesh::RULE_PRIORITY)?;
                }
            }
            Action::ReplaceRules => nft::run(&mesh::script(wish))?,
            Action::Balance { .. } => {
                let mut batches = Batches::default();
                batches.add(
                    TABLE,
                    &mesh::changes(state.elements.as_ref(), &wish.elements),
                );
                self.flows.commit(&batches.finish())?;
            }
        }
        Ok(())
    }

    /// Takes the mesh away, if there is one on this bridge. What is missing is fine.
    pub(crate) fn remove_mesh(&mut self, bridge: &str) -> Result<(), ActionError> {
        self.node.delete_link(&mesh_link(bridge))?;
        for mark in self.node.mark_rules(bridge)? {
            if mesh::number_in(mark).is_some() {
                self.node.remove_mark_rule(bridge, mark)?;
            }
        }
        Ok(nft::run(&format!(
            "add table ip {TABLE}\ndelete table ip {TABLE}\n"
        ))?)
    }
}

/// What a tunnel's packets need: clients' addresses are not routed through it, so the check of return paths must not be strict.
/// The stricter of the node's and the link's counts, unless one of them is 2, which is loose.
fn switches(link: &str) -> [(String, &'static str); 2] {
    let all = sysctl::is("ipv4/conf/all/rp_filter", "0");
    [
        (
            format!("ipv4/conf/{link}/rp_filter"),
            if all { "0" } else { "2" },
        ),
        (sysctl::route_localnet(link), "1"),
    ]
}
