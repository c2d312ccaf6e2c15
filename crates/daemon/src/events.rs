//! Joins what happens on the node and in the cluster into one stream of events.

use std::{collections::BTreeMap, sync::Arc};

use skep_docker_api::event::{Event, EventHub, EventScope};
use skep_executor::engine::{Engine, EngineEvent, EventSubject};
use skep_manager::{Feed, Handle, group::Group};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};
use tokio_util::sync::CancellationToken;

use crate::backend::swarm_events;

/// Runs until `shutdown`.
pub(crate) async fn run(
    hub: Arc<EventHub>,
    engine: Arc<Engine>,
    mut current: watch::Receiver<Option<Handle>>,
    shutdown: CancellationToken,
) {
    let mut local = engine.events();
    let mut feed = subscribe(&mut current);
    let mut group = follow_group(&current);
    loop {
        tokio::select! {
            event = local.recv() => match event {
                Ok(event) => hub.publish(local_event(event)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            changes = next(&mut feed) => match changes {
                Some(changes) => {
                    let now = engine.now();
                    let events = changes.changes.iter().filter_map(|change| swarm_events::event(change, now));
                    events.for_each(|event| hub.publish(event));
                }
                None => feed = None,
            },
            events = group_events(&mut group) => match events {
                Some(events) => events.into_iter().for_each(|event| hub.publish(event)),
                None => group = None,
            },
            changed = current.changed() => match changed {
                Ok(()) => {
                    feed = subscribe(&mut current);
                    group = follow_group(&current);
                }
                Err(_) => return,
            },
            () = shutdown.cancelled() => return,
        }
    }
}

fn subscribe(current: &mut watch::Receiver<Option<Handle>>) -> Option<broadcast::Receiver<Feed>> {
    current.borrow_and_update().as_ref().map(Handle::changes)
}

/// Follows a manager's raft group, beginning with what it is now.
struct GroupFeed {
    handle: Handle,
    group: watch::Receiver<Arc<Group>>,
    known: Arc<Group>,
}

fn follow_group(current: &watch::Receiver<Option<Handle>>) -> Option<GroupFeed> {
    let handle = current.borrow().clone()?;
    let mut group = handle.group();
    let known = Arc::clone(&group.borrow_and_update());
    Some(GroupFeed {
        handle,
        group,
        known,
    })
}

/// The events of the group's next change; `None` when the manager has stopped. Waits for ever without
/// one.
async fn group_events(feed: &mut Option<GroupFeed>) -> Option<Vec<Event>> {
    let Some(feed) = feed else {
        return std::future::pending().await;
    };
    feed.group.changed().await.ok()?;
    let new = Arc::clone(&feed.group.borrow_and_update());
    let old = std::mem::replace(&mut feed.known, Arc::clone(&new));
    let store = &feed.handle.view().store;
    Some(swarm_events::group_events(&old, &new, store))
}

/// The next changes; `None` when the manager has stopped. Waits for ever without one.
async fn next(feed: &mut Option<broadcast::Receiver<Feed>>) -> Option<Feed> {
    let Some(feed) = feed else {
        return std::future::pending().await;
    };
    loop {
        match feed.recv().await {
            Ok(changes) => return Some(changes),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

fn local_event(event: EngineEvent) -> Event {
    let kind = match event.subject {
        EventSubject::Container => "container",
        EventSubject::Image => "image",
        EventSubject::Volume => "volume",
        EventSubject::Network => "network",
    };
    let attributes: BTreeMap<String, String> = event.attributes;
    Event {
        kind,
        action: event.action,
        actor_id: event.actor_id,
        attributes,
        scope: EventScope::Local,
        time: event.time,
    }
}
