//! A stack's document: Docker's create requests in one body, read by the code that reads them singly.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, json};
use skep_model::{
    ConfigSpec, NetworkSpec, SecretSpec,
    stack::{ApplyOptions, Externals, OBJECTS_MAX, StackSpec},
};

use crate::{
    convert::{self, secret},
    dto::{
        network::{CreateNetwork, Ipam},
        secret::SupplySpec,
        service::ServiceSpec,
    },
    error::{ApiError, ErrorKind, Result},
    http::{request::Request, server::Context},
    routes::{networks, services::set_registry_auth},
};

/// The body of a deploy and of a plan.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub(super) struct Document {
    name: String,
    networks: Option<Few<CreateNetwork>>,
    secrets: Option<Few<SupplySpec>>,
    configs: Option<Few<SupplySpec>>,
    services: Option<Few<ServiceSpec>>,
    external: Option<External>,
    source: String,
    expect: Option<u64>,
    registry_auth: Option<BTreeMap<String, String>>,
}

/// What others own.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct External {
    networks: Option<Few<String>>,
    secrets: Option<Few<String>>,
    configs: Option<Few<String>>,
}

/// A list that is not read further than a stack may be long: a short text can be a million objects.
#[derive(Debug)]
struct Few<T>(Vec<T>);

/// Problems of many objects, each with the status it would have had alone.
#[derive(Default)]
struct Problems {
    texts: Vec<String>,
    kind: Option<ErrorKind>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FewVisitor(PhantomData))
    }
}

struct FewVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> de::Visitor<'de> for FewVisitor<T> {
    type Value = Few<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {OBJECTS_MAX} objects")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Few<T>, A::Error> {
        let mut read = Vec::new();
        while let Some(one) = list.next_element()? {
            if read.len() == OBJECTS_MAX {
                return Err(de::Error::invalid_length(OBJECTS_MAX + 1, &self));
            }
            read.push(one);
        }
        Ok(Few(read))
    }
}

impl Problems {
    fn take<T>(&mut self, noun: &str, name: &str, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                self.texts.push(format!("{noun} {name}: {}", error.message));
                self.kind.get_or_insert(error.kind);
            })
            .ok()
    }
}

impl Document {
    /// What is asked for, or everything that is wrong with it.
    pub(super) fn read(
        self,
        context: &Context,
        name: &str,
        request: &Request,
    ) -> Result<(StackSpec, ApplyOptions)> {
        if self.name.is_empty() {
            // An empty body is none of a stack: pruning by it would remove everything.
            return Err(ApiError::invalid("the document has no name"));
        }
        if self.name != name {
            let message = format!("the document is of stack {}, not of {name}", self.name);
            return Err(ApiError::invalid(message));
        }
        let options = ApplyOptions {
            expect: self.expect,
            prune: request.query.strict_flag("prune")?,
            force: request.query.strict_flag("force")?,
        };
        let mut problems = Problems::default();
        let networks = self.networks.unwrap_or_default().0.into_iter();
        let networks = networks.filter_map(|body| {
            let name = body.name.clone();
            let spec = networks::cluster_spec(context, body);
            problems.take("network", &name, spec)
        });
        let networks = networks.collect();
        let secrets = self.secrets.unwrap_or_default().0.into_iter();
        let secrets = secrets.filter_map(|body| {
            let name = body.name.clone();
            problems.take("secret", &name, secret::secret_spec(body))
        });
        let secrets = secrets.collect();
        let configs = self.configs.unwrap_or_default().0.into_iter();
        let configs = configs.filter_map(|body| {
            let name = body.name.clone();
            problems.take("config", &name, secret::config_spec(body))
        });
        let configs = configs.collect();
        let auth = self.registry_auth.unwrap_or_default();
        let services = self.services.unwrap_or_default().0.into_iter();
        let services = services.filter_map(|body| {
            let name = body.name.clone();
            let spec = convert::service_spec(body, request.version);
            let mut spec = problems.take("service", &name, spec)?;
            if let Some(auth) = auth.get(&name) {
                set_registry_auth(&mut spec, auth.clone());
            }
            Some(spec)
        });
        let services = services.collect();
        if let Some(kind) = problems.kind {
            let is_one = problems.texts.len() == 1;
            let kind = if is_one {
                kind
            } else {
                ErrorKind::InvalidArgument
            };
            return Err(ApiError::new(kind, problems.texts.join("\n")));
        }
        let external = self.external.unwrap_or_default();
        let spec = StackSpec {
            name: name.to_owned(),
            networks,
            secrets,
            configs,
            services,
            external: Externals {
                networks: external.networks.unwrap_or_default().0,
                secrets: external.secrets.unwrap_or_default().0,
                configs: external.configs.unwrap_or_default().0,
            },
            source: self.source,
        };
        Ok((spec, options))
    }
}

/// A document as it was sent, without data.
pub(super) fn shown(spec: &StackSpec) -> Value {
    let services = spec.services.iter().map(ServiceSpec::from);
    let external = &spec.external;
    json!({
        "Name": spec.name,
        "Networks": spec.networks.iter().map(network).collect::<Vec<_>>(),
        "Secrets": spec.secrets.iter().map(secret_value).collect::<Vec<_>>(),
        "Configs": spec.configs.iter().map(config_value).collect::<Vec<_>>(),
        "Services": services.collect::<Vec<_>>(),
        "External": {
            "Networks": external.networks,
            "Secrets": external.secrets,
            "Configs": external.configs,
        },
    })
}

/// A network as in a request to make it.
pub(super) fn network(spec: &NetworkSpec) -> Value {
    let driver = spec.driver.as_ref();
    let ipam = spec.ipam.as_ref().map(|ipam| {
        let driver = ipam.driver.as_ref();
        Ipam {
            driver: driver.map_or("default".to_owned(), |driver| driver.name.clone()),
            options: driver.map(|driver| driver.options.clone()),
            config: Some(ipam.configs.iter().map(Into::into).collect()),
        }
    });
    json!({
        "Name": spec.annotations.name,
        "Labels": spec.annotations.labels,
        "Driver": spec.driver_name(),
        "Options": driver.map(|driver| driver.options.clone()).unwrap_or_default(),
        "EnableIPv6": spec.has_ipv6,
        "Internal": spec.is_internal,
        "Attachable": spec.is_attachable,
        "Ingress": spec.is_ingress,
        "IPAM": ipam,
    })
}

/// A secret as in a request to make it, without data.
pub(super) fn secret_value(spec: &SecretSpec) -> Value {
    json!({
        "Name": spec.annotations.name,
        "Labels": spec.annotations.labels,
        "Templating": spec.templating.as_ref().map(|driver| json!({"Name": driver.name})),
    })
}

/// A config as in a request to make it, without data.
pub(super) fn config_value(spec: &ConfigSpec) -> Value {
    json!({
        "Name": spec.annotations.name,
        "Labels": spec.annotations.labels,
        "Templating": spec.templating.as_ref().map(|driver| json!({"Name": driver.name})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_far_as_a_stack_goes() {
        let read = |count: usize| {
            let services = vec!["{}"; count].join(",");
            serde_json::from_str::<Document>(&format!("{{\"Services\":[{services}]}}"))
        };
        let services = read(OBJECTS_MAX).unwrap().services;
        assert_eq!(services.map(|list| list.0.len()), Some(OBJECTS_MAX));
        let error = read(OBJECTS_MAX + 1).unwrap_err().to_string();
        let expected = "invalid length 1001, expected a list of at most 1000 objects";
        assert!(error.starts_with(expected), "{error}");
    }
}
