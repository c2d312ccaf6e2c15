//! Bad input and bad surroundings: a clear error, nothing half-done, nothing lost.

use std::{os::unix::fs::PermissionsExt, process::Stdio, time::Duration};

use skep_conformance::{Node, Options, images, until};

#[test]
fn malformed_and_unsupported_requests_are_refused_with_reasons() {
    let node = Node::start();
    let malformed = node.http("POST", "/services/create", Some("{\"Name\": "));
    assert_eq!(malformed.status, 400, "{malformed:?}");
    assert!(!malformed.message().is_empty(), "{malformed:?}");
    let unknown = node.http("GET", "/nowhere", None);
    assert_eq!(
        (unknown.status, unknown.message().as_str()),
        (404, "page not found")
    );
    let nameless = node.http(
        "POST",
        "/services/create",
        Some("{\"TaskTemplate\":{\"ContainerSpec\":{}}}"),
    );
    assert_eq!(nameless.status, 400, "{nameless:?}");
    for (flags, field) in [
        ("--secret none", "secret"),
        ("--dns 192.0.2", "192.0.2"),
        ("--host a:192.0.2", "192.0.2"),
        ("--log-driver syslog", "LogDriver"),
        ("--label skep.drain=soon", "skep.drain"),
        ("--network other", "other"),
        ("--hostname h-{{.Task.Sloth}}", "Sloth"),
    ] {
        let refused = node.docker_fails(&format!(
            "service create -d --no-resolve-image --name x {flags} skep/busybox"
        ));
        assert!(refused.contains(field), "{flags}: {refused}");
    }
    assert_eq!(node.docker_ok("service ls -q"), "");
}

#[test]
fn conflicting_and_stale_changes_are_refused() {
    let node = Node::start();
    node.create("--name web skep/busybox sleep 1000");
    let twice = node.docker_fails("service create -d --no-resolve-image --name web skep/busybox");
    assert!(
        twice.contains("name conflicts with an existing object"),
        "{twice}"
    );
    let bad = node.docker_fails(
        "service create -d --no-resolve-image --constraint 'node.id ~ x' skep/busybox",
    );
    assert!(
        bad.contains("constraint expected one operator from ==, !="),
        "{bad}"
    );
    let name = node.docker_fails("service create -d --no-resolve-image --name 'a b' skep/busybox");
    assert!(
        name.contains("name must be valid as a DNS name component"),
        "{name}"
    );

    node.running("web", 1);
    let service = node.json("/services/web");
    let index = &service["Version"]["Index"];
    let mut spec = service["Spec"].clone();
    spec["Labels"] = serde_json::json!({ "a": "1" });
    let path = format!("/services/web/update?version={index}");
    let first = node.http("POST", &path, Some(&spec.to_string()));
    assert_eq!(first.status, 200, "{first:?}");
    let stale = node.http("POST", &path, Some(&spec.to_string()));
    assert!(
        stale.message().contains("update out of sequence"),
        "{stale:?}"
    );
    assert_eq!(stale.status, 500, "{stale:?}");
    let gone = node.http("DELETE", "/services/nothing", None);
    assert_eq!(
        (gone.status, gone.message().as_str()),
        (404, "service nothing not found")
    );
}

#[test]
fn images_that_are_missing_or_cannot_run_reject_their_tasks() {
    let node = Node::start();
    node.create("--name missing --restart-condition none skep/nothing:1");
    node.create("--name broken --restart-condition none skep/busybox /no/such/program");
    node.task_in("missing", "rejected");
    let shown = node.docker_ok("service ps --no-trunc missing");
    assert!(shown.contains("No such image: skep/nothing:1"), "{shown}");
    let task = node.task("broken", "ended", |task| task["Status"]["Err"].is_string());
    assert!(
        ["failed", "rejected"].contains(&task["Status"]["State"].as_str().unwrap()),
        "{task}"
    );
    let shown = node.docker_ok("service ps --no-trunc broken");
    assert!(
        shown.contains("/no/such/program") && shown.contains("no such file"),
        "{shown}"
    );
}

#[test]
fn hostile_archives_stay_inside() {
    let node = Node::with(Options {
        is_bare: true,
        ..Options::default()
    });
    let escapes = ["/tmp/skep-escaped", "/escaped"];
    for name in [
        "dotdot", "absolute", "symlink", "hardlink", "manifest", "digest", "bomb",
    ] {
        // Refused, or loaded with everything inside the image: both are right, an escape is not.
        let _ = node.docker(&format!(
            "load -q -i {}/hostile-{name}.tar",
            images().display()
        ));
        for path in escapes {
            assert!(
                node.inside(&format!("test ! -e {path}")).status == 0,
                "{name}: {path}"
            );
        }
        let found = node.inside_ok(&format!(
            "find {} -name escaped -not -path '*/layers/*' | head",
            node.dir().display()
        ));
        assert_eq!(found, "", "{name}");
    }
    for name in ["manifest", "digest"] {
        node.docker_fails(&format!(
            "load -q -i {}/hostile-{name}.tar",
            images().display()
        ));
    }
    node.docker_ok(&format!("load -q -i {}/busybox.tar", images().display()));
}

#[test]
fn second_daemon_on_the_same_data_is_refused() {
    let node = Node::start();
    let mut second = node.daemon_command();
    second.arg("--run-dir").arg(node.dir().join("run2"));
    let output = second
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    assert_eq!(node.http("GET", "/_ping", None).status, 200);
}

#[test]
fn missing_oci_runtime_is_named() {
    let flags = vec!["--oci-runtime".into(), "/nonexistent".into()];
    let node = Node::with(Options {
        flags,
        ..Options::default()
    });
    node.create("--name web --restart-condition none skep/busybox sleep 1000");
    node.task("web", "is rejected", |task| {
        task["Status"]["State"] == "rejected"
    });
    let shown = node.docker_ok("service ps --no-trunc web");
    assert!(shown.contains("/nonexistent"), "{shown}");
}

#[test]
fn full_disk_refuses_and_recovers() {
    let node = Node::with(Options {
        disk_mib: Some(64),
        ..Options::default()
    });
    node.create("--name web skep/busybox sleep 1000");
    node.running("web", 1);
    node.docker_ok("image rm skep/httpd");
    let filler = node.data_dir().join("filler");
    node.inside(&format!(
        "dd if=/dev/zero of={} bs=1M 2>/dev/null",
        filler.display()
    ));
    let image = format!("{}/httpd.tar", images().display());
    node.docker(&format!("load -q -i {image}"));
    node.running("web", 1);
    node.inside_ok(&format!("rm {}", filler.display()));
    until("the node works again", Duration::from_secs(40), || {
        let output = node.docker("service update -d --no-resolve-image --label-add a=b web");
        if output.status == 0 {
            Ok(())
        } else {
            Err(output.text())
        }
    });
    node.docker_ok(&format!("load -q -i {image}"));
    node.create("--name more skep/httpd");
    node.running("more", 1);
}

#[test]
fn socket_is_not_for_everybody() {
    let node = Node::with(Options {
        is_bare: true,
        ..Options::default()
    });
    let mode = std::fs::metadata(node.dir().join("skep.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}");
}
