//! Secrets and configs: made, shown, mounted, changed and refused through the docker command.

use skep_conformance::{Cluster, Node};

#[test]
fn containers_read_what_services_ask_for() {
    let mut node = Node::start();
    let from_stdin = |kind: &str, rest: &str, data: &str| {
        let dir = node.dir().join("input");
        std::fs::write(&dir, data).unwrap();
        node.docker_ok(&format!("{kind} create {rest} {}", dir.display()))
    };
    let id = from_stdin("secret", "-l tier=db password", "hunter2");
    from_stdin("secret", "key", "PEM");
    from_stdin("config", "nginx", "worker 1;");
    let plain = "--secret password --secret source=key,target=/etc/own.pem,uid=99,gid=98,mode=0400";
    node.create(&format!(
        "--name app {plain} --config nginx --config source=nginx,target=/etc/nginx/n.conf,mode=0640 \
         --user 99:98 skep/busybox sleep 1000"
    ));
    let check = |node: &Node| {
        assert_eq!(node.exec("app", "cat /run/secrets/password"), "hunter2");
        assert_eq!(node.exec("app", "cat /etc/own.pem /nginx"), "PEMworker 1;");
        let modes = "stat -c %a:%u:%g /run/secrets/password /etc/own.pem /nginx /etc/nginx/n.conf";
        let modes = node.exec("app", modes);
        assert_eq!(modes, "444:0:0\n400:99:98\n444:0:0\n640:0:0");
        let refused = node.exec("app", "echo x 2>&1 > /run/secrets/password || true");
        assert!(
            refused.contains("ead-only file system") || refused.contains("ermission denied"),
            "{refused}"
        );
    };
    check(&node);
    // In memory only, and the container keeps it while no daemon runs.
    let found =
        node.inside_ok("grep -rl hunter2 /var/lib/skep/containers /var/lib/skep/volumes || true");
    assert_eq!(found, "");
    node.kill_daemon();
    node.start_daemon();
    check(&node);

    let shown = node.json(&format!("/secrets/{id}"));
    assert_eq!(shown["Spec"]["Name"], "password");
    assert_eq!(shown["Spec"]["Labels"]["tier"], "db");
    assert!(shown["Spec"]["Data"].is_null(), "{shown}");
    let listed = node.docker_ok("secret ls --filter label=tier=db --format '{{.ID}} {{.Name}}'");
    assert_eq!(listed, format!("{id} password"));
    let config = node.docker_ok("config inspect --pretty nginx");
    assert!(config.contains("worker 1;"), "{config}");
    assert_eq!(node.docker_ok("config ls -q").lines().count(), 1);
    let used = node.docker_ok(
        "service inspect app --format '{{json .Spec.TaskTemplate.ContainerSpec.Secrets}}'",
    );
    assert!(used.contains(r#""SecretName":"password""#), "{used}");

    for (kind, name) in [("secret", "password"), ("config", "nginx")] {
        let refused = node.docker_fails(&format!("{kind} rm {name}"));
        let text = format!("{kind} '{name}' is in use by the following service: app");
        assert!(refused.contains(&text), "{refused}");
    }
    let change = "--secret-rm password --secret-add source=key,target=second --config-rm nginx";
    node.docker_ok(&format!("service update -q {change} app"));
    assert_eq!(node.exec("app", "cat /run/secrets/second"), "PEM");
    assert_eq!(node.exec("app", "ls /run/secrets"), "second");
    node.docker_ok("secret rm password");
    node.docker_ok("config rm nginx");
    node.docker_ok("service rm app");
    node.empty();
    let left = format!("ls {}/run/supplies", node.dir().display());
    assert_eq!(node.inside_ok(&left), "");
}

#[test]
fn mistakes_are_named_as_docker_names_them() {
    let node = Node::start();
    let create = |path: &str, name: &str, data: &str| {
        let body = format!(r#"{{"Name":"{name}","Data":"{data}"}}"#);
        let answer = node.http("POST", &format!("/{path}/create"), Some(&body));
        (answer.status, answer.body)
    };
    assert_eq!(create("secrets", "one", "MQ==").0, 201);
    for (kind, path) in [("secret", "secrets"), ("config", "configs")] {
        if kind == "config" {
            assert_eq!(create(path, "one", "MQ==").0, 201);
        }
        let cases = [
            ("one", "MQ==", 409, format!("{kind} one already exists")),
            ("", "MQ==", 400, "name must be provided".to_owned()),
            (
                "a b",
                "MQ==",
                400,
                "invalid name, only 64 [a-zA-Z0-9-_.]".to_owned(),
            ),
            (
                "two",
                "",
                400,
                format!("{kind} data must be larger than 0 and less than"),
            ),
            ("two", "?", 400, "Data is not base64".to_owned()),
        ];
        for (name, data, status, text) in cases {
            let (found, body) = create(path, name, data);
            assert!(found == status && body.contains(&text), "{found} {body}");
        }
        let missing = node.docker_fails(&format!("{kind} inspect nothing"));
        assert!(
            missing.contains("not found") || missing.contains("No such"),
            "{missing}"
        );
        let stored = node.json(&format!("/{path}/one"));
        let version = stored["Version"]["Index"].as_u64().unwrap();
        let update = |version: u64, body: &str| {
            let url = format!("/{path}/one/update?version={version}");
            let answer = node.http("POST", &url, Some(body));
            (answer.status, answer.body)
        };
        let (status, body) = update(version, r#"{"Name":"one","Data":"Mg=="}"#);
        assert!(
            status == 400 && body.contains("only updates to Labels are allowed"),
            "{body}"
        );
        let (status, body) = update(version + 1, r#"{"Name":"one","Labels":{"a":"b"}}"#);
        assert!(
            status == 500 && body.contains("update out of sequence"),
            "{status} {body}"
        );
        let (status, body) = update(version, r#"{"Name":"one","Labels":{"a":"b"}}"#);
        assert_eq!(status, 200, "{body}");
        assert_eq!(
            node.json(&format!("/{path}/one"))["Spec"]["Labels"]["a"],
            "b"
        );
    }
}

#[test]
fn drivers_and_missing_secrets_are_refused() {
    let node = Node::start();
    let driven = r#"{"Name":"t","Driver":{"Name":"vault"}}"#;
    assert_eq!(
        node.http("POST", "/secrets/create", Some(driven)).status,
        501
    );
    let service = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"skep/busybox","Secrets":[
        {"SecretID":"nothing","SecretName":"nothing","File":{"Name":"x","UID":"0","GID":"0","Mode":292}}]}}}"#;
    let answer = node.http("POST", "/services/create", Some(service));
    let body = answer.body;
    assert!(
        answer.status == 400 && body.contains("secret not found: nothing"),
        "{body}"
    );
}

#[test]
fn nodes_get_what_their_tasks_use_from_any_manager() {
    let cluster = Cluster::start(3, 3);
    for number in cluster.numbers() {
        cluster.load("busybox");
        let node = cluster.node(number);
        let name = format!("from{number}");
        let file = cluster.dir().join(&name);
        std::fs::write(&file, &name).unwrap();
        node.docker_ok(&format!("secret create {name} {}", file.display()));
        node.docker_ok(&format!("config create {name} {}", file.display()));
    }
    let asked = cluster.node(2);
    asked.create(
        "--name all --mode global --secret from1 --secret from2 --config from3 skep/busybox sleep 1000",
    );
    cluster.converged(2, "all", 3);
    for number in cluster.numbers() {
        let node = cluster.node(number);
        let read = "cat /run/secrets/from1 /run/secrets/from2 /from3";
        let own = node.docker_ok("ps -q --filter label=com.docker.swarm.service.name=all");
        let found = node.docker_ok(&format!("exec {own} {read}"));
        assert_eq!(found, "from1from2from3", "node {number}");
    }
}
