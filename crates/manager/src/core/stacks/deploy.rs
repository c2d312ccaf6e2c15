//! One deploy: the objects of a document, in the order of what they need.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_model::{
    NetworkId, Redacted, Rng,
    stack::{
        ApplyOptions, NAMESPACE_LABEL, OBJECTS_MAX, Stack, StackAction, StackChange, StackObject,
        StackOutcome, StackRevision, StackSpec,
    },
};
use skep_store::Transaction;
use skep_wire::stack as wire;

use super::{
    super::PROBLEMS_MAX,
    found,
    kept::{self, Standing},
    supplies::Supplies,
};
use crate::{
    command::{Code, CommandError},
    group::Group,
};

/// A deploy under way, on a trial transaction.
pub(super) struct Deploy<'a> {
    pub(super) tx: &'a mut Transaction,
    pub(super) rng: &'a mut Rng,
    pub(super) group: &'a Group,
    pub(super) options: ApplyOptions,
    /// The stack's name.
    pub(super) name: String,
    pub(super) stored: Option<Standing>,
    /// The number returned to, of a rollback.
    pub(super) going_back_to: Option<u64>,
    /// Ids of the networks services may name.
    pub(super) networks: BTreeMap<String, NetworkId>,
    pub(super) secrets: Supplies,
    pub(super) configs: Supplies,
    /// Objects that have a problem of their own: who refers to them has none for that.
    pub(super) failed: BTreeSet<(StackObject, String)>,
    pub(super) leaving: Vec<NetworkId>,
    /// What others made of the stack before its first deploy.
    found: Option<StackRevision>,
    changes: Vec<StackChange>,
    problems: Vec<String>,
}

// === impl Deploy ===

impl<'a> Deploy<'a> {
    pub(super) fn new(
        tx: &'a mut Transaction,
        (rng, group): (&'a mut Rng, &'a Group),
        stored: Option<Standing>,
        options: ApplyOptions,
    ) -> Self {
        Self {
            tx,
            rng,
            group,
            options,
            name: String::new(),
            leaving: stored
                .as_ref()
                .map(|standing| standing.stack.leaving.clone())
                .unwrap_or_default(),
            stored,
            going_back_to: None,
            networks: BTreeMap::new(),
            secrets: Supplies::default(),
            configs: Supplies::default(),
            failed: BTreeSet::new(),
            found: None,
            changes: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Deploys a client's document.
    pub(super) fn to(mut self, spec: StackSpec) -> Result<StackOutcome, CommandError> {
        let current = self.current();
        if let Some(current) = current {
            self.secrets.pinned = current.secrets;
            self.configs.pinned = current.configs;
        } else {
            self.found = found::read(self.tx.view(), &spec.name);
        }
        self.carry_out(spec)
    }

    /// Returns to a revision.
    pub(super) fn back_to(
        mut self,
        revision: &StackRevision,
    ) -> Result<StackOutcome, CommandError> {
        self.going_back_to = Some(revision.number);
        self.secrets.pinned = revision.secrets.clone();
        self.configs.pinned = revision.configs.clone();
        self.carry_out(StackSpec::clone(&revision.spec))
    }

    fn carry_out(mut self, mut spec: StackSpec) -> Result<StackOutcome, CommandError> {
        self.name.clone_from(&spec.name);
        check_count(&spec)?;
        self.check_document(&mut spec);
        self.deploy_secrets(&spec);
        self.deploy_configs(&spec);
        self.deploy_networks(&spec);
        self.deploy_services(&spec);
        if !self.problems.is_empty() {
            self.problems.truncate(PROBLEMS_MAX);
            let message = self.problems.join("\n");
            return Err(CommandError::new(Code::InvalidArgument, message));
        }
        let is_all = self.options.prune;
        if is_all {
            self.prune_services(&spec);
            self.prune_networks(&spec);
        }
        let before = self.note_found();
        let revision = self.note_revision(spec);
        let previous = match &self.stored {
            Some(standing) if before == revision => standing.stack.previous,
            Some(_) | None => before,
        };
        let stack = Stack {
            name: self.name.clone(),
            revision,
            leaving: std::mem::take(&mut self.leaving),
            is_removed: false,
            previous,
        };
        kept::store(self.tx, self.rng, self.stored.as_ref(), &stack);
        let forgotten = kept::forget_old(self.tx, &stack);
        self.prune_supplies(is_all, &forgotten);
        Ok(StackOutcome {
            revision,
            changes: self.changes,
        })
    }

    /// Labels every object as the stack's, and looks for names that stand twice.
    fn check_document(&mut self, spec: &mut StackSpec) {
        let mut all = Vec::new();
        for network in &mut spec.networks {
            all.push((StackObject::Network, &mut network.annotations));
        }
        for secret in &mut spec.secrets {
            all.push((StackObject::Secret, &mut secret.annotations));
        }
        for config in &mut spec.configs {
            all.push((StackObject::Config, &mut config.annotations));
        }
        for service in &mut spec.services {
            all.push((
                StackObject::Service,
                Arc::make_mut(&mut service.annotations),
            ));
        }
        let mut seen = BTreeSet::new();
        let mut problems = Vec::new();
        for (kind, annotations) in all {
            let noun = kind.noun();
            if !seen.insert((kind, annotations.name.to_lowercase())) {
                problems.push(format!("{noun} {} stands twice", annotations.name));
            }
            let labels = &mut annotations.labels;
            let label = labels.entry(NAMESPACE_LABEL.to_owned());
            let of = label.or_insert_with(|| self.name.clone());
            if *of != self.name {
                let name = &annotations.name;
                problems.push(format!("{noun} {name} is labelled as of stack {of}"));
            }
        }
        self.problems.append(&mut problems);
    }

    /// The revision in force before this deploy; 0 when there is none. What others made becomes one, if
    /// anything of it changes.
    fn note_found(&mut self) -> u64 {
        let mut changes = self.changes.iter();
        let is_changed = changes.any(|change| change.action != StackAction::Unchanged);
        let Some(found) = self.found.take().filter(|_| is_changed) else {
            return self
                .stored
                .as_ref()
                .map_or(0, |standing| standing.stack.revision);
        };
        let number = self.next_number();
        kept::note(self.tx, self.rng, &StackRevision { number, ..found });
        number
    }

    /// A number that no revision has had.
    fn next_number(&self) -> u64 {
        let kept = kept::revisions(self.tx.view(), &self.name);
        let newest = kept.iter().map(|revision| revision.number).max();
        newest.unwrap_or(0).saturating_add(1)
    }

    /// Stores the document as a revision, unless it is the one in force. Returns its number.
    fn note_revision(&mut self, mut spec: StackSpec) -> u64 {
        if let Some(number) = self.going_back_to {
            return number;
        }
        strip(&mut spec);
        let (secrets, configs) = (self.secrets.names(), self.configs.names());
        let current = self.current().filter(|current| {
            wire::is_same_spec(&current.spec, &spec)
                && current.secrets == secrets
                && current.configs == configs
        });
        if let Some(current) = current {
            return current.number;
        }
        let number = self.next_number();
        let revision = StackRevision {
            number,
            created_at: self.tx.now(),
            spec: Arc::new(spec),
            secrets,
            configs,
        };
        kept::note(self.tx, self.rng, &revision);
        number
    }

    /// The revision in force.
    fn current(&self) -> Option<StackRevision> {
        let standing = self.stored.as_ref()?;
        let kept = kept::revisions(self.tx.view(), &standing.stack.name);
        kept.into_iter()
            .find(|revision| revision.number == standing.stack.revision)
    }

    pub(super) fn change(&mut self, kind: StackObject, name: &str, action: StackAction) {
        self.change_as(kind, (name, name), action);
    }

    /// Notes what was done to an object that the document calls otherwise than the store.
    pub(super) fn change_as(
        &mut self,
        kind: StackObject,
        (name, stored_as): (&str, &str),
        action: StackAction,
    ) {
        self.changes.push(StackChange {
            kind,
            name: name.to_owned(),
            stored_as: stored_as.to_owned(),
            action,
        });
    }

    pub(super) fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// Notes that an object cannot be as wanted.
    pub(super) fn fail(&mut self, kind: StackObject, name: &str, why: &str) {
        self.failed.insert((kind, name.to_owned()));
        self.problem(format!("{} {name}: {why}", kind.noun()));
    }

    /// Notes that an object of that name is somebody else's.
    pub(super) fn fail_as_foreign(&mut self, kind: StackObject, name: &str) {
        let why = format!("it exists and is not of stack {}", self.name);
        self.fail(kind, name, &why);
    }
}

/// Refuses a document of which even the problems would take the leader too long to find.
fn check_count(spec: &StackSpec) -> Result<(), CommandError> {
    let external = &spec.external;
    let count = spec.object_count()
        + external.networks.len()
        + external.secrets.len()
        + external.configs.len();
    if count <= OBJECTS_MAX {
        return Ok(());
    }
    let message = format!("a stack has at most {OBJECTS_MAX} objects, not {count}");
    Err(CommandError::new(Code::InvalidArgument, message))
}

/// Takes out what is stored elsewhere: data, and credentials.
fn strip(spec: &mut StackSpec) {
    for secret in &mut spec.secrets {
        secret.data = Redacted::default();
    }
    for config in &mut spec.configs {
        config.data = Redacted::default();
    }
    for service in &mut spec.services {
        Arc::make_mut(&mut service.task).container.registry_auth = Redacted::default();
    }
}
