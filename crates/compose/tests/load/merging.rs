//! Several files become one: the rule of each key, and the user's own exceptions.

use skep_compose::{
    project::{DeployMode, Order, Service},
    render,
};

use crate::disk::{loaded, problems};

/// The service `web` of two bodies, the second on top of the first.
#[track_caller]
fn merged(base: &str, over: &str) -> Service {
    let base = format!(
        "services: {{web: {{image: x, {base}}}}}\nvolumes: {{a: , b: }}\nnetworks: {{n: , m: }}\nsecrets: {{s: {{external: true}}}}"
    );
    let over = format!("services: {{web: {{{over}}}}}");
    loaded(&[("compose.yaml", &base), ("over1.yaml", &over)])
        .project
        .services["web"]
        .clone()
}

#[test]
fn scalars_and_commands_are_replaced() {
    let service = merged("image: a, command: [a, b], entrypoint: x, user: '1', healthcheck: {test: [CMD, a, b], retries: 3}".trim_start_matches("image: a, "), "image: b, command: c, entrypoint: [y], healthcheck: {test: z}");
    assert_eq!(service.image, "b");
    assert_eq!(service.command.unwrap(), ["c"]);
    assert_eq!(service.entrypoint.unwrap(), ["y"]);
    assert_eq!(service.user.as_deref(), Some("1"));
    assert_eq!(service.healthcheck.unwrap().retries, Some(3));
}

#[test]
fn mappings_are_merged_in_all_their_forms() {
    let service = merged(
        "environment: [A=1, B=1, HOME=x], labels: {a: 1, b: 1}, sysctls: [k=1]",
        "environment: {B: 2, C: 2, HOME: }, labels: [b=2], sysctls: {k: 2}",
    );
    let got: Vec<(&str, Option<&str>)> = service
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()))
        .collect();
    assert_eq!(
        got,
        [
            ("A", Some("1")),
            ("B", Some("2")),
            ("C", Some("2")),
            ("HOME", Some("/home/ann"))
        ]
    );
    assert_eq!(
        (service.labels["a"].as_str(), service.labels["b"].as_str()),
        ("1", "2")
    );
    assert_eq!(service.sysctls["k"], "2");
}

#[test]
fn lists_are_joined_without_doubles() {
    let service = merged(
        "cap_add: [A, B], dns: 1.1.1.1, tmpfs: ['/t:size=1m', /u], expose: [80], security_opt: [a]",
        "cap_add: [B, C], dns: [2.2.2.2, 1.1.1.1], tmpfs: '/t:size=2m', expose: ['80', '90'], security_opt: [b]",
    );
    assert_eq!(service.cap_add, ["A", "B", "C"]);
    assert_eq!(service.dns, ["1.1.1.1", "2.2.2.2"]);
    assert_eq!(
        service
            .tmpfs
            .iter()
            .map(|tmpfs| (tmpfs.target.as_str(), tmpfs.options.size_bytes))
            .collect::<Vec<_>>(),
        [("/t", Some(2 << 20)), ("/u", None)]
    );
    assert_eq!(service.expose, ["80", "90"]);
    assert_eq!(service.security_opt, ["a", "b"]);
}

#[test]
fn ports_are_the_same_when_all_but_the_mode_is() {
    let service = merged(
        "ports: ['80:80', '443:443', '53:53/udp']",
        "ports: [{target: 80, published: 80, mode: host}, '81:80', '53:53']",
    );
    let ports: Vec<String> = service
        .ports
        .iter()
        .map(|port| {
            format!(
                "{:?}:{}/{:?}/{:?}",
                port.published.unwrap(),
                port.target,
                port.protocol,
                port.mode
            )
        })
        .collect();
    assert_eq!(
        ports,
        [
            "80:80/Tcp/Host",
            "443:443/Tcp/Ingress",
            "53:53/Udp/Ingress",
            "81:80/Tcp/Ingress",
            "53:53/Tcp/Ingress"
        ]
    );
}

#[test]
fn mounts_are_the_same_when_the_target_is() {
    let service = merged(
        "volumes: ['a:/x', 'a:/y:ro'], secrets: [s, {source: s, target: t}]",
        "volumes: [{type: bind, source: ./z, target: /x}, 'b:/z'], secrets: [{source: s, mode: 0400}, {source: s, target: t, uid: '5'}]",
    );
    let mounts: Vec<(Option<&str>, &str)> = service
        .mounts
        .iter()
        .map(|mount| (mount.source.as_deref(), mount.target.as_str()))
        .collect();
    assert_eq!(
        mounts,
        [(Some("/w/z"), "/x"), (Some("a"), "/y"), (Some("b"), "/z")]
    );
    assert_eq!(service.secrets.len(), 2);
    assert_eq!(service.secrets[0].mode, Some(0o400));
    assert_eq!(service.secrets[1].uid.as_deref(), Some("5"));
}

#[test]
fn networks_and_dependencies_are_merged_by_name() {
    let service = merged(
        "networks: [n], depends_on: []",
        "networks: {n: {aliases: [a]}, m: }",
    );
    assert_eq!(service.networks.keys().collect::<Vec<_>>(), ["m", "n"]);
    assert_eq!(service.networks["n"].aliases, ["a"]);
    let service = merged(
        "networks: {n: {aliases: [a, b]}}",
        "networks: {n: {aliases: [b, c]}}",
    );
    assert_eq!(service.networks["n"].aliases, ["a", "b", "c"]);
}

#[test]
fn options_of_another_log_driver_replace_those_before() {
    let service = merged(
        "logging: {driver: syslog, options: {a: 1}}",
        "logging: {driver: json-file, options: {b: 2}}",
    );
    assert_eq!(
        service
            .logging
            .unwrap()
            .options
            .into_keys()
            .collect::<Vec<_>>(),
        ["b"]
    );
    let service = merged(
        "logging: {driver: syslog, options: {a: 1}}",
        "logging: {options: {b: 2}}",
    );
    assert_eq!(
        service
            .logging
            .unwrap()
            .options
            .into_keys()
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
}

#[test]
fn deploy_is_merged_in_depth() {
    let service = merged(
        "deploy: {replicas: 2, update_config: {delay: 1s, order: stop-first}, placement: {constraints: [a==b]}}",
        "deploy: {mode: replicated, update_config: {order: start-first}, placement: {constraints: [c==d]}}",
    );
    assert_eq!(
        (service.deploy.mode, service.deploy.replicas),
        (DeployMode::Replicated, Some(2))
    );
    let update = service.deploy.update_config.unwrap();
    assert_eq!(
        (update.order, update.delay.is_some()),
        (Some(Order::StartFirst), true)
    );
    assert_eq!(service.deploy.placement.constraints, ["a==b", "c==d"]);
}

#[test]
fn nothing_in_a_later_file_changes_nothing() {
    let service = merged(
        "ports: ['80:80'], user: '1', environment: {A: 1}, ulimits: {nofile: 5}",
        "ports: , user: , environment: , ulimits: {nofile: {soft: 1, hard: 2}}",
    );
    assert_eq!(
        (
            service.ports.len(),
            service.user.as_deref(),
            service.environment.len()
        ),
        (1, Some("1"), 1)
    );
    assert_eq!(service.ulimits["nofile"].hard, 2);
}

#[test]
fn reset_takes_keys_away() {
    let service = merged(
        "ports: ['80:80'], user: '1', environment: {A: 1, B: 1}, deploy: {replicas: 2, mode: replicated}",
        "ports: !reset [], user: !reset null, environment: {A: !reset null}, deploy: {replicas: !reset 0}",
    );
    assert!(service.ports.is_empty());
    assert_eq!(service.user, None);
    assert_eq!(service.environment.into_keys().collect::<Vec<_>>(), ["B"]);
    assert_eq!(service.deploy.replicas, None);
}

#[test]
fn override_replaces_what_would_be_merged() {
    let service = merged(
        "ports: ['80:80'], environment: {A: 1}, networks: [n]",
        "ports: !override ['81:81'], environment: !override {B: 2}, networks: !override [m]",
    );
    assert_eq!(service.ports.len(), 1);
    assert_eq!(service.ports[0].published, Some(81));
    assert_eq!(service.environment.into_keys().collect::<Vec<_>>(), ["B"]);
    assert_eq!(service.networks.into_keys().collect::<Vec<_>>(), ["m"]);
}

#[test]
fn tags_of_one_file_alone_do_no_harm() {
    let text = "services: {web: {image: x, user: !reset '1', ports: !override ['80:80']}, api: !reset {image: x}}";
    let loaded = loaded(&[("compose.yaml", text)]);
    assert_eq!(loaded.project.services.keys().collect::<Vec<_>>(), ["web"]);
    let service = &loaded.project.services["web"];
    assert_eq!((service.user.as_deref(), service.ports.len()), (None, 1));
    assert!(!render(&loaded.document).contains('!'));
}

#[test]
fn pools_of_networks_are_merged_by_subnet() {
    let base = "services: {}\nnetworks: {n: {driver: overlay, ipam: {config: [{subnet: 10.1.0.0/16, gateway: 10.1.0.1}]}}}";
    let over = "networks: {n: {ipam: {config: [{subnet: 10.1.0.0/16, ip_range: 10.1.1.0/24}, {subnet: 10.2.0.0/16}]}}}";
    let project = loaded(&[("compose.yaml", base), ("over1.yaml", over)]).project;
    let pools = &project.networks["n"].ipam.as_ref().unwrap().pools;
    assert_eq!(pools.len(), 2);
    assert_eq!(
        (pools[0].gateway.as_deref(), pools[0].ip_range.as_deref()),
        (Some("10.1.0.1"), Some("10.1.1.0/24"))
    );
}

#[test]
fn kinds_that_do_not_fit_are_told() {
    let files = [
        (
            "compose.yaml",
            "services: {web: {image: x, deploy: {}, ports: ['80']}}",
        ),
        ("over1.yaml", "services: {web: {deploy: [a], ports: x}}"),
    ];
    assert_eq!(
        problems(&files),
        "over1.yaml:1:26: a list cannot be merged with a mapping (compose.yaml:1:36)\nover1.yaml:1:38: a string cannot be merged with a list (compose.yaml:1:47)"
    );
}

#[test]
fn documents_of_one_file_are_merged_as_files_are() {
    let text = "services: {web: {image: a, environment: {A: 1}}}\n---\nservices: {web: {image: b, environment: {B: 1}}}\n";
    let service = &loaded(&[("compose.yaml", text)]).project.services["web"];
    assert_eq!(
        (service.image.as_str(), service.environment.len()),
        ("b", 2)
    );
}

#[test]
fn anchors_and_merge_keys_are_those_of_yaml() {
    let text = "
x-a: &a {tty: true, user: '1', environment: &e {A: 1}}
x-b: &b {user: '2', init: true}
services:
  one: {<<: [*a, *b], image: x}
  two: {image: x, <<: *b, user: '3', environment: {<<: *e, B: 2}}
";
    let project = loaded(&[("compose.yaml", text)]).project;
    let one = &project.services["one"];
    assert_eq!(
        (one.has_tty, one.user.as_deref(), one.has_init),
        (true, Some("1"), Some(true))
    );
    let two = &project.services["two"];
    assert_eq!((two.user.as_deref(), two.environment.len()), (Some("3"), 2));
}
