//! What Swarm refuses in a service is refused in its words, and all of it at once.

use serde_json::{Value, json};
use skep_conformance::Node;

/// Words of the docker command, and what is said of them.
const REFUSED: [(&str, &str); 17] = [
    ("--name -x", "name must be valid as a DNS name component"),
    (
        "--name a23456789012345678901234567890123456789012345678901234567890abcd",
        "name must be 63 characters or fewer",
    ),
    (
        "--limit-cpu 0.0005",
        "invalid cpu value 0.0005: Must be at least 0.001",
    ),
    (
        "--reserve-cpu 0.0005",
        "invalid cpu value 0.0005: Must be at least 0.001",
    ),
    (
        "--limit-memory 4194303",
        "invalid memory value 4194303: Must be at least 4MiB",
    ),
    (
        "--reserve-memory 1m",
        "invalid memory value 1048576: Must be at least 4MiB",
    ),
    (
        "--constraint node.role=manager",
        "constraint expected one operator from ==, !=",
    ),
    (
        "--health-cmd true --health-interval 999us",
        "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
    ),
    (
        "--health-cmd true --health-timeout 1us",
        "ContainerSpec: Timeout in HealthConfig cannot be less than 1ms",
    ),
    (
        "--health-cmd true --health-start-period 1us",
        "ContainerSpec: StartPeriod in HealthConfig cannot be less than 1ms",
    ),
    (
        "--health-cmd true --health-start-interval 1us",
        "ContainerSpec: StartInterval in HealthConfig cannot be less than 1ms",
    ),
    (
        "--update-max-failure-ratio 1.5",
        "update-maxfailureratio cannot be less than 0 or bigger than 1",
    ),
    (
        "--rollback-max-failure-ratio 1.5",
        "rollback-maxfailureratio cannot be less than 0 or bigger than 1",
    ),
    (
        "--mount type=tmpfs,dst=/x --mount type=volume,src=v,dst=/x",
        "ContainerSpec: duplicate mount point: /x",
    ),
    (
        "--publish 8080:80 --publish 8080:81",
        "EndpointSpec: duplicate published ports provided",
    ),
    (
        "--endpoint-mode dnsrr --publish 8080:80",
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
    ),
    ("--network ingress", "ingress"),
];

#[test]
fn each_rule_has_its_text() {
    let node = Node::start();
    for (flags, text) in REFUSED {
        let refused = node.docker_fails(&format!(
            "service create -d --no-resolve-image {flags} skep/busybox"
        ));
        assert!(refused.contains(text), "{flags}: {refused}");
    }
    let image = node.docker_fails("service create -d --no-resolve-image --name x 'a b'");
    assert!(image.contains("is not a valid repository/tag"), "{image}");
    node.create("--name web --replicas 0 --publish 8080:80 skep/busybox");
    for (command, text) in [
        (
            "service create -d --no-resolve-image --name web skep/busybox",
            "name conflicts with an existing object",
        ),
        (
            "service create -d --no-resolve-image --name x --publish 8080:80 skep/busybox",
            "port '8080' is already in use by service 'web'",
        ),
        (
            "service update -d --no-resolve-image --limit-memory 1m web",
            "Must be at least 4MiB",
        ),
        (
            "service update -d --no-resolve-image --rollback-max-failure-ratio 2 web",
            "rollback-maxfailureratio",
        ),
        (
            "service update -d --no-resolve-image --constraint-add a web",
            "constraint expected one operator",
        ),
    ] {
        let refused = node.docker_fails(command);
        assert!(refused.contains(text), "{command}: {refused}");
    }
    let update = |change: &dyn Fn(&mut Value)| {
        let service = node.json("/services/web");
        let mut spec = service["Spec"].clone();
        change(&mut spec);
        let path = format!(
            "/services/web/update?version={}",
            service["Version"]["Index"]
        );
        let answer = node.http("POST", &path, Some(&spec.to_string()));
        assert!([400, 501].contains(&answer.status), "{answer:?}");
        answer.message()
    };
    let renamed = update(&|spec| spec["Name"] = json!("other"));
    assert!(
        renamed.contains("renaming services is not supported"),
        "{renamed}"
    );
    let moved = update(&|spec| spec["Mode"] = json!({ "Global": {} }));
    assert!(
        moved.contains("service mode change is not allowed"),
        "{moved}"
    );
    for (path, text) in [
        (
            "/TaskTemplate/RestartPolicy",
            "TaskSpec: restart-delay cannot be negative",
        ),
        ("/UpdateConfig", "TaskSpec: update-delay cannot be negative"),
    ] {
        let refused = update(&|spec| {
            spec["UpdateConfig"] = json!({});
            *spec.pointer_mut(path).unwrap() = json!({ "Delay": -1 });
        });
        assert!(refused.contains(text), "{refused}");
    }
}

#[test]
fn all_problems_of_a_request_are_told() {
    let node = Node::start();
    let refused = node.docker_fails(
        "service create -d --no-resolve-image --name x_ --limit-cpu 0.0001 --reserve-memory 1m --constraint a --constraint b~c \
         --health-cmd true --health-interval 1us --update-max-failure-ratio 2 --rollback-max-failure-ratio 3 \
         --endpoint-mode dnsrr --publish 8080:80 --label skep.drain=soon skep/busybox",
    );
    for text in [
        "name must be valid as a DNS name component",
        "invalid cpu value 0.0001",
        "invalid memory value 1048576",
        "HealthConfig cannot be less than 1ms",
        "update-maxfailureratio",
        "rollback-maxfailureratio",
        "can't be used with dnsrr mode",
        "skep.drain",
    ] {
        assert!(refused.contains(text), "{text}: {refused}");
    }
    assert_eq!(
        refused.matches("constraint expected").count(),
        2,
        "{refused}"
    );
    // What Skep cannot do is told at once, too, before Swarm's rules are asked.
    let refused = node.docker_fails(
        "service create -d --no-resolve-image --isolation hyperv --credential-spec file://x --log-driver syslog skep/busybox",
    );
    for text in [
        "Isolation=hyperv",
        "CredentialSpec",
        "LogDriver.Name=syslog",
    ] {
        assert!(refused.contains(text), "{text}: {refused}");
    }
    assert_eq!(node.docker_ok("service ls -q"), "");
}
