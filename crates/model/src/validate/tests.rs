//! Each rule with its text.

use std::sync::Arc;

use super::*;
use crate::{
    id::Version,
    object::Meta,
    reserved::service::PUBLISH_ADDRESS,
    rng::Rng,
    spec::{ConfigReference, FileTarget, SecretReference},
};

fn spec() -> ServiceSpec {
    let mut task = TaskSpec::default();
    task.container.image = "nginx:1.27".to_owned();
    ServiceSpec {
        annotations: Arc::new(Annotations {
            name: "web".to_owned(),
            ..Annotations::default()
        }),
        task: Arc::new(task),
        ..ServiceSpec::default()
    }
}

fn texts(problems: Vec<Problem>) -> Vec<String> {
    problems.into_iter().map(|problem| problem.0).collect()
}

#[track_caller]
fn check(change: impl FnOnce(&mut ServiceSpec), expected: &[&str]) {
    let mut spec = spec();
    change(&mut spec);
    assert_eq!(texts(service_spec(&spec)), expected);
}

#[track_caller]
fn check_task(change: impl FnOnce(&mut TaskSpec), expected: &[&str]) {
    check(|spec| change(Arc::make_mut(&mut spec.task)), expected);
}

fn rename(spec: &mut ServiceSpec, name: &str) {
    Arc::make_mut(&mut spec.annotations).name = name.to_owned();
}

#[test]
fn a_plain_service_is_valid() {
    check(|_| {}, &[]);
}

#[test]
fn names_are_dns_labels() {
    check(|s| rename(s, ""), &["meta: name must be provided"]);
    for bad in ["-web", "web-", "we.b", "wéb", "we b"] {
        check(
            |s| rename(s, bad),
            &["name must be valid as a DNS name component"],
        );
    }
    check(
        |s| rename(s, &"a".repeat(64)),
        &["name must be 63 characters or fewer"],
    );
    check(|s| rename(s, "stack_web--1"), &[]);
}

#[test]
fn tiny_resources_are_refused() {
    check_task(
        |t| t.resources.limits.nano_cpus = 500_000,
        &["invalid cpu value 0.0005: Must be at least 0.001"],
    );
    check_task(
        |t| t.resources.reservations.nano_cpus = 1,
        &["invalid cpu value 1e-09: Must be at least 0.001"],
    );
    check_task(
        |t| t.resources.reservations.memory_bytes = 1024,
        &["invalid memory value 1024: Must be at least 4MiB"],
    );
    check_task(|t| t.resources.limits.memory_bytes = MEMORY_BYTES_MIN, &[]);
}

#[test]
fn every_bad_constraint_is_reported() {
    check_task(
        |t| t.placement.constraints = vec!["a".to_owned(), "node.id == <".to_owned()],
        &[
            "constraint expected one operator from ==, !=",
            "value '<' is invalid",
        ],
    );
}

#[test]
fn secrets_have_ids_targets_and_distinct_files() {
    let secret = |name: &str, file: Option<&str>| SecretReference {
        secret_id: "id".to_owned(),
        secret_name: name.to_owned(),
        file: file.map(|file| FileTarget {
            name: file.to_owned(),
            ..FileTarget::default()
        }),
    };
    check_task(
        |t| {
            t.container.secrets = vec![
                secret("", Some("f")),
                secret("a", None),
                secret("b", Some("")),
                secret("c", Some("same")),
                secret("d", Some("same")),
            ];
        },
        &[
            "malformed secret reference",
            "malformed secret reference, no target provided",
            "malformed file secret reference, invalid target file name provided",
            "secret references 'c' and 'd' have a conflicting target: 'same'",
        ],
    );
}

#[test]
fn a_credential_spec_config_must_be_referenced() {
    let privileges = crate::spec::Privileges {
        credential_spec: Some(CredentialSpec::Config("cfg".to_owned())),
        ..crate::spec::Privileges::default()
    };
    check_task(
        |t| t.container.privileges = Some(privileges.clone()),
        &[
            "CredentialSpec references config 'cfg', but that config isn't in config references with RuntimeTarget",
        ],
    );
    check_task(
        |t| {
            t.container.privileges = Some(privileges.clone());
            t.container.configs = vec![ConfigReference {
                config_id: "cfg".to_owned(),
                config_name: "name".to_owned(),
                target: Some(ConfigTarget::Runtime),
            }];
        },
        &[],
    );
}

#[test]
fn images_and_mounts_are_checked() {
    check_task(
        |t| t.container.image.clear(),
        &["ContainerSpec: image reference must be provided"],
    );
    check_task(
        |t| t.container.image = "NGINX".to_owned(),
        &["ContainerSpec: \"NGINX\" is not a valid repository/tag"],
    );
    check_task(
        |t| {
            let mount = Mount {
                target: "/data".to_owned(),
                ..Mount::default()
            };
            t.container.mounts = vec![mount.clone(), mount];
        },
        &["ContainerSpec: duplicate mount point: /data"],
    );
}

#[test]
fn health_checks_have_a_least_duration() {
    check_task(
        |t| {
            t.container.health = Some(HealthConfig {
                interval: Duration::from_micros(5),
                retries: -1,
                ..HealthConfig::default()
            });
        },
        &[
            "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
            "ContainerSpec: Retries in HealthConfig cannot be negative",
        ],
    );
}

#[test]
fn health_checks_say_what_to_run() {
    let unclear =
        "ContainerSpec: Test in HealthConfig must be NONE, or CMD or CMD-SHELL and a command";
    for (test, problems) in [
        (&[][..], &[][..]),
        (&["NONE"], &[]),
        (&["CMD", "true"], &[]),
        (&["CMD-SHELL", "true"], &[]),
        (&["CMD"], &[unclear]),
        (&["true"], &[unclear]),
    ] {
        check_task(
            |t| {
                t.container.health = Some(HealthConfig {
                    test: test.iter().map(|word| (*word).to_owned()).collect(),
                    ..HealthConfig::default()
                });
            },
            problems,
        );
    }
}

#[test]
fn counts_that_wrapped_below_zero_are_refused() {
    check(
        |s| s.mode = ServiceMode::Replicated { replicas: u64::MAX },
        &["Number of replicas must be non-negative"],
    );
    check(
        |s| {
            s.mode = ServiceMode::Replicated {
                replicas: REPLICAS_MAX + 1,
            }
        },
        &["Number of replicas must be at most 100000"],
    );
}

#[test]
fn what_costs_more_the_more_there_is_has_a_limit() {
    check(
        |s| {
            let placement = &mut Arc::make_mut(&mut s.task).placement;
            placement.spread_over = vec!["node.labels.zone".to_owned(); 33];
        },
        &["at most 32 placement preferences are allowed"],
    );
    check(
        |s| {
            let restart = &mut Arc::make_mut(&mut s.task).restart;
            restart.max_attempts = 1001;
            restart.window = Duration::from_secs(60);
        },
        &["RestartPolicy: at most 1000 attempts can be counted within a window"],
    );
    check(
        |s| Arc::make_mut(&mut s.task).restart.max_attempts = u64::MAX,
        &[],
    );
}

#[test]
fn update_ratios_are_shares() {
    for ratio in [-0.1, 1.1, f32::NAN] {
        check(
            |s| {
                s.update = Some(UpdateConfig {
                    max_failure_ratio: ratio,
                    ..UpdateConfig::default()
                });
            },
            &["TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"],
        );
    }
}

#[test]
fn jobs_have_no_update_config() {
    check(
        |s| {
            s.mode = ServiceMode::GlobalJob;
            s.update = Some(UpdateConfig::default());
        },
        &["Jobs may not have an update config"],
    );
}

fn port(published: u16, mode: PublishMode) -> PortConfig {
    PortConfig {
        target_port: 80,
        published_port: published,
        publish_mode: mode,
        ..PortConfig::default()
    }
}

fn with_ports(mode: ResolutionMode, ports: Vec<PortConfig>) -> ServiceSpec {
    ServiceSpec {
        endpoint: Some(EndpointSpec { mode, ports }),
        ..spec()
    }
}

#[test]
fn ports_are_unique_and_fit_the_mode() {
    let both = vec![port(80, PublishMode::Ingress), port(80, PublishMode::Host)];
    assert_eq!(
        texts(service_spec(&with_ports(ResolutionMode::DnsRr, both))),
        [
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            "EndpointSpec: duplicate published ports provided",
        ]
    );
    let chosen_later = vec![port(0, PublishMode::Host), port(0, PublishMode::Host)];
    let fine = with_ports(ResolutionMode::DnsRr, chosen_later);
    assert!(service_spec(&fine).is_empty());
}

#[test]
fn ingress_ports_belong_to_one_service() {
    let holder = Service {
        id: ServiceId::random(&mut Rng::from_seed(3)),
        meta: Meta::default(),
        spec: Arc::new(with_ports(
            ResolutionMode::Vip,
            vec![port(80, PublishMode::Ingress), port(81, PublishMode::Host)],
        )),
        spec_version: Version(0),
        previous_spec: None,
        previous_spec_version: None,
        endpoint: None,
        update_status: None,
        job_status: None,
        is_pending_delete: false,
    };
    let conflicts = |number, mode, own| {
        let spec = with_ports(ResolutionMode::Vip, vec![port(number, mode)]);
        texts(port_conflicts(&spec, own, std::iter::once(&holder)))
    };
    let id = holder.id;
    assert_eq!(
        conflicts(80, PublishMode::Host, None),
        [format!(
            "port '80' is already in use by service 'web' ({id}) as an ingress port"
        )]
    );
    assert_eq!(
        conflicts(81, PublishMode::Ingress, None),
        [format!(
            "port '81' is already in use by service 'web' ({id}) as a host-published port"
        )]
    );
    assert!(conflicts(81, PublishMode::Host, None).is_empty());
    assert!(conflicts(80, PublishMode::Ingress, Some(id)).is_empty());
}

#[test]
fn services_published_on_different_addresses_do_not_meet() {
    let with_address = |address: Option<&str>| {
        let mut spec = with_ports(ResolutionMode::Vip, vec![port(80, PublishMode::Ingress)]);
        let label = |address: &str| (PUBLISH_ADDRESS.to_owned(), address.to_owned());
        let labels = &mut Arc::make_mut(&mut spec.annotations).labels;
        labels.extend(address.map(label));
        spec
    };
    let check = |one, other, is_conflict: bool| {
        let holder = Service {
            id: ServiceId::random(&mut Rng::from_seed(3)),
            meta: Meta::default(),
            spec: Arc::new(with_address(other)),
            spec_version: Version(0),
            previous_spec: None,
            previous_spec_version: None,
            endpoint: None,
            update_status: None,
            job_status: None,
            is_pending_delete: false,
        };
        let found = port_conflicts(&with_address(one), None, std::iter::once(&holder));
        assert_eq!(found.is_empty(), !is_conflict, "{one:?} {other:?}");
    };
    check(Some("192.0.2.1"), Some("192.0.2.2"), false);
    check(Some("192.0.2.1"), Some("2001:db8::1"), false);
    check(Some("192.0.2.1"), Some("192.0.2.1"), true);
    check(Some("192.0.2.1"), None, true);
    check(None, Some("192.0.2.1"), true);
}

#[test]
fn mode_and_name_cannot_change() {
    let mut new = spec();
    new.mode = ServiceMode::Global;
    rename(&mut new, "other");
    assert_eq!(
        texts(service_update(&spec(), &new)),
        [
            "service mode change is not allowed",
            "renaming services is not supported",
        ]
    );
    let mut scaled = spec();
    scaled.mode = ServiceMode::Replicated { replicas: 9 };
    assert!(service_update(&spec(), &scaled).is_empty());
}

#[test]
fn clusters_keep_their_name_and_certificates_live_an_hour() {
    assert!(cluster_spec(&ClusterSpec::default()).is_empty());
    let mut spec = ClusterSpec::default();
    spec.annotations.name = "mine".to_owned();
    spec.ca.node_cert_expiry = Duration::from_secs(60);
    assert_eq!(
        texts(cluster_spec(&spec)),
        [
            "minimum certificate expiry time is: 1h0m0s",
            "modification of cluster name is not allowed",
        ]
    );
}

#[test]
fn labels_of_nodes_that_nobody_reads_are_refused() {
    let mut spec = NodeSpec::default();
    let labels = &mut spec.annotations.labels;
    for (key, value) in [("zone", "a"), ("skep.alow", "x"), ("skep.allow", "devices")] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    let problem = "unknown label `skep.alow`: known of nodes is skep.allow";
    assert_eq!(texts(node_spec(&spec)), [problem]);
}

#[test]
fn node_names_are_optional() {
    assert!(node_spec(&NodeSpec::default()).is_empty());
    let mut spec = NodeSpec::default();
    spec.annotations.name = "-".to_owned();
    assert_eq!(node_spec(&spec).len(), 1);
}
