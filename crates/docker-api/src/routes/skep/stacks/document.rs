//! A stack's document: Docker's create requests in one body, read by the code that reads them singly.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use skep_model::{
    ConfigSpec, NetworkSpec, SecretSpec,
    stack::{ApplyOptions, Externals, StackSpec},
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
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Document {
    name: String,
    networks: Option<Vec<CreateNetwork>>,
    secrets: Option<Vec<SupplySpec>>,
    configs: Option<Vec<SupplySpec>>,
    services: Option<Vec<ServiceSpec>>,
    external: Option<External>,
    source: String,
    expect: Option<u64>,
    registry_auth: Option<BTreeMap<String, String>>,
}

/// What others own.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct External {
    networks: Option<Vec<String>>,
    secrets: Option<Vec<String>>,
    configs: Option<Vec<String>>,
}

/// Problems of many objects, each with the status it would have had alone.
#[derive(Default)]
struct Problems {
    texts: Vec<String>,
    kind: Option<ErrorKind>,
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
        if !self.name.is_empty() && self.name != name {
            let message = format!("the document is of stack {}, not of {name}", self.name);
            return Err(ApiError::invalid(message));
        }
        let options = ApplyOptions {
            expect: self.expect,
            prune: request.query.strict_flag("prune")?,
            force: request.query.strict_flag("force")?,
        };
        let mut problems = Problems::default();
        let networks = self.networks.unwrap_or_default().into_iter();
        let networks = networks.filter_map(|body| {
            let name = body.name.clone();
            let spec = networks::cluster_spec(context, body);
            problems.take("network", &name, spec)
        });
        let networks = networks.collect();
        let secrets = self.secrets.unwrap_or_default().into_iter();
        let secrets = secrets.filter_map(|body| {
            let name = body.name.clone();
            problems.take("secret", &name, secret::secret_spec(body))
        });
        let secrets = secrets.collect();
        let configs = self.configs.unwrap_or_default().into_iter();
        let configs = configs.filter_map(|body| {
            let name = body.name.clone();
            problems.take("config", &name, secret::config_spec(body))
        });
        let configs = configs.collect();
        let auth = self.registry_auth.unwrap_or_default();
        let services = self.services.unwrap_or_default().into_iter();
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
                networks: external.networks.unwrap_or_default(),
                secrets: external.secrets.unwrap_or_default(),
                configs: external.configs.unwrap_or_default(),
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
