//! Rules of what a container is told of names: hosts and name servers. Swarm leaves them to nodes,
//! where a mistake shows as tasks that never run.

use std::net::IpAddr;

use crate::spec::{ContainerSpec, DnsConfig};

use super::Problems;

/// What an entry for `/etc/hosts` may say instead of an address; Docker's.
const HOST_GATEWAY: &str = "host-gateway";
/// Entries of each kind. Swarm has no limit; the files made of them are written for each container.
const NAME_ENTRIES_MAX: usize = 256;

pub(super) fn check_names(container: &ContainerSpec, found: &mut Problems) {
    check_count("Hosts", container.hosts.len(), found);
    for line in &container.hosts {
        let mut words = line.split_whitespace();
        let address = words.next().unwrap_or_default();
        let is_address = address == HOST_GATEWAY || address.parse::<IpAddr>().is_ok();
        if !is_address || words.next().is_none() || line.contains(['\n', '\r']) {
            found.push(format!(
                "ContainerSpec: host entry {line:?} is not an IP address and a host name"
            ));
        }
    }
    if let Some(dns) = &container.dns {
        check_dns(dns, found);
    }
}

fn check_dns(dns: &DnsConfig, found: &mut Problems) {
    check_count("DNSConfig.Nameservers", dns.nameservers.len(), found);
    for server in &dns.nameservers {
        if server.parse::<IpAddr>().is_err() {
            found.push(format!(
                "ContainerSpec: name server {server:?} is not an IP address"
            ));
        }
    }
    for (kind, words) in [("Search", &dns.search), ("Options", &dns.options)] {
        check_count(&format!("DNSConfig.{kind}"), words.len(), found);
        for word in words {
            // They share a line of `resolv.conf`.
            if word.is_empty() || word.contains(char::is_whitespace) {
                found.push(format!(
                    "ContainerSpec: {word:?} in DNSConfig.{kind} is not one word"
                ));
            }
        }
    }
}

fn check_count(what: &str, count: usize, found: &mut Problems) {
    if count > NAME_ENTRIES_MAX {
        found.push(format!(
            "ContainerSpec: at most {NAME_ENTRIES_MAX} entries are allowed in {what}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl FnOnce(&mut ContainerSpec), expected: &[&str]) {
        let mut container = ContainerSpec::default();
        change(&mut container);
        let mut found = Problems::default();
        check_names(&container, &mut found);
        let texts: Vec<String> = found.0.into_iter().map(|problem| problem.0).collect();
        assert_eq!(texts, expected);
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn addresses_with_names_are_hosts() {
        let fine = ["192.0.2.1 a b", "2001:db8::1 c", "host-gateway h"];
        check(|container| container.hosts = words(&fine), &[]);
        check(
            |container| container.hosts = words(&["192.0.2.1", "a 192.0.2.1"]),
            &[
                "ContainerSpec: host entry \"192.0.2.1\" is not an IP address and a host name",
                "ContainerSpec: host entry \"a 192.0.2.1\" is not an IP address and a host name",
            ],
        );
    }

    #[test]
    fn name_servers_are_addresses_and_the_rest_is_words() {
        let config = |server: &str, option: &str| {
            Some(DnsConfig {
                nameservers: words(&[server]),
                search: words(&["example.test", "."]),
                options: words(&[option]),
            })
        };
        check(
            |container| container.dns = config("192.0.2.1", "ndots:2"),
            &[],
        );
        check(
            |container| container.dns = config("ns.example", "a\nnameserver x"),
            &[
                "ContainerSpec: name server \"ns.example\" is not an IP address",
                "ContainerSpec: \"a\\nnameserver x\" in DNSConfig.Options is not one word",
            ],
        );
    }

    #[test]
    fn entries_are_limited() {
        check(
            |container| container.hosts = vec!["192.0.2.1 a".to_owned(); NAME_ENTRIES_MAX + 1],
            &["ContainerSpec: at most 256 entries are allowed in Hosts"],
        );
    }
}
