//! What is written reads back as it was, for every object that is both written and read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::{collection::vec, option::of, prelude::*};
use skep_model::*;

use crate::{
    convert::{merge_cluster_spec, merge_node_spec, service_spec},
    dto,
    http::version::{ApiVersion, VERSION_MAX},
};

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9.]{0,6}"
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[a-z]{1,4}", text(), 0..3)
}

fn duration() -> impl Strategy<Value = Duration> {
    (0u64..1 << 60).prop_map(Duration::from_nanos)
}

fn mount() -> impl Strategy<Value = Mount> {
    let bind = (0usize..6, any::<[bool; 4]>()).prop_map(|(index, flags)| BindOptions {
        propagation: [
            Propagation::RPrivate,
            Propagation::Private,
            Propagation::RShared,
            Propagation::Shared,
            Propagation::RSlave,
            Propagation::Slave,
        ][index],
        is_non_recursive: flags[0],
        create_mountpoint: flags[1],
        is_read_only_non_recursive: flags[2],
        is_read_only_force_recursive: flags[3],
    });
    let volume =
        (any::<bool>(), map(), text()).prop_map(|(is_no_copy, labels, subpath)| VolumeOptions {
            is_no_copy,
            labels,
            driver: None,
            subpath,
        });
    let tmpfs = (any::<i64>(), any::<u32>(), vec(vec(text(), 1..3), 0..3)).prop_map(
        |(size_bytes, mode, options)| TmpfsOptions {
            size_bytes,
            mode,
            options: match options.is_empty() {
                true => String::new(),
                false => serde_json::to_string(&options).expect("encodes"),
            },
        },
    );
    (
        0usize..3,
        text(),
        text(),
        any::<bool>(),
        of(bind),
        of(volume),
        of(tmpfs),
    )
        .prop_map(
            |(kind, source, target, is_read_only, bind, volume, tmpfs)| Mount {
                kind: [MountKind::Bind, MountKind::Volume, MountKind::Tmpfs][kind],
                source,
                target,
                is_read_only,
                consistency: Consistency::Default,
                bind,
                volume,
                tmpfs,
            },
        )
}

fn privileges() -> impl Strategy<Value = Privileges> {
    (0usize..3, 0usize..3, any::<bool>()).prop_map(|(seccomp, apparmor, no_new_privileges)| {
        let seccomp = [
            None,
            Some(SeccompMode::Default),
            Some(SeccompMode::Unconfined),
        ][seccomp];
        Privileges {
            credential_spec: None,
            selinux: None,
            seccomp: seccomp.map(|mode| SeccompOptions {
                mode,
                profile: vec![],
            }),
            apparmor: [
                None,
                Some(AppArmorMode::Default),
                Some(AppArmorMode::Disabled),
            ][apparmor],
            no_new_privileges,
        }
    })
}

fn container() -> impl Strategy<Value = ContainerSpec> {
    let texts = vec(text(), 6);
    let lists = vec(vec(text(), 0..3), 6);
    let flags = (any::<bool>(), any::<bool>(), of(any::<bool>()));
    let rest = (
        vec(mount(), 0..3),
        of(duration()),
        of(privileges()),
        vec((text(), any::<i64>(), any::<i64>()), 0..2),
        any::<i64>(),
    );
    (texts, lists, map(), map(), flags, rest).prop_map(
        |(texts, lists, labels, sysctls, flags, rest)| {
            let ulimit = |(name, soft, hard)| Ulimit { name, soft, hard };
            ContainerSpec {
                image: texts[0].clone(),
                labels,
                command: lists[0].clone(),
                args: lists[1].clone(),
                hostname: texts[1].clone(),
                env: lists[2].clone(),
                dir: texts[2].clone(),
                user: texts[3].clone(),
                groups: lists[3].clone(),
                privileges: rest.2,
                init: flags.2,
                has_tty: flags.0,
                is_read_only: flags.1,
                stop_signal: texts[4].clone(),
                mounts: rest.0,
                stop_grace_period: rest.1,
                sysctls,
                capability_add: lists[4].clone(),
                capability_drop: lists[5].clone(),
                ulimits: rest.3.into_iter().map(ulimit).collect(),
                oom_score_adj: rest.4,
                ..ContainerSpec::default()
            }
        },
    )
}

fn task() -> impl Strategy<Value = TaskSpec> {
    let restart = (0usize..3, duration(), any::<u64>(), duration()).prop_map(
        |(condition, delay, max_attempts, window)| RestartPolicy {
            condition: [
                RestartCondition::None,
                RestartCondition::OnFailure,
                RestartCondition::Any,
            ][condition],
            delay,
            max_attempts,
            window,
        },
    );
    let placement = (vec(text(), 0..3), vec(text(), 0..2), any::<u64>(), text()).prop_map(
        |(constraints, spread_over, max_replicas, os)| Placement {
            constraints,
            spread_over,
            platforms: vec![Platform {
                architecture: "amd64".to_owned(),
                os,
            }],
            max_replicas,
        },
    );
    (
        container(),
        any::<[i64; 5]>(),
        restart,
        placement,
        vec(network(), 0..3),
        any::<u64>(),
    )
        .prop_map(
            |(container, amounts, restart, placement, networks, force_update)| {
                let amount = |nano_cpus, memory_bytes| Resources {
                    nano_cpus,
                    memory_bytes,
                    generic: Vec::new(),
                };
                TaskSpec {
                    container,
                    resources: ResourceRequirements {
                        limits: amount(amounts[0], amounts[1]),
                        reservations: Resources {
                            generic: vec![GenericResource::Discrete {
                                kind: "gpu".to_owned(),
                                value: amounts[4],
                            }],
                            ..amount(amounts[2], amounts[3])
                        },
                        pids_limit: amounts[4],
                        ..ResourceRequirements::default()
                    },
                    restart,
                    placement,
                    log_driver: Some(Driver {
                        name: "json-file".to_owned(),
                        options: BTreeMap::new(),
                    }),
                    networks,
                    force_update,
                }
            },
        )
}

fn network() -> impl Strategy<Value = NetworkAttachmentConfig> {
    (text(), vec(text(), 0..3)).prop_map(|(target, aliases)| NetworkAttachmentConfig {
        target,
        aliases,
        addresses: Vec::new(),
        driver_options: BTreeMap::new(),
    })
}

fn update() -> impl Strategy<Value = UpdateConfig> {
    (
        any::<u64>(),
        duration(),
        0usize..3,
        of(1u64..1 << 50),
        0.0f32..1.0,
        any::<bool>(),
    )
        .prop_map(
            |(parallelism, delay, action, monitor, max_failure_ratio, is_start_first)| {
                UpdateConfig {
                    parallelism,
                    delay,
                    failure_action: [
                        FailureAction::Pause,
                        FailureAction::Continue,
                        FailureAction::Rollback,
                    ][action],
                    monitor: monitor.map(Duration::from_nanos),
                    max_failure_ratio,
                    order: match is_start_first {
                        true => UpdateOrder::StartFirst,
                        false => UpdateOrder::StopFirst,
                    },
                }
            },
        )
}

fn service() -> impl Strategy<Value = ServiceSpec> {
    let port = (text(), 0usize..3, any::<u16>(), any::<u16>()).prop_map(
        |(name, protocol, target_port, published_port)| PortConfig {
            name,
            protocol: [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][protocol],
            target_port,
            published_port,
            publish_mode: PublishMode::Host,
        },
    );
    let endpoint = (any::<bool>(), vec(port, 0..3)).prop_map(|(is_vip, ports)| EndpointSpec {
        mode: if is_vip {
            ResolutionMode::Vip
        } else {
            ResolutionMode::DnsRr
        },
        ports,
    });
    let mode = of(any::<u64>()).prop_map(|replicas| match replicas {
        Some(replicas) => ServiceMode::Replicated { replicas },
        None => ServiceMode::Global,
    });
    (
        text(),
        map(),
        task(),
        mode,
        of(update()),
        of(update()),
        of(endpoint),
    )
        .prop_map(
            |(name, labels, task, mode, update, rollback, endpoint)| ServiceSpec {
                annotations: Arc::new(Annotations { name, labels }),
                task: Arc::new(task),
                mode,
                update,
                rollback,
                networks: Vec::new(),
                endpoint,
            },
        )
}

/// Writes `value` as JSON text and reads it as `T`.
fn through_json<T: serde::de::DeserializeOwned>(value: &impl serde::Serialize) -> T {
    let text = serde_json::to_string(value).expect("encodes");
    serde_json::from_str(&text).expect("decodes")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_service_spec_reads_back(spec in service()) {
        let dto: dto::service::ServiceSpec = through_json(&dto::service::ServiceSpec::from(&spec));
        prop_assert_eq!(service_spec(dto, VERSION_MAX).expect("supported"), spec);
    }

    #[test]
    fn a_node_spec_reads_back(name in text(), labels in map(), is_manager: bool, place in 0usize..3) {
        let stored = NodeSpec { membership: Membership::Accepted, ..NodeSpec::default() };
        let spec = NodeSpec {
            annotations: Annotations { name, labels },
            desired_role: if is_manager { Role::Manager } else { Role::Worker },
            membership: Membership::Accepted,
            availability: [Availability::Active, Availability::Pause, Availability::Drain][place],
        };
        let node = Node {
            id: NodeId::random(&mut skep_model::Rng::from_seed(1)),
            meta: Meta::default(),
            spec: spec.clone(),
            description: None,
            status: NodeStatus::default(),
            manager_status: None,
            certificate: Certificate::default(),
            role: Role::Worker,
            attachments: Vec::new(),
            vxlan_udp_port: 0,
        };
        let dto = through_json(&dto::node::Node::from(&node).spec);
        prop_assert_eq!(merge_node_spec(dto, &stored).expect("valid"), spec);
    }

    #[test]
    fn a_cluster_spec_reads_back(
        limit: i64, numbers: [u32; 4], heartbeat in 1i64..1 << 60, locked: bool, labels in map(),
    ) {
        let mut spec = ClusterSpec {
            task_history_limit: limit,
            heartbeat_period: Duration::from_nanos(heartbeat.unsigned_abs()),
            auto_lock_managers: locked,
            ..ClusterSpec::default()
        };
        spec.annotations.labels = labels;
        spec.raft.snapshot_interval = u64::from(numbers[0]) + 1;
        spec.raft.keep_old_snapshots = u64::from(numbers[1]);
        spec.raft.heartbeat_tick = numbers[2].max(1);
        spec.raft.election_tick = numbers[3].max(1);
        spec.ca.force_rotate = 3;
        let dto = through_json(&dto::cluster::Spec::from(&spec));
        prop_assert_eq!(merge_cluster_spec(dto, ClusterSpec::default()).expect("valid"), spec);
    }
}

#[test]
fn fields_newer_than_the_client_are_ignored() {
    let json = r#"{"TaskTemplate":{"ContainerSpec":{"Image":"i","CapabilityAdd":["X"],
        "Sysctls":{"a":"b"},"OomScoreAdj":5},"Resources":{"Limits":{"Pids":5}}},
        "Mode":{"GlobalJob":{}}}"#;
    let read = |minor| {
        let dto = serde_json::from_str(json).expect("valid");
        service_spec(dto, ApiVersion(1, minor))
    };
    let old = read(30).expect("the job mode is unknown then");
    assert_eq!(old.mode, ServiceMode::default());
    assert_eq!(old.task.resources.pids_limit, 0);
    assert!(old.task.container.capability_add.is_empty() && old.task.container.sysctls.is_empty());
    assert_eq!(old.task.container.oom_score_adj, 0);
    let new = read(51).expect("the job mode is known now");
    assert_eq!(new.mode, ServiceMode::GlobalJob);
    assert_eq!(new.task.resources.pids_limit, 5);
}
