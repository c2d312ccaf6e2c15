//! Which address this node advertises.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use skep_docker_api::{
    backend::InitRequest,
    error::{ApiError, Result},
};

/// Swarm's control port.
const PORT: u16 = 2377;
/// Bridges of container networks: their addresses reach containers, not this node.
const IGNORED: [&str; 4] = ["lo", "docker0", "docker_gwbridge", "skep"];

/// The address and port others shall use: as asked for, else the only one there is.
pub(crate) fn advertised(request: &InitRequest) -> Result<SocketAddr> {
    let listen_port = port_of(&request.listen_addr).unwrap_or(PORT);
    let asked = [&request.advertise_addr, &request.listen_addr];
    for text in asked {
        let (host, port) = split(text);
        if host.is_empty() {
            continue;
        }
        let port = port.unwrap_or(listen_port);
        if let Ok(ip) = host.parse::<IpAddr>() {
            if !ip.is_unspecified() {
                return Ok(SocketAddr::new(ip, port));
            }
            if text == &request.advertise_addr {
                return Err(ApiError::invalid(
                    "advertise address must be a non-zero IP address",
                ));
            }
            continue;
        }
        return interface_address(host).map(|ip| SocketAddr::new(ip, port));
    }
    only_address(&addresses()).map(|ip| SocketAddr::new(ip, listen_port))
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

fn port_of(text: &str) -> Option<u16> {
    split(text).1.filter(|port| *port != 0)
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

fn interface_address(name: &str) -> Result<IpAddr> {
    let found = addresses()
        .into_iter()
        .find(|(interface, _)| interface == name);
    found.map(|(_, ip)| ip).ok_or_else(|| {
        ApiError::invalid(format!(
            "advertise address must be a non-zero IP address or network interface (with optional port number): no address on `{name}`"
        ))
    })
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
    }
}
