//! Stacks as objects, through a manager that does not lead: planned, deployed in one step, changed, taken back, removed.

use std::time::Duration;

use serde_json::{Value, json};
use skep_conformance::{Cluster, Engine, until};

/// Longest wait for what takes seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(60);
const STACK: &str = "/skep/v1/stacks/app";

/// A database, a job that waits for it, and two that wait for both. `password` is base64.
fn document(password: &str, replicas: u64) -> Value {
    let service = |name: &str, command: &[&str], mode: Value, labels: Value| {
        json!({
            "Name": name, "Labels": labels, "Mode": mode,
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "skep/busybox", "Args": command, "StopSignal": "KILL",
                    "Secrets": [{"SecretName": "app_pw", "File": {"Name": "pw", "UID": "0", "GID": "0", "Mode": 292}}],
                },
                "Networks": [{"Target": "app_net"}],
            },
        })
    };
    let sleep = ["sleep", "1000"];
    let mut db = service(
        "app_db",
        &sleep,
        json!({"Replicated": {"Replicas": 1}}),
        json!({}),
    );
    db["TaskTemplate"]["ContainerSpec"]["Healthcheck"] =
        json!({"Test": ["CMD-SHELL", "true"], "Interval": 500_000_000});
    let job = json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}});
    let migrate = service(
        "app_migrate",
        &["sleep", "1"],
        job,
        json!({"skep.depends-on": "app_db=healthy"}),
    );
    let web = service(
        "app_web",
        &sleep,
        json!({"Replicated": {"Replicas": replicas}}),
        json!({"skep.depends-on": "app_db=healthy,app_migrate=completed"}),
    );
    json!({
        "Name": "app",
        "Networks": [{"Name": "app_net", "Driver": "overlay", "Scope": "swarm"}],
        "Secrets": [{"Name": "app_pw", "Labels": {}, "Data": password}],
        "Services": [web, migrate, db],
        "Source": "services: {}",
    })
}

fn send(node: &Engine, method: &str, path: &str, body: Option<&Value>) -> Value {
    let text = body.map(Value::to_string);
    let answer = node.http(method, &format!("{STACK}{path}"), text.as_deref());
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
    answer.json()
}

#[track_caller]
fn refused(node: &Engine, (method, path): (&str, &str), body: &Value, status: u16, text: &str) {
    let body = body.to_string();
    let answer = node.http(method, &format!("{STACK}{path}"), Some(&body));
    assert_eq!(answer.status, status, "{}", answer.body);
    assert!(answer.message().contains(text), "{}", answer.body);
}

fn actions(answer: &Value) -> Vec<(String, String)> {
    let changes = answer["Changes"].as_array().expect("changes");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let changes = changes.iter();
    changes
        .map(|change| (text(&change["Name"]), text(&change["Action"])))
        .collect()
}

fn secret_of(node: &Engine, service: &str) -> Value {
    let service = node.json(&format!("/services/{service}"));
    service["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"][0]["SecretName"].clone()
}

fn is_running(node: &Engine) {
    until("the stack runs", PATIENCE, || {
        let stack = node.json(STACK);
        match &stack["State"] {
            state if state == "running" => Ok(()),
            state => Err(format!("{state} {}", stack["Reasons"])),
        }
    });
}

/// The job began when the database was healthy, and the others when it was complete.
fn check_order(node: &Engine) {
    let since = |service: &str, state: &str| {
        let task = node.task_in(service, state);
        task["Status"]["Timestamp"]
            .as_str()
            .expect("a time")
            .to_owned()
    };
    let complete = since("app_migrate", "complete");
    let db = since("app_db", "running");
    assert!(db < complete, "{db} {complete}");
    for task in node.running("app_web", 2) {
        let created = task["CreatedAt"].as_str().expect("a time").to_owned();
        let began = task["Status"]["Timestamp"].as_str().expect("a time");
        assert!(complete.as_str() < began, "{complete} {began}");
        assert!(
            created.as_str() < complete.as_str(),
            "it was there, and waited"
        );
    }
}

fn check_refusals(node: &Engine) {
    let mut bad = document("c2Vjb25k", 2);
    bad["Expect"] = json!(7);
    let text = "stack app is at revision 1, not at 7";
    refused(node, ("PUT", ""), &bad, 409, text);
    let mut bad = document("c2Vjb25k", 2);
    bad["services"] = json!([]);
    refused(node, ("PUT", ""), &bad, 400, "unknown field `services`");
    let mut bad = document("c2Vjb25k", 2);
    bad["External"] = json!({"Networks": ["missing"]});
    bad["Services"][0]["TaskTemplate"]["ContainerSpec"]["Secrets"][0]["SecretName"] = json!("no");
    let text =
        "network missing: it is external and does not exist\nservice app_web: secret no not found";
    refused(node, ("PUT", ""), &bad, 400, text);
    let large = json!({"Name": "app", "Source": "x".repeat(2 << 20)});
    refused(node, ("PUT", ""), &large, 413, "(largest: stack/app/");
    let larger = json!({"Name": "app", "Source": "x".repeat(5 << 20)});
    refused(
        node,
        ("PUT", ""),
        &larger,
        413,
        "the limit is 4194304 (4 MiB)",
    );
    refused(
        node,
        ("POST", "/rollback?to=9"),
        &json!({}),
        404,
        "has no revision 9: kept are 1",
    );
    refused(
        node,
        ("POST", "/rollback?to=x"),
        &json!({}),
        400,
        "not the number",
    );
    refused(node, ("POST", "/plan?prune=maybe"), &json!({}), 400, "");
    let none = node.http("GET", "/skep/v1/stacks/none/revisions", None);
    assert_eq!(none.status, 404, "{}", none.body);
}

/// A change of content rotates the secret, and is taken back with it.
fn check_change(node: &Engine) {
    let answer = send(node, "PUT", "", Some(&document("c2Vjb25k", 3)));
    assert_eq!(answer["Revision"], 2);
    assert_eq!(secret_of(node, "app_web"), "app_pw-16367aac");
    let web = answer["Changes"].as_array().expect("changes").iter();
    let web: Vec<&Value> = web.filter(|change| change["Name"] == "app_web").collect();
    let paths = web[0]["Fields"].to_string();
    assert!(paths.contains("Replicas"), "{answer}");
    assert!(!answer.to_string().contains("c2Vjb25k"), "{answer}");
    node.running("app_web", 3);

    let answer = send(node, "POST", "/rollback", None);
    assert_eq!(answer["Revision"], 1);
    assert_eq!(secret_of(node, "app_web"), "app_pw");
    node.running("app_web", 2);
    let revisions = node.json(&format!("{STACK}/revisions"));
    assert_eq!(revisions[0]["IsCurrent"], true, "{revisions}");
    let changed = json!(["secret app_pw", "service app_web"]);
    assert_eq!(revisions[1]["Changed"], changed, "{revisions}");
    let kept = node.json(&format!("{STACK}/revisions/2"));
    assert_eq!(kept["Source"], "services: {}");
    assert_eq!(
        kept["Document"]["Services"].as_array().map(Vec::len),
        Some(3)
    );
}

/// Contents that fill several entries go before the rest of the deploy. The leader dies right after its answer, and
/// what was answered is there, on every manager and for the tasks; the same deploy again finds nothing to do.
fn check_split(cluster: &Cluster) {
    let leader = cluster.leader_as_seen_by(1);
    let asked = (1..=3).find(|number| *number != leader);
    let node = cluster.node(asked.expect("three managers"));
    // "AAA", "BBB", … in base64: 400 kB each of secrets, 900 kB each of configs.
    let secrets = ["QUFB", "QkJC"].map(|text| text.repeat(400_000 / 3));
    let configs = ["Q0ND", "RERE"].map(|text| text.repeat(900_000 / 3));
    let mut large = document("aHVudGVyMg==", 1);
    for (index, data) in secrets.iter().enumerate() {
        let secret = json!({"Name": format!("app_s{index}"), "Labels": {}, "Data": data});
        large["Secrets"]
            .as_array_mut()
            .expect("secrets")
            .push(secret);
    }
    let config = |(index, data): (usize, &String)| json!({"Name": format!("app_c{index}"), "Labels": {}, "Data": data});
    large["Configs"] = configs.iter().enumerate().map(config).collect();
    let file = json!({"Name": "/large", "UID": "0", "GID": "0", "Mode": 292});
    large["Services"][0]["TaskTemplate"]["ContainerSpec"]["Configs"] =
        json!([{"ConfigName": "app_c1", "File": file}]);

    let answer = send(node, "PUT", "?prune=1", Some(&large));
    cluster.skep_ok(&format!("local stop --kill node{leader}"));
    cluster.skep_ok(&format!("local start node{leader}"));
    let revision = &answer["Revision"];
    for number in cluster.numbers() {
        let manager = cluster.node(number);
        until("the deploy is there", PATIENCE, || {
            let stack = manager.http("GET", STACK, None);
            let is_there = stack.status == 200 && stack.json()["Revision"] == *revision;
            if is_there { Ok(()) } else { Err(stack.body) }
        });
        for (index, data) in configs.iter().enumerate() {
            let config = manager.json(&format!("/configs/app_c{index}"));
            assert!(
                config["Spec"]["Data"] == **data,
                "config {index} of node{number}"
            );
        }
        for index in 0..secrets.len() {
            manager.json(&format!("/secrets/app_s{index}"));
        }
    }
    is_running(node);
    let read = cluster.skep_ok(&format!(
        "exec --host unix://{} app_web.1 wc -c /large",
        node.socket().display()
    ));
    assert_eq!(read.split_whitespace().next(), Some("900000"), "{read}");
    let answer = send(node, "PUT", "?prune=1", Some(&large));
    let unchanged = actions(&answer);
    let mut unchanged = unchanged.iter();
    assert!(
        unchanged.all(|(_, action)| action == "unchanged"),
        "{answer}"
    );
    assert_eq!(answer["Revision"], *revision);
}

fn check_removal(node: &Engine) {
    let answer = send(node, "DELETE", "", None);
    assert!(
        actions(&answer)
            .iter()
            .all(|(_, action)| action == "remove"),
        "{answer}"
    );
    until("the stack is gone", PATIENCE, || {
        match node.http("GET", STACK, None) {
            answer if answer.status == 404 => Ok(()),
            answer => Err(answer.body),
        }
    });
    let label = "-f label=com.docker.stack.namespace=app";
    for noun in ["service", "network", "secret", "config"] {
        assert_eq!(
            node.docker_ok(&format!("{noun} ls -q {label}")),
            "",
            "{noun}"
        );
    }
}

#[test]
fn stacks_are_planned_deployed_taken_back_and_removed() {
    let cluster = Cluster::start(3, 3);
    let leader = cluster.leader_as_seen_by(1);
    let follower = (1..=3).find(|number| *number != leader);
    let node = cluster.node(follower.expect("three managers"));
    let first = document("aHVudGVyMg==", 2);

    let plan = send(node, "POST", "/plan", Some(&first));
    let created = |name: &str| (name.to_owned(), "create".to_owned());
    let names = ["app_pw", "app_net", "app_db", "app_migrate", "app_web"];
    assert_eq!(actions(&plan), names.map(created), "{plan}");
    let nodes = plan["Changes"][4]["Placement"]["Nodes"].as_array();
    let counts = nodes.expect("a placement").iter();
    let count: u64 = counts.filter_map(|place| place["Count"].as_u64()).sum();
    assert_eq!(count, 2, "{plan}");
    assert_eq!(node.json("/skep/v1/stacks"), json!([]));
    assert_eq!(node.json("/services"), json!([]), "a plan writes nothing");

    let answer = send(node, "PUT", "", Some(&first));
    assert_eq!(
        (&answer["Revision"], actions(&answer)),
        (&json!(1), actions(&plan))
    );
    is_running(node);
    check_order(node);
    let listed = json!([{"Name": "app", "Services": 3, "Revision": 1, "State": "running"}]);
    assert_eq!(node.json("/skep/v1/stacks"), listed);

    let version = node.json("/services/app_web")["Version"].clone();
    let answer = send(node, "PUT", "?prune=1", Some(&first));
    assert!(
        actions(&answer)
            .iter()
            .all(|(_, action)| action == "unchanged"),
        "{answer}"
    );
    assert_eq!(node.json("/services/app_web")["Version"], version);
    check_refusals(node);

    check_change(node);
    check_split(&cluster);
    check_removal(node);
}
