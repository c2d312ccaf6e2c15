//! What the kernel says by itself of changes in a namespace: links, addresses, routes, rules, neighbours, tables.
//!
//! An owner looks once in a while, and before each command: two system calls when nothing happened. What its own work caused is
//! thrown away after each command, so what is left was somebody else's doing. Somebody's change at the very moment of our own is
//! missed; the periodic reconciliation finds it.

use std::collections::BTreeMap;
use std::io;

use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{Socket, SocketAddr};

use crate::nfnl::{find, take_message};

/// `RTNLGRP_*`: links, neighbours and forwarding entries, addresses, routes and rules of both families.
const ROUTE_GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];

/// `NFNLGRP_NFTABLES`.
const TABLES_GROUP: u32 = 7;

/// `RTM_*`.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const DELETE_ADDRESS: u16 = 21;
const DELETE_ROUTE: u16 = 25;
const DELETE_NEIGHBOUR: u16 = 29;
const DELETE_RULE: u16 = 33;

/// `NFNL_SUBSYS_NFTABLES` in a message's kind, and the last kind about something in a table (`NFT_MSG_DELSETELEM`).
const SUBSYSTEM_TABLES: u16 = 10;
const TABLE_KIND_MAX: u16 = 14;

/// `IFLA_IFNAME`, `IFLA_MASTER`, `RTA_OIF`, `FRA_IIFNAME`; the first attribute of all table messages is the table's name.
const LINK_NAME: u16 = 3;
const ROUTE_LINK: u16 = 4;
const RULE_LINK: u16 = 3;
const TABLE_NAME: u16 = 1;

/// `IFF_UP`; `NUD_FAILED | NUD_NOARP | NUD_PERMANENT`, of which the first is what a neighbour becomes on its way out; `RTN_UNICAST`.
const LINK_UP: u32 = 1;
const NEIGHBOUR_STATIC: u16 = 0xe0;
const ROUTE_UNICAST: u8 = 1;

/// Room for what happens between two looks: some thousand messages. Beyond, the kernel says that it has thrown some away, which is
/// taken for a change.
const RECEIVE_BUFFER_BYTES: u32 = 1 << 20;

/// Largest message of the kernel's.
const DATAGRAM_BYTES: usize = 1 << 15;

/// Messages read in one look. A host whose routes change faster than that is looked at again a second later.
const MESSAGE_COUNT_MAX: usize = 16_384;

/// What of a namespace is ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Interest {
    /// Names of links.
    pub(crate) links: Vec<String>,
    /// How names of further links start.
    pub(crate) link_prefix: Option<String>,
    /// Whether neighbours and forwarding entries of those links are, too.
    pub(crate) has_neighbours: bool,
    /// Routing rules for what comes from this link.
    pub(crate) rules_from: Option<String>,
    /// Names of tables, in any family.
    pub(crate) tables: &'static [&'static str],
    /// All of it: the namespace is our own.
    pub(crate) is_everything: bool,
}

/// Sockets that hear what changes in one namespace.
pub(crate) struct Watch {
    route: Socket,
    tables: Option<Socket>,
    interest: Interest,
    /// Names of links by index.
    links: BTreeMap<u32, String>,
    datagram: Vec<u8>,
}

// === impl Watch ===

impl Watch {
    /// Opens sockets in the calling thread's namespace.
    pub(crate) fn open(interest: Interest) -> io::Result<Watch> {
        let route = listen(NETLINK_ROUTE, &ROUTE_GROUPS)?;
        let tables = if interest.is_everything {
            None
        } else {
            Some(listen(NETLINK_NETFILTER, &[TABLES_GROUP])?)
        };
        let mut watch = Watch {
            route,
            tables,
            interest,
            links: BTreeMap::new(),
            datagram: Vec::with_capacity(DATAGRAM_BYTES),
        };
        watch.find_links();
        Ok(watch)
    }

    /// From now on something else is ours.
    pub(crate) fn set_interest(&mut self, interest: Interest) {
        self.interest = interest;
    }

    /// Whether somebody changed or took away something of ours since the last look.
    pub(crate) fn look(&mut self) -> bool {
        let mut is_changed = false;
        for _ in 0..MESSAGE_COUNT_MAX {
            match receive(&self.route, &mut self.datagram) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    is_changed = true;
                    continue;
                }
            }
            let datagram = std::mem::take(&mut self.datagram);
            let mut rest = datagram.as_slice();
            while let Some((kind, _, body)) = take_message(&mut rest) {
                is_changed |= self.is_loss(kind, body);
            }
            self.datagram = datagram;
        }
        for _ in 0..MESSAGE_COUNT_MAX {
            let Some(socket) = &self.tables else { break };
            match receive(socket, &mut self.datagram) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    is_changed = true;
                    continue;
                }
            }
            let mut rest = self.datagram.as_slice();
            while let Some((kind, _, body)) = take_message(&mut rest) {
                is_changed |= self.is_our_table(kind, body);
            }
        }
        is_changed
    }

    /// Forgets what has happened: it was our own doing.
    pub(crate) fn discard(&mut self) {
        self.look();
    }

    fn is_our_table(&self, kind: u16, body: &[u8]) -> bool {
        let is_about_table = kind >> 8 == SUBSYSTEM_TABLES && kind & 0xff <= TABLE_KIND_MAX;
        let name = body.get(4..).and_then(|body| find(body, TABLE_NAME));
        is_about_table && name.is_some_and(|name| self.interest.tables.contains(&text(name)))
    }

    /// Whether a message says that something of ours went, or went down.
    fn is_loss(&mut self, kind: u16, body: &[u8]) -> bool {
        match kind {
            NEW_LINK | DELETE_LINK => {
                let (Some(index), Some(flags)) = (number(body, 4), number(body, 8)) else {
                    return false;
                };
                // Ports of a bridge are also spoken of in the bridge's family, without being links that come or go.
                let is_link = body.first() == Some(&0);
                let name = body.get(16..).and_then(|body| find(body, LINK_NAME));
                let name = name.map_or("", text).to_owned();
                let is_ours = self.is_our_link(&name);
                if kind == DELETE_LINK && is_link {
                    self.links.remove(&index);
                } else {
                    self.links.insert(index, name);
                }
                is_ours && (kind == DELETE_LINK || flags & LINK_UP == 0)
            }
            DELETE_ADDRESS => self.is_our_index(number(body, 4)),
            DELETE_NEIGHBOUR => {
                let state = body.get(8..10).and_then(|bytes| bytes.try_into().ok());
                let is_static = state.map_or(0, u16::from_ne_bytes) & NEIGHBOUR_STATIC != 0;
                let is_meant = self.interest.has_neighbours && is_static;
                is_meant && self.is_our_index(number(body, 4))
            }
            DELETE_ROUTE => {
                let link = body.get(12..).and_then(|body| find(body, ROUTE_LINK));
                let is_unicast = body.get(7) == Some(&ROUTE_UNICAST);
                is_unicast && self.is_our_index(link.and_then(|link| number(link, 0)))
            }
            DELETE_RULE => {
                let link = body.get(12..).and_then(|body| find(body, RULE_LINK));
                link.is_some_and(|link| self.interest.rules_from.as_deref() == Some(text(link)))
            }
            _ => false,
        }
    }

    fn is_our_index(&self, index: Option<u32>) -> bool {
        let name = index.and_then(|index| self.links.get(&index));
        self.interest.is_everything || name.is_some_and(|name| self.is_our_link(name))
    }

    fn is_our_link(&self, name: &str) -> bool {
        let Interest {
            links,
            link_prefix,
            is_everything,
            ..
        } = &self.interest;
        let is_prefixed = link_prefix
            .as_ref()
            .is_some_and(|start| name.starts_with(start));
        *is_everything || is_prefixed || links.iter().any(|link| link == name)
    }

    /// Learns the names of links that are there already.
    fn find_links(&mut self) {
        // Without the names less is recognised at once, and all of it by the next reconciliation.
        let links = crate::netlink::RouteSocket::open().and_then(|mut socket| socket.link_names());
        self.links.extend(links.unwrap_or_default());
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("interest", &self.interest)
            .finish_non_exhaustive()
    }
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    socket.set_rx_buf_sz(RECEIVE_BUFFER_BYTES)?;
    for &group in groups {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

/// Whether there was a datagram; it is in the buffer then.
fn receive(socket: &Socket, datagram: &mut Vec<u8>) -> io::Result<bool> {
    datagram.clear();
    match socket.recv(datagram, 0) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn number(body: &[u8], at: usize) -> Option<u32> {
    let bytes = body.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

/// A text without its end mark.
fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|&byte| byte == 0);
    std::str::from_utf8(&bytes[..end.unwrap_or(bytes.len())]).unwrap_or("")
}

#[cfg(test)]
mod tests;
