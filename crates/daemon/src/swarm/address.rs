//! Which addresses this node listens on and tells others.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use nix::ifaddrs::getifaddrs;
use skep_docker_api::error::{ApiError, Result};
use tokio::net::UdpSocket;

/// Swarm's control port.
pub(super) const PORT: u16 = 2377;
/// Bridges of container networks: their addresses reach containers, not this node.
const IGNORED: [&str; 4] = ["lo", "docker0", "docker_gwbridge", "skep"];

const BAD_LISTEN: &str =
    "listen address must be an IP address or network interface (with optional port number)";
const BAD_ADVERTISE: &str = "advertise address must be a non-zero IP address or network interface \
     (with optional port number)";
const BAD_DATA_PATH: &str = "data path address must be a non-zero IP address or network interface \
     (without a port number)";

/// What a client asked for; every text may be empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) listen: &'a str,
    pub(super) advertise: &'a str,
    pub(super) data_path: &'a str,
}

/// A node's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Where others reach it.
    pub(super) advertised: SocketAddr,
    /// Where its manager listens.
    pub(super) listen: SocketAddr,
    /// The interface that `advertised` was read from, or empty.
    pub(super) interface: String,
    /// Where its data path is reached.
    pub(super) data_path: IpAddr,
}

impl Asked<'_> {
    /// Addresses of a first manager: as asked for, else the only address there is.
    pub(super) fn on_init(self) -> Result<Addresses> {
        self.resolve(|| only_address(&addresses()))
    }

    /// Addresses of a node that joins the manager at `remote`: as asked for, else the address it
    /// uses towards that manager.
    pub(super) async fn on_join(self, remote: &str) -> Result<Addresses> {
        let towards = address_towards(remote).await;
        self.resolve(|| towards.map_or_else(|| only_address(&addresses()), Ok))
    }

    fn resolve(self, default: impl FnOnce() -> Result<IpAddr>) -> Result<Addresses> {
        let listen = listen_address(self.listen)?;
        let (host, port) = split(self.advertise);
        let port = port.unwrap_or(listen.port());
        let mut interface = String::new();
        let ip = if host.is_empty() {
            if listen.ip().is_unspecified() {
                default()?
            } else {
                listen.ip()
            }
        } else if let Ok(ip) = host.parse::<IpAddr>() {
            ip
        } else {
            host.clone_into(&mut interface);
            interface_address(host).ok_or_else(|| ApiError::invalid(BAD_ADVERTISE))?
        };
        if ip.is_unspecified() {
            return Err(ApiError::invalid(BAD_ADVERTISE));
        }
        let data_path = match self.data_path {
            "" => ip,
            text => host_address(text)
                .filter(|ip| !ip.is_unspecified())
                .ok_or_else(|| ApiError::invalid(BAD_DATA_PATH))?,
        };
        Ok(Addresses {
            advertised: SocketAddr::new(ip, port),
            listen,
            interface,
            data_path,
        })
    }
}

/// The address of an interface as it is now; `None` when it has none.
pub(super) fn interface_address(name: &str) -> Option<IpAddr> {
    let found = addresses()
        .into_iter()
        .find(|(interface, _)| interface == name);
    found.map(|(_, ip)| ip)
}

/// What the interface with an address carries; `None` when no interface has it.
pub(super) fn mtu_towards(ip: IpAddr) -> Option<u32> {
    let (name, _) = addresses().into_iter().find(|(_, own)| *own == ip)?;
    let text = fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok()?;
    text.trim().parse().ok()
}

/// The addresses that other nodes see connections of this one come from, sorted. Those of bridges of
/// containers, `bridge` among them, are not the node's.
pub(super) fn of_node(bridge: &str) -> Vec<IpAddr> {
    of_node_among(&addresses(), bridge)
}

fn of_node_among(all: &[(String, IpAddr)], bridge: &str) -> Vec<IpAddr> {
    let is_own = |name: &str, ip: &IpAddr| {
        let is_bridge = name.starts_with(bridge) || name.starts_with("br-");
        !ip.is_loopback() && !is_bridge && !IGNORED.iter().any(|one| name.starts_with(one))
    };
    let own = all.iter().filter(|(name, ip)| is_own(name, ip));
    let mut own: Vec<IpAddr> = own.map(|(_, ip)| *ip).collect();
    own.sort_unstable();
    own.dedup();
    own
}

/// Whether an address is this system's.
pub(super) fn is_own(ip: IpAddr) -> bool {
    addresses().iter().any(|(_, own)| *own == ip)
}

/// `addr` with Swarm's port where none is given.
pub(super) fn with_port(addr: &str) -> String {
    match split(addr) {
        (_, Some(_)) => addr.to_owned(),
        (host, None) if host.contains(':') => format!("[{host}]:{PORT}"),
        (host, None) => format!("{host}:{PORT}"),
    }
}

fn listen_address(text: &str) -> Result<SocketAddr> {
    let (host, port) = split(text);
    let port = port.filter(|port| *port != 0).unwrap_or(PORT);
    let ip = match host {
        "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        host => host_address(host).ok_or_else(|| ApiError::invalid(BAD_LISTEN))?,
    };
    Ok(SocketAddr::new(ip, port))
}

fn host_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| interface_address(text))
}

/// The address this system uses towards `remote`; no packet is sent.
async fn address_towards(remote: &str) -> Option<IpAddr> {
    for local in ["0.0.0.0:0", "[::]:0"] {
        let Ok(socket) = UdpSocket::bind(local).await else {
            continue;
        };
        if socket.connect(with_port(remote)).await.is_ok() {
            return socket.local_addr().ok().map(|addr| addr.ip());
        }
    }
    None
}

fn split(text: &str) -> (&str, Option<u16>) {
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    match text.rsplit_once(':') {
        Some((host, port)) => (host.trim_matches(['[', ']']), port.parse().ok()),
        None => (text, None),
    }
}

/// Global addresses of this node with their interfaces, IPv4 first.
fn addresses() -> Vec<(String, IpAddr)> {
    let Ok(all) = getifaddrs() else {
        return Vec::new();
    };
    let mut found: Vec<(String, IpAddr)> = all
        .filter_map(|entry| {
            let storage = entry.address?;
            let ip = match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (None, Some(v6)) if v6.ip().segments()[0] & 0xffc0 != 0xfe80 => IpAddr::V6(v6.ip()),
                (None, _) => return None,
            };
            Some((entry.interface_name, ip))
        })
        .collect();
    found.sort_by_key(|(name, ip)| (ip.is_ipv6(), name.clone()));
    found
}

/// Docker's rule: one address on one interface, or the user has to say.
fn only_address(all: &[(String, IpAddr)]) -> Result<IpAddr> {
    let is_candidate = |name: &str, ip: &IpAddr| {
        !ip.is_loopback() && !IGNORED.iter().any(|ignored| name.starts_with(ignored))
    };
    let candidates: Vec<&(String, IpAddr)> = all
        .iter()
        .filter(|(name, ip)| is_candidate(name, ip))
        .collect();
    let v4: Vec<&&(String, IpAddr)> = candidates.iter().filter(|(_, ip)| ip.is_ipv4()).collect();
    match (&v4[..], &candidates[..]) {
        ([(_, ip)], _) | ([], [(_, ip)]) => Ok(*ip),
        ([], []) => Err(ApiError::invalid("could not find the system's IP address")),
        ([], [(name, ip), (other_name, other), ..])
        | ([(name, ip), (other_name, other), ..], _) => {
            let place = if name == other_name {
                format!("multiple addresses on interface {name} ({ip} and {other})")
            } else {
                format!(
                    "multiple addresses on different interfaces ({ip} on {name} and {other} on {other_name})"
                )
            };
            Err(ApiError::invalid(format!(
                "could not choose an IP address to advertise since this system has {place}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(list: &[(&str, &str)]) -> Vec<(String, IpAddr)> {
        list.iter()
            .map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_only_address_is_chosen_and_bridges_do_not_count() {
        let all = addrs(&[
            ("lo", "127.0.0.1"),
            ("docker0", "172.17.0.1"),
            ("skep0", "10.255.0.1"),
            ("eth0", "192.0.2.7"),
            ("eth0", "2001:db8::7"),
        ]);
        assert_eq!(
            only_address(&all).unwrap(),
            "192.0.2.7".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn a_nodes_addresses_are_those_of_no_bridge() {
        let all = addrs(&[
            ("lo", "127.0.0.1"),
            ("docker0", "172.17.0.1"),
            ("br-1a2b3c", "172.18.0.1"),
            ("cnt0", "10.252.4.1"),
            ("cnt0x", "10.252.4.2"),
            ("eth1", "2001:db8::7"),
            ("eth0", "192.0.2.7"),
        ]);
        let texts: Vec<String> = of_node_among(&all, "cnt0")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(texts, ["192.0.2.7", "2001:db8::7"]);
    }

    #[test]
    fn two_addresses_are_a_question_for_the_user() {
        let all = addrs(&[("eth0", "192.0.2.7"), ("eth1", "192.0.2.8")]);
        let text = only_address(&all).unwrap_err().message;
        assert!(
            text.contains("192.0.2.7 on eth0 and 192.0.2.8 on eth1"),
            "{text}"
        );
        assert!(
            only_address(&[])
                .unwrap_err()
                .message
                .starts_with("could not find")
        );
    }

    #[test]
    fn ports_are_split_from_hosts() {
        assert_eq!(split("192.0.2.1:99"), ("192.0.2.1", Some(99)));
        assert_eq!(split("[2001:db8::1]:99"), ("2001:db8::1", Some(99)));
        assert_eq!(split("2001:db8::1"), ("2001:db8::1", None));
        assert_eq!(split("eth0"), ("eth0", None));
        assert_eq!(with_port("192.0.2.1"), "192.0.2.1:2377");
        assert_eq!(with_port("host.example:1"), "host.example:1");
        assert_eq!(with_port("2001:db8::1"), "[2001:db8::1]:2377");
    }

    #[track_caller]
    fn check(listen: &str, advertise: &str, expect: Result<(&str, &str), &str>) {
        let asked = Asked {
            listen,
            advertise,
            data_path: "",
        };
        let found = asked.resolve(|| Ok("192.0.2.9".parse().unwrap()));
        let found = found.map(|found| (found.advertised.to_string(), found.listen.to_string()));
        match expect {
            Ok((advertised, listen)) => {
                assert_eq!(found.unwrap(), (advertised.to_owned(), listen.to_owned()));
            }
            Err(text) => assert_eq!(found.unwrap_err().message, text),
        }
    }

    #[test]
    fn what_is_asked_for_goes_before_what_is_found() {
        check("", "", Ok(("192.0.2.9:2377", "0.0.0.0:2377")));
        check("0.0.0.0:99", "", Ok(("192.0.2.9:99", "0.0.0.0:99")));
        check("192.0.2.1:99", "", Ok(("192.0.2.1:99", "192.0.2.1:99")));
        check("", "192.0.2.3", Ok(("192.0.2.3:2377", "0.0.0.0:2377")));
        check(":99", "192.0.2.3:5", Ok(("192.0.2.3:5", "0.0.0.0:99")));
        check("lo", "lo:7", Ok(("127.0.0.1:7", "127.0.0.1:2377")));
        check("", "0.0.0.0", Err(BAD_ADVERTISE));
        check("", "nosuch0", Err(BAD_ADVERTISE));
        check("nosuch0:1", "", Err(BAD_LISTEN));
    }
}
