//! The value tree: what a YAML document says, each value with its place.
//!
//! Mappings are ordered by key, as order means nothing in a compose file; what depends on it (ports, mounts) is a list.

use std::collections::BTreeMap;

use crate::problem::Place;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Where it begins.
    pub(crate) place: Place,
    /// What it does to a value of the same key in an earlier file.
    pub(crate) edit: Edit,
    /// The value.
    pub(crate) value: Value,
}

/// What a value does to an earlier one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Edit {
    /// It is merged with it.
    #[default]
    Merge,
    /// `!override`: it takes its place.
    Override,
    /// `!reset`: the key goes.
    Reset,
}

/// A value of YAML.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer that fits 64 bits, signed or not.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping.
    Map(Mapping),
}

/// Values by key.
pub(crate) type Mapping = BTreeMap<String, Entry>;

/// A value of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// Where the key stands.
    pub(crate) place: Place,
    /// The value.
    pub(crate) node: Node,
}

// === impl Node ===

impl Node {
    /// A value that is merged.
    pub(crate) fn new(place: Place, value: Value) -> Self {
        Self {
            place,
            edit: Edit::Merge,
            value,
        }
    }

    /// A text.
    pub(crate) fn text(place: Place, text: impl Into<String>) -> Self {
        Self::new(place, Value::Text(text.into()))
    }

    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value {
            Some(text)
        } else {
            None
        }
    }

    /// The mapping, if it is one.
    pub(crate) fn as_map(&self) -> Option<&Mapping> {
        if let Value::Map(map) = &self.value {
            Some(map)
        } else {
            None
        }
    }

    /// The mapping, if it is one.
    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Mapping> {
        if let Value::Map(map) = &mut self.value {
            Some(map)
        } else {
            None
        }
    }

    /// The list, if it is one.
    pub(crate) fn as_list(&self) -> Option<&[Self]> {
        if let Value::List(list) = &self.value {
            Some(list)
        } else {
            None
        }
    }

    /// The value of a key, if it is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key).map(|entry| &entry.node)
    }

    /// The value of a key, if it is a mapping that has it.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.as_map_mut()?.get_mut(key).map(|entry| &mut entry.node)
    }

    /// Values in the tree, this one included.
    pub(crate) fn count(&self) -> usize {
        let mut count = 0;
        let mut open = vec![self];
        while let Some(node) = open.pop() {
            count += 1;
            match &node.value {
                Value::List(list) => open.extend(list),
                Value::Map(map) => open.extend(map.values().map(|entry| &entry.node)),
                Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {
                }
            }
        }
        count
    }

    /// What it is, for texts.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Puts a value into a mapping, its key at the place of the value.
pub(crate) fn insert(map: &mut Mapping, key: impl Into<String>, node: Node) {
    let place = node.place.clone();
    map.insert(key.into(), Entry { place, node });
}
