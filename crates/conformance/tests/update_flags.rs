//! `docker service update`: what is added is there, what is removed is gone, what is set is in force.

use std::time::Duration;

use serde_json::{Value, json};
use skep_conformance::{Node, until};

/// Updates a service and waits until a task of the new spec runs.
fn update(node: &Node, service: &str, flags: &str) {
    let before = node.container(service);
    node.docker_ok(&format!(
        "service update -d --no-resolve-image {flags} {service}"
    ));
    node.task(service, "is of the new spec", |task| {
        let container = task["Status"]["ContainerStatus"]["ContainerID"].as_str();
        task["Status"]["State"] == "running" && container != Some(&before)
    });
    node.running(service, 1);
}

fn spec(node: &Node, service: &str) -> Value {
    node.json(&format!("/services/{service}"))["Spec"].clone()
}

#[test]
fn lists_grow_and_shrink() {
    let node = Node::start();
    for network in ["front", "back"] {
        node.docker_ok(&format!("network create -d overlay {network}"));
    }
    node.create(
        "--name web --restart-delay 0s --env A=1 --env B=2 --label l1=1 --container-label c1=1 --group 100 --cap-add NET_ADMIN --cap-drop CHOWN \
         --ulimit nofile=1000:2000 --sysctl net.ipv4.ip_default_ttl=70 --mount type=tmpfs,dst=/one --mount type=volume,src=v1,dst=/vol1 \
         --dns 192.0.2.1 --dns-search one.test --dns-option ndots:1 --host one:192.0.2.1 --constraint node.role==manager \
         --placement-pref spread=node.labels.a --publish mode=host,published=8081,target=81 --network front skep/busybox sleep 1000",
    );
    let look = "echo $A $B $C; id -G; grep CapEff /proc/1/status; ulimit -n; tr -s \" \" </proc/1/limits | grep processes; cat /proc/sys/net/ipv4/ip_default_ttl; \
                cat /proc/sys/net/ipv4/tcp_keepalive_time; for d in /one /vol1 /two /vol2; do test -d $d && echo $d; done; \
                grep -E \"^(search|options)\" /etc/resolv.conf; grep 192.0.2 /etc/hosts";
    let before = node.exec("web", look);
    for part in [
        "1 2\n0 100\n",
        "\n1000\n",
        "\n70\n",
        "/one\n/vol1\nsearch",
        "search one.test\noptions ndots:1",
        "192.0.2.1\tone",
    ] {
        assert!(before.contains(part), "{part:?}: {before}");
    }
    let caps = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("CapEff"))
            .unwrap()
            .to_owned();
        u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap()
    };
    assert_eq!(caps(&before) & (1 << 12 | 1), 1 << 12, "{before}");
    update(
        &node,
        "web",
        "--env-add A=3 --env-add C=4 --env-rm B --label-add l2=2 --label-rm l1 --container-label-add c2=2 --container-label-rm c1 \
         --group-add 200 --group-rm 100 --cap-add CHOWN --cap-drop NET_ADMIN --ulimit-add nproc=500:600 --ulimit-rm nofile \
         --sysctl-add net.ipv4.tcp_keepalive_time=77 --sysctl-rm net.ipv4.ip_default_ttl --mount-add type=tmpfs,dst=/two \
         --mount-add type=volume,src=v2,dst=/vol2 --mount-rm /one --mount-rm /vol1 --dns-add 192.0.2.2 --dns-rm 192.0.2.1 \
         --dns-search-add two.test --dns-search-rm one.test --dns-option-add ndots:2 --dns-option-rm ndots:1 \
         --host-add two:192.0.2.2 --host-rm one:192.0.2.1 --constraint-add node.hostname!=x --constraint-rm node.role==manager \
         --placement-pref-add spread=node.labels.b --placement-pref-rm spread=node.labels.a \
         --publish-add mode=host,published=8082,target=82 --publish-rm 81 --network-add back --network-rm front",
    );
    let after = node.exec("web", look);
    for part in [
        "3 4\n0 200\n",
        "\nMax processes 500 600 ",
        "\n64\n77\n",
        "/two\n/vol2\nsearch",
        "search two.test\noptions ndots:2",
        "192.0.2.2\ttwo",
    ] {
        assert!(after.contains(part), "{part:?}: {after}");
    }
    assert!(!after.contains("192.0.2.1\t"), "{after}");
    assert_eq!(caps(&after) & (1 << 12 | 1), 1, "{after}");
    check_what_is_shown(&node);
}

/// The API after [`lists_grow_and_shrink`]'s update.
fn check_what_is_shown(node: &Node) {
    let container = node.container("web");
    let inspected = node.json(&format!("/containers/{container}/json"));
    let labels = &inspected["Config"]["Labels"];
    assert_eq!((&labels["c1"], &labels["c2"]), (&Value::Null, &json!("2")));
    let networks: Vec<&String> = inspected["NetworkSettings"]["Networks"]
        .as_object()
        .expect("networks")
        .keys()
        .collect();
    assert!(
        networks.iter().any(|name| *name == "back")
            && !networks.iter().any(|name| *name == "front"),
        "{networks:?}"
    );
    let spec = spec(node, "web");
    assert_eq!(spec["Labels"], json!({ "l2": "2" }));
    let placement = &spec["TaskTemplate"]["Placement"];
    assert_eq!(placement["Constraints"], json!(["node.hostname!=x"]));
    assert_eq!(
        placement["Preferences"],
        json!([{ "Spread": { "SpreadDescriptor": "node.labels.b" } }])
    );
    assert_eq!(
        spec["TaskTemplate"]["ContainerSpec"]["DNSConfig"]["Nameservers"],
        json!(["192.0.2.2"])
    );
    let shown = node.docker_ok("service ps web");
    assert!(
        shown.contains("*:8082->82/tcp") && !shown.contains("8081->81/tcp\n"),
        "{shown}"
    );
}

#[test]
fn settings_are_replaced() {
    let node = Node::start();
    node.create("--name web --entrypoint /bin/sleep --restart-delay 0s skep/busybox 1000");
    update(
        &node,
        "web",
        "--image skep/httpd --entrypoint '/bin/busybox sleep' --args 2000 --user 65534 --workdir /tmp --hostname other --read-only --tty \
         --stop-signal KILL --stop-grace-period 3s --limit-cpu 0.25 --limit-memory 24m --limit-pids 30 --reserve-cpu 0.1 --reserve-memory 8m \
         --oom-score-adj 300 --log-driver json-file --log-opt max-size=5k --isolation default --endpoint-mode dnsrr --with-registry-auth -q",
    );
    let inside = node.exec(
        "web",
        "tr \"\\\\0\" \" \" </proc/1/cmdline; echo; id -u; pwd; hostname; touch /tmp/x 2>&1; cat /proc/1/oom_score_adj; readlink /proc/1/fd/1",
    );
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!(
        lines[..4],
        ["/bin/busybox sleep 2000 ", "65534", "/tmp", "other"],
        "{inside}"
    );
    assert!(lines[4].contains("Read-only file system"), "{inside}");
    assert_eq!(lines[5], "300", "{inside}");
    assert!(
        lines[6].starts_with("/dev/pts") || lines[6] == "/dev/console",
        "{inside}"
    );
    let container = node.container("web");
    let host = node.json(&format!("/containers/{container}/json"))["HostConfig"].clone();
    assert_eq!(
        host["LogConfig"]["Config"],
        json!({ "max-size": "5k" }),
        "{host}"
    );
    let stats = node.docker_ok("stats --no-stream --format '{{.MemUsage}}'");
    assert!(stats.ends_with("/ 24MiB"), "{stats}");
    let task = spec(&node, "web")["TaskTemplate"].clone();
    assert_eq!(
        task["Resources"],
        json!({ "Limits": { "NanoCPUs": 250_000_000, "MemoryBytes": 24 << 20, "Pids": 30 },
            "Reservations": { "NanoCPUs": 100_000_000, "MemoryBytes": 8 << 20 } })
    );
    let kept = &task["ContainerSpec"];
    assert_eq!(
        (&kept["StopSignal"], &kept["StopGracePeriod"]),
        (&json!("KILL"), &json!(3_000_000_000_i64))
    );
    assert_eq!(spec(&node, "web")["EndpointSpec"]["Mode"], "dnsrr");

    // Back again, with what was not asked yet.
    update(
        &node,
        "web",
        "--user '' --tty=false --read-only=false --limit-memory 0 --limit-cpu 0 --limit-pids 0 --endpoint-mode vip \
         --health-cmd 'exit 0' --health-interval 200ms --health-timeout 3s --health-retries 4 --health-start-period 5s",
    );
    assert_eq!(
        node.exec(
            "web",
            "id -u; touch /x && echo written; test -t 1 || echo none"
        ),
        "0\nwritten\nnone"
    );
    let check = spec(&node, "web")["TaskTemplate"]["ContainerSpec"]["Healthcheck"].clone();
    let expected = json!({ "Test": ["CMD-SHELL", "exit 0"], "Interval": 200_000_000, "Timeout": 3_000_000_000_i64, "Retries": 4,
        "StartPeriod": 5_000_000_000_i64 });
    assert_eq!(check, expected);
    assert!(
        node.docker_ok("ps --format '{{.Status}}'")
            .contains("(healthy)")
    );
}

#[test]
fn settings_of_the_orchestrator_are_replaced() {
    let node = Node::start();
    node.create("--name web skep/busybox sleep 1000");
    let container = node.container("web");
    let index = |node: &Node| node.json("/services/web")["Version"]["Index"].clone();
    let before = index(&node);
    node.docker_ok(
        "service update -d --no-resolve-image --replicas 2 --replicas-max-per-node 3 \
         --update-parallelism 2 --update-delay 1s --update-monitor 2s --update-failure-action continue --update-max-failure-ratio 0.5 --update-order start-first \
         --rollback-parallelism 3 --rollback-delay 4s --rollback-monitor 5s --rollback-failure-action continue --rollback-max-failure-ratio 0.25 \
         --rollback-order start-first web",
    );
    node.running("web", 2);
    assert_ne!(index(&node), before);
    // None of it is a reason to replace a task.
    assert!(node.docker_ok("ps -q --no-trunc").contains(&container));
    let kept = spec(&node, "web");
    assert_eq!(
        kept["UpdateConfig"],
        json!({ "Parallelism": 2, "Delay": 1_000_000_000, "Monitor": 2_000_000_000, "FailureAction": "continue",
            "MaxFailureRatio": 0.5, "Order": "start-first" })
    );
    assert_eq!(
        kept["RollbackConfig"],
        json!({ "Parallelism": 3, "Delay": 4_000_000_000_i64, "Monitor": 5_000_000_000_i64, "FailureAction": "continue",
            "MaxFailureRatio": 0.25, "Order": "start-first" })
    );
    assert_eq!(kept["TaskTemplate"]["Placement"]["MaxReplicas"], 3);
    node.docker_ok(
        "service update -d --no-resolve-image --restart-condition on-failure --restart-delay 7s --restart-max-attempts 3 --restart-window 9s --no-healthcheck web",
    );
    until("all tasks are new", Duration::from_secs(40), || {
        let left = node.docker_ok("ps -q --no-trunc");
        if left.contains(&container) {
            Err(left)
        } else {
            Ok(())
        }
    });
    assert_eq!(
        spec(&node, "web")["TaskTemplate"]["RestartPolicy"],
        json!({ "Condition": "on-failure", "Delay": 7_000_000_000_i64, "MaxAttempts": 3, "Window": 9_000_000_000_i64 })
    );
    for (flag, text) in [
        ("--credential-spec file://x", "CredentialSpec"),
        ("--isolation process", "Isolation=process"),
        ("--init --log-driver fluentd", "LogDriver.Name=fluentd"),
    ] {
        let refused =
            node.docker_fails(&format!("service update -d --no-resolve-image {flag} web"));
        assert!(refused.contains(text), "{refused}");
    }
}
