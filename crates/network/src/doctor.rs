//! Says in words what of the node network differs: every step a repair would take means that something is not as it should be.
//! Pure. That of the other networks: `plane::doctor`.

use std::net::SocketAddr;

use crate::plan::Step;
use crate::rules::PortRule;

/// One finding or more for each step, and one for each chain of others that drops what is forwarded.
pub(crate) fn findings(steps: &[Step], obstacles: &[String]) -> Vec<String> {
    let steps = steps.iter().flat_map(of_step);
    let obstacles = obstacles.iter().map(|chain| {
        format!(
            "chain `{chain}` of another program drops forwarded packets by policy, which may cut containers off"
        )
    });
    steps.chain(obstacles).collect()
}

fn of_step(step: &Step) -> Vec<String> {
    let one = |text: String| vec![text];
    match step {
        Step::EnableForwarding => one("net.ipv4.ip_forward is off".to_owned()),
        Step::EnableForwarding6 => one("net.ipv6.conf.all.forwarding is off".to_owned()),
        Step::CreateBridge { name, .. } => one(format!("bridge {name} is missing")),
        Step::SetBridge { name, mac, mtu } => one(format!(
            "bridge {name} is down, or has not MTU {mtu} and address {mac}"
        )),
        Step::RemoveBridgeAddress { bridge, address } => one(format!(
            "bridge {bridge} has the address {address}, which it should not"
        )),
        Step::AddBridgeAddress { bridge, address } => {
            one(format!("bridge {bridge} has not the address {address}"))
        }
        Step::AddBridgeRoute { bridge, subnet } => {
            one(format!("{subnet} is not routed to bridge {bridge}"))
        }
        Step::RouteLocalhost { bridge } => one(format!(
            "127.0.0.1 does not lead to published ports: route_localnet of {bridge} is off"
        )),
        Step::ReplaceRules { ruleset, .. } => {
            one(format!("table {} is missing or changed", ruleset.table()))
        }
        Step::RemoveRules6 => {
            one("there are rules for IPv6, which this network has not".to_owned())
        }
        Step::ChangePorts { remove, add } => {
            let is_led = |rule: &&PortRule| add.iter().any(|other| other.key() == rule.key());
            let stale = remove.iter().filter(|rule| !is_led(rule));
            let stale = stale.map(|rule| format!("{} should be closed", port(rule)));
            let missing = add.iter().map(|rule| {
                let target = SocketAddr::new(rule.address, rule.target);
                format!("{} does not lead to {target}", port(rule))
            });
            stale.chain(missing).collect()
        }
        Step::DeleteLinks { names } => names
            .iter()
            .map(|name| format!("link {name} belongs to no container"))
            .collect(),
        Step::DeleteNetns { id } => one(format!("namespace {id} belongs to no container")),
        Step::CreateNetns { id } => one(format!("container {id} has no namespace")),
        Step::CreateVeth(veth) => one(format!(
            "container {} has no link to bridge {}",
            veth.id, veth.bridge
        )),
        Step::ConfigureNetns { id, .. } => {
            one(format!("container {id} lacks its address or default route"))
        }
        Step::ActivateLink { id, link, .. } => one(format!(
            "container {id}: link {link} is down, not in the bridge, or may reach what it should not"
        )),
    }
}

fn port(rule: &PortRule) -> String {
    let on = rule.host_ip.map(|ip| format!(" of {ip}"));
    let (published, protocol) = (rule.published, rule.protocol);
    format!(
        "published port {published}/{protocol}{}",
        on.unwrap_or_default()
    )
}
