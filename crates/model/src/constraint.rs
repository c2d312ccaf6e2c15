//! Placement constraints: `node.labels.zone == east`, `node.ip != 10.0.0.0/8`.
//!
//! Syntax, keys and error texts are Swarm's. A constraint that parses but names a key nobody
//! knows, or an address nobody can read, matches no node, as in Swarm.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::{
    object::Node,
    spec::{Platform, Role},
};

/// Prefix of constraints and preferences on labels given by operators. Compared without case.
pub const NODE_LABEL_PREFIX: &str = "node.labels.";
/// Prefix of constraints and preferences on labels given by the engine. Compared without case.
pub const ENGINE_LABEL_PREFIX: &str = "engine.labels.";

/// One parsed constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    subject: Subject,
    operator: Operator,
    value: String,
}

/// Why an expression is not a constraint. The texts are Swarm's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither `==` nor `!=` is in it.
    #[error("constraint expected one operator from ==, !=")]
    Operator,
    /// The left side is not a name.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// The right side holds characters kept for later.
    #[error("value '{0}' is invalid")]
    Value(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Architecture,
    NodeLabel(String),
    EngineLabel(String),
    /// Nothing has it.
    Unknown,
}

/// Parses a list of expressions; the first that is wrong is reported.
pub fn parse(expressions: &[String]) -> Result<Vec<Constraint>, Error> {
    expressions.iter().map(|text| parse_one(text)).collect()
}

/// Whether `node` satisfies all of `constraints`.
pub fn matches(constraints: &[Constraint], node: &Node) -> bool {
    constraints
        .iter()
        .all(|constraint| constraint.matches(node))
}

/// The value a spread preference such as `node.labels.rack` sees on `node`. A node without the
/// label gives the empty string; a descriptor that is not a label gives `None`.
pub fn spread_value<'a>(descriptor: &str, node: &'a Node) -> Option<&'a str> {
    let label = |labels: &'a BTreeMap<String, String>, name: &str| -> &'a str {
        labels.get(name).map_or("", String::as_str)
    };
    if let Some(name) = strip_prefix_no_case(descriptor, NODE_LABEL_PREFIX) {
        Some(label(&node.spec.annotations.labels, name))
    } else if let Some(name) = strip_prefix_no_case(descriptor, ENGINE_LABEL_PREFIX) {
        let description = node.description.as_ref();
        Some(description.map_or("", |description| label(&description.engine.labels, name)))
    } else {
        None
    }
}

/// Whether a descriptor names a label of nodes or of their engines.
pub fn is_label(descriptor: &str) -> bool {
    let mut prefixes = [NODE_LABEL_PREFIX, ENGINE_LABEL_PREFIX].into_iter();
    prefixes.any(|prefix| strip_prefix_no_case(descriptor, prefix).is_some())
}

/// Parses one expression.
pub fn parse_one(text: &str) -> Result<Constraint, Error> {
    let (key, operator, value) = if let Some((key, value)) = text.split_once("==") {
        (key, Operator::Equal, value)
    } else if let Some((key, value)) = text.split_once("!=") {
        (key, Operator::NotEqual, value)
    } else {
        return Err(Error::Operator);
    };
    let (key, value) = (key.trim(), value.trim());
    if !is_key(key) {
        return Err(Error::Key(key.to_owned()));
    }
    if !is_value(value) {
        return Err(Error::Value(value.to_owned()));
    }
    Ok(Constraint {
        subject: Subject::of(key),
        operator,
        value: value.to_owned(),
    })
}

fn is_key(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_value(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || b":-_.*()?+[]\\^$|/ \t\n\x0c\r".contains(&byte)
        })
}

/// The rest of `text` behind `prefix`; `None` when nothing is behind it.
fn strip_prefix_no_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    (head.eq_ignore_ascii_case(prefix) && !tail.is_empty()).then_some(tail)
}

// === impl Subject ===

impl Subject {
    fn of(key: &str) -> Self {
        // Label names themselves keep their case.
        if let Some(label) = strip_prefix_no_case(key, NODE_LABEL_PREFIX) {
            return Self::NodeLabel(label.to_owned());
        }
        if let Some(label) = strip_prefix_no_case(key, ENGINE_LABEL_PREFIX) {
            return Self::EngineLabel(label.to_owned());
        }
        match key.to_ascii_lowercase().as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.ip" => Self::Ip,
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Architecture,
            _ => Self::Unknown,
        }
    }
}

// === impl Constraint ===

impl Constraint {
    /// False when no node can satisfy it, as its key means nothing.
    pub fn is_on_something_known(&self) -> bool {
        self.subject != Subject::Unknown
    }

    /// Whether `node` satisfies it.
    pub fn matches(&self, node: &Node) -> bool {
        let description = node.description.as_ref();
        let platform = |part: fn(&Platform) -> &String| {
            description.map_or("", |description| part(&description.platform).as_str())
        };
        match &self.subject {
            Subject::Id => self.compare(node.id.as_str()),
            Subject::Hostname => self.compare(node.hostname()),
            Subject::Ip => self.compare_ip(&node.status.addr),
            Subject::Role => self.compare(match node.role {
                Role::Worker => "worker",
                Role::Manager => "manager",
            }),
            Subject::Os => self.compare(platform(|platform| &platform.os)),
            Subject::Architecture => self.compare(platform(|platform| &platform.architecture)),
            Subject::NodeLabel(name) => {
                let labels = &node.spec.annotations.labels;
                self.compare(labels.get(name).map_or("", String::as_str))
            }
            Subject::EngineLabel(name) => {
                let labels = description.map(|description| &description.engine.labels);
                let value = labels.and_then(|labels| labels.get(name));
                self.compare(value.map_or("", String::as_str))
            }
            Subject::Unknown => false,
        }
    }

    fn compare(&self, actual: &str) -> bool {
        let is_same = self.value.eq_ignore_ascii_case(actual)
            || self.value.to_lowercase() == actual.to_lowercase();
        is_same == (self.operator == Operator::Equal)
    }

    /// Compares with an address or a subnet. An unreadable one matches nothing.
    fn compare_ip(&self, actual: &str) -> bool {
        let actual = actual.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        let is_within = if let Ok(wanted) = self.value.parse::<IpAddr>() {
            actual == Some(wanted.to_canonical())
        } else if let Ok(subnet) = self.value.parse::<IpNet>() {
            actual.is_some_and(|actual| subnet.contains(&actual))
        } else {
            return false;
        };
        is_within == (self.operator == Operator::Equal)
    }
}

#[cfg(test)]
mod tests;
