//! Labels `skep.run.…`: what `docker run` has and services in Swarm never could have, and the nodes that allow it.

use serde_json::json;
use skep_conformance::{Node, Options};

/// Lets containers of a node have powers over it.
fn allow(node: &Node, powers: &str) {
    node.docker_ok(&format!("node update --label-add skep.allow={powers} self"));
}

fn create(node: &Node, name: &str, labels: &[&str], rest: &str) {
    let labels: Vec<String> = labels
        .iter()
        .map(|label| format!("--label skep.run.{label}"))
        .collect();
    node.create(&format!(
        "--name {name} --restart-condition none {} {rest}",
        labels.join(" ")
    ));
}

/// All of it with one OCI runtime.
fn check_options(runtime: &str) {
    let node = Node::with(Options {
        flags: vec!["--oci-runtime".into(), runtime.into()],
        ..Options::default()
    });
    allow(&node, "privileged");
    let sleep = "skep/busybox sleep 1000";
    create(&node, "all", &["privileged=true"], sleep);
    create(
        &node,
        "devices",
        &[
            "devices=/dev/fuse,/dev/loop-control:/dev/other:r",
            "shm-size=8m",
        ],
        sleep,
    );
    create(&node, "host", &["pid=host", "ipc=host", "uts=host"], sleep);
    create(
        &node,
        "open",
        &["security-opt=seccomp=unconfined,systempaths=unconfined,apparmor=unconfined"],
        sleep,
    );
    create(&node, "closed", &["security-opt=no-new-privileges"], sleep);
    create(&node, "plain", &[], sleep);

    let look =
        "grep -E \"^(CapEff|Seccomp|NoNewPrivs):\" /proc/1/status | tr -s \"\\\\t\\\\n\" \"  \"";
    let all = node.exec("all", look);
    let held = node.inside_ok("grep CapEff /proc/self/status | cut -f 2");
    assert!(
        all.contains(&format!("CapEff: {held} ")) && all.contains("Seccomp: 0"),
        "{all}"
    );
    // It may mount, sees the node's devices and writes below /sys and /proc/sys.
    let able = node.exec(
        "all",
        "mount -t tmpfs none /tmp && echo mounts; test -c /dev/loop-control && echo devices; \
         cat /proc/sys/kernel/randomize_va_space > /tmp/x && cat /tmp/x > /proc/sys/kernel/randomize_va_space && echo writes; \
         grep -c \" /sys sysfs rw\" /proc/mounts",
    );
    assert_eq!(able, "mounts\ndevices\nwrites\n1");

    check_devices(&node);
    check_namespaces(&node);
    assert!(
        node.exec("open", look)
            .ends_with("NoNewPrivs: 0 Seccomp: 0")
    );
    assert!(
        node.exec("closed", look)
            .ends_with("NoNewPrivs: 1 Seccomp: 2")
    );
    // What is hidden or read-only below /proc are mounts of their own.
    let covered =
        |service: &str| node.exec(service, "grep -c \"^[^ ]* /proc/\" /proc/mounts; true");
    assert_eq!(covered("open"), "0");
    assert_ne!(covered("plain"), "0");
    check_what_is_shown(&node);
    node.docker_ok("service rm all devices host open closed plain");
    node.empty();
}

/// The devices named, as they are named, and no others.
fn check_devices(node: &Node) {
    let said = node.exec(
        "devices",
        "stat -c %F:%t:%T /dev/fuse; stat -c %F:%t:%T /dev/other; ls /dev/loop-control 2>&1; \
         : < /dev/fuse && : > /dev/fuse && echo fuse opens; : < /dev/other && echo other opens; (: > /dev/other) 2>&1; \
         mknod /dev/kmsg2 c 1 11 && (: < /dev/kmsg2) 2>&1; df -k /dev/shm | tail -1 | tr -s \" \" | cut -d \" \" -f 2",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[..2],
        ["character special file:a:e5", "character special file:a:ed"],
        "{said}"
    );
    assert!(lines[2].contains("No such file"), "{said}");
    assert_eq!(lines[3..5], ["fuse opens", "other opens"], "{said}");
    assert!(lines[5].contains("Operation not permitted"), "{said}");
    assert!(lines[6].contains("Operation not permitted"), "{said}");
    assert_eq!(lines[7], "8192", "{said}");
}

/// The node's processes, memory and name.
fn check_namespaces(node: &Node) {
    let daemon = node.daemon_pid();
    let said = node.exec(
        "host",
        &format!("tr \"\\\\0\" \" \" </proc/{daemon}/cmdline; echo; hostname; ls -d /dev/shm"),
    );
    assert!(
        said.contains("skep daemon") || said.contains("daemon --data-dir"),
        "{said}"
    );
    assert_eq!(
        said.lines().nth(1),
        Some(node.inside_ok("hostname").as_str()),
        "{said}"
    );
    for kind in ["pid", "ipc", "uts"] {
        let own = node.inside_ok(&format!("readlink /proc/{daemon}/ns/{kind}"));
        assert_eq!(
            node.exec("host", &format!("readlink /proc/self/ns/{kind}")),
            own
        );
        assert_ne!(
            node.exec("plain", &format!("readlink /proc/self/ns/{kind}")),
            own
        );
    }
}

/// What `docker inspect` says.
fn check_what_is_shown(node: &Node) {
    let inspect = |service: &str| {
        let container = node.container(service);
        node.json(&format!("/containers/{container}/json"))["HostConfig"].clone()
    };
    let host = inspect("devices");
    assert_eq!(host["ShmSize"], 8 << 20);
    assert_eq!(
        host["Devices"][1],
        json!({ "PathOnHost": "/dev/loop-control", "PathInContainer": "/dev/other", "CgroupPermissions": "r" })
    );
    assert_eq!(inspect("all")["Privileged"], true);
    let host = inspect("host");
    assert_eq!(
        (&host["PidMode"], &host["IpcMode"], &host["UTSMode"]),
        (&json!("host"), &json!("host"), &json!("host"))
    );
}

#[test]
fn run_options_are_in_force_with_crun() {
    check_options("crun");
}

#[test]
fn run_options_are_in_force_with_runc() {
    check_options("runc");
}

#[test]
fn powers_are_for_nodes_that_allow_them() {
    let node = Node::start();
    create(
        &node,
        "web",
        &["devices=/dev/fuse", "pid=host"],
        "skep/busybox sleep 1000",
    );
    create(
        &node,
        "big",
        &["shm-size=1m", "security-opt=no-new-privileges"],
        "skep/busybox sleep 1000",
    );
    // What is no danger needs no leave.
    node.running("big", 1);
    let explained = "no suitable node (run options not allowed by node label skep.allow on 1 node)";
    node.task("web", "is explained", |task| {
        task["Status"]["Err"] == explained
    });
    allow(&node, "devices");
    node.task("web", "is explained", |task| {
        task["Status"]["Err"] == explained
    });
    allow(&node, "devices,host-pid");
    let first = node.container("web");
    // Another wish is another container.
    node.docker_ok("service update -d --no-resolve-image --label-rm skep.run.pid --label-add skep.run.devices=/dev/fuse:r web");
    node.task("web", "is another", |task| {
        task["Status"]["State"] == "running"
            && task["Status"]["ContainerStatus"]["ContainerID"] != first.as_str()
    });
    node.running("web", 1);
    let opened = node.exec("web", "(: > /dev/fuse) 2>&1; ls /proc | grep -c \"^[0-9]\"");
    let lines: Vec<&str> = opened.lines().collect();
    assert!(lines[0].contains("Operation not permitted"), "{opened}");
    assert!(lines[1].parse::<u32>().unwrap() < 6, "{opened}");
    for (label, text) in [
        ("privileged=yes", "`yes` is neither `true` nor `false`"),
        ("devices=/etc/passwd", "`/etc/passwd` is not a device"),
        ("shm-size=lots", "`lots` is not a size"),
        (
            "pid=container:x",
            "`container:x` is neither `host` nor `private`",
        ),
        ("security-opt=label=disable", "`label=disable` is none of"),
        ("gpus=all", "unknown label `skep.run.gpus`"),
    ] {
        let refused = node.docker_fails(&format!(
            "service create -d --no-resolve-image --name x --label skep.run.{label} skep/busybox"
        ));
        assert!(refused.contains(text), "{label}: {refused}");
    }
    create(
        &node,
        "none",
        &["devices=/dev/nothing"],
        "skep/busybox true",
    );
    let task = node.task_in("none", "rejected");
    let text = task["Status"]["Err"].as_str().unwrap();
    assert!(text.contains("/dev/nothing"), "{text}");
}
