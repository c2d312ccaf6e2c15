//! Events.

use serde::Serialize;

use crate::{
    dto::{Map, is_default},
    event::Event,
};

/// One event. `status`, `id` and `from` are old fields that CLIs before 25.0 cannot do without.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(rename = "Type")]
    kind: &'a str,
    #[serde(rename = "Action")]
    action: &'a str,
    #[serde(rename = "Actor")]
    actor: Actor<'a>,
    scope: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    time: i64,
    #[serde(rename = "timeNano", skip_serializing_if = "is_default")]
    time_nano: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Actor<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "Attributes")]
    attributes: &'a Map,
}

impl<'a> From<&'a Event> for Message<'a> {
    fn from(event: &'a Event) -> Self {
        let is_container = event.kind == "container";
        let has_old_fields = is_container || event.kind == "image";
        Self {
            status: has_old_fields.then_some(&event.action),
            id: has_old_fields.then_some(&event.actor_id),
            from: event
                .attributes
                .get("image")
                .filter(|_| is_container)
                .map(String::as_str),
            kind: event.kind,
            action: &event.action,
            actor: Actor {
                id: &event.actor_id,
                attributes: &event.attributes,
            },
            scope: event.scope.name(),
            time: event.time.to_parts().0,
            time_nano: event.time.0,
        }
    }
}
