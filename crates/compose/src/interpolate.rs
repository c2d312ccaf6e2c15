//! Variables in texts: `$X`, `${X}`, and with what happens when there is none: `${X:-default}`, `${X-default}`,
//! `${X:?message}`, `${X?message}`, `${X:+instead}`, `${X+instead}`. `$$` is a dollar sign.
//!
//! With a colon an empty variable counts as none. What follows the operator is interpolated itself. A `$` that begins
//! none of these stays as it is.

use std::collections::BTreeSet;

use crate::{
    node::{Node, Value},
    problem::Problems,
};

/// Longest text that interpolation makes; as much as a whole file may have.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 20;
/// What interpolation may make of all texts of a project. Long variables that are named often would fill the memory.
const TOTAL_BYTES_MAX: usize = 16 << 20;
/// Defaults within defaults.
const DEPTH_MAX: usize = 16;

/// Replaces variables, and remembers which there were none of.
pub(crate) struct Interpolator<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    unset: BTreeSet<String>,
    /// Those that have not been told yet.
    fresh: Vec<String>,
    byte_count: usize,
}

// === impl Interpolator ===

impl<'a> Interpolator<'a> {
    /// One with the variables that `lookup` knows.
    pub(crate) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            unset: BTreeSet::new(),
            fresh: Vec::new(),
            byte_count: 0,
        }
    }

    /// Replaces the variables in all texts of a tree, but not in keys.
    ///
    /// A variable that is not set becomes nothing, which is told once.
    pub(crate) fn tree(
        &mut self,
        node: &mut Node,
        problems: &mut Problems,
        warnings: &mut Problems,
    ) {
        match &mut node.value {
            Value::Text(text) if text.contains('$') => {
                match self.text(text) {
                    Ok(replaced) => *text = replaced,
                    Err(error) => problems.push(Some(node.place.clone()), error),
                }
                for name in std::mem::take(&mut self.fresh) {
                    warnings.push(Some(node.place.clone()), unset_text(&name));
                }
            }
            Value::List(list) => {
                for item in list {
                    self.tree(item, problems, warnings);
                }
            }
            Value::Map(map) => {
                for entry in map.values_mut() {
                    self.tree(&mut entry.node, problems, warnings);
                }
            }
            Value::Text(_) | Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
        }
    }

    /// A text with its variables replaced.
    ///
    /// # Errors
    /// When a required variable is missing, when the text is not one of the forms, or when it becomes too long.
    pub(crate) fn text(&mut self, text: &str) -> Result<String, String> {
        self.nested(text, 0)
    }

    fn nested(&mut self, text: &str, depth: usize) -> Result<String, String> {
        if depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} variables within each other"));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let (value, length) = self.variable(rest, depth)?;
            out.push_str(&value);
            rest = &rest[length..];
            if out.len() > TEXT_BYTES_MAX {
                return Err(format!("becomes longer than {TEXT_BYTES_MAX} bytes"));
            }
        }
        out.push_str(rest);
        self.byte_count += out.len();
        if self.byte_count > TOTAL_BYTES_MAX {
            return Err(format!(
                "all texts together become longer than {TOTAL_BYTES_MAX} bytes"
            ));
        }
        Ok(out)
    }

    /// What stands for a dollar sign and the bytes after it that belong to it.
    fn variable(&mut self, rest: &str, depth: usize) -> Result<(String, usize), String> {
        if rest.starts_with('$') {
            return Ok(("$".to_owned(), 1));
        }
        let Some(braced) = rest.strip_prefix('{') else {
            let length = name_length(rest);
            return Ok(match length {
                0 => ("$".to_owned(), 0),
                _ => (self.plain(&rest[..length]), length),
            });
        };
        let Some(end) = closing_brace(braced) else {
            return Err(format!(
                "`${}` has no closing brace; a `$` that is meant is written `$$`",
                shorten(rest)
            ));
        };
        let inner = &braced[..end];
        let (name, tail) = inner.split_at(name_length(inner));
        if name.is_empty() {
            return Err(invalid(inner));
        }
        let value = self
            .substitution(name, tail, depth)?
            .ok_or_else(|| invalid(inner))?;
        Ok((value, end + 2))
    }

    /// The value of `${nametail}`; `None` when the tail is none.
    fn substitution(
        &mut self,
        name: &str,
        tail: &str,
        depth: usize,
    ) -> Result<Option<String>, String> {
        if tail.is_empty() {
            return Ok(Some(self.plain(name)));
        }
        let (is_empty_none, tail) = match tail.strip_prefix(':') {
            Some(tail) => (true, tail),
            None => (false, tail),
        };
        let mut chars = tail.chars();
        let operator = chars.next();
        let word = chars.as_str();
        let value = (self.lookup)(name);
        let set = value.filter(|value| !(is_empty_none && value.is_empty()));
        match (operator, set) {
            (Some('-' | '?'), Some(value)) => Ok(Some(value)),
            (Some('-'), None) | (Some('+'), Some(_)) => self.nested(word, depth + 1).map(Some),
            (Some('+'), None) => Ok(Some(String::new())),
            (Some('?'), None) => {
                let message = self.nested(word, depth + 1)?;
                Err(match message.is_empty() {
                    true => format!("required variable `{name}` is not set"),
                    false => format!("required variable `{name}` is not set: {message}"),
                })
            }
            _ => Ok(None),
        }
    }

    fn plain(&mut self, name: &str) -> String {
        (self.lookup)(name).unwrap_or_else(|| {
            if self.unset.insert(name.to_owned()) {
                self.fresh.push(name.to_owned());
            }
            String::new()
        })
    }
}

/// Text of the warning of a variable without a value.
fn unset_text(name: &str) -> String {
    format!("variable `{name}` is not set and becomes nothing")
}

fn invalid(inner: &str) -> String {
    format!(
        "`${{{}}}` is no variable; a `$` that is meant is written `$$`",
        shorten(inner)
    )
}

/// As much of a text as fits a message.
fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Bytes of the name a text begins with.
fn name_length(text: &str) -> usize {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    if !text.bytes().next().is_some_and(is_first) {
        return 0;
    }
    text.bytes()
        .position(|byte| !(is_first(byte) || byte.is_ascii_digit()))
        .unwrap_or(text.len())
}

/// Where the brace is that closes the one before the text.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests;
