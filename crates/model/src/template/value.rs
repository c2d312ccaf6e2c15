//! Values that templates are about.

use std::{collections::BTreeMap, rc::Rc};

use super::context::Object;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    /// `nil`.
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<[u8]>),
    Map(Labels<'a>),
    Object(Object),
}

/// Labels; of a node that is not known yet, any label may be asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labels<'a> {
    pub(super) entries: &'a BTreeMap<String, String>,
    pub(super) has_any: bool,
}

/// Kinds that are compared with their like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basic {
    Bool,
    Int,
    Float,
    Text,
}

// === impl Value ===

impl Value<'_> {
    pub(super) fn text(bytes: impl AsRef<[u8]>) -> Self {
        Self::Text(bytes.as_ref().into())
    }

    /// Go's truth: not the zero value.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Map(labels) => !labels.entries.is_empty(),
            Self::Object(_) => true,
        }
    }

    /// Name of its type in Go.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::None => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Map(_) => "map[string]string",
            Self::Object(object) => object.type_name(),
        }
    }

    pub(super) fn basic(&self) -> Option<Basic> {
        match self {
            Self::Bool(_) => Some(Basic::Bool),
            Self::Int(_) => Some(Basic::Int),
            Self::Float(_) => Some(Basic::Float),
            Self::Text(_) => Some(Basic::Text),
            Self::None | Self::Map(_) | Self::Object(_) => None,
        }
    }
}

// === impl Labels ===

impl<'a> Labels<'a> {
    pub(super) fn get(&self, key: &[u8]) -> Option<Value<'a>> {
        let key = std::str::from_utf8(key).ok()?;
        let value = self.entries.get(key).map(Value::text);
        value.or(self.has_any.then(|| Value::text("")))
    }
}
