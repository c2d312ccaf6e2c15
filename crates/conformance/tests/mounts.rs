//! `--mount` in every form a node has by itself, observed from both sides.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use skep_conformance::Node;

/// A directory of the node that is a mount of its own, shared with whoever binds it.
fn shared_dir(node: &Node, name: &str) -> PathBuf {
    let dir = node.dir().join(name);
    fs::create_dir(&dir).expect("a directory");
    let path = dir.display();
    node.inside_ok(&format!(
        "mount --bind {path} {path} && mount --make-shared {path}"
    ));
    dir
}

/// Creates a service with one mount the docker command has no words for.
fn create_with_mount(node: &Node, name: &str, mount: &Value) {
    let spec = json!({ "Name": name, "TaskTemplate": {
        "RestartPolicy": { "Condition": "none" },
        "ContainerSpec": { "Image": "skep/busybox", "Command": ["sleep", "1000"], "StopSignal": "KILL",
            "Mounts": [mount] } } });
    let created = node.http("POST", "/services/create", Some(&spec.to_string()));
    assert_eq!(created.status, 201, "{created:?}");
}

/// The text with which the one task of a service was rejected.
#[track_caller]
fn rejection(node: &Node, service: &str) -> String {
    let task = node.task_in(service, "rejected");
    task["Status"]["Err"].as_str().expect("a reason").to_owned()
}

#[test]
fn mounts_propagate_as_far_as_is_said() {
    let node = Node::start();
    let dir = shared_dir(&node, "shared");
    let source = dir.display();
    let bind = |target: &str, propagation: &str| {
        format!("--mount type=bind,src={source},dst={target},bind-propagation={propagation}")
    };
    node.create(&format!(
        "--name web --cap-add SYS_ADMIN {} {} {} skep/busybox sleep 1000",
        bind("/rshared", "rshared"),
        bind("/rslave", "rslave"),
        bind("/rprivate", "rprivate"),
    ));
    let container = node.container("web");
    for name in ["outside", "inside", "slave", "private"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    // What the node mounts is seen by those who share or follow, not by the private one.
    node.inside_ok(&format!(
        "mount -t tmpfs none {source}/outside && touch {source}/outside/x"
    ));
    let seen = node.exec(
        "web",
        "ls /rshared/outside /rslave/outside /rprivate/outside",
    );
    assert_eq!(
        seen,
        "/rprivate/outside:\n\n/rshared/outside:\nx\n\n/rslave/outside:\nx"
    );
    // What the container mounts is seen by the node where it shares.
    node.exec(
        "web",
        "mount -t tmpfs none /rshared/inside && touch /rshared/inside/x && mount -t tmpfs none /rslave/slave && \
         touch /rslave/slave/x && mount -t tmpfs none /rprivate/private && touch /rprivate/private/x",
    );
    assert_eq!(
        node.inside_ok(&format!("cd {source} && ls inside slave private")),
        "inside:\nx\n\nprivate:\n\nslave:"
    );
    let shown = node.json(&format!("/containers/{container}/json"))["Mounts"].clone();
    let found = shown
        .as_array()
        .unwrap()
        .iter()
        .find(|mount| mount["Destination"] == "/rshared");
    assert_eq!(found.unwrap()["Propagation"], "rshared", "{shown}");
    // The end of the container leaves what it mounted for others to the node.
    node.docker_ok("service rm web");
    node.empty();
    node.inside_ok(&format!(
        "test -e {source}/inside/x && test -e {source}/outside/x"
    ));

    let plain = node.dir().join("plain");
    fs::create_dir(&plain).unwrap();
    node.inside_ok(&format!(
        "mount --bind {0} {0} && mount --make-private {0}",
        plain.display()
    ));
    for (propagation, wanted) in [("rshared", "shared"), ("slave", "shared or slave")] {
        node.create(&format!(
            "--name no-{propagation} --restart-condition none \
             --mount type=bind,src={},dst=/x,bind-propagation={propagation} skep/busybox true",
            plain.display()
        ));
        let text = rejection(&node, &format!("no-{propagation}"));
        let expected = format!(
            "path {0} is mounted on {0} but it is not a {wanted} mount",
            plain.display()
        );
        assert!(text.contains(&expected), "{text}");
    }
}

#[test]
fn bind_mounts_go_as_deep_as_is_said() {
    let node = Node::start();
    let dir = node.dir().join("tree");
    fs::create_dir_all(dir.join("below")).unwrap();
    let source = dir.display();
    node.inside_ok(&format!(
        "mount -t tmpfs none {source}/below && touch {source}/below/x"
    ));
    let bind = |target: &str, options: &str| {
        format!("--mount type=bind,src={source},dst={target}{options}")
    };
    node.create(&format!(
        "--name web {} {} {} {} {} skep/busybox sleep 1000",
        bind("/enabled", ",bind-recursive=enabled"),
        bind("/disabled", ",bind-recursive=disabled,consistency=cached"),
        bind(
            "/readonly",
            ",readonly,bind-recursive=readonly,bind-propagation=rprivate"
        ),
        bind("/writable", ",readonly,bind-recursive=writable"),
        bind("/usual", ",ro"),
    ));
    let seen = node.exec(
        "web",
        "for d in enabled disabled readonly writable usual; do echo $d $(ls /$d/below); done",
    );
    assert_eq!(seen, "enabled x\ndisabled\nreadonly x\nwritable x\nusual x");
    let written = node.exec(
        "web",
        "for f in enabled/y enabled/below/y readonly/y readonly/below/y writable/y writable/below/y usual/y usual/below/y; do \
         touch /$f 2>/dev/null && echo $f; done; true",
    );
    assert_eq!(written, "enabled/y\nenabled/below/y\nwritable/below/y");
    let missing = node.dir().join("missing/deep");
    let mount = json!({ "Type": "bind", "Source": missing, "Target": "/made", "BindOptions": { "CreateMountpoint": true } });
    create_with_mount(&node, "made", &mount);
    node.running("made", 1);
    assert!(missing.is_dir());
    let both = json!({ "Type": "bind", "Source": dir, "Target": "/x", "ReadOnly": true,
        "BindOptions": { "ReadOnlyNonRecursive": true, "ReadOnlyForceRecursive": true } });
    create_with_mount(&node, "both", &both);
    let text = rejection(&node, "both");
    assert!(text.contains("mount options conflict"), "{text}");
}

#[test]
fn part_of_a_volume_is_mounted_and_nothing_outside_of_it() {
    let node = Node::start();
    let volume = "--mount type=volume,src=data,dst=/data,volume-label=team=blue";
    node.create(&format!("--name fill {volume} skep/busybox sleep 1000"));
    node.exec(
        "fill",
        "mkdir -p /data/a/b && echo deep >/data/a/b/file && ln -s /etc /data/out && ln -s ../../.. /data/up && ln -s a/b /data/in",
    );
    assert_eq!(
        node.docker_ok("volume inspect -f '{{.Labels.team}} {{.Driver}}' data"),
        "blue local"
    );
    let part = |target: &str, path: &str| {
        format!("--mount type=volume,src=data,dst={target},volume-subpath={path}")
    };
    node.create(&format!(
        "--name parts {} {} {},readonly skep/busybox sleep 1000",
        part("/dir", "a/b"),
        part("/linked", "in"),
        part("/etc/file", "a/b/file"),
    ));
    assert_eq!(
        node.exec("parts", "cat /dir/file /linked/file /etc/file"),
        "deep\ndeep\ndeep"
    );
    let written = node.exec(
        "parts",
        "touch /dir/new; echo x 2>&1 >/etc/file || true; ls /dir",
    );
    assert_eq!(written.lines().last(), Some("new"), "{written}");
    assert_eq!(node.exec("fill", "cat /data/a/b/file"), "deep");
    for (name, path, expected) in [
        (
            "parent",
            "../../x",
            "subpath must be a relative path within the volume",
        ),
        (
            "absolute",
            "/etc",
            "subpath must be a relative path within the volume",
        ),
        ("out", "out", "cannot access path"),
        ("up", "up/data", "cannot access path"),
        ("none", "nowhere", "cannot access path"),
    ] {
        let mount = json!({ "Type": "volume", "Source": "data", "Target": "/x", "VolumeOptions": { "Subpath": path } });
        create_with_mount(&node, name, &mount);
        let text = rejection(&node, name);
        assert!(text.contains(expected), "{path}: {text}");
    }
}

#[test]
fn memory_and_anonymous_volumes_are_mounted_as_is_said() {
    let node = Node::start();
    node.create(
        "--name web --mount type=tmpfs,dst=/scratch,tmpfs-size=1m,tmpfs-mode=0750 --mount type=tmpfs,dst=/plain,readonly \
         --mount type=volume,dst=/anonymous skep/busybox sleep 1000",
    );
    let said = node.exec(
        "web",
        "stat -c %a /scratch; df -k /scratch | tail -1 | tr -s \" \" | cut -d \" \" -f 2; touch /plain/x 2>&1; touch /anonymous/x; \
         grep -c \" /scratch .*noexec\" /proc/mounts",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        (lines[0], lines[1], lines[3]),
        ("750", "1024", "1"),
        "{said}"
    );
    assert!(lines[2].contains("Read-only file system"), "{said}");
    let volumes = node.docker_ok("volume ls -q");
    assert_eq!(volumes.len(), 64, "one, without a name: {volumes}");
    node.docker_ok("service rm web");
    node.empty();
    assert_eq!(node.docker_ok("volume ls -q"), "");

    let mount =
        json!({ "Type": "tmpfs", "Target": "/bin2", "TmpfsOptions": { "Options": [["exec"]] } });
    create_with_mount(&node, "exec", &mount);
    assert_eq!(
        node.exec("exec", "cp /bin/busybox /bin2/echo && /bin2/echo runs"),
        "runs"
    );
    let mount =
        json!({ "Type": "tmpfs", "Target": "/x", "TmpfsOptions": { "Options": [["dev"]] } });
    create_with_mount(&node, "odd", &mount);
    let text = rejection(&node, "odd");
    assert!(
        text.contains("invalid mount config for type \"tmpfs\": invalid option: dev"),
        "{text}"
    );
    for (kind, field) in [("npipe", "Type=npipe"), ("cluster", "Type=cluster")] {
        let refused = node.docker_fails(&format!(
            "service create -d --no-resolve-image --name x --mount type={kind},src=x,dst=/x skep/busybox"
        ));
        assert!(refused.contains(field), "{refused}");
    }
}
