//! Templates: the part of Go's `text/template` that Swarm's users can write, and what it may speak of.
//!
//! All of the language but `call`, methods and complex numbers, which nothing here has a use for.
//! Results and messages are Go's, so that what users know and search for holds. Where templates
//! stand and when they are expanded: `docs/design/templates.md`.

mod builtin;
mod context;
mod expand;
mod lex;
mod node;
mod number;
mod parse;
mod print;
mod run;
#[cfg(test)]
mod tests;
mod value;

pub use self::{
    context::{Context, NodeLabels},
    expand::{ExpandError, container},
};

/// Name of every template in messages; Swarm's.
const NAME: &str = "expansion";
/// The one kind of template there is, as `--template-driver` names it.
pub const DRIVER: &str = "golang";
/// Longest expanded field of a container: the kernel takes no longer environment entry.
pub const FIELD_BYTES_MAX: usize = 128 * 1024;
/// Largest expanded secret or config, four times the largest that can be stored. It is kept in memory.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Functions that only secrets and configs have.
const PAYLOAD_FUNCTIONS: [&str; 3] = ["config", "env", "secret"];

/// Work for one field of a service: the leader does it for all of them when a service is created. A loop over every label
/// of a service takes some hundreds.
const FIELD_STEPS_MAX: usize = 10_000;
/// Work for one secret or config, which a node does when it makes a container.
const PAYLOAD_STEPS_MAX: usize = 1_000_000;
/// Fields with templates of one service, for the same reason.
pub const FIELDS_MAX: usize = 256;

/// Why there is no result. Texts are Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a template.
    #[error("template: {NAME}:{line}: {message}")]
    Parse {
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// It fails with what it was given.
    #[error("template: {NAME}:{line}:{column}: executing {name:?} at <{at}>: {message}")]
    Run {
        /// From 1.
        line: usize,
        /// Bytes before it in the line.
        column: usize,
        /// The template, or one it defines.
        name: String,
        /// The part that failed.
        at: String,
        /// What is wrong.
        message: String,
    },
    /// More work than a leader can do while others wait.
    #[error("more than {FIELDS_MAX} fields have templates")]
    Fields,
    /// It asks for labels that no manager has told this node yet.
    #[error("this node waits for its labels")]
    NodeLabelsUntold,
}

/// What secrets and configs can ask for besides the context.
pub trait Payload {
    /// Data of the secret that the task has at `target`.
    ///
    /// # Errors
    /// It has none there.
    fn secret(&self, target: &str) -> Result<Vec<u8>, String>;

    /// Data of the config that the task has at `target`.
    ///
    /// # Errors
    /// It has none there.
    fn config(&self, target: &str) -> Result<Vec<u8>, String>;

    /// Value of a variable of the task's environment; empty if there is none.
    ///
    /// # Errors
    /// None so far.
    fn env(&self, name: &str) -> Result<Vec<u8>, String>;
}

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    source: Vec<u8>,
    tree: node::Tree,
}

// === impl Template ===

impl Template {
    /// Parses a field of a container.
    ///
    /// # Errors
    /// [`Error::Parse`].
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        Self::with_functions(text, &[])
    }

    /// Parses a secret or config.
    ///
    /// # Errors
    /// [`Error::Parse`].
    pub fn parse_payload(text: &[u8]) -> Result<Self, Error> {
        Self::with_functions(text, &PAYLOAD_FUNCTIONS)
    }

    fn with_functions(text: &[u8], more: &[&str]) -> Result<Self, Error> {
        let tree =
            parse::parse(text, more).map_err(|(line, message)| Error::Parse { line, message })?;
        Ok(Self {
            source: text.to_owned(),
            tree,
        })
    }

    /// The template with the values of `context`, in at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`Error::Run`] or [`Error::NodeLabelsUntold`].
    pub fn expand(&self, context: &Context, bytes_max: usize) -> Result<Vec<u8>, Error> {
        run::run(run::Given {
            source: &self.source,
            tree: &self.tree,
            context,
            payload: None,
            bytes_max,
            steps_max: FIELD_STEPS_MAX,
        })
    }

    /// The same for a secret or config.
    ///
    /// # Errors
    /// [`Error::Run`] or [`Error::NodeLabelsUntold`].
    pub fn expand_payload(
        &self,
        context: &Context,
        payload: &dyn Payload,
    ) -> Result<Vec<u8>, Error> {
        run::run(run::Given {
            source: &self.source,
            tree: &self.tree,
            context,
            payload: Some(payload),
            bytes_max: PAYLOAD_BYTES_MAX,
            steps_max: PAYLOAD_STEPS_MAX,
        })
    }
}
