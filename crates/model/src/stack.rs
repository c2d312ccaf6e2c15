//! Stacks: objects deployed together, with the revisions they had.
//!
//! A stack is no object of Swarm's: its objects carry [`NAMESPACE_LABEL`], and Skep keeps the rest in
//! resources. Design: `docs/design/stacks.md`.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    id::NetworkId,
    spec::{ConfigSpec, NetworkSpec, SecretSpec, ServiceSpec},
    time::Timestamp,
};

/// On every object of a stack: the stack's name. Docker's CLI finds them by it.
pub const NAMESPACE_LABEL: &str = "com.docker.stack.namespace";
/// On a service of a stack: the image as the user called it, without digest.
pub const IMAGE_LABEL: &str = "com.docker.stack.image";
/// Longest name of a stack; as a service's, which begins with it.
pub const NAME_LENGTH_MAX: usize = 63;
/// Objects of one stack. The entry's size is reached first by any but the smallest services.
pub const OBJECTS_MAX: usize = 1000;
/// Revisions kept of a stack. Each is all specs of its services in every manager's memory.
pub const REVISIONS_KEPT: usize = 10;

/// In place of the file of a revision that was found, not deployed.
pub const FOUND_SOURCE: &str =
    "# What was found when the stack was deployed for the first time: the file is not known.\n";

/// What a stack shall be. Services name networks, secrets and configs by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StackSpec {
    /// Name.
    pub name: String,
    /// Its networks.
    pub networks: Vec<NetworkSpec>,
    /// Its secrets; one without data is to be the one there is.
    pub secrets: Vec<SecretSpec>,
    /// Its configs; likewise.
    pub configs: Vec<ConfigSpec>,
    /// Its services.
    pub services: Vec<ServiceSpec>,
    /// What it uses and does not own.
    pub external: Externals,
    /// The file it was made from, for people.
    pub source: String,
}

/// Names of objects that a stack uses and that are made by others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Externals {
    /// Networks.
    pub networks: Vec<String>,
    /// Secrets.
    pub secrets: Vec<String>,
    /// Configs.
    pub configs: Vec<String>,
}

/// A stack as stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stack {
    /// Name.
    pub name: String,
    /// Number of the revision in force; 0 when there is none.
    pub revision: u64,
    /// Networks that are removed as soon as nothing uses them.
    pub leaving: Vec<NetworkId>,
    /// The stack is removed, and vanishes with the last network that leaves.
    pub is_removed: bool,
    /// Number of the revision that was in force before; 0 when there was none.
    pub previous: u64,
}

/// What a stack was, to return to.
#[derive(Debug, Clone, PartialEq)]
pub struct StackRevision {
    /// Counts the revisions of the stack, from 1.
    pub number: u64,
    /// When it was first stored.
    pub created_at: Timestamp,
    /// The document, without the data of secrets and configs, and without credentials.
    pub spec: Arc<StackSpec>,
    /// The names under which secrets are stored, by their names in the document.
    pub secrets: BTreeMap<String, String>,
    /// The same of configs.
    pub configs: BTreeMap<String, String>,
}

/// How a document is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// The revision that must be in force; 0: none yet.
    pub expect: Option<u64>,
    /// Whether objects go that the document has not.
    pub prune: bool,
    /// Whether the tasks of services that are as wanted are replaced too.
    pub force: bool,
}

/// What a deploy, a rollback or a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StackOutcome {
    /// The revision in force after it; 0 when there is none.
    pub revision: u64,
    /// What was done about each object, in the order of the document; removals last.
    pub changes: Vec<StackChange>,
}

/// What was done about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackChange {
    /// What it is.
    pub kind: StackObject,
    /// Its name in the document.
    pub name: String,
    /// Its name in the store, which differs for content that changed.
    pub stored_as: String,
    /// What was done.
    pub action: StackAction,
}

/// Kinds of objects that stacks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StackObject {
    /// A network.
    Network,
    /// A secret.
    Secret,
    /// A config.
    Config,
    /// A service.
    Service,
}

/// What was done about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StackAction {
    /// It is as wanted already.
    Unchanged,
    /// It was made.
    Create,
    /// It was changed.
    Update,
    /// It was removed, or will be as soon as nothing uses it.
    Remove,
}

// === impl Stack ===

impl Stack {
    /// The revision to return to when none is named: the one that was in force before, so that a second
    /// return undoes the first; without it, the one kept before. Those that have nothing else than the
    /// one in force are passed over. `kept` are oldest first.
    pub fn rolls_back_to<'r>(&self, kept: &'r [StackRevision]) -> Option<&'r StackRevision> {
        let numbered = |number: u64| kept.iter().find(move |kept| kept.number == number);
        let current = numbered(self.revision);
        let is_other = |kept: &&StackRevision| {
            kept.number != self.revision && current.is_none_or(|current| !current.is_alike(kept))
        };
        let earlier = kept.iter().rev().filter(|kept| kept.number < self.revision);
        let mut candidates = numbered(self.previous).into_iter().chain(earlier);
        candidates.find(is_other)
    }
}

// === impl StackRevision ===

impl StackRevision {
    /// Whether both make the same objects; their files may differ, in comments say.
    pub fn is_alike(&self, other: &Self) -> bool {
        let (one, two) = (&*self.spec, &*other.spec);
        self.secrets == other.secrets
            && self.configs == other.configs
            && one.networks == two.networks
            && one.secrets == two.secrets
            && one.configs == two.configs
            && one.services == two.services
            && one.external == two.external
    }

    /// Whether it was found when the stack was taken over, not deployed.
    pub fn is_found(&self) -> bool {
        self.spec.source == FOUND_SOURCE
    }
}

impl StackSpec {
    /// How many objects are the stack's own.
    pub fn object_count(&self) -> usize {
        self.networks.len() + self.secrets.len() + self.configs.len() + self.services.len()
    }
}

// === impl StackObject ===

impl StackObject {
    /// Its noun.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Service => "service",
        }
    }
}

// === impl StackAction ===

impl StackAction {
    /// Its verb.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Create => "create",
            Self::Update => "update",
            Self::Remove => "remove",
        }
    }
}

/// What is wrong with a stack's name; `None` when nothing is.
pub fn name_problem(name: &str) -> Option<String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric();
    let is_valid = name.len() <= NAME_LENGTH_MAX
        && name.bytes().next().is_some_and(is_word)
        && name
            .bytes()
            .all(|byte| is_word(byte) || b"_.-".contains(&byte));
    (!is_valid).then(|| {
        format!(
            "invalid stack name {name:?}: names begin with a letter or digit, go on with these, `_`, \
             `.` and `-`, and have at most {NAME_LENGTH_MAX} characters"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Revisions of one service each, numbered from 1, by the images they run.
    fn kept(images: &[&str]) -> Vec<StackRevision> {
        let one = |(number, image): (u64, &&str)| {
            let mut service = ServiceSpec::default();
            Arc::make_mut(&mut service.task).container.image = (*image).to_owned();
            StackRevision {
                number,
                created_at: Timestamp::ZERO,
                spec: Arc::new(StackSpec {
                    services: vec![service],
                    source: format!("# file {number}"),
                    ..StackSpec::default()
                }),
                secrets: BTreeMap::new(),
                configs: BTreeMap::new(),
            }
        };
        (1..).zip(images).map(one).collect()
    }

    #[test]
    fn a_return_leads_to_what_was_in_force_before_and_back() {
        let goal = |images: &[&str], revision: u64, previous: u64| {
            let stack = Stack {
                revision,
                previous,
                ..Stack::default()
            };
            stack.rolls_back_to(&kept(images)).map(|kept| kept.number)
        };
        let all = ["a", "b", "c"];
        assert_eq!(goal(&all, 3, 2), Some(2));
        assert_eq!(goal(&all, 2, 3), Some(3), "and back");
        assert_eq!(goal(&all, 3, 1), Some(1), "it was returned to, and left");
        // Stored by a version that did not note it, or not kept any more.
        assert_eq!(goal(&all, 3, 0), Some(2));
        assert_eq!(goal(&all, 3, 9), Some(2));
        assert_eq!(goal(&all, 1, 0), None);
        // A file that says the same in other words is nothing to return to.
        assert_eq!(goal(&["a", "b", "b"], 3, 2), Some(1));
        assert_eq!(goal(&["a", "a"], 2, 1), None);
    }

    #[test]
    fn names_are_words_without_slashes() {
        for valid in ["app", "App-2_x.y", "0"] {
            assert_eq!(name_problem(valid), None);
        }
        for invalid in ["", "-app", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert!(name_problem(invalid).is_some(), "{invalid}");
        }
    }
}
