//! Flags of `docker service create` that other suites do not ask about, observed inside the container or in the API.

use std::{fs, path::Path};

use serde_json::{Value, json};
use skep_conformance::{Node, Response, until};

/// Whether this node has a static init program; Debian's `tini` has one.
fn has_init() -> bool {
    [
        "/usr/bin/docker-init",
        "/usr/bin/tini-static",
        "/usr/bin/catatonit",
    ]
    .iter()
    .any(|path| Path::new(path).exists())
}

#[test]
fn process_has_what_the_remaining_flags_say() {
    let node = Node::start();
    let file = node.dir().join("env");
    fs::write(&file, "# a comment\nFROM_FILE=1\nWINS=file\n").unwrap();
    let said = node.docker_ok(&format!(
        "service create -q -d --no-resolve-image --name web --env-file {} --env WINS=flag --group 100 --group nogroup --oom-score-adj 300 \
         --user nobody --ulimit core=0 --isolation default --cap-drop ALL --cap-add CAP_KILL --stop-signal KILL \
         --restart-condition on-failure --restart-delay 7s --restart-max-attempts 3 --restart-window 9s \
         --replicas-max-per-node 2 --reserve-cpu 0.1 --reserve-memory 8m skep/busybox sleep 1000",
        file.display()
    ));
    let id = node.json("/services/web")["ID"].clone();
    assert_eq!(
        id,
        said.as_str(),
        "detached, the command says the id and nothing else"
    );
    let inside = node.exec(
        "web",
        "echo $FROM_FILE $WINS; id -u; id -G; cat /proc/1/oom_score_adj; ulimit -c; grep CapBnd /proc/1/status",
    );
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!(
        lines[..5],
        ["1 flag", "65534", "65534 100", "300", "0"],
        "{inside}"
    );
    assert_eq!(
        lines[5].split_whitespace().last(),
        Some("0000000000000020"),
        "{inside}"
    );
    let task = node.json("/services/web")["Spec"]["TaskTemplate"].clone();
    assert_eq!(
        task["RestartPolicy"],
        json!({ "Condition": "on-failure", "Delay": 7_000_000_000_i64, "MaxAttempts": 3, "Window": 9_000_000_000_i64 })
    );
    assert_eq!(task["Placement"]["MaxReplicas"], 2);
    assert_eq!(
        task["Resources"]["Reservations"],
        json!({ "NanoCPUs": 100_000_000, "MemoryBytes": 8 << 20 })
    );
    let waited = node.docker_ok("service create -q --no-resolve-image --stop-signal KILL --name quiet skep/busybox sleep 1000");
    assert!(!waited.contains("progress"), "{waited}");
    // It waited all the same.
    assert_eq!(node.task_in("quiet", "running")["Slot"], 1);
}

#[test]
fn init_process_reaps_and_passes_signals_on() {
    let node = Node::start();
    node.create("--name web --init --restart-condition none skep/busybox sleep 1000");
    if !has_init() {
        let text = node.task_in("web", "rejected")["Status"]["Err"].clone();
        assert!(
            text.as_str().unwrap().contains("no static init program"),
            "{text}"
        );
        return;
    }
    let said = node.exec(
        "web",
        "tr \"\\\\0\" \" \" </proc/1/cmdline; echo; cat /proc/1/comm",
    );
    assert!(
        said.starts_with("/sbin/docker-init -- sleep 1000"),
        "{said}"
    );
    // `sleep` alone, as process 1, would not heed the signal.
    node.docker_ok("service create -d --no-resolve-image --name polite --init --stop-grace-period 1h skep/busybox sleep 1000");
    let container = node.container("polite");
    node.docker_ok("service rm polite");
    until("it has ended", std::time::Duration::from_secs(40), || {
        let left = node.docker_ok("ps -q --no-trunc");
        if left.contains(&container) {
            Err(left)
        } else {
            Ok(())
        }
    });
}

#[test]
fn logs_go_where_the_driver_says_and_are_rotated() {
    let node = Node::start();
    node.create("--name none --log-driver none skep/busybox sh -c 'echo lost; sleep 1000'");
    node.create(
        "--name small --log-driver json-file --log-opt max-size=2k --log-opt max-file=2 skep/busybox \
         sh -c 'i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; sleep 1000'",
    );
    node.logged("small", "line 199");
    let container = node.container("small");
    let kept = node.docker_ok(&format!("logs {container}"));
    assert!(
        !kept.contains("line 0\n") && kept.ends_with("line 199"),
        "{kept}"
    );
    let mut files: Vec<String> = fs::read_dir(node.data_dir().join("runtime").join(&container))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("-json.log"))
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            format!("{container}-json.log"),
            format!("{container}-json.log.1")
        ]
    );
    let shown =
        node.json(&format!("/containers/{container}/json"))["HostConfig"]["LogConfig"].clone();
    assert_eq!(
        shown,
        json!({ "Type": "json-file", "Config": { "max-file": "2", "max-size": "2k" } })
    );
    let none = node.container("none");
    let refused = node.docker_fails(&format!("logs {none}"));
    assert!(refused.contains("does not support reading"), "{refused}");

    // What the cluster says for services that say nothing.
    let swarm = node.json("/swarm");
    let mut spec = swarm["Spec"].clone();
    spec["TaskDefaults"] =
        json!({ "LogDriver": { "Name": "json-file", "Options": { "max-size": "9k" } } });
    let path = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
    let updated = node.http("POST", &path, Some(&spec.to_string()));
    assert_eq!(updated.status, 200, "{updated:?}");
    node.create("--name usual skep/busybox sleep 1000");
    let usual = node.container("usual");
    let shown = node.json(&format!("/containers/{usual}/json"))["HostConfig"]["LogConfig"].clone();
    assert_eq!(shown["Config"], json!({ "max-size": "9k" }), "{shown}");
    for (options, field) in [
        ("--log-driver syslog", "LogDriver.Name=syslog"),
        (
            "--log-driver json-file --log-opt compress=true",
            "LogDriver.Options.compress",
        ),
        (
            "--log-driver json-file --log-opt tag=x",
            "LogDriver.Options.tag",
        ),
    ] {
        let refused = node.docker_fails(&format!(
            "service create -d --no-resolve-image {options} skep/busybox"
        ));
        assert!(refused.contains(field), "{options}: {refused}");
    }
}

/// Asks for a service whose container has fields that no flag has.
fn create(node: &Node, name: &str, container: &Value) -> Response {
    let mut spec = json!({ "Name": name, "TaskTemplate": {
        "RestartPolicy": { "Condition": "none" },
        "ContainerSpec": { "Image": "skep/busybox", "Command": ["sleep", "1000"], "StopSignal": "KILL" } } });
    for (key, value) in container.as_object().expect("fields") {
        spec["TaskTemplate"]["ContainerSpec"][key] = value.clone();
    }
    node.http("POST", "/services/create", Some(&spec.to_string()))
}

#[test]
fn fields_without_a_flag_are_honoured() {
    let node = Node::start();
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","fchmod","fchmodat","fchmodat2"],
        "action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#;
    for (name, container) in [
        ("open", json!({ "Command": ["cat"], "OpenStdin": true })),
        ("shut", json!({ "Command": ["cat"] })),
        (
            "usual",
            json!({ "Privileges": { "NoNewPrivileges": true, "AppArmor": { "Mode": "disabled" } } }),
        ),
        (
            "unconfined",
            json!({ "Privileges": { "Seccomp": { "Mode": "unconfined" } } }),
        ),
        (
            "custom",
            json!({ "Privileges": { "Seccomp": { "Mode": "custom", "Profile": base64(profile.as_bytes()) } } }),
        ),
        (
            "broken",
            json!({ "Privileges": { "Seccomp": { "Mode": "custom", "Profile": base64(b"{") } } }),
        ),
    ] {
        let created = create(&node, name, &container);
        assert_eq!(created.status, 201, "{name}: {created:?}");
    }
    // The end of its input ends `cat`.
    node.task_in("shut", "complete");
    node.running("open", 1);
    let status = |service: &str| {
        node.exec(
            service,
            "grep -E \"^(Seccomp|NoNewPrivs):\" /proc/1/status | tr -s \"\\\\t\\\\n\" \"  \"",
        )
    };
    assert_eq!(status("usual"), "NoNewPrivs: 1 Seccomp: 2");
    assert_eq!(status("unconfined"), "NoNewPrivs: 0 Seccomp: 0");
    assert_eq!(status("custom"), "NoNewPrivs: 0 Seccomp: 2");
    let denied = node.exec(
        "custom",
        "chmod 700 /tmp 2>&1; mkdir /tmp/fine && echo fine",
    );
    assert!(
        denied.contains("Function not implemented") && denied.ends_with("fine"),
        "{denied}"
    );
    let text = node.task_in("broken", "rejected")["Status"]["Err"].clone();
    assert!(
        text.as_str()
            .unwrap()
            .contains("decoding seccomp profile failed"),
        "{text}"
    );
}

#[test]
fn ports_have_names_and_what_cannot_be_is_refused() {
    let node = Node::start();
    for (container, field) in [
        (
            json!({ "Privileges": { "SELinuxContext": { "User": "u" } } }),
            "SELinuxContext",
        ),
        (
            json!({ "Privileges": { "CredentialSpec": { "File": "f" } } }),
            "CredentialSpec",
        ),
        (
            json!({ "Privileges": { "Seccomp": { "Mode": "loose" } } }),
            "Seccomp",
        ),
    ] {
        let refused = create(&node, "x", &container);
        assert!(
            [400, 501].contains(&refused.status) && refused.message().contains(field),
            "{refused:?}"
        );
    }
    for (flag, field) in [
        ("--isolation process", "Isolation=process"),
        ("--credential-spec file://x", "CredentialSpec"),
    ] {
        let refused = node.docker_fails(&format!(
            "service create -d --no-resolve-image {flag} skep/busybox"
        ));
        assert!(refused.contains(field), "{refused}");
    }
    let spec = json!({ "Name": "named", "TaskTemplate": { "ContainerSpec": { "Image": "skep/busybox" } },
        "Mode": { "Replicated": { "Replicas": 0 } },
        "EndpointSpec": { "Ports": [{ "Name": "web", "TargetPort": 80, "PublishedPort": 8080 }] } });
    assert_eq!(
        node.http("POST", "/services/create", Some(&spec.to_string()))
            .status,
        201
    );
    let service = node.json("/services/named");
    assert_eq!(
        service["Spec"]["EndpointSpec"]["Ports"][0]["Name"], "web",
        "{service}"
    );
    assert_eq!(service["Endpoint"]["Ports"][0]["Name"], "web", "{service}");
}

/// Bytes as JSON carries them.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * digit) & 63).expect("six bits");
            text.push(if digit <= chunk.len() {
                char::from(DIGITS[index])
            } else {
                '='
            });
        }
    }
    text
}
