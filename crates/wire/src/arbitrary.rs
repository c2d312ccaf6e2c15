//! Random objects for tests, of this crate and (with the feature `arbitrary`) of others.
//!
//! Everything follows from a seed. Values are drawn from the whole range the wire can carry, with
//! a bias to empty and extreme ones; they need not make sense to an orchestrator.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use skep_model as model;
use skep_model::{Id, Redacted, Rng, Timestamp, Version};
use skep_store::Object;

mod cluster;
mod container;
mod directory;
mod dispatch;
mod network;
mod node;
mod secret;
mod service;
mod task;

/// Most entries a drawn list or map has.
const ENTRIES_MAX: u64 = 3;

/// Draws objects; one seed gives one sequence.
#[derive(Debug, Clone)]
pub struct Draw(Rng);

impl Draw {
    /// A source whose whole sequence follows from `seed`.
    pub fn from_seed(seed: u64) -> Self {
        Self(Rng::from_seed(seed))
    }

    fn number(&mut self) -> u64 {
        match self.0.below(4) {
            0 => 0,
            1 => self.0.below(1000),
            2 => u64::MAX - self.0.below(2),
            _ => self.0.next_u64(),
        }
    }

    fn signed(&mut self) -> i64 {
        self.number().cast_signed()
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.number() >> 32).expect("32 bits remain")
    }

    fn port_number(&mut self) -> u16 {
        u16::try_from(self.number() >> 48).expect("16 bits remain")
    }

    fn flag(&mut self) -> bool {
        self.0.percent(50)
    }

    fn text(&mut self) -> String {
        match self.0.below(4) {
            0 => String::new(),
            1 => "{{.Node.Hostname}} – ü".to_owned(),
            _ => Id::random(&mut self.0).as_str()[..8].to_owned(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.0.below(20);
        (0..length)
            .map(|_| self.0.next_u64().to_le_bytes()[0])
            .collect()
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        let count = u64::try_from(values.len()).expect("a length fits u64");
        let index = usize::try_from(self.0.below(count)).expect("an index fits usize");
        values[index]
    }

    fn option<T>(&mut self, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| draw(self))
    }

    fn list<T>(&mut self, draw: impl Fn(&mut Self) -> T) -> Vec<T> {
        let count = self.0.below(ENTRIES_MAX + 1);
        (0..count).map(|_| draw(self)).collect()
    }

    fn texts(&mut self) -> Vec<String> {
        self.list(Self::text)
    }

    fn map(&mut self) -> BTreeMap<String, String> {
        self.list(|draw| (draw.text(), draw.text()))
            .into_iter()
            .collect()
    }

    fn time(&mut self) -> Timestamp {
        Timestamp(self.signed())
    }

    fn duration(&mut self) -> Duration {
        let nanos = u32::try_from(self.0.below(1_000_000_000)).expect("below a second");
        match self.0.below(3) {
            0 => Duration::ZERO,
            1 => Duration::from_secs(self.0.below(100)),
            _ => Duration::new(self.number() >> 1, nanos),
        }
    }

    fn version(&mut self) -> Version {
        Version(self.number())
    }

    fn meta(&mut self) -> model::Meta {
        model::Meta {
            version: self.version(),
            created_at: self.time(),
            updated_at: self.time(),
        }
    }

    /// An object of any kind.
    pub fn object(&mut self) -> Object {
        match self.0.below(9) {
            0 => Object::Node(self.node().into()),
            1 => Object::Service(self.service().into()),
            2 => Object::Task(self.task().into()),
            3 => Object::Network(self.network().into()),
            4 => Object::Extension(self.extension().into()),
            5 => Object::Resource(self.resource().into()),
            6 => Object::Secret(self.secret().into()),
            7 => Object::Config(self.config().into()),
            _ => Object::Cluster(self.cluster().into()),
        }
    }

    fn extension(&mut self) -> model::object::Extension {
        model::object::Extension {
            id: model::id::ExtensionId(Id::random(&mut self.0)),
            meta: self.meta(),
            annotations: self.annotations(),
            description: self.text(),
        }
    }

    fn resource(&mut self) -> model::object::Resource {
        model::object::Resource {
            id: model::id::ResourceId(Id::random(&mut self.0)),
            meta: self.meta(),
            annotations: self.annotations(),
            kind: self.text(),
            payload: self.option(|draw| model::object::Payload {
                type_url: draw.text(),
                value: draw.bytes(),
            }),
        }
    }

    /// Objects of any kind, few of them.
    pub fn objects(&mut self) -> Vec<Object> {
        self.list(Self::object)
    }

    fn subnet(&mut self) -> IpNet {
        let prefix = |draw: &mut Self, most: u64| {
            u8::try_from(draw.0.below(most + 1)).expect("a prefix length fits u8")
        };
        if self.flag() {
            let addr = Ipv4Addr::from_bits(self.small());
            Ipv4Net::new(addr, prefix(self, 32))
                .expect("a prefix of at most 32 bits")
                .into()
        } else {
            let addr = Ipv6Addr::from(u128::from(self.number()) << 64);
            Ipv6Net::new(addr, prefix(self, 128))
                .expect("a prefix of at most 128 bits")
                .into()
        }
    }

    fn annotations(&mut self) -> model::Annotations {
        model::Annotations {
            name: self.text(),
            labels: self.map(),
        }
    }

    fn driver(&mut self) -> model::Driver {
        model::Driver {
            name: self.text(),
            options: self.map(),
        }
    }

    fn resources(&mut self) -> model::Resources {
        model::Resources {
            nano_cpus: self.signed(),
            memory_bytes: self.signed(),
            generic: self.list(Self::generic_resource),
        }
    }

    fn generic_resource(&mut self) -> model::GenericResource {
        let kind = self.text();
        if self.flag() {
            model::GenericResource::Named {
                kind,
                value: self.text(),
            }
        } else {
            model::GenericResource::Discrete {
                kind,
                value: self.signed(),
            }
        }
    }

    fn platform(&mut self) -> model::Platform {
        model::Platform {
            architecture: self.text(),
            os: self.text(),
        }
    }

    fn secret_bytes(&mut self) -> Redacted<Vec<u8>> {
        Redacted(self.bytes())
    }
}
