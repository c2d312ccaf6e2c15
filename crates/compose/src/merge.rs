//! Two trees in canonical form become one: what a later file says of what an earlier one said.
//!
//! Mappings are merged key by key, lists are joined, other values replaced; the exceptions are [`rule`]'s. `!override` and
//! `!reset` are the user's own exceptions. They may stay in the tree, for a file yet to come below this one, until
//! [`settle`] removes them.

use std::collections::BTreeMap;

use crate::{
    node::{Edit, Mapping, Node, Value},
    problem::{Place, Problems},
    scalar,
};

/// How two values of a key become one.
enum Rule {
    /// By their kinds.
    Kind,
    /// The later one counts.
    Replace,
    /// Lists: the later one's items replace those with the same key, which the function tells.
    Keyed(fn(&Node) -> Option<String>),
    /// As [`Rule::Keyed`], but items of the same key are merged.
    KeyedMerge(fn(&Node) -> Option<String>),
    /// Mappings whose options belong to a driver: another driver replaces all.
    Driver,
}

/// The exceptions of the compose specification, by path.
fn rule(path: &[&str]) -> Rule {
    match path {
        ["services", _, key] => match *key {
            "command" | "entrypoint" => Rule::Replace,
            "logging" => Rule::Driver,
            "ports" => Rule::Keyed(port_key),
            "volumes" | "devices" => Rule::Keyed(|node| text(node, "target")),
            "secrets" | "configs" => {
                Rule::Keyed(|node| text(node, "target").or_else(|| text(node, "source")))
            }
            "env_file" => Rule::Keyed(|node| text(node, "path")),
            "tmpfs" => Rule::Keyed(|node| Some(node.as_text()?.split(':').next()?.to_owned())),
            "cap_add" | "cap_drop" | "dns" | "dns_opt" | "dns_search" | "expose"
            | "extra_hosts" | "group_add" | "label_file" | "links" | "profiles" => {
                Rule::Keyed(itself)
            }
            _ => Rule::Kind,
        },
        ["services", _, "healthcheck", "test"]
        | ["services", _, "environment" | "ulimits", _]
        | ["name" | "version"] => Rule::Replace,
        ["services", _, "networks", _, "aliases" | "link_local_ips"] => Rule::Keyed(itself),
        ["networks", _, "ipam", "config"] => Rule::KeyedMerge(|node| text(node, "subnet")),
        _ => Rule::Kind,
    }
}

/// Puts `over` onto `base`.
pub(crate) fn merge(base: &mut Node, over: Node, path: &[&str], problems: &mut Problems) {
    if over.edit != Edit::Merge {
        *base = over;
        return;
    }
    if over.value == Value::Null && !matches!(rule(path), Rule::Replace) {
        return;
    }
    if base.value == Value::Null || base.edit == Edit::Reset {
        *base = over;
        return;
    }
    match rule(path) {
        Rule::Replace => *base = over,
        Rule::Driver if has_other_driver(base, &over) => *base = over,
        Rule::Kind | Rule::Driver => by_kind(base, over, path, problems),
        Rule::Keyed(key) => keyed(base, over, key, |base, over| *base = over, problems),
        Rule::KeyedMerge(key) => {
            let mut inner = Problems::default();
            keyed(
                base,
                over,
                key,
                |base, over| by_kind(base, over, &["*"], &mut inner),
                problems,
            );
            problems.append(inner);
        }
    }
}

fn by_kind(base: &mut Node, over: Node, path: &[&str], problems: &mut Problems) {
    let (over_kind, over_place) = (over.kind(), over.place.clone());
    match (&mut base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => mappings(base, over, path, problems),
        (Value::List(base), Value::List(over)) => base.extend(over),
        (Value::Map(_) | Value::List(_), _) | (_, Value::Map(_) | Value::List(_)) => {
            problems.push(Some(over_place), conflict(over_kind, base));
        }
        (_, value) => {
            base.value = value;
            base.place = over_place;
        }
    }
}

fn mappings(base: &mut Mapping, over: Mapping, path: &[&str], problems: &mut Problems) {
    for (key, entry) in over {
        match base.get_mut(&key) {
            Some(old) => {
                let mut inner: Vec<&str> = path.to_vec();
                inner.push(&key);
                merge(&mut old.node, entry.node, &inner, problems);
            }
            None => {
                base.insert(key, entry);
            }
        }
    }
}

fn keyed(
    base: &mut Node,
    over: Node,
    key: fn(&Node) -> Option<String>,
    mut same: impl FnMut(&mut Node, Node),
    problems: &mut Problems,
) {
    let kind = over.kind();
    let (Value::List(base_list), Value::List(over_list)) = (&mut base.value, over.value) else {
        problems.push(Some(over.place), conflict(kind, base));
        return;
    };
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut merged: Vec<Node> = Vec::with_capacity(base_list.len() + over_list.len());
    for node in std::mem::take(base_list) {
        if let Some(key) = key(&node) {
            places.insert(key, merged.len());
        }
        merged.push(node);
    }
    for node in over_list {
        let key = key(&node);
        match key.as_ref().and_then(|key| places.get(key)) {
            Some(&at) => same(&mut merged[at], node),
            None => {
                if let Some(key) = key {
                    places.insert(key, merged.len());
                }
                merged.push(node);
            }
        }
    }
    *base_list = merged;
}

/// Carries out what is left of `!reset` and `!override`.
pub(crate) fn settle(node: &mut Node) {
    node.edit = Edit::Merge;
    match &mut node.value {
        Value::List(list) => {
            list.retain(|item| item.edit != Edit::Reset);
            list.iter_mut().for_each(settle);
        }
        Value::Map(map) => {
            map.retain(|_, entry| entry.node.edit != Edit::Reset);
            map.values_mut().for_each(|entry| settle(&mut entry.node));
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {}
    }
}

fn conflict(over: &str, base: &Node) -> String {
    let Place { file, line, column } = &base.place;
    format!(
        "{over} cannot be merged with {} ({}:{line}:{column})",
        base.kind(),
        file.display()
    )
}

fn has_other_driver(base: &Node, over: &Node) -> bool {
    match (base.get("driver"), over.get("driver")) {
        (Some(base), Some(over)) => base.value != over.value,
        _ => false,
    }
}

/// Scalars of a list are their own keys.
fn itself(node: &Node) -> Option<String> {
    scalar::print(&node.value)
}

fn text(node: &Node, key: &str) -> Option<String> {
    scalar::print(&node.get(key)?.value)
}

/// Ports are the same when nothing but the mode differs.
fn port_key(node: &Node) -> Option<String> {
    let target = text(node, "target")?;
    let host_ip = text(node, "host_ip").unwrap_or_else(|| "0.0.0.0".to_owned());
    let published = text(node, "published").unwrap_or_default();
    let protocol = text(node, "protocol").unwrap_or_else(|| "tcp".to_owned());
    Some(format!("{host_ip}:{published}:{target}/{protocol}"))
}
