//! Stacks people start from, with local images: the docker command deploys them as they are, every task runs, nothing is left.
//!
//! The files are those of `crates/compose/tests/stacks`, with what the docker command sends for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use serde_json::Value;
use skep_conformance::{Node, root, until};

/// Longest wait for a whole stack. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);

/// Deploys a stack, sees that it is what was asked for and that it stays up, and removes it.
#[track_caller]
fn check(name: &str, prepare: &[&str]) {
    let dir = root().join("crates/compose/tests/stacks");
    let sent = fs::read_to_string(dir.join(format!("{name}.json"))).expect("a record");
    let sent: Value = serde_json::from_str(&sent).expect("JSON");
    let node = Node::start();
    for line in prepare {
        node.docker_ok(line);
    }
    let file = dir.join(format!("{name}.yml"));
    let deploy = format!(
        "stack deploy --resolve-image never -c {} app",
        file.display()
    );
    node.docker_ok(&deploy);
    for (kind, noun) in [
        ("Networks", "network"),
        ("Secrets", "secret"),
        ("Configs", "config"),
        ("Services", "service"),
    ] {
        assert_eq!(stored(&node, noun), names(&sent[kind]), "{kind}");
    }
    let wanted = sent["Services"].as_array().expect("a list");
    let wanted: BTreeMap<String, u64> = wanted.iter().map(replicas).collect();
    let running = until("every task runs", PATIENCE, || running(&node, &wanted));

    // A second time changes nothing, and no task has ended meanwhile.
    node.docker_ok(&deploy);
    assert_eq!(self::running(&node, &wanted), Ok(running));
    // Nobody has to wait between removing and deploying.
    node.docker_ok("stack rm app");
    node.docker_ok(&deploy);
    until("every task runs again", PATIENCE, || {
        self::running(&node, &wanted)
    });
    node.docker_ok("stack rm app");
    node.empty();
    for noun in ["network", "secret", "config", "service"] {
        until(&format!("no {noun} is left"), PATIENCE, || {
            match stored(&node, noun) {
                left if left.is_empty() => Ok(()),
                left => Err(format!("{left:?}")),
            }
        });
    }
}

/// Names of the stack's objects of a kind.
#[track_caller]
fn stored(node: &Node, noun: &str) -> BTreeSet<String> {
    let label = "label=com.docker.stack.namespace=app";
    let listed = node.docker_ok(&format!("{noun} ls --format '{{{{.Name}}}}' -f {label}"));
    listed.lines().map(str::to_owned).collect()
}

fn names(specs: &Value) -> BTreeSet<String> {
    let specs = specs.as_array().expect("a list").iter();
    let names = specs.filter_map(|spec| spec["Name"].as_str());
    names.map(str::to_owned).collect()
}

/// A service's name, and how many replicas it wants on one node.
fn replicas(spec: &Value) -> (String, u64) {
    let count = spec["Mode"]["Replicated"]["Replicas"].as_u64();
    let name = spec["Name"].as_str().expect("a name").to_owned();
    (name, count.unwrap_or(1))
}

/// The tasks of each service, when all that are wanted run and no other was ever made.
fn running(
    node: &Node,
    wanted: &BTreeMap<String, u64>,
) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut found = BTreeMap::new();
    for (service, count) in wanted {
        let tasks = node.tasks(service);
        let is_running = |task: &&Value| task["Status"]["State"] == "running";
        let ids = tasks
            .iter()
            .filter(is_running)
            .filter_map(|task| task["ID"].as_str());
        let mut ids: Vec<String> = ids.map(str::to_owned).collect();
        ids.sort();
        if ids.len() != tasks.len() || u64::try_from(ids.len()) != Ok(*count) {
            let states = tasks.iter().map(|task| task["Status"].to_string());
            return Err(format!("{service}: {}", states.collect::<String>()));
        }
        found.insert(service.clone(), ids);
    }
    Ok(found)
}

#[test]
fn voting_application_runs() {
    check("voting", &[]);
}

#[test]
fn wordpress_with_mysql_runs() {
    check("wordpress", &[]);
}

#[test]
fn portainer_with_its_agents_runs() {
    check("portainer", &[]);
}

#[test]
fn traefik_before_a_service_with_labels_runs() {
    check(
        "traefik",
        &["network create -d overlay --attachable traefik-public"],
    );
}

#[test]
fn prometheus_with_grafana_runs() {
    check("monitoring", &["secret create grafana_admin - <<< admin"]);
}
