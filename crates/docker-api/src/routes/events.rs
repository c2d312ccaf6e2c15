//! `/events`.

use std::{future, sync::Arc};

use futures_util::{Stream, StreamExt};
use skep_model::Timestamp;

use crate::{
    dto::event::Message,
    error::{ApiError, Result},
    event::Event,
    http::{
        filter::Filters,
        request::Request,
        response::{self, JSON, Response},
        server::Context,
        timestamp,
    },
};

const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// `GET /events`
pub(crate) fn stream(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &FILTERS)?;
    let now = timestamp::now();
    let time = |key: &str| {
        timestamp::parse(request.query.text(key), now)
            .map_err(|error| ApiError::invalid(format!("invalid value for '{key}': {error}")))
    };
    let (since, until) = (time("since")?, time("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        let (since, until) = (request.query.text("since"), request.query.text("until"));
        return Err(ApiError::invalid(format!(
            "`since` time ({since}) cannot be after `until` time ({until})"
        )));
    }
    // Docker shows the past only when asked for, but "until now" alone means all of it.
    let since = since.or(until.map(|_| Timestamp::ZERO));
    let with_image_create = request.version.at_least(46);
    let events = context
        .backends
        .events
        .subscribe(since)
        .filter(move |event| {
            let is_new_kind = event.kind == "image" && event.action == "create";
            future::ready(matches(&filters, event) && (with_image_create || !is_new_kind))
        });
    let lines = until_time(events, until, now)
        .map(|event| response::encode(&Message::from(&*event)).map_err(std::io::Error::other));
    Ok(response::stream(JSON, lines, &context.shutdown))
}

/// Ends `events` at `until`; at once after the history when that has passed.
fn until_time(
    events: impl Stream<Item = Arc<Event>> + Send + 'static,
    until: Option<Timestamp>,
    now: Timestamp,
) -> impl Stream<Item = Arc<Event>> + Send + 'static {
    let end = async move {
        match until {
            Some(until) => tokio::time::sleep(until - now).await,
            None => future::pending().await,
        }
    };
    let limit = until.unwrap_or(Timestamp(i64::MAX));
    events
        .take_until(end)
        .filter(move |event| future::ready(event.time <= limit))
}

fn matches(filters: &Filters, event: &Event) -> bool {
    let action = event.action.as_str();
    let name = event.attributes.get("name").map_or("", String::as_str);
    // `health_status: healthy` is matched by `health_status` too.
    let short = action.split(':').next().unwrap_or(action);
    let actor = |key: &str| {
        let is_it =
            |value: &str| event.kind == key && (event.actor_id.starts_with(value) || name == value);
        !filters.has(key) || filters.values(key).any(is_it)
    };
    let image = |value: &str| {
        let of_container = event.attributes.get("image").map_or("", String::as_str);
        let candidates = [event.actor_id.as_str(), name, of_container];
        (event.kind == "image" || event.kind == "container")
            && candidates.iter().any(|candidate| {
                *candidate == value || candidate.split([':', '@']).next() == Some(value)
            })
    };
    (filters.equals("event", action) || filters.equals("event", short))
        && filters.equals("type", event.kind)
        && filters.equals("scope", event.scope.name())
        && filters.labels("label", &event.attributes)
        && [
            "config",
            "container",
            "daemon",
            "network",
            "node",
            "plugin",
            "secret",
            "service",
        ]
        .into_iter()
        .all(actor)
        && actor("volume")
        && (!filters.has("image") || filters.values("image").any(image))
}
