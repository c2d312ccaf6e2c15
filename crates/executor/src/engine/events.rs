//! What happens to containers, images, volumes and networks of this node, for `docker events`.

use std::collections::BTreeMap;

use skep_model::{OVERLAY_DRIVER, Timestamp};

use super::{Container, Engine, record::Record};

/// Kind of object an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSubject {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A volume.
    Volume,
    /// A network of this node, or this node's part of one.
    Network,
}

/// A network, by what events say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkSubject<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its driver.
    pub driver: &'a str,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// Kind of object.
    pub subject: EventSubject,
    /// Docker's word for it: `create`, `start`, `die`, ….
    pub action: String,
    /// Id or name of the object.
    pub actor_id: String,
    /// Details, keys as Docker's.
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub time: Timestamp,
}

impl Engine {
    /// Tells of an image: `pull`, `load`, `import`, `tag`, `untag`, `delete`.
    pub fn note_image(&self, action: &str, reference: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), reference.to_owned())]);
        self.note(
            EventSubject::Image,
            action,
            reference.to_owned(),
            attributes,
        );
    }

    /// Tells of a volume: `create`, `destroy`.
    pub fn note_volume(&self, action: &str, name: &str) {
        let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        self.note(EventSubject::Volume, action, name.to_owned(), attributes);
    }

    /// Tells of a network: `create`, `destroy`; with a container `connect`, `disconnect`.
    pub fn note_network(&self, action: &str, network: NetworkSubject<'_>, container: Option<&str>) {
        let NetworkSubject { id, name, driver } = network;
        let mut attributes = BTreeMap::from([
            ("name".to_owned(), name.to_owned()),
            ("type".to_owned(), driver.to_owned()),
        ]);
        attributes.extend(container.map(|id| ("container".to_owned(), id.to_owned())));
        self.note(EventSubject::Network, action, id.to_owned(), attributes);
    }

    /// Tells that a container came to its networks, or left them.
    pub(super) fn note_places(&self, record: &Record, action: &str) {
        let overlays = record.places.iter().map(|place| NetworkSubject {
            id: &place.network.id,
            name: &place.network.name,
            driver: OVERLAY_DRIVER,
        });
        let own = record.local_places.iter().map(|place| NetworkSubject {
            id: &place.network_id,
            name: &place.network_name,
            driver: &place.driver,
        });
        for network in overlays.chain(own) {
            self.note_network(action, network, Some(record.id.as_str()));
        }
    }

    /// Tells of a container, with what more there is to say.
    pub(super) fn note_container(
        &self,
        container: &Container,
        action: &str,
        more: &[(&str, String)],
    ) {
        let record = container.record();
        let mut attributes = record.labels.clone();
        attributes.insert("image".to_owned(), record.image.clone());
        attributes.insert("name".to_owned(), record.name.clone());
        attributes.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone())),
        );
        self.note(
            EventSubject::Container,
            action,
            record.id.to_string(),
            attributes,
        );
    }

    fn note(
        &self,
        subject: EventSubject,
        action: &str,
        actor_id: String,
        attributes: BTreeMap<String, String>,
    ) {
        let time = self.now();
        let event = EngineEvent {
            subject,
            action: action.to_owned(),
            actor_id,
            attributes,
            time,
        };
        // No subscriber is no error.
        let _ = self.events.send(event);
    }
}
