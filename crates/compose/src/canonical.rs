//! The canonical form of a file's tree: long forms instead of short ones, one shape for each key.
//!
//! It comes before merging, which needs keys to compare. What has no known shape is left for the decoder to refuse; only
//! what is a short form and cannot be read is a problem here. In files whose variables are left in, texts that hold one
//! stay as they are.

mod mount;
mod port;

use crate::{
    node::{Edit, Mapping, Node, Value, insert},
    problem::Problems,
    scalar,
};

/// Brings a file into its canonical form.
pub(crate) fn canonical(root: &mut Node, is_interpolated: bool, problems: &mut Problems) {
    let mut canonical = Canonical {
        is_interpolated,
        problems,
    };
    let Some(map) = root.as_map_mut() else { return };
    for (key, entry) in map.iter_mut() {
        let node = &mut entry.node;
        match key.as_str() {
            "services" => each(node, |service| canonical.service(service)),
            "networks" | "volumes" | "secrets" | "configs" => {
                each(node, |object| canonical.object(object))
            }
            "include" => canonical.include(node),
            _ => {}
        }
    }
}

struct Canonical<'a> {
    is_interpolated: bool,
    problems: &'a mut Problems,
}

// === impl Canonical ===

impl Canonical<'_> {
    fn service(&mut self, service: &mut Node) {
        let Some(map) = service.as_map_mut() else {
            return;
        };
        for (key, entry) in map.iter_mut() {
            let node = &mut entry.node;
            match key.as_str() {
                "environment" => self.pairs(node, || Value::Null),
                "labels" | "sysctls" | "annotations" => {
                    self.pairs(node, || Value::Text(String::new()))
                }
                "deploy" => {
                    if let Some(labels) = node.get_mut("labels") {
                        self.pairs(labels, || Value::Text(String::new()));
                    }
                }
                "networks" => self.names(node, |_| Value::Null),
                "depends_on" => self.names(node, dependency),
                "dns" | "dns_search" | "tmpfs" | "label_file" => listed(node),
                "env_file" => {
                    listed(node);
                    items(node, |item| long(item, "path"));
                }
                "secrets" | "configs" => items(node, |item| {
                    long(item, "source");
                    item.get_mut("mode").into_iter().for_each(octal);
                }),
                "extends" => long(node, "service"),
                "ports" => self.expand(node, port::expand),
                "volumes" => self.expand(node, mount::expand),
                "devices" => self.expand(node, mount::device),
                "extra_hosts" => self.hosts(node),
                _ => {}
            }
        }
    }

    fn object(&mut self, object: &mut Node) {
        if let Some(labels) = object.get_mut("labels") {
            self.pairs(labels, || Value::Text(String::new()));
        }
        // `external: { name: x }` is the old form of `external: true` and `name: x`.
        let Some(map) = object.as_map_mut() else {
            return;
        };
        let Some(external) = map.get_mut("external") else {
            return;
        };
        let Value::Map(old) = &mut external.node.value else {
            return;
        };
        let name = old.remove("name");
        if old.is_empty() {
            external.node.value = Value::Bool(true);
            if let Some(name) = name {
                if map.contains_key("name") {
                    let text = "`name` and `external.name` are both given; `external.name` is the old form";
                    self.problems.push(Some(name.place), text);
                } else {
                    map.insert("name".to_owned(), name);
                }
            }
        }
    }

    fn include(&mut self, node: &mut Node) {
        items(node, |item| {
            long(item, "path");
            for key in ["path", "env_file"] {
                if let Some(paths) = item.get_mut(key) {
                    listed(paths);
                }
            }
        });
    }

    /// `[A=1, B]` becomes `{A: 1, B: none}`.
    fn pairs(&mut self, node: &mut Node, none: impl Fn() -> Value) {
        match &mut node.value {
            Value::List(list) => {
                let mut map = Mapping::new();
                for item in std::mem::take(list) {
                    let Some(text) = scalar::print(&item.value) else {
                        let text = format!("expected `NAME=value`, not {}", item.kind());
                        self.problems.push(Some(item.place), text);
                        continue;
                    };
                    let (name, value) = match text.split_once('=') {
                        Some((name, value)) => (name, Value::Text(value.to_owned())),
                        None => (text.as_str(), none()),
                    };
                    let edit = item.edit;
                    let node = Node {
                        edit,
                        ..Node::new(item.place, value)
                    };
                    insert(&mut map, name, node);
                }
                node.value = Value::Map(map);
            }
            Value::Map(map) => {
                for entry in map.values_mut() {
                    if entry.node.value == Value::Null && entry.node.edit != Edit::Reset {
                        entry.node.value = none();
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {}
        }
    }

    /// `[a, b]` becomes `{a: …, b: …}`.
    fn names(&mut self, node: &mut Node, value: impl Fn(&Node) -> Value) {
        let Value::List(list) = &mut node.value else {
            return;
        };
        let mut map = Mapping::new();
        for item in std::mem::take(list) {
            if let Value::Text(name) = &item.value {
                let content = value(&item);
                insert(&mut map, name, Node::new(item.place.clone(), content));
            } else {
                let text = format!("expected a name, not {}", item.kind());
                self.problems.push(Some(item.place), text);
            }
        }
        node.value = Value::Map(map);
    }

    /// Replaces each item of a list with what it stands for.
    fn expand(&mut self, node: &mut Node, expand: impl Fn(&Node) -> Result<Vec<Node>, String>) {
        let Value::List(list) = &mut node.value else {
            return;
        };
        for item in std::mem::take(list) {
            if !self.is_interpolated && has_variable(&item) {
                list.push(item);
                continue;
            }
            match expand(&item) {
                Ok(items) => list.extend(items),
                Err(text) => self.problems.push(Some(item.place), text),
            }
        }
    }

    /// `{a: 1.2.3.4}`, `[a:1.2.3.4]` and `[a=1.2.3.4]` become `[a=1.2.3.4]`.
    fn hosts(&mut self, node: &mut Node) {
        let mut hosts = Vec::new();
        match &mut node.value {
            Value::Map(map) => {
                for (host, entry) in std::mem::take(map) {
                    let addresses = match entry.node.value {
                        Value::List(list) => list,
                        Value::Null
                        | Value::Bool(_)
                        | Value::Int(_)
                        | Value::Float(_)
                        | Value::Text(_)
                        | Value::Map(_) => vec![entry.node],
                    };
                    for address in addresses {
                        hosts.push((host.clone(), address));
                    }
                }
            }
            Value::List(list) => {
                for item in std::mem::take(list) {
                    let split = item
                        .as_text()
                        .and_then(|text| text.split_once('=').or_else(|| text.split_once(':')));
                    let Some((host, address)) = split else {
                        self.problems
                            .push(Some(item.place), "expected `HOST=ADDRESS`");
                        continue;
                    };
                    hosts.push((host.to_owned(), Node::text(item.place.clone(), address)));
                }
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {
                return;
            }
        }
        let mut list = Vec::new();
        for (host, address) in hosts {
            let Some(text) = address
                .as_text()
                .filter(|text| !text.is_empty() && !host.is_empty())
            else {
                self.problems
                    .push(Some(address.place), "expected `HOST=ADDRESS`");
                continue;
            };
            let inner = text
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'));
            let text = format!("{host}={}", inner.unwrap_or(text));
            list.push(Node::text(address.place, text));
        }
        node.value = Value::List(list);
    }
}

/// What the short form of a dependency says.
fn dependency(name: &Node) -> Value {
    let mut map = Mapping::new();
    let condition = Node::text(name.place.clone(), "service_started");
    insert(&mut map, "condition", condition);
    let required = Node::new(name.place.clone(), Value::Bool(true));
    insert(&mut map, "required", required);
    Value::Map(map)
}

/// A text becomes a mapping that has it as the value of `key`.
fn long(node: &mut Node, key: &str) {
    if node.as_text().is_some() {
        let value = std::mem::replace(&mut node.value, Value::Null);
        let mut map = Mapping::new();
        insert(&mut map, key, Node::new(node.place.clone(), value));
        node.value = Value::Map(map);
    }
}

/// A text becomes a list that has it.
fn listed(node: &mut Node) {
    if node.as_text().is_some() {
        let value = std::mem::replace(&mut node.value, Value::Null);
        node.value = Value::List(vec![Node::new(node.place.clone(), value)]);
    }
}

/// Permission bits become a text that shows them as people write them.
fn octal(node: &mut Node) {
    if let Value::Int(mode) = node.value
        && let Ok(mode) = u32::try_from(mode)
    {
        node.value = Value::Text(format!("{mode:04o}"));
    }
}

fn each(node: &mut Node, mut change: impl FnMut(&mut Node)) {
    if let Some(map) = node.as_map_mut() {
        map.values_mut().for_each(|entry| change(&mut entry.node));
    }
}

fn items(node: &mut Node, change: impl FnMut(&mut Node)) {
    if let Value::List(list) = &mut node.value {
        list.iter_mut().for_each(change);
    }
}

/// Whether a text in the tree holds a variable.
fn has_variable(node: &Node) -> bool {
    match &node.value {
        Value::Text(text) => text.contains('$'),
        Value::List(list) => list.iter().any(has_variable),
        Value::Map(map) => map.values().any(|entry| has_variable(&entry.node)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => false,
    }
}
