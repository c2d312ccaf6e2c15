//! From a [`Project`] to the objects of a cluster: the document that `skep stack` sends.
//!
//! Objects are in the JSON of the Engine API's create requests, and say what the docker command's `stack deploy` would send for the same
//! file: names, labels, the network `default` only where it is used, sorted lists. What Docker leaves out and Skep can honour becomes
//! labels (`skep.run.…`, `skep.depends-on`) or the fields that Docker has for it elsewhere. What no cluster can honour, `load` has refused; what Docker honours in
//! another way than the file reads is a warning. References are by name: ids are the server's business. See `docs/design/compose.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Value, json};

use crate::{
    problem::{Place, Problem, Problems},
    project::{Content, Project},
};

mod base64;
mod container;
mod extras;
mod image;
mod mounts;
mod objects;
mod service;

/// Label of all objects of a stack: its name.
pub const NAMESPACE: &str = "com.docker.stack.namespace";
/// Label of a service: its image as the file has it.
pub const IMAGE: &str = "com.docker.stack.image";
/// Label of a service: what it waits for (`db=healthy,migrate=completed`).
pub const DEPENDS_ON: &str = "skep.depends-on";

/// The network of services that name none.
const DEFAULT_NETWORK: &str = "default";

/// A stack as a cluster takes it.
#[derive(Clone, Default, PartialEq)]
pub struct StackDocument {
    /// The stack's name.
    pub name: String,
    /// Networks to be made (`POST /networks/create`).
    pub networks: Vec<Value>,
    /// Secrets to be made (`POST /secrets/create`).
    pub secrets: Vec<Value>,
    /// Configs to be made (`POST /configs/create`).
    pub configs: Vec<Value>,
    /// Services to be made (`POST /services/create`).
    pub services: Vec<Value>,
    /// What has to be there already.
    pub external: External,
    /// The merged file, kept with the revision.
    pub source: String,
    /// The revision that has to be in force; `None`: any.
    pub expect: Option<u64>,
    /// `X-Registry-Auth` by service.
    pub registry_auth: BTreeMap<String, String>,
    /// What users should know; not sent.
    pub warnings: Vec<Problem>,
}

/// Where the file says something, by path (`services`, `web`, `ports`).
pub type Places<'a> = &'a dyn Fn(&[&str]) -> Place;

/// Objects that a stack uses but does not own, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct External {
    /// Networks.
    pub networks: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// Configs.
    pub configs: BTreeSet<String>,
}

/// What the document of stack `name` says for `project`. Its source, revision and credentials are the caller's to set.
///
/// # Errors
/// What cannot be said to a cluster.
pub fn stack(project: &Project, name: &str, places: Places<'_>) -> Result<StackDocument, Problems> {
    let mut stack = Stack::new(project, name, places);
    let is_quiet = |c: char| c.is_whitespace() || c == '"' || c == '\'';
    if name.chars().all(is_quiet) || name.contains('/') {
        let text = format!("`{name}` is no name of a stack");
        stack.problems.push(None, text);
    }
    let networks = objects::networks(&stack);
    let secrets = objects::secrets(&stack);
    let configs = objects::configs(&stack);
    let services = project
        .services
        .iter()
        .map(|(name, service)| service::convert(&mut stack, name, service))
        .collect();
    let document = StackDocument {
        name: name.to_owned(),
        networks,
        secrets,
        configs,
        services,
        external: external(&stack),
        warnings: stack.warnings,
        ..StackDocument::default()
    };
    stack.problems.into_result(document)
}

/// What is converted, and what is found on the way.
struct Stack<'a> {
    project: &'a Project,
    name: &'a str,
    /// Services that others wait for to complete.
    awaited: BTreeSet<&'a str>,
    places: Places<'a>,
    problems: Problems,
    warnings: Vec<Problem>,
}

fn external(stack: &Stack<'_>) -> External {
    let project = stack.project;
    let networks = stack.used_networks().into_iter().filter(|key| {
        let network = project.networks.get(*key);
        network.is_some_and(|network| network.is_external)
    });
    let services = || project.services.values();
    let secrets = services().flat_map(|service| &service.secrets).filter(|r| {
        let secret = project.secrets.get(&r.source);
        secret.is_some_and(|secret| secret.content == Content::External)
    });
    let configs = services().flat_map(|service| &service.configs).filter(|r| {
        let config = project.configs.get(&r.source);
        config.is_some_and(|config| config.content == Content::External)
    });
    External {
        networks: networks.map(|key| stack.network_name(key)).collect(),
        secrets: secrets.map(|r| stack.secret_name(&r.source)).collect(),
        configs: configs.map(|r| stack.config_name(&r.source)).collect(),
    }
}

// === impl Stack ===

impl<'a> Stack<'a> {
    fn new(project: &'a Project, name: &'a str, places: Places<'a>) -> Self {
        let waiting = project.services.values();
        let conditions = waiting.flat_map(|service| &service.depends_on);
        let is_completion = |condition| condition == crate::project::Condition::Completed;
        let awaited = conditions
            .filter(|(_, dependency)| is_completion(dependency.condition))
            .map(|(name, _)| name.as_str());
        Self {
            project,
            name,
            awaited: awaited.collect(),
            places,
            problems: Problems::default(),
            warnings: Vec::new(),
        }
    }

    /// Notes a problem of `key` of a service.
    fn problem(&mut self, service: &str, key: &str, text: &str) {
        let place = (self.places)(&["services", service, key]);
        let text = format!("service `{service}`: {text}");
        self.problems.push(Some(place), text);
    }

    /// Notes what of `key` of a service users should know.
    fn warn(&mut self, service: &str, key: &str, text: &str) {
        let place = (self.places)(&["services", service, key]);
        let text = format!("service `{service}`: {text}");
        self.warnings.push(Problem {
            place: Some(place),
            text,
        });
    }

    /// A name of the file as the cluster knows it.
    fn scoped(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }

    /// The name an object was given, else the one it has from the file.
    fn named(&self, key: &str, name: Option<&String>, is_external: bool) -> String {
        match name {
            Some(name) => name.clone(),
            None if is_external => key.to_owned(),
            None => self.scoped(key),
        }
    }

    fn network_name(&self, key: &str) -> String {
        let network = self.project.networks.get(key);
        let name = network.and_then(|network| network.name.as_ref());
        self.named(
            key,
            name,
            network.is_some_and(|network| network.is_external),
        )
    }

    fn secret_name(&self, key: &str) -> String {
        let secret = self.project.secrets.get(key);
        let name = secret.and_then(|secret| secret.name.as_ref());
        let is_external = secret.is_some_and(|secret| secret.content == Content::External);
        self.named(key, name, is_external)
    }

    fn config_name(&self, key: &str) -> String {
        let config = self.project.configs.get(key);
        let name = config.and_then(|config| config.name.as_ref());
        let is_external = config.is_some_and(|config| config.content == Content::External);
        self.named(key, name, is_external)
    }

    /// Labels with the stack's.
    fn labelled(&self, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut labels = labels.clone();
        labels.insert(NAMESPACE.to_owned(), self.name.to_owned());
        labels
    }

    /// Networks that services use; others are not made.
    fn used_networks(&self) -> BTreeSet<&'a str> {
        let mut used = BTreeSet::new();
        for service in self.project.services.values() {
            used.extend(service.networks.keys().map(String::as_str));
            if service.networks.is_empty() {
                used.insert(DEFAULT_NETWORK);
            }
        }
        used
    }
}

// === impl StackDocument ===

impl StackDocument {
    /// The body of a request to plan or deploy.
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "Name": self.name,
            "Networks": self.networks,
            "Secrets": self.secrets,
            "Configs": self.configs,
            "Services": self.services,
            "External": {
                "Networks": self.external.networks,
                "Secrets": self.external.secrets,
                "Configs": self.external.configs,
            },
            "Source": self.source,
        });
        if let Some(revision) = self.expect {
            json["Expect"] = json!(revision);
        }
        if !self.registry_auth.is_empty() {
            json["RegistryAuth"] = json!(self.registry_auth);
        }
        json
    }
}

impl fmt::Debug for StackDocument {
    /// Names only: there is data of secrets in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |objects: &[Value]| -> Vec<String> {
            objects
                .iter()
                .map(|object| object["Name"].to_string())
                .collect()
        };
        f.debug_struct("StackDocument")
            .field("name", &self.name)
            .field("networks", &names(&self.networks))
            .field("secrets", &names(&self.secrets))
            .field("configs", &names(&self.configs))
            .field("services", &names(&self.services))
            .field("external", &self.external)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
