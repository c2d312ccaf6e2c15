//! The values of keys: their types, and what is said of others.

use std::{collections::BTreeMap, time::Duration};

use super::Decoder;
use crate::{
    input::Unsupported,
    node::{Mapping, Node, Value},
    quantity, scalar,
    word::{Word, nearest},
};

/// Texts in problems are cut after so many characters.
const SHOWN_CHARS_MAX: usize = 60;

/// A value and its path of keys.
#[derive(Clone)]
pub(crate) struct At<'n> {
    pub(super) node: &'n Node,
    name: String,
    path: String,
}

/// A mapping that is asked for its keys.
pub(super) struct Fields<'n> {
    at: At<'n>,
    map: &'n Mapping,
    asked: Vec<&'static str>,
}

// === impl At ===

impl<'n> At<'n> {
    /// The whole tree.
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            node,
            name: String::new(),
            path: String::new(),
        }
    }

    /// The name of the value in its mapping.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn child(&self, key: &str, node: &'n Node) -> Self {
        let path = match self.path.is_empty() {
            true => key.to_owned(),
            false => format!("{}.{key}", self.path),
        };
        Self {
            node,
            name: key.to_owned(),
            path,
        }
    }
}

// === impl Fields ===

impl<'n> Fields<'n> {
    /// The value of a key; a null is as good as none.
    pub(super) fn take(&mut self, key: &'static str) -> Option<At<'n>> {
        self.asked.push(key);
        let entry = self.map.get(key)?;
        let is_null = entry.node.value == Value::Null;
        (!is_null).then(|| self.at.child(key, &entry.node))
    }
}

// === impl Decoder ===

impl Decoder<'_, '_> {
    pub(super) fn problem(&mut self, at: &At<'_>, text: &str) {
        self.loader.problems.push(Some(at.node.place.clone()), text);
    }

    /// Says that a value is of the wrong kind.
    pub(super) fn wrong<T>(&mut self, at: &At<'_>, expected: &str) -> Option<T> {
        let found = match &at.node.value {
            Value::Null => "nothing".to_owned(),
            Value::List(_) | Value::Map(_) => at.node.kind().to_owned(),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {
                let text = scalar::print(&at.node.value).unwrap_or_default();
                format!(
                    "`{}`",
                    text.chars().take(SHOWN_CHARS_MAX).collect::<String>()
                )
            }
        };
        let text = format!("`{}` must be {expected}, not {found}", at.path);
        self.problem(at, &text);
        None
    }

    /// The keys of a mapping.
    pub(super) fn fields<'n>(&mut self, at: &At<'n>) -> Option<Fields<'n>> {
        let Some(map) = at.node.as_map() else {
            return self.wrong(at, "a mapping");
        };
        Some(Fields {
            at: at.clone(),
            map,
            asked: Vec::new(),
        })
    }

    /// Refuses the keys nobody asked for. Those of `ignored` have no effect on a cluster; those of `unsupported` have one,
    /// which it cannot give them.
    pub(super) fn finish(
        &mut self,
        fields: Fields<'_>,
        ignored: &[&str],
        unsupported: &[(&str, &str)],
    ) {
        for (key, entry) in fields.map {
            let key = key.as_str();
            if fields.asked.contains(&key) || ignored.contains(&key) || key.starts_with("x-") {
                continue;
            }
            let at = fields.at.child(key, &entry.node);
            let place = Some(entry.place.clone());
            if let Some((_, why)) = unsupported.iter().find(|&&(name, _)| name == key) {
                let text = format!("`{}` is not supported by a cluster: {why}", at.path);
                match self.unsupported {
                    Unsupported::Refuse => self.loader.problems.push(place, text),
                    Unsupported::Warn => self
                        .loader
                        .warnings
                        .push(place, format!("{text}; it is left out")),
                }
                continue;
            }
            let known = fields.asked.iter().chain(ignored).copied();
            let known = known.chain(unsupported.iter().map(|&(name, _)| name));
            let hint = nearest(key, known)
                .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
            let holder = match fields.at.path.is_empty() {
                true => "at the top level".to_owned(),
                false => format!("in `{}`", fields.at.path),
            };
            self.loader
                .problems
                .push(place, format!("unknown key `{key}` {holder}{hint}"));
        }
    }

    /// The entries of a mapping whose keys are names; nulls are among them.
    pub(super) fn entries<'n>(&mut self, at: &At<'n>) -> Vec<(String, At<'n>)> {
        let Some(map) = at.node.as_map() else {
            self.wrong::<()>(at, "a mapping");
            return Vec::new();
        };
        map.iter()
            .map(|(key, entry)| (key.clone(), at.child(key, &entry.node)))
            .collect()
    }

    /// The items of a list.
    pub(super) fn items<'n>(&mut self, at: Option<At<'n>>) -> Vec<At<'n>> {
        let Some(at) = at else { return Vec::new() };
        let Some(list) = at.node.as_list() else {
            self.wrong::<()>(&at, "a list");
            return Vec::new();
        };
        let items = list.iter().enumerate().map(|(index, node)| At {
            node,
            name: index.to_string(),
            path: format!("{}[{index}]", at.path),
        });
        items.collect()
    }

    /// A text; other scalars are none, as they might print in another way than they are written.
    pub(super) fn string(&mut self, at: Option<At<'_>>) -> Option<String> {
        let at = at?;
        match &at.node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                self.wrong(&at, "a string (in quotes)")
            }
            Value::Null | Value::List(_) | Value::Map(_) => self.wrong(&at, "a string"),
        }
    }

    /// The text of any scalar.
    pub(super) fn text(&mut self, at: Option<At<'_>>) -> Option<String> {
        let at = at?;
        scalar::print(&at.node.value).or_else(|| self.wrong(&at, "a string or a number"))
    }

    /// A list of texts.
    pub(super) fn strings(&mut self, at: Option<At<'_>>) -> Vec<String> {
        let items = self.items(at);
        items
            .into_iter()
            .filter_map(|item| self.string(Some(item)))
            .collect()
    }

    /// A list of texts and numbers.
    pub(super) fn texts(&mut self, at: Option<At<'_>>) -> Vec<String> {
        let items = self.items(at);
        items
            .into_iter()
            .filter_map(|item| self.text(Some(item)))
            .collect()
    }

    /// A mapping of scalars; nulls are empty texts.
    pub(super) fn pairs(&mut self, at: Option<At<'_>>) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        for (key, value) in self.optional_pairs(at) {
            pairs.insert(key, value.unwrap_or_default());
        }
        pairs
    }

    /// A mapping of scalars and nulls.
    pub(super) fn optional_pairs(
        &mut self,
        at: Option<At<'_>>,
    ) -> BTreeMap<String, Option<String>> {
        let mut pairs = BTreeMap::new();
        let Some(at) = at else { return pairs };
        for (key, value) in self.entries(&at) {
            if value.node.value == Value::Null {
                pairs.insert(key, None);
            } else if let Some(text) = self.text(Some(value)) {
                pairs.insert(key, Some(text));
            }
        }
        pairs
    }

    pub(super) fn boolean(&mut self, at: Option<At<'_>>) -> Option<bool> {
        let at = at?;
        let value = match &at.node.value {
            Value::Bool(is) => Some(*is),
            Value::Text(text) => scalar::truth(text),
            Value::Null | Value::Int(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
        };
        value.or_else(|| self.wrong(&at, "`true` or `false`"))
    }

    /// A whole number between two others.
    pub(super) fn integer(&mut self, at: Option<At<'_>>, least: i64, most: i64) -> Option<i64> {
        let at = at?;
        let number = match &at.node.value {
            Value::Int(number) => i64::try_from(*number).ok(),
            Value::Text(text) => text.parse().ok(),
            Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
        };
        let expected = match (least, most) {
            (0, i64::MAX) => "a whole number".to_owned(),
            (i64::MIN, i64::MAX) => "a whole number, or a negative one".to_owned(),
            (least, i64::MAX) => format!("a whole number of at least {least}"),
            (least, most) => format!("a whole number from {least} to {most}"),
        };
        number
            .filter(|number| (least..=most).contains(number))
            .or_else(|| self.wrong(&at, &expected))
    }

    /// A whole number that is not negative.
    pub(super) fn unsigned(&mut self, at: Option<At<'_>>) -> Option<u64> {
        let number = self.integer(at, 0, i64::MAX)?;
        u64::try_from(number).ok()
    }

    pub(super) fn float(&mut self, at: Option<At<'_>>, least: f64, most: f64) -> Option<f64> {
        let at = at?;
        let number: Option<f64> = match &at.node.value {
            Value::Int(_) | Value::Float(_) | Value::Text(_) => {
                scalar::print(&at.node.value).and_then(|text| text.parse().ok())
            }
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        };
        number
            .filter(|number| (least..=most).contains(number))
            .or_else(|| self.wrong(&at, &format!("a number from {least} to {most}")))
    }

    pub(super) fn duration(&mut self, at: Option<At<'_>>) -> Option<Duration> {
        let at = at?;
        let duration = at.node.as_text().and_then(quantity::duration);
        let duration = duration.or((at.node.value == Value::Int(0)).then_some(Duration::ZERO));
        duration.or_else(|| self.wrong(&at, "a duration (`10s`, `1m30s`)"))
    }

    /// A count of bytes, with or without unit.
    pub(super) fn bytes(&mut self, at: Option<At<'_>>) -> Option<u64> {
        let at = at?;
        let bytes = match &at.node.value {
            Value::Int(number) => u64::try_from(*number)
                .ok()
                .filter(|&bytes| i64::try_from(bytes).is_ok()),
            Value::Text(text) => quantity::bytes(text),
            Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
        };
        bytes.or_else(|| self.wrong(&at, "a size (`64m`, `1.5G`)"))
    }

    pub(super) fn nano_cpus(&mut self, at: Option<At<'_>>) -> Option<u64> {
        let at = at?;
        let text = match &at.node.value {
            // Small numbers print with an exponent as Go prints them.
            Value::Float(number) => Some(number.to_string()),
            Value::Int(_) | Value::Text(_) => scalar::print(&at.node.value),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        };
        let nanos = text.and_then(|text| quantity::nano_cpus(&text));
        nanos.or_else(|| self.wrong(&at, "a number of CPUs (`0.5`)"))
    }

    pub(super) fn word<W: Word>(&mut self, at: Option<At<'_>>) -> Option<W> {
        let at = at?;
        let word = at.node.as_text().and_then(W::parse);
        word.or_else(|| self.wrong(&at, &W::list()))
    }

    /// A command: a list, or a line that is split as a shell does.
    pub(super) fn command(&mut self, at: Option<At<'_>>) -> Option<Vec<String>> {
        let at = at?;
        match &at.node.value {
            Value::List(_) => Some(self.strings(Some(at))),
            Value::Text(line) => quantity::words(line)
                .or_else(|| self.wrong(&at, "a command whose quotes have an end")),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Map(_) => {
                self.wrong(&at, "a string or a list of strings")
            }
        }
    }
}
