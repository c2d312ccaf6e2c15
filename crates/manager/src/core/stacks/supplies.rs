//! A stack's secrets and configs: content that changed gets a name of its own, and the old one stays
//! as long as something needs it. Both kinds are handled alike; above 400 lines because the trait that says so and what uses it
//! belong together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use sha2::{Digest, Sha256};
use skep_model::{
    Annotations, Config, ConfigId, ConfigSpec, ContainerSpec, Driver, Meta, Rng, Secret, SecretId,
    SecretSpec, Version,
    stack::{StackAction, StackObject, StackRevision, StackSpec},
    validate::SUPPLY_NAME_BYTES_MAX,
};
use skep_store::{Named, Row, Store, Transaction};

use super::{super::secrets, deploy::Deploy, is_of, kept};
use crate::command::{Answer, CommandError};

/// Hexadecimal digits of the content's digest in a versioned name.
const VERSION_DIGITS: usize = 8;

/// Secrets, or configs, of a deploy.
#[derive(Debug, Default)]
pub(super) struct Supplies {
    /// Under which names those without data are stored.
    pub(super) pinned: BTreeMap<String, String>,
    /// Id and stored name, by the name in the document; external ones too.
    pub(super) found: BTreeMap<String, (String, String)>,
    /// Names in the document of those that are the stack's own.
    own: BTreeSet<String>,
}

impl Supplies {
    /// Stored names of the stack's own, by their names in the document.
    pub(super) fn names(&self) -> BTreeMap<String, String> {
        let own = self
            .found
            .iter()
            .filter(|(name, _)| self.own.contains(*name));
        own.map(|(name, (_, stored))| (name.clone(), stored.clone()))
            .collect()
    }
}

/// One kind of supplies: what differs between secrets and configs.
trait Kind: Row<Id: ToString> + Sized {
    const OBJECT: StackObject;
    type Spec: Clone;
    fn table(view: &Store) -> &Named<Self>;
    fn spec(&self) -> &Self::Spec;
    fn meta(&self) -> Meta;
    fn parts(spec: &Self::Spec) -> Parts<'_>;
    fn annotations(spec: &mut Self::Spec) -> &mut Annotations;
    fn create(
        tx: &mut Transaction,
        rng: &mut Rng,
        spec: Self::Spec,
    ) -> Result<Answer, CommandError>;
    fn update(
        tx: &mut Transaction,
        id: Self::Id,
        version: Version,
        spec: Self::Spec,
    ) -> Result<Answer, CommandError>;
    fn remove(tx: &mut Transaction, id: Self::Id);
    fn references(container: &ContainerSpec) -> Vec<&str>;
    fn supplies<'d>(deploy: &'d mut Deploy<'_>) -> &'d mut Supplies;
    fn kept(revision: &StackRevision) -> &BTreeMap<String, String>;

    /// Id and contents of the one of that name.
    fn find<'a>(view: &'a Store, name: &str) -> Option<(String, Parts<'a>)>
    where
        Self: 'a,
    {
        let found = Self::table(view).by_name(name)?;
        Some((found.id().to_string(), Self::parts(found.spec())))
    }

    /// Gives the one of that name the labels of `spec`.
    fn relabel(tx: &mut Transaction, name: &str, spec: &Self::Spec) -> Result<(), CommandError> {
        let Some(stored) = Self::table(tx.view()).by_name(name) else {
            return Ok(());
        };
        let (id, version) = (stored.id(), stored.meta().version);
        let mut relabelled = stored.spec().clone();
        let labels = &Self::parts(spec).annotations.labels;
        Self::annotations(&mut relabelled).labels.clone_from(labels);
        Self::update(tx, id, version, relabelled).map(drop)
    }
}

/// What makes a supply what it is.
struct Parts<'a> {
    annotations: &'a Annotations,
    data: &'a [u8],
    templating: Option<&'a Driver>,
    is_driven: bool,
}

impl Deploy<'_> {
    pub(super) fn deploy_secrets(&mut self, spec: &StackSpec) {
        self.deploy_supplies::<Secret>(&spec.secrets, &spec.external.secrets);
    }

    pub(super) fn deploy_configs(&mut self, spec: &StackSpec) {
        self.deploy_supplies::<Config>(&spec.configs, &spec.external.configs);
    }

    fn deploy_supplies<K: Kind>(&mut self, wanted: &[K::Spec], external: &[String]) {
        for spec in wanted {
            let name = K::parts(spec).annotations.name.clone();
            if let Some(found) = self.deploy_supply::<K>(spec) {
                let supplies = K::supplies(self);
                supplies.own.insert(name.clone());
                supplies.found.insert(name, found);
            }
        }
        for name in external {
            let found = K::find(self.tx.view(), name);
            let found = found.map(|(id, parts)| (id, parts.annotations.name.clone()));
            match found {
                Some(found) => {
                    K::supplies(self).found.insert(name.clone(), found);
                }
                None => self.fail(K::OBJECT, name, "it is external and does not exist"),
            }
        }
    }

    /// Finds or makes one; its id and the name it is stored under.
    fn deploy_supply<K: Kind>(&mut self, spec: &K::Spec) -> Option<(String, String)> {
        let parts = K::parts(spec);
        let name = parts.annotations.name.as_str();
        if parts.data.is_empty() && !parts.is_driven {
            return self.keep_supply::<K>(spec, name);
        }
        let versioned = versioned(name, &parts);
        let is_free = match K::find(self.tx.view(), name) {
            None => true,
            Some((_, stored)) if !is_of(&stored.annotations.labels, &self.name) => {
                self.fail_as_foreign(K::OBJECT, name);
                return None;
            }
            Some(_) => false,
        };
        for candidate in [name, &versioned] {
            let found = K::find(self.tx.view(), candidate);
            let Some((_, stored)) = found else { continue };
            if is_same(&stored, &parts) && is_of(&stored.annotations.labels, &self.name) {
                return self.use_supply::<K>(spec, (name, candidate));
            }
        }
        let stored_as = if is_free { name } else { &versioned };
        let mut made = spec.clone();
        stored_as.clone_into(&mut K::annotations(&mut made).name);
        match K::create(self.tx, self.rng, made) {
            Ok(_) => {
                let action = if is_free {
                    StackAction::Create
                } else {
                    StackAction::Update
                };
                self.change_as(K::OBJECT, (name, stored_as), action);
                let made = K::find(self.tx.view(), stored_as);
                made.map(|(id, _)| (id, stored_as.to_owned()))
            }
            Err(error) => {
                self.fail(K::OBJECT, name, &error.message);
                None
            }
        }
    }

    /// One without data is the one there is.
    fn keep_supply<K: Kind>(&mut self, spec: &K::Spec, name: &str) -> Option<(String, String)> {
        let pinned = K::supplies(self).pinned.get(name).cloned();
        let stored_as = pinned.unwrap_or_else(|| name.to_owned());
        let found = K::find(self.tx.view(), &stored_as);
        let is_own = found.map(|(_, stored)| is_of(&stored.annotations.labels, &self.name));
        match (is_own, self.going_back_to) {
            (Some(true), _) => return self.use_supply::<K>(spec, (name, &stored_as)),
            (Some(false), _) => self.fail_as_foreign(K::OBJECT, name),
            (None, Some(number)) => {
                let why = format!("revision {number} needs `{stored_as}`, which is gone");
                self.fail(K::OBJECT, name, &why);
            }
            (None, None) => self.fail(K::OBJECT, name, "it has no data, and none is stored"),
        }
        None
    }

    fn use_supply<K: Kind>(
        &mut self,
        spec: &K::Spec,
        (name, stored_as): (&str, &str),
    ) -> Option<(String, String)> {
        let (id, stored) = K::find(self.tx.view(), stored_as)?;
        let found = (id, stored.annotations.name.clone());
        let mut action = StackAction::Unchanged;
        if stored.annotations.labels != K::parts(spec).annotations.labels {
            if let Err(error) = K::relabel(self.tx, stored_as, spec) {
                self.fail(K::OBJECT, name, &error.message);
                return None;
            }
            action = StackAction::Update;
        }
        self.change_as(K::OBJECT, (name, stored_as), action);
        Some(found)
    }

    /// Id and stored name of what a service calls `name`: of this deploy, else of anybody's.
    pub(super) fn supply(&self, kind: StackObject, name: &str) -> Option<(String, String)> {
        let view = self.tx.view();
        let of_anybody = |found: Option<(String, Parts<'_>)>| {
            found.map(|(id, parts)| (id, parts.annotations.name.clone()))
        };
        if kind == StackObject::Secret {
            let own = self.secrets.found.get(name).cloned();
            own.or_else(|| of_anybody(Secret::find(view, name)))
        } else {
            let own = self.configs.found.get(name).cloned();
            own.or_else(|| of_anybody(Config::find(view, name)))
        }
    }

    /// Removes what nothing needs any more: of forgotten revisions, or, with `is_all`, of the stack.
    pub(super) fn prune_supplies(&mut self, is_all: bool, forgotten: &[StackRevision]) {
        self.prune::<Secret>(is_all, forgotten);
        self.prune::<Config>(is_all, forgotten);
    }

    fn prune<K: Kind>(&mut self, is_all: bool, forgotten: &[StackRevision]) {
        if !is_all && forgotten.is_empty() {
            return;
        }
        let kept = kept::revisions(self.tx.view(), &self.name);
        let kept = kept.iter().flat_map(|revision| K::kept(revision).values());
        let mut needed: BTreeSet<String> = kept.cloned().collect();
        needed.extend(K::supplies(self).names().into_values());
        let view = self.tx.view();
        for service in view.services() {
            let specs = [Some(&service.spec), service.previous_spec.as_ref()];
            let specs = specs.into_iter().flatten();
            needed.extend(
                specs
                    .flat_map(|spec| K::references(&spec.task.container))
                    .map(str::to_owned),
            );
        }
        let of_forgotten = |name: &String| {
            let mut all = forgotten.iter().flat_map(|one| K::kept(one).values());
            all.any(|stored| stored == name)
        };
        let all = K::table(view)
            .all()
            .map(|one| (one.id(), K::parts(one.spec()).annotations));
        let own = all.filter(|(_, annotations)| is_of(&annotations.labels, &self.name));
        let gone: Vec<(K::Id, String)> = own
            .map(|(id, annotations)| (id, annotations.name.clone()))
            .filter(|(_, name)| !needed.contains(name) && (is_all || of_forgotten(name)))
            .collect();
        for (id, name) in gone {
            K::remove(self.tx, id);
            self.change(K::OBJECT, &name, StackAction::Remove);
        }
    }
}

/// Whether containers would read the same.
fn is_same(one: &Parts<'_>, other: &Parts<'_>) -> bool {
    one.data == other.data && one.templating == other.templating && !one.is_driven
}

/// The name of content that is not what is stored under `name`: that, shortened if need be, and the
/// first digits of the content's digest. A template's engine is part of the content.
fn versioned(name: &str, parts: &Parts<'_>) -> String {
    let mut digest = Sha256::new();
    digest.update(parts.data);
    if let Some(templating) = parts.templating {
        digest.update(&templating.name);
    }
    let length_max = SUPPLY_NAME_BYTES_MAX - VERSION_DIGITS - 1;
    let mut text: String = name.chars().take(length_max).collect();
    if text.len() < name.len() {
        // Those that begin alike are told apart by what was cut off.
        digest.update(name);
    }
    text.push('-');
    for byte in digest.finalize().iter().take(VERSION_DIGITS / 2) {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

impl Kind for Secret {
    const OBJECT: StackObject = StackObject::Secret;
    type Spec = SecretSpec;

    fn table(view: &Store) -> &Named<Self> {
        view.secrets()
    }

    fn spec(&self) -> &SecretSpec {
        &self.spec
    }

    fn meta(&self) -> Meta {
        self.meta
    }

    fn parts(spec: &SecretSpec) -> Parts<'_> {
        Parts {
            annotations: &spec.annotations,
            data: &spec.data.0,
            templating: spec.templating.as_ref(),
            is_driven: spec.driver.is_some(),
        }
    }

    fn annotations(spec: &mut SecretSpec) -> &mut Annotations {
        &mut spec.annotations
    }

    fn create(
        tx: &mut Transaction,
        rng: &mut Rng,
        spec: SecretSpec,
    ) -> Result<Answer, CommandError> {
        secrets::create_secret(tx, rng, spec)
    }

    fn update(
        tx: &mut Transaction,
        id: SecretId,
        version: Version,
        spec: SecretSpec,
    ) -> Result<Answer, CommandError> {
        secrets::update_secret(tx, id, version, spec)
    }

    fn remove(tx: &mut Transaction, id: SecretId) {
        tx.remove_secret(id);
    }

    fn references(container: &ContainerSpec) -> Vec<&str> {
        let references = container.secrets.iter();
        references.map(|one| one.secret_name.as_str()).collect()
    }

    fn supplies<'d>(deploy: &'d mut Deploy<'_>) -> &'d mut Supplies {
        &mut deploy.secrets
    }

    fn kept(revision: &StackRevision) -> &BTreeMap<String, String> {
        &revision.secrets
    }
}

impl Kind for Config {
    const OBJECT: StackObject = StackObject::Config;
    type Spec = ConfigSpec;

    fn table(view: &Store) -> &Named<Self> {
        view.configs()
    }

    fn spec(&self) -> &ConfigSpec {
        &self.spec
    }

    fn meta(&self) -> Meta {
        self.meta
    }

    fn parts(spec: &ConfigSpec) -> Parts<'_> {
        Parts {
            annotations: &spec.annotations,
            data: &spec.data.0,
            templating: spec.templating.as_ref(),
            is_driven: false,
        }
    }

    fn annotations(spec: &mut ConfigSpec) -> &mut Annotations {
        &mut spec.annotations
    }

    fn create(
        tx: &mut Transaction,
        rng: &mut Rng,
        spec: ConfigSpec,
    ) -> Result<Answer, CommandError> {
        secrets::create_config(tx, rng, spec)
    }

    fn update(
        tx: &mut Transaction,
        id: ConfigId,
        version: Version,
        spec: ConfigSpec,
    ) -> Result<Answer, CommandError> {
        secrets::update_config(tx, id, version, spec)
    }

    fn remove(tx: &mut Transaction, id: ConfigId) {
        tx.remove_config(id);
    }

    fn references(container: &ContainerSpec) -> Vec<&str> {
        let references = container.configs.iter();
        references.map(|one| one.config_name.as_str()).collect()
    }

    fn supplies<'d>(deploy: &'d mut Deploy<'_>) -> &'d mut Supplies {
        &mut deploy.configs
    }

    fn kept(revision: &StackRevision) -> &BTreeMap<String, String> {
        &revision.configs
    }
}
