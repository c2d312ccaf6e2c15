//! `skep stack`: the stacks people start from become what the docker command makes of them, in one step and with a history.

use std::{collections::BTreeMap, fs, time::Duration};

use serde_json::{Map, Value, json};
use skep_conformance::{Node, Output, binary, root, until};

/// Longest wait for a whole stack. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `skep stack`; `line` is read by a shell.
fn stack(node: &Node, line: &str) -> Output {
    let (skep, socket) = (binary(), node.socket());
    let (skep, socket) = (skep.display(), socket.display());
    node.inside(&format!("SKEP_HOST=unix://{socket} {skep} stack {line}"))
}

/// The same, which must succeed; returns what it printed to standard output.
#[track_caller]
fn stack_ok(node: &Node, line: &str) -> String {
    let output = stack(node, line);
    assert!(output.status == 0, "skep stack {line}: {}", output.text());
    output.stdout
}

/// The same, which must fail; returns all it printed.
#[track_caller]
fn stack_fails(node: &Node, line: &str) -> String {
    let output = stack(node, line);
    assert!(output.status != 0, "skep stack {line}: {}", output.text());
    output.text()
}

/// All objects of the stack `app` by kind and name, without ids, times, and what is chosen for one network only.
fn objects(node: &Node) -> BTreeMap<String, Value> {
    let filters = "%7B%22label%22%3A%5B%22com.docker.stack.namespace%3Dapp%22%5D%7D";
    let list = |noun: &str| -> Vec<Value> {
        let list = node.json(&format!("/{noun}?filters={filters}"));
        list.as_array().expect("a list").clone()
    };
    let all = node.json("/networks");
    let networks: BTreeMap<String, Value> = all
        .as_array()
        .expect("a list")
        .iter()
        .map(|network| (network["Id"].to_string(), network["Name"].clone()))
        .collect();
    let mut found = BTreeMap::new();
    for noun in ["services", "secrets", "configs"] {
        for object in list(noun) {
            let spec = plain(&object["Spec"], &networks);
            found.insert(format!("{noun} {}", spec["Name"]), spec);
        }
    }
    for network in list("networks") {
        let mut network = network;
        let name = network["Name"].clone();
        for key in ["Id", "Created", "Containers", "Peers", "IPAM"] {
            network[key] = Value::Null;
        }
        network["Options"]["com.docker.network.driver.overlay.vxlanid_list"] = Value::Null;
        found.insert(format!("networks {name}"), plain(&network, &networks));
    }
    found
}

/// Without ids and Skep's own labels; networks by their names.
fn plain(value: &Value, networks: &BTreeMap<String, Value>) -> Value {
    match value {
        Value::Object(entries) => {
            let is_own =
                |key: &str| ["SecretID", "ConfigID"].contains(&key) || key.starts_with("skep.");
            let kept = entries.iter().filter(|(key, _)| !is_own(key));
            let kept = kept.map(|(key, value)| {
                let name = networks.get(&value.to_string()).filter(|_| key == "Target");
                (
                    key.clone(),
                    name.cloned().unwrap_or_else(|| plain(value, networks)),
                )
            });
            Value::Object(
                kept.filter(|(_, value)| !value.is_null())
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => items.iter().map(|item| plain(item, networks)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Deploys one stack with either command and compares.
#[track_caller]
fn check(name: &str, prepare: &[&str]) {
    let node = Node::start();
    for line in prepare {
        node.docker_ok(line);
    }
    let file = root().join(format!("crates/compose/tests/stacks/{name}.yml"));
    let file = format!("--resolve-image never -c {} app", file.display());
    node.docker_ok(&format!("stack deploy {file}"));
    let docker = objects(&node);
    node.docker_ok("stack rm app");
    until("nothing is left", PATIENCE, || match objects(&node) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{:?}", left.keys())),
    });

    let plan = stack_ok(&node, &format!("plan {file}"));
    assert!(
        plan.ends_with(" to create, 0 to update, 0 to remove, 0 unchanged\n"),
        "{plan}"
    );
    assert_eq!(objects(&node), BTreeMap::new(), "a plan writes nothing");
    let text = stack_ok(
        &node,
        &format!("deploy --detach=false --timeout 60s {file}"),
    );
    assert!(text.ends_with("app: converged\n"), "{text}");
    for (key, spec) in objects(&node) {
        assert_eq!(Some(&spec), docker.get(&key), "{key}: ours, then docker's");
    }
    assert_eq!(objects(&node).len(), docker.len());

    let again = stack_ok(&node, &format!("deploy {file}"));
    assert_eq!(
        again, "app: revision 1\n",
        "a second deploy changes nothing"
    );
    stack_ok(&node, "rm --detach=false app");
    assert_eq!(objects(&node), BTreeMap::new());
}

#[test]
fn voting_application_is_the_same() {
    check("voting", &[]);
}

#[test]
fn wordpress_with_mysql_is_the_same() {
    check("wordpress", &[]);
}

#[test]
fn portainer_with_its_agents_is_the_same() {
    check("portainer", &[]);
}

#[test]
fn traefik_with_labels_is_the_same() {
    let network = "network create -d overlay --attachable traefik-public";
    check("traefik", &[network]);
}

#[test]
fn prometheus_with_grafana_is_the_same() {
    check("monitoring", &["secret create grafana_admin - <<< admin"]);
}

#[test]
fn a_stack_has_revisions_and_tells_what_would_change() {
    let node = Node::start();
    let file = node.dir().join("compose.yaml");
    let write = |colour: &str, port: u16| {
        let text = format!(
            "name: shop\nservices:\n  web:\n    image: skep/httpd\n    ports: ['{port}:80']\n    \
             configs: [page]\n    environment: {{COLOUR: {colour}}}\n\
             configs:\n  page: {{content: 'a {colour} page'}}\n"
        );
        fs::write(&file, text).unwrap();
    };
    let line = |verb: &str| format!("{verb} --resolve-image never -c {}", file.display());
    write("red", 8080);
    let text = stack_ok(&node, &line("deploy --detach=false --expect 0"));
    assert!(
        text.starts_with("Creating config shop_page\nCreating network shop_default\n"),
        "{text}"
    );
    assert!(
        text.contains("Creating service shop_web\nshop: revision 1\n"),
        "{text}"
    );
    assert!(
        text.ends_with("shop_web: 1 out of 1 tasks\nshop: converged\n"),
        "{text}"
    );

    // What would change, with the new content under a name of its own.
    write("blue", 8081);
    let plan = stack_ok(&node, &line("plan"));
    for part in [
        "config shop_page",
        "        - a red page\n        + a blue page\n",
        "TaskTemplate.ContainerSpec.Env[COLOUR]: \"COLOUR=red\" -> \"COLOUR=blue\"",
        "EndpointSpec.Ports[8081:80/tcp]",
        "runs on",
    ] {
        assert!(plan.contains(part), "{part} is not in {plan}");
    }
    let text = stack_ok(&node, &line("deploy --detach=false --timeout 60s"));
    assert!(
        text.contains("Updating service shop_web\nshop: revision 2\n"),
        "{text}"
    );
    assert!(text.ends_with("shop: converged\n"), "{text}");
    let refused = stack_fails(&node, &line("deploy --expect 1"));
    assert!(refused.contains("revision"), "{refused}");

    returns_to_its_first_revision(&node);
}

/// The stack `shop` of two revisions.
#[track_caller]
fn returns_to_its_first_revision(node: &Node) {
    let web = || node.json("/services/shop_web")["Spec"].clone();
    assert_eq!(
        web()["TaskTemplate"]["ContainerSpec"]["Env"],
        json!(["COLOUR=blue"])
    );
    let text = stack_ok(node, "rollback --to 1 --detach=false --timeout 60s shop");
    assert!(text.ends_with("shop: converged\n"), "{text}");
    assert_eq!(
        web()["TaskTemplate"]["ContainerSpec"]["Env"],
        json!(["COLOUR=red"])
    );
    let history = stack_ok(node, "history shop");
    let states: Vec<bool> = history
        .lines()
        .map(|line| line.ends_with("current"))
        .collect();
    assert_eq!(states, [false, true, false], "{history}");
    // A rollback without a number leads to what was in force before, and a second one back.
    for (number, colour) in [(2, "blue"), (1, "red")] {
        let text = stack_ok(node, "rollback shop");
        assert!(
            text.ends_with(&format!("shop: revision {number}\n")),
            "{text}"
        );
        let env = &web()["TaskTemplate"]["ContainerSpec"]["Env"];
        assert_eq!(*env, json!([format!("COLOUR={colour}")]));
    }
    let source = stack_ok(node, "config --revision 2 shop");
    assert!(source.contains("COLOUR: blue"), "{source}");
    let listed = stack_ok(node, "ls");
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with("shop   1          1 ")),
        "{listed}"
    );
    assert!(stack_ok(node, "services shop").contains("*:8080->80/tcp"));
    assert!(stack_ok(node, "ps shop").contains("shop_web.1"));
}

#[test]
fn a_stack_of_docker_is_adopted_as_it_is() {
    let node = Node::start();
    let file = root().join("crates/compose/tests/stacks/wordpress.yml");
    let file = format!("--resolve-image never -c {} app", file.display());
    node.docker_ok(&format!("stack deploy {file}"));
    let docker = objects(&node);
    let plan = stack_ok(&node, &format!("plan {file}"));
    let nothing = "0 to create, 0 to update, 0 to remove, 5 unchanged\n";
    assert_eq!(plan, nothing);
    let deployed = stack_ok(
        &node,
        &format!("deploy --detach=false --timeout 60s {file}"),
    );
    assert!(deployed.starts_with("app: revision 1\n"), "{deployed}");
    assert_eq!(objects(&node), docker);
    // And back: Docker's command finds nothing to change either.
    let version = |name: &str| node.json(&format!("/services/{name}"))["Spec"].clone();
    let before = version("app_wordpress");
    node.docker_ok(&format!("stack deploy {file}"));
    assert_eq!(version("app_wordpress"), before);
    assert_eq!(stack_ok(&node, &format!("plan {file}")), nothing);
    docker_removes_it(&node);
    what_docker_deployed_can_be_returned_to(&node);
}

/// Docker's command removes the objects one by one: with the last the stack is gone.
#[track_caller]
fn docker_removes_it(node: &Node) {
    node.docker_ok("stack rm app");
    until("nothing is left", PATIENCE, || match objects(node) {
        left if left.is_empty() => Ok(()),
        _ => {
            // A network that was in use is left to the next try.
            node.docker_ok("stack rm app");
            Err("something is left".to_owned())
        }
    });
    assert_eq!(stack_ok(node, "ls -q"), "");
    assert!(stack_fails(node, "history app").contains("stack app not found"));
}

#[track_caller]
fn what_docker_deployed_can_be_returned_to(node: &Node) {
    let file = node.dir().join("taken.yml");
    let write = |colour: &str| {
        let text = format!(
            "version: '3.8'\nservices:\n  web:\n    image: skep/busybox\n    command: sleep 1000\n    \
             environment: {{COLOUR: {colour}}}\n"
        );
        fs::write(&file, text).expect("the file is written");
    };
    let deploy = format!("deploy --resolve-image never -c {} app", file.display());
    write("red");
    node.docker_ok(&format!("stack {deploy}"));
    let found = objects(node);
    write("blue");
    assert!(stack_ok(node, &deploy).ends_with("app: revision 2\n"));
    let history = stack_ok(node, "history app");
    assert!(history.contains("as it was found"), "{history}");
    let text = stack_ok(node, "rollback app");
    assert!(text.ends_with("app: revision 1\n"), "{text}");
    assert_eq!(objects(node), found);
    docker_removes_it(node);
}

#[test]
fn services_start_in_the_order_they_depend_on_each_other() {
    let node = Node::start();
    let file = node.dir().join("f.yml");
    let text = "services:
  web:
    image: skep/httpd
    depends_on: {migrate: {condition: service_completed_successfully}}
  migrate:
    image: skep/busybox
    command: sleep 1
    restart: 'no'
    depends_on: {db: {condition: service_healthy}}
  db:
    image: skep/busybox
    command: sh -c 'sleep 1; touch /tmp/ready; exec sleep 1000'
    healthcheck: {test: test -f /tmp/ready, interval: 200ms, start_period: 10s}
";
    fs::write(&file, text).unwrap();
    let line = format!("--resolve-image never -c {} app", file.display());
    let output = stack(
        &node,
        &format!("deploy --detach=false --timeout 60s {line}"),
    );
    assert_eq!(output.status, 0, "{}", output.text());
    assert!(
        output
            .stdout
            .contains("app_migrate: 1 out of 1 tasks completed\n"),
        "{}",
        output.stdout
    );
    let warning = "service `migrate`: it is a job";
    assert!(output.stderr.contains(warning), "{}", output.stderr);
    let reached = |service: &str, state: &str| -> String {
        let tasks = node.tasks(service);
        assert_eq!(tasks.len(), 1, "{service}: {tasks:?}");
        let status = &tasks[0]["Status"];
        assert_eq!(status["State"], state, "{service}");
        status["Timestamp"].as_str().unwrap().to_owned()
    };
    let (db, migrate) = (
        reached("app_db", "running"),
        reached("app_migrate", "complete"),
    );
    let web = reached("app_web", "running");
    assert!(db < migrate && migrate < web, "{db} {migrate} {web}");
}

#[test]
fn a_deploy_that_cannot_succeed_says_why_and_fails() {
    let node = Node::start();
    let file = node.dir().join("f.yml");
    let deploy = |text: &str, more: &str| {
        fs::write(&file, text).unwrap();
        let line = format!(
            "deploy --resolve-image never {more} -c {} app",
            file.display()
        );
        stack_fails(&node, &line)
    };
    // A file that is wrong is told whole, and nothing is made.
    let text = deploy(
        "services:\n  web:\n    image: skep/httpd\n    prots: ['80:80']\n    networks: [lost]\n",
        "",
    );
    assert!(
        text.contains("f.yml:4:5: ") && text.contains("did you mean `ports`?"),
        "{text}"
    );
    assert!(text.contains("f.yml:5:"), "{text}");
    // What only the server knows is wrong: nothing is made either.
    let text = deploy(
        "services:\n  a: {image: skep/httpd, ports: ['80:80']}\n  b: {image: skep/httpd, ports: ['80:80']}\n",
        "",
    );
    assert!(text.contains("80"), "{text}");
    assert_eq!(objects(&node), BTreeMap::new());
    // A task that cannot run.
    let text = deploy(
        "services:\n  web:\n    image: skep/busybox\n    command: sh -c 'exit 3'\n    \
         deploy: {restart_policy: {condition: none}}\n",
        "--detach=false --timeout 60s",
    );
    assert!(
        text.contains("app_web: a task ended and is not restarted: ") && text.contains("exit (3)"),
        "{text}"
    );
    // An update that is paused.
    let sound = "services:\n  web:\n    image: skep/busybox\n    stop_signal: SIGKILL\n    command: sleep 1000\n    deploy: {update_config: {monitor: 1s}}\n";
    fs::write(&file, sound).unwrap();
    let line = format!(
        "deploy --detach=false --timeout 60s --resolve-image never -c {} app",
        file.display()
    );
    stack_ok(&node, &line);
    let text = deploy(
        &sound.replace("sleep 1000", "sh -c 'exit 4'"),
        "--detach=false --timeout 60s",
    );
    assert!(text.contains("app_web: the update is paused: "), "{text}");
    assert!(text.contains("exit 4"), "{text}");
    stack_ok(&node, "rm --detach=false app");
    an_update_that_went_back_is_no_deploy(&node, sound);
}

/// `sound` runs, and what is deployed after it does not.
#[track_caller]
fn an_update_that_went_back_is_no_deploy(node: &Node, sound: &str) {
    let file = node.dir().join("back.yml");
    let line = format!(
        "deploy --detach=false --timeout 60s --resolve-image never -c {} app",
        file.display()
    );
    let sound = sound.replace("monitor: 1s", "monitor: 1s, failure_action: rollback");
    fs::write(&file, &sound).expect("the file is written");
    stack_ok(node, &line);
    fs::write(&file, sound.replace("sleep 1000", "sh -c 'exit 5'")).expect("the file is written");
    let text = stack_fails(node, &line);
    assert!(
        text.contains("app_web: it was rolled back: ") && text.contains("exit 5"),
        "{text}"
    );
    let history = stack_ok(node, "history app");
    let last = history.lines().last().unwrap_or_default();
    assert!(
        last.contains("rolled back: app_web: ") && last.ends_with("exit 5"),
        "{history}"
    );
    assert!(stack_ok(node, "ls").contains("rolled back"));
    let services = stack_ok(node, "services app");
    assert!(
        services.contains("app_web: it was rolled back: "),
        "{services}"
    );
    // Who accepts that is at the revision that runs.
    stack_ok(node, "rollback app");
    assert!(stack_ok(node, "history app").contains("current"));
}
