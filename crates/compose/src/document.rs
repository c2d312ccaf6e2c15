//! The merged file as a tree, for rendering and for telling where something stands.

use crate::{node::Node, problem::Place};

/// A merged compose file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The tree, in canonical form.
    pub(crate) root: Node,
    /// Whether variables are replaced.
    pub(crate) is_interpolated: bool,
}

// === impl Document ===

impl Document {
    /// Where the value of a path of keys stands (`["services", "web", "image"]`), or the last of its keys that is there.
    pub fn place(&self, path: &[&str]) -> Place {
        let mut node = &self.root;
        for key in path {
            match node.get(key) {
                Some(inner) => node = inner,
                None => break,
            }
        }
        node.place.clone()
    }
}
