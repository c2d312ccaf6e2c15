//! What a local cluster consists of: names, addresses, directories, command lines, link and filter
//! scripts. Pure; `up` applies it. The picture is in `docs/design/local.md`.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::bail;
use serde::{Deserialize, Serialize};

/// Below it is the state of all clusters.
pub(crate) const DATA_ROOT: &str = "/var/lib/skep-local";
/// Below it are sockets, and what is gone after a reboot.
pub(crate) const RUN_ROOT: &str = "/run/skep-local";
/// Nodes of a cluster: they share one /24 and one machine's memory, 30 MiB each.
pub(crate) const NODE_COUNT_MAX: u8 = 100;
/// Longest name of a cluster: it is part of socket paths, which end at 107 bytes.
const NAME_BYTES_MAX: usize = 32;
/// The last address a host can have in a /24; the machine's own.
const HOST_NUMBER: u8 = 254;
/// Swarm's control port.
const CONTROL_PORT: u16 = 2377;
/// The machine's port in the switch; nodes' ports are called as their nodes.
const HOST_PORT: &str = "host";
/// The bridge in the switch's namespace.
const BRIDGE: &str = "switch";
/// A node's interface.
const NODE_INTERFACE: &str = "eth0";
/// The table of cuts in the switch's namespace.
const TABLE: &str = "skep_local";

/// Where a cluster lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) name: String,
    /// Third byte of its subnet, 10.78.x.0/24.
    pub(crate) subnet: u8,
}

/// Which packets of a node are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cut {
    /// What is sent to it.
    In,
    /// What it sends.
    Out,
    /// All.
    Both,
}

/// Checks the name of a cluster.
pub(crate) fn check_name(name: &str) -> anyhow::Result<()> {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_good) {
        bail!(
            "`{name}` cannot be the name of a cluster: 1 to {NAME_BYTES_MAX} letters a-z, digits and -"
        );
    }
    Ok(())
}

/// The first subnet that neither routes of this machine nor its interfaces' names speak against.
pub(crate) fn choose_subnet(route_table: &str, links: &[String]) -> Option<u8> {
    let routes: Vec<(u32, u32)> = route_table.lines().skip(1).filter_map(route).collect();
    (0..=u8::MAX).find(|subnet| {
        let own = u32::from(Ipv4Addr::new(10, 78, *subnet, 0));
        let overlaps = |(to, mask): &(u32, u32)| {
            // The default route covers everything and is no obstacle.
            *mask != 0 && (own & mask == *to || to & 0xffff_ff00 == own)
        };
        !routes.iter().any(overlaps) && !links.contains(&host_link(*subnet))
    })
}

/// Destination and mask of a line of `/proc/net/route`, where both are in network byte order.
fn route(line: &str) -> Option<(u32, u32)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let hex = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
    Some((hex(1)?.swap_bytes(), hex(7)?.swap_bytes()))
}

pub(crate) fn host_link(subnet: u8) -> String {
    format!("skl{subnet}")
}

/// The name of the node with `number`, from 1.
pub(crate) fn node_name(number: u8) -> String {
    format!("node{number}")
}

// === impl Cut ===

impl Cut {
    /// Both cuts together.
    pub(crate) fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Both }
    }

    /// As `ps` shows it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::In => "cut (in)",
            Self::Out => "cut (out)",
            Self::Both => "cut",
        }
    }
}

// === impl Layout ===

impl Layout {
    /// The directory of the cluster's state.
    pub(crate) fn data_dir(&self) -> PathBuf {
        Path::new(DATA_ROOT).join(&self.name)
    }

    /// The directory of its sockets.
    pub(crate) fn run_dir(&self) -> PathBuf {
        Path::new(RUN_ROOT).join(&self.name)
    }

    pub(crate) fn node_data_dir(&self, number: u8) -> PathBuf {
        self.data_dir().join(node_name(number))
    }

    pub(crate) fn node_run_dir(&self, number: u8) -> PathBuf {
        self.run_dir().join(node_name(number))
    }

    pub(crate) fn log(&self, number: u8) -> PathBuf {
        self.data_dir().join(format!("{}.log", node_name(number)))
    }

    pub(crate) fn socket(&self, number: u8) -> PathBuf {
        self.node_run_dir(number).join("skep.sock")
    }

    /// The address of a node.
    pub(crate) fn address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, self.subnet, number)
    }

    /// Where a node's manager listens.
    pub(crate) fn control_address(&self, number: u8) -> String {
        format!("{}:{CONTROL_PORT}", self.address(number))
    }

    /// The hardware address of a node or of the machine: always the same, as others remember it
    /// longer than a node may be off.
    fn link_address(&self, number: u8) -> String {
        format!("02:73:6b:4e:{:02x}:{number:02x}", self.subnet)
    }

    /// The machine's interface.
    pub(crate) fn host_link(&self) -> String {
        host_link(self.subnet)
    }

    /// Arguments of a node's daemon. The machine's own configuration file is not a node's.
    pub(crate) fn daemon_arguments(&self, number: u8, more: &[String]) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        let socket = format!("unix://{}", self.socket(number).display());
        let own = [
            "daemon".to_owned(),
            "--config".to_owned(),
            "/dev/null".to_owned(),
            "--data-dir".to_owned(),
            path(self.node_data_dir(number)),
            "--run-dir".to_owned(),
            path(self.node_run_dir(number)),
            "--host".to_owned(),
            socket,
        ];
        own.into_iter().chain(more.iter().cloned()).collect()
    }

    /// For `ip -batch` in the switch's namespace: what is missing beside `links`. `host` is a process
    /// of the machine's own network.
    pub(crate) fn switch_script(&self, links: &[String], host: u32) -> String {
        let mut script = String::new();
        if !has(links, BRIDGE) {
            script += "link set lo up\n";
            let _ = writeln!(script, "link add {BRIDGE} type bridge");
            let _ = writeln!(script, "link set {BRIDGE} up");
        }
        if !has(links, HOST_PORT) {
            let (peer, address) = (self.host_link(), self.link_address(HOST_NUMBER));
            let _ = writeln!(
                script,
                "link add {HOST_PORT} type veth peer name {peer} address {address} netns {host}"
            );
            let _ = writeln!(script, "link set {HOST_PORT} master {BRIDGE} up");
        }
        script
    }

    /// For `ip -batch` in the machine's own namespace.
    pub(crate) fn host_script(&self) -> String {
        let address = Ipv4Addr::new(10, 78, self.subnet, HOST_NUMBER);
        let link = self.host_link();
        format!("address replace {address}/24 dev {link}\nlink set {link} up\n")
    }

    /// For `ip -batch` in the switch's namespace: a node's port. Both ends are made anew when either
    /// is missing.
    pub(crate) fn port_script(
        &self,
        number: u8,
        holder: u32,
        switch_links: &[String],
        node_links: &[String],
    ) -> String {
        let port = node_name(number);
        let mut script = String::new();
        if has(switch_links, &port) {
            if has(node_links, NODE_INTERFACE) {
                return script;
            }
            let _ = writeln!(script, "link delete {port}");
        }
        let address = self.link_address(number);
        let _ = writeln!(
            script,
            "link add {port} type veth peer name {NODE_INTERFACE} address {address} netns {holder}"
        );
        let _ = writeln!(script, "link set {port} master {BRIDGE} up");
        script
    }

    /// For `ip -batch` in a node's namespace.
    pub(crate) fn node_script(&self, number: u8) -> String {
        let address = self.address(number);
        format!(
            "link set lo up\naddress replace {address}/24 dev {NODE_INTERFACE}\nlink set {NODE_INTERFACE} up\n"
        )
    }
}

/// For `nft -f` in the switch's namespace: exactly these cuts. Nodes' own rules are not touched, so
/// a node cannot tell a cut from a broken cable.
pub(crate) fn cut_script(cuts: &BTreeMap<u8, Cut>) -> String {
    let mut script = format!("table bridge {TABLE}\ndelete table bridge {TABLE}\n");
    if cuts.is_empty() {
        return script;
    }
    let _ = writeln!(script, "table bridge {TABLE} {{");
    script += "\tchain forward {\n\t\ttype filter hook forward priority -300; policy accept;\n";
    for (number, cut) in cuts {
        let port = node_name(*number);
        if matches!(cut, Cut::In | Cut::Both) {
            let _ = writeln!(script, "\t\toifname \"{port}\" drop");
        }
        if matches!(cut, Cut::Out | Cut::Both) {
            let _ = writeln!(script, "\t\tiifname \"{port}\" drop");
        }
    }
    script += "\t}\n}\n";
    script
}

fn has(links: &[String], name: &str) -> bool {
    links.iter().any(|link| link == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
         eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n\
         eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";

    fn layout() -> Layout {
        Layout {
            name: "default".to_owned(),
            subnet: 3,
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_first_subnet_is_taken_when_free() {
        assert_eq!(choose_subnet(ROUTES, &[]), Some(0));
    }

    #[test]
    fn routes_and_links_of_the_machine_rule_subnets_out() {
        let one = format!("{ROUTES}x\t00004E0A\t0\t1\t0\t0\t0\t00FFFFFF\t0\n");
        assert_eq!(choose_subnet(&one, &[]), Some(1));
        assert_eq!(choose_subnet(&one, &names(&["skl1"])), Some(2));
        let single = format!("{ROUTES}x\t07004E0A\t0\t1\t0\t0\t0\tFFFFFFFF\t0\n");
        assert_eq!(choose_subnet(&single, &[]), Some(1));
        let all = format!("{ROUTES}x\t0000000A\t0\t1\t0\t0\t0\t000000FF\t0\n");
        assert_eq!(choose_subnet(&all, &[]), None);
    }

    #[test]
    fn scripts_only_make_what_is_missing() {
        let layout = layout();
        assert_eq!(
            layout.switch_script(&names(&["lo"]), 7),
            "link set lo up\nlink add switch type bridge\nlink set switch up\n\
             link add host type veth peer name skl3 address 02:73:6b:4e:03:fe netns 7\nlink set host master switch up\n"
        );
        let whole = names(&["lo", "switch", "host", "node1"]);
        assert_eq!(layout.switch_script(&whole, 7), "");
        let port = |links: &[String]| layout.port_script(1, 9, &whole, links);
        assert_eq!(port(&names(&["lo", "eth0"])), "");
        assert_eq!(
            port(&names(&["lo"])),
            "link delete node1\nlink add node1 type veth peer name eth0 address 02:73:6b:4e:03:01 netns 9\n\
             link set node1 master switch up\n"
        );
    }

    #[test]
    fn cuts_replace_all_earlier_ones() {
        let none = "table bridge skep_local\ndelete table bridge skep_local\n";
        assert_eq!(cut_script(&BTreeMap::new()), none);
        let cuts = BTreeMap::from([(1, Cut::In), (3, Cut::Both)]);
        let rules = "table bridge skep_local {\n\tchain forward {\n\
             \t\ttype filter hook forward priority -300; policy accept;\n\
             \t\toifname \"node1\" drop\n\t\toifname \"node3\" drop\n\t\tiifname \"node3\" drop\n\t}\n}\n";
        assert_eq!(cut_script(&cuts), format!("{none}{rules}"));
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        for name in ["", "..", "a/b", "A", &"a".repeat(33)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        check_name("two-3").unwrap();
    }

    #[test]
    fn sockets_of_the_longest_names_fit_their_limit() {
        let layout = Layout {
            name: "a".repeat(NAME_BYTES_MAX),
            subnet: 0,
        };
        assert!(layout.socket(NODE_COUNT_MAX).as_os_str().len() <= 107);
    }
}
