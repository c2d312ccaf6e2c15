//! Networks, secrets and configs.

use serde_json::{Value, json};

use super::{Stack, base64};
use crate::project::{Content, FileObject, Ipam, Network};

/// Driver of networks whose file names none.
const DRIVER: &str = "overlay";

/// Networks that services use and the stack owns.
pub(super) fn networks(stack: &Stack<'_>) -> Vec<Value> {
    let absent = Network::default();
    let mut found = Vec::new();
    for key in stack.used_networks() {
        let network = stack.project.networks.get(key).unwrap_or(&absent);
        if !network.is_external {
            found.push(self::network(stack, key, network));
        }
    }
    found
}

fn network(stack: &Stack<'_>, key: &str, network: &Network) -> Value {
    let mut json = json!({
        "Name": stack.network_name(key),
        "Scope": "swarm",
        "Driver": network.driver.as_deref().unwrap_or(DRIVER),
        "Labels": stack.labelled(&network.labels),
        "Internal": network.is_internal,
        "Attachable": network.is_attachable,
    });
    if !network.driver_opts.is_empty() {
        json["Options"] = json!(network.driver_opts);
    }
    if let Some(ipam) = &network.ipam {
        json["IPAM"] = self::ipam(ipam);
    }
    for (name, value) in [
        ("EnableIPv4", network.is_ipv4),
        ("EnableIPv6", network.is_ipv6),
    ] {
        if let Some(value) = value {
            json[name] = json!(value);
        }
    }
    json
}

fn ipam(ipam: &Ipam) -> Value {
    let pools = ipam.pools.iter().map(|pool| {
        let mut json = json!({});
        let texts = [
            ("Subnet", &pool.subnet),
            ("IPRange", &pool.ip_range),
            ("Gateway", &pool.gateway),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                json[name] = json!(text);
            }
        }
        if !pool.aux_addresses.is_empty() {
            json["AuxiliaryAddresses"] = json!(pool.aux_addresses);
        }
        json
    });
    let mut json = json!({
        "Driver": ipam.driver.as_deref().unwrap_or_default(),
        "Config": pools.collect::<Vec<_>>(),
    });
    if !ipam.options.is_empty() {
        json["Options"] = json!(ipam.options);
    }
    json
}

/// Secrets the stack owns, used or not.
pub(super) fn secrets(stack: &Stack<'_>) -> Vec<Value> {
    let secrets = stack.project.secrets.iter();
    let specs = secrets.map(|(key, secret)| file_object(stack, stack.secret_name(key), secret));
    specs.flatten().collect()
}

/// Configs the stack owns, used or not.
pub(super) fn configs(stack: &Stack<'_>) -> Vec<Value> {
    let configs = stack.project.configs.iter();
    let specs = configs.map(|(key, config)| file_object(stack, stack.config_name(key), config));
    specs.flatten().collect()
}

/// `None`: it exists already.
fn file_object(stack: &Stack<'_>, name: String, object: &FileObject) -> Option<Value> {
    let mut json = json!({ "Name": name, "Labels": stack.labelled(&object.labels) });
    match &object.content {
        Content::External => return None,
        Content::Data(data) => json["Data"] = json!(base64::encode(&data.0)),
        Content::Driver { name, options } => {
            json["Driver"] = json!({ "Name": name, "Options": options });
        }
    }
    if let Some(driver) = &object.template_driver {
        json["Templating"] = json!({ "Name": driver });
    }
    Some(json)
}
