//! From the merged tree to a typed [`Project`].
//!
//! Every key is asked for by name, so what nobody asked for is unknown, and the names asked for are the known ones. Keys of
//! the specification that a cluster cannot honour are told apart from unknown ones, in the tables of [`unsupported`].

mod deploy;
mod field;
mod mount;
mod object;
mod service;
mod unsupported;

use std::collections::BTreeMap;

pub(crate) use self::field::At;
use crate::{
    input::{Environment, Unsupported},
    model::Loader,
    node::Node,
    project::Project,
};

/// Makes typed values of nodes, and keeps what is wrong with them in the loader.
pub(crate) struct Decoder<'a, 'b> {
    loader: &'a mut Loader<'b>,
    environment: &'a Environment,
    unsupported: Unsupported,
}

// === impl Decoder ===

impl<'a, 'b> Decoder<'a, 'b> {
    pub(crate) fn new(
        loader: &'a mut Loader<'b>,
        environment: &'a Environment,
        unsupported: Unsupported,
    ) -> Self {
        Self {
            loader,
            environment,
            unsupported,
        }
    }

    /// The project of a merged tree. When something is wrong, what it holds is of no use.
    pub(crate) fn project(&mut self, root: &Node, name: Option<String>) -> Project {
        let at = At::root(root);
        let mut project = Project {
            name,
            ..Project::default()
        };
        let Some(mut fields) = self.fields(&at) else {
            return project;
        };
        for key in ["name", "version"] {
            fields.take(key);
        }
        project.services = self.section(fields.take("services"), Self::service);
        project.networks = self.section(fields.take("networks"), Self::network);
        project.volumes = self.section(fields.take("volumes"), Self::volume);
        project.secrets = self.section(fields.take("secrets"), Self::secret);
        project.configs = self.section(fields.take("configs"), Self::config);
        self.finish(fields, &[], unsupported::TOP_LEVEL);
        if project.services.is_empty() && root.get("services").is_none() {
            self.problem(&at, "there are no `services`");
        }
        project
    }

    /// The values of a top-level section, by name.
    fn section<T>(
        &mut self,
        at: Option<At<'_>>,
        decode: fn(&mut Self, &At<'_>) -> T,
    ) -> BTreeMap<String, T> {
        let mut values = BTreeMap::new();
        let Some(at) = at else { return values };
        for (name, value) in self.entries(&at) {
            let is_possible = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
            if name.is_empty() || !name.chars().all(is_possible) {
                let text = format!("`{name}` is no name: letters, digits, `.`, `_` and `-` are");
                self.problem(&value, &text);
                continue;
            }
            let decoded = decode(self, &value);
            values.insert(name, decoded);
        }
        values
    }
}
