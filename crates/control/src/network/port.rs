//! Choosing published ports.

use skep_model::{EndpointSpec, PortConfig, Protocol, PublishMode, Service};
use skep_store::NetworkTables;

use crate::plan::Wait;

/// First port given out to services that do not name one, as in Swarm.
const DYNAMIC_FIRST: u16 = 30_000;
/// Last such port.
const DYNAMIC_LAST: u16 = 32_767;

/// Whether the service publishes a port on every node.
pub(crate) fn is_ingress(spec: Option<&EndpointSpec>) -> bool {
    let mut ports = spec.into_iter().flat_map(|spec| &spec.ports);
    ports.any(|port| port.publish_mode == PublishMode::Ingress)
}

/// The ports of the service with numbers where it left the choice. A number once given is kept.
/// A port for which there is no number is left without, and said so.
pub(super) fn ports(
    tables: &NetworkTables,
    service: &Service,
    waits: &mut Vec<Wait>,
) -> Vec<PortConfig> {
    let wanted = service.spec.endpoint.iter().flat_map(|spec| &spec.ports);
    let current = service
        .endpoint
        .as_ref()
        .map(|endpoint| endpoint.ports.as_slice());
    // One that the service names itself was not chosen for another of its ports.
    let is_named = |held: &&PortConfig| wanted.clone().any(|port| port == *held);
    let current = current.unwrap_or_default().iter();
    let mut current: Vec<&PortConfig> = current.filter(|held| !is_named(held)).collect();
    let mut ports: Vec<PortConfig> = Vec::new();
    for port in wanted.clone() {
        let mut port = port.clone();
        if port.publish_mode == PublishMode::Ingress && port.published_port == 0 {
            let is_same = |held: &&PortConfig| {
                held.published_port != 0
                    && port
                        == PortConfig {
                            published_port: 0,
                            ..(**held).clone()
                        }
            };
            let chosen = match current.iter().position(is_same) {
                Some(index) => Some(current.swap_remove(index).published_port),
                None => dynamic(tables, port.protocol, &ports),
            };
            match chosen {
                Some(number) => port.published_port = number,
                None => waits.push(Wait::NoPort {
                    protocol: port.protocol,
                }),
            }
        }
        ports.push(port);
    }
    ports
}

/// The number behind the largest in use; when the end is reached, the lowest free one.
fn dynamic(tables: &NetworkTables, protocol: Protocol, chosen: &[PortConfig]) -> Option<u16> {
    let mut used: Vec<u16> = tables
        .ports_in(protocol, DYNAMIC_FIRST, DYNAMIC_LAST)
        .collect();
    let chosen = chosen.iter().filter(|port| port.protocol == protocol);
    used.extend(
        chosen
            .map(|port| port.published_port)
            .filter(|port| *port >= DYNAMIC_FIRST),
    );
    used.sort_unstable();
    let behind = used
        .last()
        .map_or(DYNAMIC_FIRST, |last| last.saturating_add(1));
    if behind <= DYNAMIC_LAST {
        return Some(behind);
    }
    (DYNAMIC_FIRST..=DYNAMIC_LAST).find(|port| used.binary_search(port).is_err())
}
