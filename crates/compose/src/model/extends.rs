//! `extends`: a service on top of another one, of the same file or another.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{Loader, Setting, empty_map};
use crate::{
    input::Source,
    merge::merge,
    node::{Mapping, Node, Value},
    problem::Place,
    word::nearest,
};

/// Services that extend each other.
const DEPTH_MAX: usize = 32;
/// Keys of `extends`.
const KEYS: [&str; 2] = ["service", "file"];

/// The services a service can extend: those of one file.
pub(super) struct Scope {
    path: PathBuf,
    services: Mapping,
}

/// A service that is being put together.
pub(super) type Link = (PathBuf, String);

/// What `extends` says.
struct Reference<'a> {
    service: &'a str,
    file: Option<&'a str>,
    place: &'a Place,
}

// === impl Loader ===

impl Loader<'_> {
    /// Puts each service of a document on top of what it extends.
    pub(super) fn extend_services(&mut self, document: &mut Node, path: &Path, setting: &Setting) {
        let Some(services) = document.get("services").and_then(Node::as_map) else {
            return;
        };
        let is_extending = |node: &Node| node.get("extends").is_some();
        if !services.values().any(|entry| is_extending(&entry.node)) {
            return;
        }
        let scope = Rc::new(Scope {
            path: path.to_owned(),
            services: services.clone(),
        });
        // Files that were read for another document may have been read with other variables.
        self.scopes.clear();
        let Some(services) = document.get_mut("services").and_then(Node::as_map_mut) else {
            return;
        };
        for (name, entry) in services
            .iter_mut()
            .filter(|(_, entry)| is_extending(&entry.node))
        {
            // When something is wrong it has been told, and `extends` stays as a sign of that.
            if let Some(node) = self.extended(&scope, name, setting, &mut Vec::new()) {
                entry.node = node;
            }
        }
    }

    /// A service with all it extends; `None` when something of it is missing, which has been told.
    fn extended(
        &mut self,
        scope: &Rc<Scope>,
        name: &str,
        setting: &Setting,
        chain: &mut Vec<Link>,
    ) -> Option<Node> {
        let mut node = scope.services.get(name)?.node.clone();
        if !self.spend(node.count(), &node.place) {
            return None;
        }
        let Some(entry) = node.as_map_mut().and_then(|map| map.remove("extends")) else {
            return Some(node);
        };
        let reference = self.reference(&entry.node)?;
        chain.push((scope.path.clone(), name.to_owned()));
        let other = match reference.file {
            Some(file) => self.scope(Path::new(file), reference.place, setting)?,
            None => Rc::clone(scope),
        };
        let link = (other.path.clone(), reference.service.to_owned());
        if chain.contains(&link) || chain.len() > DEPTH_MAX {
            self.cycle(chain, &link, reference.place);
            return None;
        }
        if !other.services.contains_key(reference.service) {
            let known = other.services.keys().map(String::as_str);
            let hint = nearest(reference.service, known)
                .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
            let file = self.display(&other.path);
            let text = format!(
                "service `{}` is not in {}{hint}",
                reference.service,
                file.display()
            );
            self.problems.push(Some(reference.place.clone()), text);
            return None;
        }
        // Relative paths of the other file are absolute already; what it extends is relative to it.
        let inner = Setting {
            dir: other.path.parent().map(Path::to_owned).unwrap_or_default(),
            environment: setting.environment.clone(),
        };
        let setting = if reference.file.is_some() {
            &inner
        } else {
            setting
        };
        let mut base = self.extended(&other, reference.service, setting, chain)?;
        if base.value == Value::Null {
            base = empty_map(&base);
        }
        merge(&mut base, node, &["services", name], &mut self.problems);
        Some(base)
    }

    /// The services of another file, which is read once.
    fn scope(&mut self, path: &Path, place: &Place, setting: &Setting) -> Option<Rc<Scope>> {
        if let Some(scope) = self.scopes.get(path) {
            return scope.clone();
        }
        let scope = self
            .parse(&Source::File(path.to_owned()), Some(place))
            .map(|parsed| {
                let inner = Setting {
                    dir: path.parent().map(Path::to_owned).unwrap_or_default(),
                    environment: setting.environment.clone(),
                };
                let mut services = Mapping::new();
                for document in parsed.documents {
                    let document = self.prepare(document, &inner);
                    let section =
                        document.and_then(|mut node| node.as_map_mut()?.remove("services"));
                    if let Some(Value::Map(map)) = section.map(|entry| entry.node.value) {
                        services.extend(map);
                    }
                }
                Rc::new(Scope {
                    path: path.to_owned(),
                    services,
                })
            });
        self.scopes.insert(path.to_owned(), scope.clone());
        scope
    }

    fn reference<'a>(&mut self, node: &'a Node) -> Option<Reference<'a>> {
        for (key, entry) in node
            .as_map()
            .into_iter()
            .flatten()
            .filter(|(key, _)| !KEYS.contains(&key.as_str()))
        {
            let hint = nearest(key, KEYS)
                .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
            self.problems.push(
                Some(entry.place.clone()),
                format!("unknown key `{key}` in `extends`{hint}"),
            );
        }
        let Some(service) = node.get("service").and_then(Node::as_text) else {
            self.problems.push(
                Some(node.place.clone()),
                "`extends` needs `service`, the name of a service",
            );
            return None;
        };
        let file = node.get("file").map(Node::as_text);
        if file == Some(None) {
            self.problems.push(
                Some(node.place.clone()),
                "`file` of `extends` must be a path",
            );
            return None;
        }
        Some(Reference {
            service,
            file: file.flatten(),
            place: &node.place,
        })
    }

    /// Tells of a cycle, once for all the services on it.
    fn cycle(&mut self, chain: &[Link], last: &Link, place: &Place) {
        let Some(start) = chain.iter().position(|link| link == last) else {
            let text = format!("more than {DEPTH_MAX} services extend each other");
            self.problems.push(Some(place.clone()), text);
            return;
        };
        let links = &chain[start..];
        let mut sorted = links.to_vec();
        sorted.sort();
        if !self.cycles.insert(sorted) {
            return;
        }
        let names: Vec<String> = links
            .iter()
            .chain([last])
            .map(|(path, name)| format!("`{name}` ({})", self.display(path).display()))
            .collect();
        let text = format!("services extend each other: {}", names.join(" → "));
        self.problems.push(Some(place.clone()), text);
    }
}
