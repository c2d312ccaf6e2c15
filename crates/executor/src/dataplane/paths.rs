//! What the paths to other nodes carry: when they are looked at, and what of it people are told.
//!
//! A round asks all nodes, a few at once, with a handful of packets; it takes seconds, so it runs beside the actor. It comes when
//! there are nodes that were not asked yet, and every ten minutes. Which packets: `skep_network::path`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use skep_network::path::{self, Carries};
use tokio::{task::JoinHandle, time::Instant};
use tracing::{debug, warn};

use super::{Book, PathMtu};

/// Pause between two rounds of the same nodes. Paths seldom change; a round costs two packets per node where all is well.
const ROUND_EVERY: Duration = Duration::from_secs(600);
/// Pause after a round that did not take place, or before new nodes are asked.
const ROUND_PAUSE: Duration = Duration::from_secs(30);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Whom the last round asked, and when it began.
    asked: Option<(IpAddr, BTreeSet<IpAddr>, Instant)>,
    round: Option<Round>,
    found: BTreeMap<IpAddr, PathMtu>,
}

/// A round under way; it is told to stop when it is not wanted any more.
#[derive(Debug)]
struct Round {
    task: JoinHandle<Result<path::Paths, path::Error>>,
    is_stopped: Arc<AtomicBool>,
}

// === impl Paths ===

impl Paths {
    /// Begins a round if one is due.
    pub(super) fn follow(&mut self, local: IpAddr, nodes: BTreeSet<IpAddr>) {
        self.found.retain(|node, _| nodes.contains(node));
        let now = Instant::now();
        let is_due = match &self.asked {
            None => true,
            Some((from, asked, at)) => {
                let is_same = *from == local && nodes.is_subset(asked);
                *at + if is_same { ROUND_EVERY } else { ROUND_PAUSE } <= now
            }
        };
        if self.round.is_some() || !is_due || nodes.is_empty() {
            return;
        }
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (stop, targets) = (Arc::clone(&is_stopped), nodes.clone());
        let task = tokio::task::spawn_blocking(move || path::measure(local, &targets, &stop));
        self.asked = Some((local, nodes, now));
        self.round = Some(Round { task, is_stopped });
    }

    /// Waits for the end of a round; for ever without one.
    pub(super) async fn finished(&mut self) {
        let Some(round) = &mut self.round else {
            return std::future::pending().await;
        };
        // Polling a handle again after it was dropped out of a `select!` loses nothing.
        let outcome = (&mut round.task).await;
        self.round = None;
        match outcome {
            Ok(Ok(paths)) => self.found = facts(&paths),
            Ok(Err(error)) => {
                warn!(error = %super::actor::Chain(&error), "Paths to other nodes not measured")
            }
            Err(error) => {
                let error = io::Error::other(error);
                debug!(error = %error, "Paths to other nodes not measured");
            }
        }
    }

    /// Nothing is known any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What each path carries, by the other node's data-path address.
    pub(super) fn found(&self) -> &BTreeMap<IpAddr, PathMtu> {
        &self.found
    }

    /// The paths that carry too little, in words.
    pub(super) fn problems(&self, book: &Book) -> Vec<String> {
        let wishes = book.mtu_wishes();
        let narrow = self.found.iter().filter_map(|(node, path)| {
            let found = path.found.filter(|found| *found < path.needed)?;
            Some((*node, path.needed, found))
        });
        narrow
            .flat_map(|(node, needed, found)| in_words((node, needed, found), &wishes))
            .collect()
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }
}

fn facts(paths: &path::Paths) -> BTreeMap<IpAddr, PathMtu> {
    let needed = paths.needed;
    let fact = |(node, carries): (&IpAddr, &Carries)| {
        let found = match *carries {
            Carries::Enough => Some(needed),
            Carries::AtMost(found) => Some(found),
            Carries::Unknown => None,
        };
        (*node, PathMtu { needed, found })
    };
    paths.paths.iter().map(fact).collect()
}

/// Of one path: that it is too narrow, and the networks whose own MTU is too large for it.
fn in_words(
    (node, needed, found): (IpAddr, u32, u32),
    wishes: &BTreeMap<String, u32>,
) -> Vec<String> {
    let room = found.saturating_sub(path::overhead(node));
    let mut texts = vec![format!(
        "the path to node {node} carries packets of {found} bytes, but {needed} are needed: give the \
         data path's interfaces an MTU of {found} on all nodes, or networks the option \
         com.docker.network.driver.mtu={room}"
    )];
    let too_large = wishes.iter().filter(|(_, mtu)| **mtu > room);
    texts.extend(too_large.map(|(network, mtu)| {
        format!("network `{network}` asks for MTU {mtu}, the path to node {node} carries {room}")
    }));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_path_and_networks_too_large_for_it_are_named() {
        let node = IpAddr::from([192, 0, 2, 2]);
        let wishes = BTreeMap::from([("big".to_owned(), 1400), ("small".to_owned(), 1350)]);
        let texts = in_words((node, 1500, 1400), &wishes);
        assert_eq!(
            texts,
            [
                "the path to node 192.0.2.2 carries packets of 1400 bytes, but 1500 are needed: give the \
                 data path's interfaces an MTU of 1400 on all nodes, or networks the option \
                 com.docker.network.driver.mtu=1350",
                "network `big` asks for MTU 1400, the path to node 192.0.2.2 carries 1350",
            ]
        );
    }

    #[test]
    fn a_silent_node_is_no_problem() {
        let node = IpAddr::from([192, 0, 2, 2]);
        let silent = path::Paths {
            needed: 1500,
            paths: [(node, Carries::Unknown)].into(),
        };
        let expect = PathMtu {
            needed: 1500,
            found: None,
        };
        assert_eq!(facts(&silent), [(node, expect)].into());
    }
}
