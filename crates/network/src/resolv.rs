//! The `resolv.conf` of a container, made of the node's. Pure; the caller reads and writes the files.
//!
//! On nodes with systemd-resolved the caller passes `/run/systemd/resolve/resolv.conf`: `/etc/resolv.conf` names only the stub at
//! 127.0.0.53 there, which a container cannot reach.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::dns::{self, From, UPSTREAM_COUNT_MAX, Upstream};

/// Used when the node has no server a container can reach, as Docker does.
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Lines taken from the node's file. Longer files are no resolver configuration; glibc itself heeds three servers.
const LINE_COUNT_MAX: usize = 256;

/// A user's wishes; empty lists leave the node's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsSettings {
    /// Servers instead of the node's, taken as they are.
    pub servers: Vec<IpAddr>,
    /// Search domains instead of the node's; a single "." means none.
    pub search: Vec<String>,
    /// Options instead of the node's.
    pub options: Vec<String>,
}

/// What a `resolv.conf` says.
#[derive(Debug, Default)]
struct Resolver<'a> {
    servers: Vec<&'a str>,
    search: Vec<&'a str>,
    options: Vec<&'a str>,
}

/// Derives a container's `resolv.conf` from the node's.
///
/// Without servers of the user, loopback servers are left out, because they are the node's own; so are IPv6 servers, because
/// the node network has no IPv6. If none remain, Docker's fallback servers are used.
pub fn container_resolv_conf(host: &str, settings: &DnsSettings) -> String {
    let resolver = Resolver::parse(host, settings);
    let servers = resolver.servers.iter().filter(|text| is_reachable(text));
    let mut servers: Vec<String> = servers.map(|text| (*text).to_owned()).collect();
    if !settings.servers.is_empty() {
        servers = settings.servers.iter().map(ToString::to_string).collect();
    } else if servers.is_empty() {
        servers = FALLBACK_SERVERS.map(str::to_owned).to_vec();
    }
    resolver.print(&servers)
}

/// Derives the `resolv.conf` of a container on an overlay network from the node's, and the servers our own asks in turn: the
/// user's, from within the container, or the node's, loopback ones too, from the node.
///
/// For a container on internal networks only the caller leaves the servers out.
pub fn overlay_resolv_conf(host: &str, settings: &DnsSettings) -> (String, Vec<Upstream>) {
    let resolver = Resolver::parse(host, settings);
    let upstream = |from| {
        move |ip: IpAddr| Upstream {
            server: SocketAddr::new(ip, dns::SERVER.port()),
            from,
        }
    };
    let mut upstreams: Vec<Upstream> = if settings.servers.is_empty() {
        let servers = resolver.servers.iter().filter_map(|text| text.parse().ok());
        servers.map(upstream(From::Node)).collect()
    } else {
        let servers = settings.servers.iter().copied();
        servers.map(upstream(From::Container)).collect()
    };
    upstreams.truncate(UPSTREAM_COUNT_MAX);
    let mut options = resolver.options.clone();
    if settings.options.is_empty() {
        // A service's name has no dot, and must not be looked for in the node's domains first. So does Docker.
        options.retain(|option| !option.starts_with("ndots:"));
        options.push("ndots:0");
    }
    let resolver = Resolver {
        options,
        ..resolver
    };
    (resolver.print(&[dns::SERVER.ip().to_string()]), upstreams)
}

impl<'a> Resolver<'a> {
    /// The node's settings with the user's in their place.
    fn parse(host: &'a str, settings: &'a DnsSettings) -> Resolver<'a> {
        let mut resolver = Resolver::default();
        for line in host.lines().take(LINE_COUNT_MAX) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.servers.extend(words.next()),
                // The last one counts, and `domain` is a search list of one (resolv.conf(5)).
                Some("search") => resolver.search = words.collect(),
                Some("domain") => resolver.search = words.take(1).collect(),
                Some("options") => resolver.options.extend(words),
                Some(_) | None => {}
            }
        }
        if !settings.search.is_empty() {
            resolver.search = settings.search.iter().map(String::as_str).collect();
        }
        if !settings.options.is_empty() {
            resolver.options = settings.options.iter().map(String::as_str).collect();
        }
        resolver
    }

    fn print(&self, servers: &[String]) -> String {
        let mut text = String::new();
        for server in servers {
            writeln!(text, "nameserver {server}").expect("writing to a string succeeds");
        }
        if !self.search.is_empty() && self.search != ["."] {
            writeln!(text, "search {}", self.search.join(" "))
                .expect("writing to a string succeeds");
        }
        if !self.options.is_empty() {
            writeln!(text, "options {}", self.options.join(" "))
                .expect("writing to a string succeeds");
        }
        text
    }
}

fn is_reachable(server: &str) -> bool {
    server
        .parse()
        .is_ok_and(|ip: IpAddr| ip.is_ipv4() && !ip.is_loopback() && !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, expect: &str) {
        assert_eq!(container_resolv_conf(host, &DnsSettings::default()), expect);
    }

    #[test]
    fn servers_of_the_node_are_taken_over() {
        check(
            "# made by hand\nnameserver 192.0.2.53\nsearch example.org lan\noptions ndots:2 edns0\n",
            "nameserver 192.0.2.53\nsearch example.org lan\noptions ndots:2 edns0\n",
        );
    }

    #[test]
    fn loopback_and_v6_servers_are_left_out() {
        check(
            "nameserver 127.0.0.53\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.53\n",
            "nameserver 192.0.2.53\n",
        );
    }

    #[test]
    fn without_a_reachable_server_dockers_fallback_is_used() {
        for host in [
            "",
            "nameserver 127.0.0.1\n",
            "nameserver\n",
            "nameserver nonsense\n",
        ] {
            check(host, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        }
    }

    #[test]
    fn the_last_of_search_and_domain_counts() {
        check(
            "nameserver 192.0.2.1\nsearch a b\ndomain c\n",
            "nameserver 192.0.2.1\nsearch c\n",
        );
    }

    #[test]
    fn settings_of_the_user_win_and_a_dot_means_no_search_domain() {
        let settings = DnsSettings {
            servers: vec!["127.0.0.1".parse().unwrap()],
            search: vec![".".to_owned()],
            options: vec!["ndots:0".to_owned()],
        };
        assert_eq!(
            container_resolv_conf("nameserver 192.0.2.1\nsearch a\noptions b\n", &settings),
            "nameserver 127.0.0.1\noptions ndots:0\n"
        );
    }

    #[test]
    fn on_an_overlay_the_nodes_servers_are_asked_from_the_node() {
        let host =
            "nameserver 127.0.0.53\nnameserver 192.0.2.53\nsearch lan\noptions ndots:2 edns0\n";
        let (text, upstreams) = overlay_resolv_conf(host, &DnsSettings::default());
        assert_eq!(
            text,
            "nameserver 127.0.0.11\nsearch lan\noptions edns0 ndots:0\n"
        );
        let servers: Vec<String> = upstreams.iter().map(|one| one.server.to_string()).collect();
        assert_eq!(servers, ["127.0.0.53:53", "192.0.2.53:53"]);
        assert!(upstreams.iter().all(|one| one.from == From::Node));
    }

    #[test]
    fn on_an_overlay_the_users_servers_are_asked_from_the_container() {
        let settings = DnsSettings {
            servers: vec!["10.0.1.53".parse().unwrap(); 5],
            search: vec!["example.org".to_owned()],
            options: vec!["ndots:3".to_owned()],
        };
        let (text, upstreams) = overlay_resolv_conf("nameserver 192.0.2.1\n", &settings);
        assert_eq!(
            text,
            "nameserver 127.0.0.11\nsearch example.org\noptions ndots:3\n"
        );
        assert_eq!(upstreams.len(), 3);
        assert!(upstreams.iter().all(|one| one.from == From::Container));
    }
}
