//! Says in words what differs: every step a repair would take means that something is not as it should be. Pure.

use super::client;
use super::mesh;
use super::report::Step;
use super::sandbox::{Action, BRIDGE, Remotes, VXLAN};

/// One finding or more for each step.
pub(crate) fn findings(steps: &[Step]) -> Vec<String> {
    let mut findings = Vec::new();
    for step in steps {
        match step {
            Step::Node(_) => {
                findings.push(
                    "node: the rules that keep tunnels untracked are missing or changed".to_owned(),
                );
            }
            Step::Network(id, action) => {
                findings.extend(
                    network(action)
                        .into_iter()
                        .map(|text| format!("network {id}: {text}")),
                );
            }
            Step::Mesh(action) => {
                findings.extend(mesh(action).into_iter().map(|text| format!("mesh: {text}")));
            }
            Step::Encryption(action) => {
                let texts = action.findings().into_iter();
                findings.extend(texts.map(|text| format!("tunnels of encrypted networks: {text}")));
            }
            Step::Container(id, action) => {
                findings.push(format!("container {id}: {}", container(action)));
            }
        }
    }
    findings
}

fn mesh(action: &mesh::Action) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    match action {
        mesh::Action::DeleteTunnel => one("the tunnel between nodes is another"),
        mesh::Action::CreateTunnel => one("the tunnel between nodes is missing"),
        mesh::Action::SetTunnel => {
            one("the tunnel between nodes is down, or has another MTU or other switches")
        }
        mesh::Action::ChangeRemotes(remotes) => tables(remotes),
        mesh::Action::RemoveWays { routes, returns } => {
            let routes = routes
                .iter()
                .map(|net| format!("a route to {net} should not be there"));
            let returns = returns
                .iter()
                .map(|back| format!("a way back to {back} should not be there"));
            routes.chain(returns).collect()
        }
        mesh::Action::AddWays { routes, returns } => {
            let routes = routes
                .keys()
                .map(|net| format!("{net} is not routed to its node"));
            let returns = returns
                .keys()
                .map(|back| format!("replies to what {back} brings do not go back there"));
            routes.chain(returns).collect()
        }
        mesh::Action::ReplaceRules => one("its rules are missing or changed"),
        mesh::Action::Balance { count } => vec![format!(
            "{count} elements of its maps are missing, stale or wrong"
        )],
    }
}

fn container(action: &client::Action) -> String {
    match action {
        client::Action::ReplaceRules { is_v6 } => {
            let version = if *is_v6 { 6 } else { 4 };
            format!("the rules that balance IPv{version} are missing or changed")
        }
        client::Action::Balance { vips } => {
            let vips: Vec<String> = vips.iter().map(ToString::to_string).collect();
            let vips = vips.join(", ");
            format!("virtual addresses lead elsewhere than they should: {vips}")
        }
        client::Action::ServeNames => "names are not served".to_owned(),
    }
}

fn network(action: &Action) -> Vec<String> {
    let one = |text: String| vec![text];
    match action {
        Action::CreateSandbox => one("has no sandbox".to_owned()),
        Action::DeleteSandbox => one("has a sandbox, but should not be on this node".to_owned()),
        Action::EnsureBridge { mtu } => one(format!(
            "bridge {BRIDGE} is missing, down, or has not MTU {mtu}"
        )),
        Action::CreateTunnel { tunnel, .. } => one(format!(
            "tunnel {VXLAN} with id {} from {} port {} is missing",
            tunnel.vni, tunnel.local, tunnel.port
        )),
        Action::SetTunnel { mtu } => one(format!(
            "tunnel {VXLAN} is not in the bridge, down, or has not MTU {mtu}"
        )),
        Action::DeleteLinks(names) | Action::DeleteOrphans(names) => names
            .iter()
            .map(|name| format!("link {name} should not be there"))
            .collect(),
        Action::ChangeRemotes(remotes) => tables(remotes),
        Action::CreatePort { port, .. } => {
            one(format!("container {} is not connected", port.container))
        }
        Action::ConfigurePort { port, .. } => one(format!(
            "container {}: {} lacks addresses or routes, has others, another MTU, or is down",
            port.container, port.interface
        )),
        Action::ActivatePort { link, port } => one(format!(
            "container {}: port {link} is down or not in the bridge",
            port.container
        )),
    }
}

fn tables(remotes: &Remotes) -> Vec<String> {
    let mut findings = Vec::new();
    let mut add = |text: String| findings.push(text);
    for (mac, node) in &remotes.forward {
        add(format!("packets for {mac} are not sent to node {node}"));
    }
    for (ip, mac) in &remotes.resolve {
        add(format!("address {ip} is not known to be {mac}"));
    }
    for ip in &remotes.forget {
        add(format!("address {ip} is known, but nobody has it"));
    }
    for (mac, node) in &remotes.drop {
        add(format!(
            "packets for {mac}, which nobody has, are sent to node {node}"
        ));
    }
    findings
}
