//! Every key of a service, in its forms.

use std::{collections::BTreeMap, time::Duration};

use skep_compose::project::{
    BindOptions, Condition, Dependency, Deploy, DeployMode, EndpointMode, FailureAction,
    GenericResource, Healthcheck, Logging, Mount, MountKind, Order, Placement, Platform, Port,
    Propagation, Protocol, PublishMode, Recursive, Resources, Restart, RestartCondition,
    RestartPolicy, Selinux, Test, Tmpfs, TmpfsOptions, Ulimit, UpdateConfig, VolumeOptions,
};

use crate::disk::{loaded, web};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn port(published: Option<u16>, target: u16) -> Port {
    Port {
        target,
        published,
        ..Port::default()
    }
}

#[test]
fn commands_are_split_or_lists() {
    let service = web("command: sh -c 'echo \"a b\"'\nentrypoint: [\"/run\", \"x y\"]");
    assert_eq!(service.command.unwrap(), ["sh", "-c", "echo \"a b\""]);
    assert_eq!(service.entrypoint.unwrap(), ["/run", "x y"]);
    let service = web("command: []\nentrypoint: ''");
    assert_eq!(
        (service.command, service.entrypoint),
        (Some(vec![]), Some(vec![]))
    );
    assert_eq!(web("command:").command, None);
}

#[test]
fn environment_has_the_texts_of_go() {
    let service =
        web("environment: {A: 0440, B: 1.0, C: true, D: yes, E: '007', F: , HOME: , G: ''}");
    let got: Vec<(&str, Option<&str>)> = service
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()))
        .collect();
    let expect = [
        ("A", Some("288")),
        ("B", Some("1")),
        ("C", Some("true")),
        ("D", Some("yes")),
        ("E", Some("007")),
        ("F", None),
        ("G", Some("")),
        ("HOME", Some("/home/ann")),
    ];
    assert_eq!(got, expect);
    let service = web("environment: [A=1=2, B=, C, HOME]");
    let got: Vec<(&str, Option<&str>)> = service
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()))
        .collect();
    assert_eq!(
        got,
        [
            ("A", Some("1=2")),
            ("B", Some("")),
            ("C", None),
            ("HOME", Some("/home/ann"))
        ]
    );
}

#[test]
fn labels_are_lists_or_mappings() {
    let expect = map(&[("a", "1"), ("b", ""), ("c.d", "x=y")]);
    assert_eq!(web("labels: [a=1, b, c.d=x=y]").labels, expect);
    assert_eq!(web("labels: {a: 1, b: , c.d: x=y}").labels, expect);
    assert_eq!(
        web("deploy: {labels: [a=1, b, c.d=x=y]}").deploy.labels,
        expect
    );
    assert_eq!(
        web("sysctls: [net.core.somaxconn=1024]").sysctls,
        map(&[("net.core.somaxconn", "1024")])
    );
}

#[test]
fn short_ports_are_expanded() {
    let check = |text: &str, expect: &[Port]| {
        assert_eq!(web(&format!("ports: [{text}]")).ports, expect, "{text}")
    };
    check("80", &[port(None, 80)]);
    check("'8080:80'", &[port(Some(8080), 80)]);
    check("22:22", &[port(Some(22), 22)]);
    check(
        "'8080-8082:80'",
        &[
            port(Some(8080), 80),
            port(Some(8081), 80),
            port(Some(8082), 80),
        ],
    );
    check("'99-100:9-10'", &[port(Some(100), 10), port(Some(99), 9)]);
    check("'9-10'", &[port(None, 10), port(None, 9)]);
    check(
        "'53:53/UDP'",
        &[Port {
            protocol: Protocol::Udp,
            ..port(Some(53), 53)
        }],
    );
    for (text, ip) in [
        ("'127.0.0.1:80:81'", "127.0.0.1"),
        ("'[::1]:80:81'", "::1"),
        ("'::1:80:81'", "::1"),
    ] {
        check(
            text,
            &[Port {
                host_ip: Some(ip.to_owned()),
                ..port(Some(80), 81)
            }],
        );
    }
    check(
        "'127.0.0.1::81'",
        &[Port {
            host_ip: Some("127.0.0.1".to_owned()),
            ..port(None, 81)
        }],
    );
}

#[test]
fn long_ports_say_all() {
    let service = web(
        "ports:\n- {target: 80, published: '8080', protocol: sctp, mode: host, name: web, app_protocol: http, x-a: b}\n- {target: '53', published: 1-2}\n- {target: 9, published: 0}",
    );
    let first = Port {
        name: Some("web".to_owned()),
        protocol: Protocol::Sctp,
        mode: PublishMode::Host,
        app_protocol: Some("http".to_owned()),
        ..port(Some(8080), 80)
    };
    assert_eq!(
        service.ports,
        [first, port(Some(1), 53), port(Some(2), 53), port(None, 9)]
    );
}

#[test]
fn short_mounts_are_volumes_and_binds() {
    let text = "services: {web: {image: x, volumes: ['data:/d', '/anon', './a/../b:/b:ro,rshared', '~/c:/c:Z', 'data:/e:nocopy,ro', '/x:/y:cached']}}\nvolumes: {data: }";
    let project = loaded(&[("compose.yaml", text)]).project;
    let mount = |kind, source: Option<&str>, target: &str| Mount {
        kind,
        source: source.map(str::to_owned),
        target: target.to_owned(),
        ..Mount::default()
    };
    let propagation = BindOptions {
        propagation: Some(Propagation::Rshared),
        ..BindOptions::default()
    };
    let selinux = BindOptions {
        selinux: Some(Selinux::Private),
        ..BindOptions::default()
    };
    let nocopy = VolumeOptions {
        is_nocopy: true,
        ..VolumeOptions::default()
    };
    let expect = [
        mount(MountKind::Volume, Some("data"), "/d"),
        mount(MountKind::Volume, None, "/anon"),
        Mount {
            is_read_only: true,
            bind: Some(propagation),
            ..mount(MountKind::Bind, Some("/w/b"), "/b")
        },
        Mount {
            bind: Some(selinux),
            ..mount(MountKind::Bind, Some("/home/ann/c"), "/c")
        },
        Mount {
            is_read_only: true,
            volume: Some(nocopy),
            ..mount(MountKind::Volume, Some("data"), "/e")
        },
        Mount {
            consistency: Some("cached".to_owned()),
            ..mount(MountKind::Bind, Some("/x"), "/y")
        },
    ];
    assert_eq!(project.services["web"].mounts, expect);
}

#[test]
fn long_mounts_say_all() {
    let service = web(
        "volumes:
- {type: bind, source: ../x, target: /x, read_only: yes, bind: {create_host_path: true, recursive: readonly, propagation: slave, selinux: z}}
- {type: tmpfs, target: /t, tmpfs: {size: 64m, mode: 01777}}
- {type: volume, target: /v, volume: {subpath: a, labels: {b: c}}}
- {type: image, source: alpine, target: /i, image: {subpath: etc}}
tmpfs: [/run, '/tmp:size=1m,mode=700,noexec,uid=5']",
    );
    assert_eq!(service.mounts[0].source.as_deref(), Some("/x"));
    assert_eq!(
        service.mounts[0].bind,
        Some(BindOptions {
            propagation: Some(Propagation::Slave),
            is_created: Some(true),
            recursive: Some(Recursive::Readonly),
            selinux: Some(Selinux::Shared)
        })
    );
    assert_eq!(
        service.mounts[1].tmpfs,
        Some(TmpfsOptions {
            size_bytes: Some(64 << 20),
            mode: Some(0o1777)
        })
    );
    assert_eq!(
        service.mounts[2].volume,
        Some(VolumeOptions {
            subpath: Some("a".to_owned()),
            labels: map(&[("b", "c")]),
            ..VolumeOptions::default()
        })
    );
    assert_eq!(service.mounts[3].image_subpath.as_deref(), Some("etc"));
    let options = TmpfsOptions {
        size_bytes: Some(1 << 20),
        mode: Some(0o700),
    };
    assert_eq!(
        service.tmpfs[0],
        Tmpfs {
            target: "/run".to_owned(),
            ..Tmpfs::default()
        }
    );
    assert_eq!(
        service.tmpfs[1],
        Tmpfs {
            target: "/tmp".to_owned(),
            options,
            flags: vec!["noexec".to_owned(), "uid=5".to_owned()]
        }
    );
}

#[test]
fn health_tests_have_three_forms() {
    let test = |text: &str| {
        web(&format!("healthcheck: {{{text}}}"))
            .healthcheck
            .unwrap()
            .test
    };
    assert_eq!(
        test("test: curl x || exit 1"),
        Some(Test::Shell("curl x || exit 1".to_owned()))
    );
    assert_eq!(
        test("test: [CMD-SHELL, curl x]"),
        Some(Test::Shell("curl x".to_owned()))
    );
    assert_eq!(
        test("test: [CMD, curl, x]"),
        Some(Test::Command(vec!["curl".to_owned(), "x".to_owned()]))
    );
    assert_eq!(test("test: [NONE]"), Some(Test::None));
    assert_eq!(test("disable: true"), Some(Test::None));
    let health = web("healthcheck: {interval: 1m30s, timeout: 5s, retries: '3', start_period: 0, start_interval: 500ms}").healthcheck.unwrap();
    let expect = Healthcheck {
        test: None,
        interval: Some(Duration::from_secs(90)),
        timeout: Some(Duration::from_secs(5)),
        retries: Some(3),
        start_period: Some(Duration::ZERO),
        start_interval: Some(Duration::from_millis(500)),
    };
    assert_eq!(health, expect);
}

#[test]
fn deploy_is_there_in_full() {
    let deploy = web(
        "deploy:
  mode: replicated
  replicas: 3
  endpoint_mode: dnsrr
  update_config: {parallelism: 0, delay: 10s, failure_action: rollback, monitor: 1m, max_failure_ratio: 0.1, order: start-first}
  rollback_config: {failure_action: continue}
  resources:
    limits: {cpus: '0.50', memory: 50M, pids: 10}
    reservations: {cpus: 0.25, memory: 20M, generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]}
  restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 120s}
  placement: {constraints: [node.role == manager], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 1}",
    )
    .deploy;
    let expect = Deploy {
        mode: DeployMode::Replicated,
        replicas: Some(3),
        endpoint_mode: Some(EndpointMode::Dnsrr),
        labels: BTreeMap::new(),
        update_config: Some(UpdateConfig {
            parallelism: Some(0),
            delay: Some(Duration::from_secs(10)),
            failure_action: Some(FailureAction::Rollback),
            monitor: Some(Duration::from_secs(60)),
            max_failure_ratio: Some(0.1),
            order: Some(Order::StartFirst),
        }),
        rollback_config: Some(UpdateConfig {
            failure_action: Some(FailureAction::Continue),
            ..UpdateConfig::default()
        }),
        limits: Some(Resources {
            nano_cpus: Some(500_000_000),
            memory_bytes: Some(50 << 20),
            pids: Some(10),
            generic: vec![],
        }),
        reservations: Some(Resources {
            nano_cpus: Some(250_000_000),
            memory_bytes: Some(20 << 20),
            pids: None,
            generic: vec![GenericResource {
                kind: "gpu".to_owned(),
                value: 2,
            }],
        }),
        restart_policy: Some(RestartPolicy {
            condition: Some(RestartCondition::OnFailure),
            delay: Some(Duration::from_secs(5)),
            max_attempts: Some(3),
            window: Some(Duration::from_secs(120)),
        }),
        placement: Placement {
            constraints: vec!["node.role == manager".to_owned()],
            spread: vec!["node.labels.zone".to_owned()],
            max_replicas_per_node: Some(1),
        },
    };
    assert_eq!(deploy, expect);
}

#[test]
fn limits_of_one_container_are_limits_of_tasks() {
    let deploy = web("scale: 2\ncpus: 1.5\nmem_limit: 1g\nmem_reservation: 512m\npids_limit: 100\ndeploy: {replicas: 2}").deploy;
    assert_eq!(deploy.replicas, Some(2));
    assert_eq!(
        deploy.limits,
        Some(Resources {
            nano_cpus: Some(1_500_000_000),
            memory_bytes: Some(1 << 30),
            pids: Some(100),
            generic: vec![]
        })
    );
    assert_eq!(
        deploy.reservations,
        Some(Resources {
            memory_bytes: Some(512 << 20),
            ..Resources::default()
        })
    );
    assert_eq!(web("").deploy, Deploy::default());
    let small = web("cpus: 0.00001").deploy.limits.unwrap();
    assert_eq!(small.nano_cpus, Some(10_000));
}

#[test]
fn the_keys_of_processes() {
    let service = web("hostname: '{{.Node.Hostname}}'
user: '1:2'
group_add: [5, wheel]
working_dir: /w
stop_signal: SIGINT
stop_grace_period: 1m
init: true
tty: true
stdin_open: true
read_only: true
cap_add: [NET_ADMIN]
cap_drop: [ALL]
ulimits: {nofile: {soft: 1, hard: 2}, core: -1}");
    assert_eq!(service.hostname.as_deref(), Some("{{.Node.Hostname}}"));
    assert_eq!(
        (
            service.user.as_deref(),
            service.working_dir.as_deref(),
            service.stop_signal.as_deref()
        ),
        (Some("1:2"), Some("/w"), Some("SIGINT"))
    );
    assert_eq!(service.groups, ["5", "wheel"]);
    assert_eq!(service.stop_grace_period, Some(Duration::from_secs(60)));
    assert_eq!(
        (
            service.has_init,
            service.has_tty,
            service.is_stdin_open,
            service.is_read_only
        ),
        (Some(true), true, true, true)
    );
    assert_eq!(
        (service.cap_add, service.cap_drop),
        (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()])
    );
    assert_eq!(service.ulimits["nofile"], Ulimit { soft: 1, hard: 2 });
    assert_eq!(service.ulimits["core"], Ulimit { soft: -1, hard: -1 });
}

#[test]
fn the_other_keys_of_services() {
    let service = web("oom_score_adj: -5
dns: 1.1.1.1
dns_search: [a, b]
dns_opt: [ndots:1]
extra_hosts: {z: 1.2.3.4, a: '[::1]'}
logging: {driver: syslog, options: {tag: 5, x: }}
restart: no
platform: linux/arm64/v8
expose: [80, '90']
isolation: default
develop: {watch: []}
attach: false
x-anything: [1]");
    assert_eq!(service.oom_score_adj, Some(-5));
    assert_eq!(
        (service.dns, service.dns_search, service.dns_options),
        (
            vec!["1.1.1.1".to_owned()],
            vec!["a".to_owned(), "b".to_owned()],
            vec!["ndots:1".to_owned()]
        )
    );
    let hosts: Vec<(&str, &str)> = service
        .extra_hosts
        .iter()
        .map(|host| (host.host.as_str(), host.address.as_str()))
        .collect();
    assert_eq!(hosts, [("a", "::1"), ("z", "1.2.3.4")]);
    assert_eq!(
        service.logging,
        Some(Logging {
            driver: Some("syslog".to_owned()),
            options: map(&[("tag", "5"), ("x", "")])
        })
    );
    assert_eq!(service.restart, Some(Restart::No));
    assert_eq!(
        service.platform,
        Some(Platform {
            os: "linux".to_owned(),
            architecture: Some("arm64".to_owned())
        })
    );
    assert_eq!(service.expose, ["80", "90"]);
}

#[test]
fn keys_docker_ignores_are_carried() {
    let service = web(
        "privileged: true\ndevices: [/dev/fuse, '/dev/a:/dev/b:r', '/dev/c:rw', {source: /dev/d, permissions: m}]\nshm_size: 64m\nsecurity_opt: [no-new-privileges]\npid: host\nipc: host\nuts: host\nuserns_mode: host",
    );
    assert!(service.is_privileged);
    let devices: Vec<[&str; 3]> = service
        .devices
        .iter()
        .map(|device| [device.source.as_str(), &device.target, &device.permissions])
        .collect();
    assert_eq!(
        devices,
        [
            ["/dev/fuse", "/dev/fuse", "rwm"],
            ["/dev/a", "/dev/b", "r"],
            ["/dev/c", "/dev/c", "rw"],
            ["/dev/d", "/dev/d", "m"]
        ]
    );
    assert_eq!(
        (service.shm_size, service.security_opt),
        (Some(64 << 20), vec!["no-new-privileges".to_owned()])
    );
    assert_eq!(
        [service.pid, service.ipc, service.uts, service.userns_mode],
        [(); 4].map(|()| Some("host".to_owned()))
    );
}

#[test]
fn restarts_and_dependencies() {
    let restart = |text: &str| web(&format!("restart: {text}")).restart.unwrap();
    assert_eq!(restart("always"), Restart::Always);
    assert_eq!(restart("'no'"), Restart::No);
    assert_eq!(restart("unless-stopped"), Restart::UnlessStopped);
    assert_eq!(
        restart("on-failure"),
        Restart::OnFailure { attempts_max: None }
    );
    assert_eq!(
        restart("on-failure:5"),
        Restart::OnFailure {
            attempts_max: Some(5)
        }
    );
    let text = "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: {c: {condition: service_healthy, restart: true}, gone: {condition: service_started, required: false}}}, c: {image: x}}";
    let project = loaded(&[("compose.yaml", text)]).project;
    let started = Dependency {
        condition: Condition::Started,
        is_restart: false,
        is_required: true,
    };
    assert_eq!(project.services["a"].depends_on["b"], started);
    let healthy = Dependency {
        condition: Condition::Healthy,
        is_restart: true,
        is_required: true,
    };
    assert_eq!(
        project.services["b"].depends_on,
        BTreeMap::from([("c".to_owned(), healthy)])
    );
}
