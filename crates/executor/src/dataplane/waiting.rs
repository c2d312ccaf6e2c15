//! Containers that wait for their places. Pure but for the answers.

use std::{collections::BTreeMap, time::Duration};

use skep_network::plane::{Report, Scope};
use tokio::{sync::oneshot, time::Instant};

use super::{AttachError, Book, LocalContainer, NetworkFacts};

/// How long a container waits for the directory to tell of its networks: managers commit the
/// directory with the task, so it is there within milliseconds unless the manager asked lags.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);
/// How long a container waits where no manager has told anything.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

type Reply = oneshot::Sender<Result<(), AttachError>>;

/// Everyone who waits, by container.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<String, Waiter>);

#[derive(Debug)]
struct Waiter {
    networks: Vec<NetworkFacts>,
    since: Instant,
    is_programmed: bool,
    reply: Reply,
}

// === impl Waiting ===

impl Waiting {
    /// A container waits from now on. One that waits already does so for nothing.
    pub(super) fn insert(&mut self, id: &str, container: &LocalContainer, reply: Reply) {
        let networks = container.places.iter().map(|place| place.network.clone());
        let waiter = Waiter {
            networks: networks.collect(),
            since: Instant::now(),
            is_programmed: false,
            reply,
        };
        self.0.insert(id.to_owned(), waiter);
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.0.remove(id);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// A value was followed. Returns containers that failed.
    #[must_use]
    pub(super) fn on_report(&mut self, book: &Book, report: &Report) -> Vec<String> {
        let mut failed = Vec::new();
        for (id, waiter) in &mut self.0 {
            let concerns = |scope: &Scope| match scope {
                Scope::Container(other) => other == id,
                Scope::Network(other) => waiter.networks.iter().any(|one| one.id == *other),
                Scope::Node => true,
                Scope::Mesh | Scope::Encryption => false,
            };
            let failures = report.failures.iter();
            let failures: Vec<String> = failures
                .filter(|failure| concerns(&failure.scope))
                .map(|failure| super::actor::text_of(book, failure))
                .collect();
            if failures.is_empty() {
                waiter.is_programmed = true;
            } else {
                failed.push((id.clone(), failures.join("; ")));
            }
        }
        let fail = |(id, text): (String, String)| {
            self.fail(&id, AttachError::Refused(text));
            id
        };
        failed.into_iter().map(fail).collect()
    }

    /// A value could not be followed at all. Returns all containers that wait.
    #[must_use]
    pub(super) fn on_error(&mut self, text: &str) -> Vec<String> {
        let ids: Vec<String> = self.0.keys().cloned().collect();
        for id in &ids {
            self.fail(id, AttachError::Refused(text.to_owned()));
        }
        ids
    }

    /// Answers whoever has waited enough. Returns containers that waited in vain.
    #[must_use]
    pub(super) fn settle(&mut self, book: &Book) -> Vec<String> {
        let now = Instant::now();
        let (mut done, mut vain) = (Vec::new(), Vec::new());
        for (id, waiter) in &self.0 {
            let is_known = waiter.networks.iter().all(|network| book.knows(network));
            if waiter.is_programmed && (is_known || now >= waiter.since + KNOWN_WITHIN) {
                done.push(id.clone());
            } else if !waiter.is_programmed && now >= waiter.since + TOLD_WITHIN {
                vain.push(id.clone());
            }
        }
        for id in done {
            if let Some(waiter) = self.0.remove(&id) {
                // Whoever asked may have been dropped; the container then is detached by its remover.
                let _ = waiter.reply.send(Ok(()));
            }
        }
        for id in &vain {
            self.fail(id, AttachError::NoDirectory);
        }
        vain
    }

    /// When [`Waiting::settle`] has something to do even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let at = |waiter: &Waiter| {
            let within = if waiter.is_programmed {
                KNOWN_WITHIN
            } else {
                TOLD_WITHIN
            };
            waiter.since + within
        };
        self.0.values().map(at).min()
    }

    fn fail(&mut self, id: &str, error: AttachError) {
        if let Some(waiter) = self.0.remove(id) {
            let _ = waiter.reply.send(Err(error));
        }
    }
}

#[cfg(test)]
mod tests;
