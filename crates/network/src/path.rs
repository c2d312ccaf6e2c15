//! What the paths to other nodes carry: whether packets of the size that overlays need arrive.
//!
//! An echo request of that size, which must not be fragmented, is answered by the other node's kernel: no daemon is needed
//! there. Where the large one is not answered and a small one is, the largest that is answered is searched for. A node that
//! answers none (a firewall) says nothing about its path. `Search` is pure; [`measure`] does the IO of many searches at
//! once. Design: `docs/design/overlay.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;

use crate::netlink::{NetlinkError, RouteSocket};
use crate::plane::{OVERHEAD_V4, OVERHEAD_V6, mtu_of};

mod echo;

/// Size of the packet that shows that a node answers at all: what every IPv6 link must carry is more, so it always arrives.
const SMALL_BYTES: u32 = 128;

/// Unanswered requests of one size that count as "too large". More would take longer, fewer mistake a loss for a limit.
const TRY_COUNT: u32 = 3;

/// What a path carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// All that is needed.
    Enough,
    /// IP packets of so many bytes at most.
    AtMost(u32),
    /// The node does not answer, so nobody knows.
    Unknown,
}

/// What was found on one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Bytes of the largest IP packets that this node sends over the data path: the MTU of its link.
    pub needed: u32,
    /// What each path carries, by the other node's address.
    pub paths: BTreeMap<IpAddr, Carries>,
}

/// Why a round did not take place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The own address is on no interface.
    #[error("data-path address `{0}` is on no interface")]
    NoLink(IpAddr),
    /// The kernel does not say which link has the address.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// No socket for echo requests, or none with that address.
    #[error("failed to open a socket for echo requests")]
    Socket(#[source] io::Error),
}

/// Finds what the paths from `local` to other nodes carry; blocks for some seconds, about ten where a path is too narrow. Ends
/// early, with what is known, when `is_stopped` becomes true. Works in the network namespace of the calling thread.
pub fn measure(
    local: IpAddr,
    nodes: &BTreeSet<IpAddr>,
    is_stopped: &AtomicBool,
) -> Result<Paths, Error> {
    let needed = mtu_of(&mut RouteSocket::open()?, local)?.ok_or(Error::NoLink(local))?;
    let nodes = nodes.iter().filter(|ip| ip.is_ipv4() == local.is_ipv4());
    let mut searches: BTreeMap<IpAddr, Search> =
        nodes.map(|ip| (*ip, Search::new(needed))).collect();
    echo::perform(local, &mut searches, is_stopped).map_err(Error::Socket)?;
    let found = searches.into_iter();
    Ok(Paths {
        needed,
        paths: found
            .map(|(ip, search)| (ip, search.outcome().unwrap_or(Carries::Unknown)))
            .collect(),
    })
}

/// What tunnels add to a packet of an overlay network, in bytes, on the way to a node with this address.
pub fn overhead(node: IpAddr) -> u32 {
    if node.is_ipv4() {
        OVERHEAD_V4
    } else {
        OVERHEAD_V6
    }
}

/// The search for the largest packet that one path carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Search {
    needed: u32,
    stage: Stage,
    /// Requests of the current size without an answer.
    tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Is what is needed answered?
    Whole,
    /// Is anything answered?
    Small,
    /// Bytes that were answered, and bytes that were not.
    Between(u32, u32),
    /// Was what is needed merely lost?
    Again(u32),
    Done(Carries),
}

// === impl Search ===

impl Search {
    pub(crate) fn new(needed: u32) -> Search {
        Search {
            needed,
            stage: Stage::Whole,
            tries: 0,
        }
    }

    /// Bytes of the IP packet to send next; none when all is known.
    pub(crate) fn next(&self) -> Option<u32> {
        match self.stage {
            Stage::Whole | Stage::Again(_) => Some(self.needed),
            Stage::Small => Some(SMALL_BYTES.min(self.needed)),
            Stage::Between(low, high) => Some(low + (high - low) / 2),
            Stage::Done(_) => None,
        }
    }

    /// What was sent last was answered.
    pub(crate) fn answered(&mut self) {
        self.enter(match self.stage {
            Stage::Whole | Stage::Again(_) => Stage::Done(Carries::Enough),
            Stage::Small => between(SMALL_BYTES.min(self.needed), self.needed),
            Stage::Between(low, high) => between(low + (high - low) / 2, high),
            Stage::Done(carries) => Stage::Done(carries),
        });
    }

    /// What was sent last was not answered in time.
    pub(crate) fn missed(&mut self) {
        self.tries += 1;
        if self.tries >= TRY_COUNT {
            self.refused();
        }
    }

    /// What was to be sent is too large for this node's own link.
    pub(crate) fn refused(&mut self) {
        self.enter(match self.stage {
            Stage::Whole => Stage::Small,
            Stage::Small => Stage::Done(Carries::Unknown),
            Stage::Between(low, high) => between(low, low + (high - low) / 2),
            Stage::Again(found) => Stage::Done(Carries::AtMost(found)),
            Stage::Done(carries) => Stage::Done(carries),
        });
    }

    pub(crate) fn outcome(&self) -> Option<Carries> {
        match self.stage {
            Stage::Done(carries) => Some(carries),
            Stage::Whole | Stage::Small | Stage::Between(..) | Stage::Again(_) => None,
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.tries = 0;
    }
}

/// Goes on between two sizes, until they are neighbours.
fn between(low: u32, high: u32) -> Stage {
    if low + 1 >= high {
        Stage::Again(low)
    } else {
        Stage::Between(low, high)
    }
}

#[cfg(test)]
mod tests;
