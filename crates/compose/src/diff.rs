//! What differs between objects as they are and as they shall be, for people and for machines.
//!
//! Works on the JSON of the Engine API alone, so that the server can compare what is stored with what was sent, and a client two
//! documents. Both sides have to be written the same way (by the server's own conversion): defaults are not known here. The data of
//! secrets never gets into a difference.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

mod lines;
mod text;

pub use lines::content;
pub use text::render;

/// Path of what a secret or config holds.
const DATA: &str = "Data";

/// What stands for the data of a secret.
const HIDDEN: &str = "(hidden)";

/// Levels of nesting that are compared; what is deeper is one value. Specs have eight.
const DEPTH_MAX: usize = 16;

/// A kind of object, in the order in which a stack's are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A network.
    Network,
    /// A secret.
    Secret,
    /// A config.
    Config,
    /// A service.
    Service,
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is made.
    Create,
    /// It becomes different.
    Update,
    /// It goes.
    Remove,
    /// Nothing.
    Unchanged,
}

/// One difference within an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Where, by the names of the API: `TaskTemplate.ContainerSpec.Env[COLOUR]`.
    pub path: String,
    /// What is there now; `None` is nothing.
    pub old: Option<Value>,
    /// What shall be there.
    pub new: Option<Value>,
    /// Of a text, what becomes different in it: lines that begin with `-`, `+` or, for orientation, a blank.
    pub lines: Vec<String>,
}

/// What happens to one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What happens.
    pub action: Action,
    /// What of it becomes different; empty but for updates.
    pub fields: Vec<Field>,
}

/// An object to compare.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: &'a str,
    /// Its spec, as the Engine API has it.
    pub spec: &'a Value,
}

/// The differences between two sets of objects, by kind and name. Kind and name say which belong together.
pub fn objects(old: &[Object<'_>], new: &[Object<'_>]) -> Vec<Change> {
    let keys: BTreeSet<(Kind, &str)> = old.iter().chain(new).map(Object::key).collect();
    let one = |(kind, name): (Kind, &str)| {
        let (action, fields) = match (find(old, kind, name), find(new, kind, name)) {
            (Some(was), Some(is)) => {
                let fields = fields(kind, was, is);
                let action = match fields.is_empty() {
                    true => Action::Unchanged,
                    false => Action::Update,
                };
                (action, fields)
            }
            (Some(_), None) => (Action::Remove, Vec::new()),
            (None, Some(_) | None) => (Action::Create, Vec::new()),
        };
        Change {
            kind,
            name: name.to_owned(),
            action,
            fields,
        }
    };
    keys.into_iter().map(one).collect()
}

fn find<'a>(set: &[Object<'a>], kind: Kind, name: &str) -> Option<&'a Value> {
    let found = set.iter().find(|object| object.key() == (kind, name));
    found.map(|object| object.spec)
}

/// The differences between two specs of one object, by path. Null and what is empty is as good as nothing.
pub fn fields(kind: Kind, old: &Value, new: &Value) -> Vec<Field> {
    let mut found = Found {
        is_secret: kind == Kind::Secret,
        fields: Vec::new(),
    };
    found.compare("", 0, Some(old), Some(new));
    found.fields.sort_by(|a, b| a.path.cmp(&b.path));
    found.fields
}

struct Found {
    is_secret: bool,
    fields: Vec<Field>,
}

// === impl Found ===

impl Found {
    fn compare(&mut self, path: &str, depth: usize, old: Option<&Value>, new: Option<&Value>) {
        let (old, new) = (old.filter(is_something), new.filter(is_something));
        if old == new {
            return;
        }
        // An element of a list that comes or goes is one difference, not one for each of its fields.
        let is_whole = path.ends_with(']') && (old.is_none() || new.is_none());
        let parts = match is_whole || depth >= DEPTH_MAX {
            true => None,
            false => parts(path, old, new),
        };
        let Some((old_parts, new_parts)) = parts else {
            return self.note(path, old, new);
        };
        let names: BTreeSet<&String> = old_parts.keys().chain(new_parts.keys()).collect();
        for name in names {
            let (old, new) = (old_parts.get(name), new_parts.get(name));
            let path = match path.is_empty() || name.starts_with('[') {
                true => format!("{path}{name}"),
                false => format!("{path}.{name}"),
            };
            self.compare(&path, depth + 1, old, new);
        }
    }

    fn note(&mut self, path: &str, old: Option<&Value>, new: Option<&Value>) {
        let shown = |value: &Value| match path {
            DATA if self.is_secret => json!(HIDDEN),
            DATA => json!(size(value)),
            _ => value.clone(),
        };
        let field = Field {
            path: path.to_owned(),
            old: old.map(shown),
            new: new.map(shown),
            lines: Vec::new(),
        };
        self.fields.push(field);
    }
}

fn is_something(value: &&Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Named parts of both, when they can be compared one by one; else they differ as a whole.
fn parts(
    path: &str,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Option<(Map<String, Value>, Map<String, Value>)> {
    let side = |value: Option<&Value>| match value {
        None => Some(Map::new()),
        Some(Value::Object(entries)) => Some(named(path, entries)),
        Some(Value::Array(items)) => keyed(path, items),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => None,
    };
    // One side that is whole, or in a form of its own, makes the other whole, too. What comes or goes as an object is shown by its parts.
    let (old, new) = (side(old)?, side(new)?);
    Some((old, new))
}

/// Entries of an object: keys that users choose in brackets, as they may contain dots.
fn named(path: &str, entries: &Map<String, Value>) -> Map<String, Value> {
    let is_map = ["Labels", "Options", "Sysctls", "DriverOpts"]
        .iter()
        .any(|name| last(path) == *name);
    let name = |key: &String| match is_map {
        true => format!("[{key}]"),
        false => key.clone(),
    };
    entries
        .iter()
        .map(|(key, value)| (name(key), value.clone()))
        .collect()
}

/// Elements of a list by what tells them apart; `None` when their order matters or two are alike.
fn keyed(path: &str, items: &[Value]) -> Option<Map<String, Value>> {
    let mut found = Map::new();
    for item in items {
        let key = key(last(path), item)?;
        if found.insert(format!("[{key}]"), item.clone()).is_some() {
            return None;
        }
    }
    Some(found)
}

/// What tells an element of the list `name` from the others.
fn key(name: &str, item: &Value) -> Option<String> {
    let text = |pointer: &str| {
        let value = item.pointer(pointer)?;
        let text = value.as_str().map(str::to_owned);
        Some(text.unwrap_or_else(|| value.to_string()))
    };
    match name {
        "Env" => {
            let entry = item.as_str()?;
            Some(entry.split('=').next().unwrap_or(entry).to_owned())
        }
        "Mounts" | "Networks" => text("/Target"),
        "Secrets" => text("/File/Name").or_else(|| text("/SecretName")),
        "Configs" => text("/File/Name").or_else(|| text("/ConfigName")),
        "Ulimits" => text("/Name"),
        "Ports" => {
            let protocol = text("/Protocol").unwrap_or_else(|| "tcp".to_owned());
            let published = text("/PublishedPort").map_or(String::new(), |port| port + ":");
            Some(format!("{published}{}/{protocol}", text("/TargetPort")?))
        }
        "GenericResources" => text("/DiscreteResourceSpec/Kind"),
        // Sets of words, where a name has no meaning: each is there or not.
        "CapabilityAdd" | "CapabilityDrop" | "Constraints" | "Hosts" | "Aliases" | "Groups" => {
            item.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// The last name of a path.
fn last(path: &str) -> &str {
    match path.ends_with(']') {
        true => "",
        false => path.rsplit('.').next().unwrap_or(path),
    }
}

/// Says of encoded data how much it is.
fn size(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let digits = text.trim_end_matches('=').len();
    format!("{} bytes", digits * 3 / 4)
}

// === impl Object ===

impl<'a> Object<'a> {
    fn key(&self) -> (Kind, &'a str) {
        (self.kind, self.name)
    }
}

// === impl Kind ===

impl Kind {
    /// Its name in documents and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Service => "service",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Network, Self::Secret, Self::Config, Self::Service];
        all.into_iter().find(|kind| kind.name() == name)
    }
}

// === impl Action ===

impl Action {
    /// Its name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Remove => "remove",
            Self::Unchanged => "unchanged",
        }
    }

    /// The action of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Create, Self::Update, Self::Remove, Self::Unchanged];
        all.into_iter().find(|action| action.name() == name)
    }
}

// === impl Field ===

impl Field {
    /// The data of a secret becomes different, of which nothing is told.
    pub fn hidden() -> Self {
        Self {
            path: DATA.to_owned(),
            old: Some(json!(HIDDEN)),
            new: Some(json!(HIDDEN)),
            lines: Vec::new(),
        }
    }

    /// `{"Path", "Old", "New", "Lines"}`; what is nothing is absent.
    pub fn to_json(&self) -> Value {
        let mut json = json!({ "Path": self.path });
        for (name, value) in [("Old", &self.old), ("New", &self.new)] {
            if let Some(value) = value {
                json[name] = value.clone();
            }
        }
        if !self.lines.is_empty() {
            json["Lines"] = json!(self.lines);
        }
        json
    }

    fn from_json(json: &Value) -> Option<Self> {
        let side = |name: &str| json.get(name).filter(|value| !value.is_null()).cloned();
        Some(Self {
            path: json["Path"].as_str()?.to_owned(),
            old: side("Old"),
            new: side("New"),
            lines: json["Lines"].as_array().map_or(Vec::new(), |lines| {
                let lines = lines.iter().filter_map(Value::as_str);
                lines.map(str::to_owned).collect()
            }),
        })
    }
}

// === impl Change ===

impl Change {
    /// `{"Kind", "Name", "Action", "Fields"}`
    pub fn to_json(&self) -> Value {
        let fields: Vec<Value> = self.fields.iter().map(Field::to_json).collect();
        json!({
            "Kind": self.kind.name(),
            "Name": self.name,
            "Action": self.action.name(),
            "Fields": fields,
        })
    }

    /// Reads what [`Change::to_json`] wrote; `None` when it is something else.
    pub fn from_json(json: &Value) -> Option<Self> {
        let fields = json["Fields"].as_array().map_or(&[][..], Vec::as_slice);
        Some(Self {
            kind: Kind::from_name(json["Kind"].as_str()?)?,
            name: json["Name"].as_str()?.to_owned(),
            action: Action::from_name(json["Action"].as_str()?)?,
            fields: fields.iter().map(Field::from_json).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests;
