//! The places of a task on its networks.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use skep_model::{Network, NetworkAttachment, NetworkAttachmentConfig, Service, Task};
use skep_store::Store;

use crate::{
    network::{
        address,
        endpoint::{self, endpoint as endpoint_of},
        is_ingress,
    },
    plan::Wait,
};

/// Gives `task` its places, and the endpoint its service has by now. What is missing is the
/// error; the task is then unchanged.
pub(crate) fn attach(view: &Store, task: &mut Task) -> Result<(), Wait> {
    let service = task.service_id.and_then(|id| view.service(id));
    let has_networks = !task.spec.networks.is_empty()
        || service.is_some_and(|service| !service.spec.networks.is_empty());
    let spec = task
        .endpoint
        .as_ref()
        .and_then(|endpoint| endpoint.spec.as_ref());
    if !has_networks && !is_ingress(spec) {
        return Ok(());
    }
    let Some(service) = service else {
        return Err(Wait::NoNetwork {
            target: task
                .spec
                .networks
                .first()
                .map_or_else(String::new, |n| n.target.clone()),
        });
    };
    let (wanted, waits) = endpoint_of(view, service);
    if let Some(wait) = waits.into_iter().next() {
        return Err(wait);
    }
    if wanted != service.endpoint {
        // The service is looked at first, so this is the moment before it gets its endpoint.
        return Err(Wait::Endpoint {
            service: service.id,
        });
    }
    let networks = if task.networks.is_empty() {
        places(view, service, task)?
    } else {
        std::mem::take(&mut task.networks)
    };
    task.networks = networks;
    let shown = service.endpoint.as_ref().filter(|endpoint| {
        let own = task.endpoint.as_ref();
        own.is_some_and(|own| own.spec == endpoint.spec && **own != **endpoint)
    });
    if let Some(endpoint) = shown {
        task.endpoint = Some(Arc::new(endpoint.clone()));
    }
    Ok(())
}

fn places(view: &Store, service: &Service, task: &Task) -> Result<Vec<NetworkAttachment>, Wait> {
    let mut waits = Vec::new();
    // By the task's own revision: the service may want something else by now.
    let endpoint = task
        .endpoint
        .as_ref()
        .and_then(|endpoint| endpoint.spec.as_ref());
    let specs = (&*service.spec, &*task.spec);
    let networks = endpoint::networks(view, specs, endpoint, &mut waits);
    if let Some(wait) = waits.into_iter().next() {
        return Err(wait);
    }
    let configs = task.spec.networks.iter().chain(&service.spec.networks);
    let place = |network: &&Arc<Network>| {
        let config = configs
            .clone()
            .find(|config| config.target == network.id.as_str());
        Ok(NetworkAttachment {
            network: Arc::clone(network),
            addresses: addresses(view, network, config)?,
            aliases: config
                .map(|config| config.aliases.clone())
                .unwrap_or_default(),
            driver_options: config.map(|c| c.driver_options.clone()).unwrap_or_default(),
        })
    };
    networks.iter().map(place).collect()
}

/// One address of each family the network has; none on node-local networks.
fn addresses(
    view: &Store,
    network: &Network,
    config: Option<&NetworkAttachmentConfig>,
) -> Result<Vec<IpNet>, Wait> {
    let tables = view.networks();
    let mut addresses = Vec::new();
    if !network.spec.is_overlay() {
        return Ok(addresses);
    }
    for text in config.iter().flat_map(|config| &config.addresses) {
        let ip = text.split('/').next().unwrap_or(text).parse::<IpAddr>();
        let claimed = ip.ok().and_then(|ip| address::claim(tables, network, ip));
        let taken = || Wait::AddressTaken {
            address: text.clone(),
            network: network.name().to_owned(),
        };
        addresses.push(claimed.ok_or_else(taken)?);
    }
    for is_v4 in [true, false] {
        let has_one = addresses
            .iter()
            .any(|address| address.addr().is_ipv4() == is_v4);
        if has_one || !address::has_family(network, is_v4) {
            continue;
        }
        let chosen = address::choose(tables, network, is_v4);
        addresses.push(chosen.ok_or_else(|| Wait::no_address(network))?);
    }
    Ok(addresses)
}
