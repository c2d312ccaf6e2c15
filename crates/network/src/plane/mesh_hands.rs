//! Reads and changes what the routing mesh needs of the node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::hands::{ActionError, Hands};
use super::mesh::{
    self, Action, Back, Elements, MAPS, PublishedPort, State, TABLE, Tables, Wish, rules,
};
use super::observe;
use super::sandbox::LinkState;
use crate::netlink::{MarkRule, TunnelRequest, Way};
use crate::nfnl::Family;
use crate::nfnl::elements::Batches;
use crate::nfnl::shift;
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
                && switches(wish)
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
        // A way back needs its rule and its table.
        let tables = std::mem::take(&mut state.tables.returns);
        for (is_v6, nowhere) in [
            (false, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            (true, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        ] {
            let rules = self.node.mark_rules(&wish.bridge, is_v6)?;
            for number in rules.into_iter().filter_map(mesh::number_in) {
                let back = Back { number, is_v6 };
                let gateway = tables.get(&back).copied();
                state
                    .tables
                    .returns
                    .insert(back, gateway.unwrap_or(nowhere));
            }
        }
        let mut elements = Elements::new();
        for family in rules::families(wish) {
            let (chains, rule_count) = self.flows.chains(family, TABLE)?;
            if !rules::is_whole(wish, family, &chains, rule_count) {
                return Ok(state);
            }
            for map in MAPS {
                let listed = self.flows.elements(family, TABLE, map)?;
                let listed = listed.into_iter();
                elements.extend(listed.map(|(key, data)| ((family, map, key), data)));
            }
        }
        if wish.gateway6.is_none() && !self.flows.chains(Family::V6, TABLE)?.0.is_empty() {
            return Ok(state);
        }
        state.elements = Some(elements);
        Ok(state)
    }

    /// How many connections the counters say there were to each published port.
    pub(crate) fn count_ports(
        &mut self,
    ) -> Result<BTreeMap<(Family, PublishedPort), u64>, ActionError> {
        let mut counts = BTreeMap::new();
        for family in [Family::V4, Family::V6] {
            for set in mesh::COUNTERS {
                for (key, count) in self.flows.tallies(family, TABLE, set)? {
                    if let Some(port) = PublishedPort::from_key(&key) {
                        counts.insert((family, port), count);
                    }
                }
            }
        }
        Ok(counts)
    }

    /// Performs one action. `state` is what was observed or is believed.
    pub(crate) fn perform_mesh(
        &mut self,
        wish: &Wish,
        state: &State,
        action: &Action,
    ) -> Result<(), ActionError> {
        self.count_action()?;
        self.is_node_touched = true;
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
                for (key, value) in switches(wish) {
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
                for back in returns {
                    let mark = mark_rule(&wish.bridge, *back);
                    self.node.remove_mark_rule(mark)?;
                    self.node.remove_way(mark.way(index))?;
                }
            }
            Action::AddWays { routes, returns } => {
                let index = self.node.link_index(&wish.link)?;
                for (&slice, &gateway) in routes {
                    self.node.add_way(Way::to(slice, index), gateway)?;
                }
                for (back, &gateway) in returns {
                    let mark = mark_rule(&wish.bridge, *back);
                    self.node.add_way(mark.way(index), gateway)?;
                    self.node.add_mark_rule(mark, mesh::RULE_PRIORITY)?;
                }
            }
            Action::ReplaceRules => {
                let mut script = rules::script(wish);
                if wish.gateway6.is_none() && sysctl::has_ipv6() {
                    script.push_str(&rules::remove_script(Family::V6));
                }
                nft::run(&script)?;
                let shifts = rules::families(wish)
                    .map(|family| shift::batch(family, TABLE, rules::SHIFT, rules::SHIFTED_PORTS));
                self.flows.commit(&shifts.collect::<Vec<_>>())?;
            }
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

    /// Bridges that a mesh's tunnel belongs to, whoever left it behind.
    pub(crate) fn meshes(&mut self) -> Result<Vec<String>, ActionError> {
        let mut bridges = Vec::new();
        for (_, name) in self.node.link_names()? {
            let Some(bridge) = name.strip_suffix(mesh::LINK_SUFFIX) else {
                continue;
            };
            let found = observe::tunnel(&mut self.node, &name)?;
            if found.is_some_and(|(_, tunnel, mac, _)| mesh::is_mesh(tunnel, mac)) {
                bridges.push(bridge.to_owned());
            }
        }
        Ok(bridges)
    }

    /// Takes the mesh away, if there is one on this bridge. What is missing is fine.
    pub(crate) fn remove_mesh(&mut self, bridge: &str) -> Result<(), ActionError> {
        self.is_node_touched = true;
        self.node.delete_link(&mesh_link(bridge))?;
        let mut script = rules::remove_script(Family::V4);
        for is_v6 in [false, true]
            .into_iter()
            .take(1 + usize::from(sysctl::has_ipv6()))
        {
            for mark in self.node.mark_rules(bridge, is_v6)? {
                if let Some(number) = mesh::number_in(mark) {
                    let back = Back { number, is_v6 };
                    self.node.remove_mark_rule(mark_rule(bridge, back))?;
                }
            }
            if is_v6 {
                script.push_str(&rules::remove_script(Family::V6));
            }
        }
        Ok(nft::run(&script)?)
    }
}

fn mark_rule(bridge: &str, Back { number, is_v6 }: Back) -> MarkRule<'_> {
    MarkRule {
        link: bridge,
        mark: mesh::MARK | u32::from(number),
        is_v6,
    }
}

/// What a tunnel's packets need: clients' addresses are not routed through it, so the check of return paths must not be strict.
/// The stricter of the node's and the link's counts, unless one of them is 2, which is loose.
fn switches(wish: &Wish) -> Vec<(String, &'static str)> {
    let link = &wish.link;
    let all = sysctl::is("ipv4/conf/all/rp_filter", "0");
    let rp_filter = if all { "0" } else { "2" };
    let mut switches = vec![
        (format!("ipv4/conf/{link}/rp_filter"), rp_filter),
        (sysctl::route_localnet(link), "1"),
    ];
    if wish.gateway6.is_some() {
        // It needs no address: its neighbours are told, not asked.
        switches.push((format!("ipv6/conf/{link}/addr_gen_mode"), "1"));
        switches.push((format!("ipv6/conf/{link}/accept_ra"), "0"));
        switches.push((sysctl::disable_ipv6(link), "0"));
    }
    switches
}
