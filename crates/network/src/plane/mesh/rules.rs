//! The rules of the mesh, as text for `nft`: one table in each family, alike but for the addresses. One rule is no text. Pure.

use std::ops::RangeInclusive;

use super::{MARK, TABLE, Wish};
use crate::digest::fnv1a;
use crate::nfnl::Family;
use crate::nft::DIGEST_PREFIX;
use crate::plane::balance::slot_counts;

/// Chain of ports that nobody serves on an address.
pub(crate) const CLOSED: &str = "closed";

/// Chain whose only rule moves source ports to [`SHIFTED_PORTS`]. `nft` has no words for it ([`crate::nfnl::shift`]).
pub(crate) const SHIFT: &str = "shift";

/// Where source ports of connections that another node brought are moved: below those that clients' kernels give out by themselves (Linux
/// from 32768, RFC 6335 from 49152), which are for clients of this node. Those in it stay while they are free.
pub(crate) const SHIFTED_PORTS: RangeInclusive<u16> = 1025..=32767;

/// Starts every line that is a rule.
const RULE_MARK: &str = "\n    ";

/// The transaction that makes the tables, without elements.
pub(crate) fn script(wish: &Wish) -> String {
    let mut text = String::new();
    for family in families(wish) {
        let table = table(family);
        text.push_str(&format!(
            "add table {table}\ndelete table {table}\ntable {table} {{\n  chain {DIGEST_PREFIX}{} {{ }}\n{}}}\n",
            digest(wish, family),
            body(wish, family)
        ));
    }
    text
}

/// The transaction that removes a family's table, if there is one.
pub(crate) fn remove_script(family: Family) -> String {
    let table = table(family);
    format!("add table {table}\ndelete table {table}\n")
}

/// Families there is a table for.
pub(crate) fn families(wish: &Wish) -> impl Iterator<Item = Family> {
    let v6 = wish.gateway6.map(|_| Family::V6);
    [Some(Family::V4), v6].into_iter().flatten()
}

/// Whether a family's table has these rules.
pub(crate) fn is_whole(wish: &Wish, family: Family, chains: &[String], rule_count: usize) -> bool {
    let wanted = format!("{DIGEST_PREFIX}{}", digest(wish, family));
    let texts = body(wish, family).matches(RULE_MARK).count();
    // And the one in the chain `SHIFT`.
    chains.contains(&wanted) && rule_count == texts + 1
}

fn table(family: Family) -> String {
    match family {
        Family::V4 => format!("ip {TABLE}"),
        Family::V6 => format!("ip6 {TABLE}"),
    }
}

fn digest(wish: &Wish, family: Family) -> String {
    format!("{:016x}", fnv1a(body(wish, family).as_bytes()))
}

/// What a packet's own fields say of the published port it is for.
const PORT: &str = "meta l4proto . th dport";

/// How a family's addresses are spelled.
#[derive(Debug, Clone, Copy)]
struct Spelling {
    ip: &'static str,
    kind: &'static str,
    loopback: &'static str,
}

fn body(wish: &Wish, family: Family) -> String {
    let spelling = match family {
        Family::V4 => Spelling {
            ip: "ip",
            kind: "ipv4_addr",
            loopback: "127.0.0.0/8",
        },
        Family::V6 => Spelling {
            ip: "ip6",
            kind: "ipv6_addr",
            loopback: "::1",
        },
    };
    let Spelling { ip, kind, .. } = spelling;
    let own = format!("{ip} daddr . {PORT}");
    let mut text = format!(
        "  map ports {{ typeof {PORT} : verdict; }}
  map slots {{ typeof {PORT} . numgen random mod 16 : {ip} daddr . th dport; }}
  map ports_addr {{ typeof {own} : verdict; }}
  map slots_addr {{ typeof {own} . numgen random mod 16 : {ip} daddr . th dport; }}
  map zones {{ typeof ether saddr : ct zone; }}
  map marks {{ typeof ether saddr : ct mark; }}
  set nodes {{ type {kind}; }}
  set connections {{ typeof {PORT}; counter; }}
  set connections_addr {{ typeof {own}; counter; }}
"
    );
    chain(&mut text, CLOSED, "", &[]);
    for (letter, key, map) in [('n', PORT, "slots"), ('a', own.as_str(), "slots_addr")] {
        for count in slot_counts() {
            let rule = format!("dnat {ip} to {key} . numgen random mod {count} map @{map}");
            chain(&mut text, &format!("{letter}{count}"), "", &[rule]);
        }
    }
    marking(&mut text, wish, spelling);
    translation(&mut text, wish, spelling, &own);
    filtering(&mut text, wish);
    counting(&mut text, wish, &own);
    text
}

/// What `route_localnet` would let in is dropped, and the rest remembers which node brought it.
fn marking(text: &mut String, wish: &Wish, spelling: Spelling) {
    let Wish { link, bridge, .. } = wish;
    let Spelling { ip, loopback, .. } = spelling;
    let raw = [
        format!("iifname \"{link}\" {ip} daddr {loopback} drop"),
        format!("iifname \"{link}\" ct original zone set ether saddr map @zones"),
    ];
    chain(text, "raw_pre", &hook("filter", "prerouting", "raw"), &raw);
    let mangle = [
        format!("iifname \"{link}\" ct state new ct mark set ether saddr map @marks"),
        format!(
            "iifname \"{bridge}\" ct direction reply ct mark and 0xffff0000 == {MARK:#x} meta mark set ct mark"
        ),
    ];
    let mangled = hook("filter", "prerouting", "mangle");
    chain(text, "mangle_pre", &mangled, &mangle);
}

fn translation(text: &mut String, wish: &Wish, spelling: Spelling, own: &str) {
    let link = &wish.link;
    let Spelling { ip, loopback, .. } = spelling;
    // A port of one address goes before one of all.
    let publish = |condition: &str| {
        let local = format!("{condition}fib daddr type local");
        [
            format!("{local} {own} vmap @ports_addr"),
            format!("{local} {PORT} vmap @ports"),
        ]
    };
    let pre = publish(&format!("iifname != \"{link}\" "));
    chain(text, "nat_pre", &hook("nat", "prerouting", "dstnat"), &pre);
    // The kernel takes no answer to `::1` from elsewhere, so who asks there is refused, at once.
    let (gateway, condition) = match wish.gateway6.filter(|_| ip == "ip6") {
        Some(gateway) => (gateway, "ip6 daddr != ::1 "),
        None => (wish.gateway, ""),
    };
    let out = publish(condition);
    chain(text, "nat_out", &hook("nat", "output", "-100"), &out);
    let post = [
        format!("oifname \"{link}\" {ip} saddr {loopback} snat to {gateway}"),
        format!("oifname \"{link}\" {ip} saddr @nodes snat to {gateway}"),
    ];
    let after = hook("nat", "postrouting", "srcnat");
    chain(text, "nat_post", &after, &post);
    // After all others that change who a client is: of those that do, the first one's word counts.
    chain(text, SHIFT, "", &[]);
    let last = hook("nat", "postrouting", "srcnat + 5");
    let (bridge, first) = (&wish.bridge, SHIFTED_PORTS.start());
    // Privileged ports stay privileged.
    let shift = format!(
        "oifname \"{bridge}\" ct mark and 0xffff0000 == {MARK:#x} tcp sport >= {first} goto {SHIFT}"
    );
    chain(text, "nat_shift", &last, &[shift]);
}

/// Containers reach those of other nodes through published ports only, and nobody is forwarded beyond.
fn filtering(text: &mut String, wish: &Wish) {
    let Wish { link, bridge, .. } = wish;
    let forward = [
        format!("oifname \"{link}\" ct status dnat accept"),
        format!("oifname \"{link}\" ct direction reply accept"),
        format!("oifname \"{link}\" drop"),
        format!("iifname \"{link}\" oifname != \"{bridge}\" ct direction original drop"),
    ];
    let hook = hook("filter", "forward", "filter");
    chain(text, "forward", &hook, &forward);
}

/// Counts connections to published ports, just before what translates them: once each, as all of a `nat` hook. Decides nothing.
fn counting(text: &mut String, wish: &Wish, own: &str) {
    let foreign = format!("iifname != \"{}\" ", wish.link);
    for (name, place, condition) in [
        ("count_pre", "prerouting", foreign.as_str()),
        ("count_out", "output", ""),
    ] {
        let local = format!("{condition}fib daddr type local");
        let rules = [
            format!("{local} {own} @connections_addr accept"),
            format!("{local} {PORT} @connections"),
        ];
        chain(text, name, &hook("nat", place, "-105"), &rules);
    }
}

fn hook(kind: &str, hook: &str, priority: &str) -> String {
    format!("type {kind} hook {hook} priority {priority}; policy accept;")
}

fn chain(text: &mut String, name: &str, hook: &str, rules: &[String]) {
    let rules: String = rules
        .iter()
        .map(|rule| format!("{RULE_MARK}{rule}"))
        .collect();
    text.push_str(&format!("  chain {name} {{ {hook}{rules}\n  }}\n"));
}
