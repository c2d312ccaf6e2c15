//! The objects whose bytes are in `golden/`, with as many fields set as they have.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use ipnet::Ipv4Net;
use skep_model as model;
use skep_model::{Redacted, TaskState, Timestamp, Version};
use skep_store::Object;

fn labels(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn meta() -> model::Meta {
    model::Meta {
        version: Version(1234),
        created_at: Timestamp(1_700_000_000_123_456_789),
        updated_at: Timestamp(1_700_000_100_000_000_000),
    }
}

fn annotations() -> model::Annotations {
    model::Annotations {
        name: "web".to_owned(),
        labels: labels(&[("com.example.team", "blue"), ("tier", "front")]),
    }
}

fn port() -> model::PortConfig {
    model::PortConfig {
        name: "http".to_owned(),
        protocol: model::Protocol::Udp,
        target_port: 80,
        published_port: 8080,
        publish_mode: model::PublishMode::Host,
    }
}

fn container() -> model::ContainerSpec {
    model::ContainerSpec {
        image: "nginx:1.29@sha256:00".to_owned(),
        labels: labels(&[("a", "b")]),
        command: texts(&["nginx"]),
        args: texts(&["-g", "daemon off;"]),
        env: texts(&["A=1", "B=two words"]),
        init: Some(false),
        mounts: vec![model::Mount {
            kind: model::MountKind::Volume,
            source: "data".to_owned(),
            target: "/data".to_owned(),
            volume: Some(model::VolumeOptions::default()),
            ..model::Mount::default()
        }],
        stop_grace_period: Some(Duration::from_millis(10_500)),
        registry_auth: Redacted("e30=".to_owned()),
        secrets: vec![model::SecretReference {
            secret_id: "s3".to_owned(),
            secret_name: "key".to_owned(),
            file: Some(model::FileTarget {
                mode: 0o400,
                ..model::FileTarget::default()
            }),
        }],
        health: Some(model::HealthConfig {
            test: texts(&["CMD", "true"]),
            retries: 3,
            ..model::HealthConfig::default()
        }),
        ulimits: vec![model::Ulimit {
            name: "nofile".to_owned(),
            soft: 1024,
            hard: -1,
        }],
        ..model::ContainerSpec::default()
    }
}

fn task_spec() -> model::TaskSpec {
    model::TaskSpec {
        container: container(),
        resources: model::ResourceRequirements {
            limits: model::Resources {
                memory_bytes: 64 << 20,
                ..model::Resources::default()
            },
            swap_bytes: Some(-1),
            pids_limit: 100,
            ..model::ResourceRequirements::default()
        },
        placement: model::Placement {
            constraints: texts(&["node.role==worker"]),
            spread_over: texts(&["node.labels.rack"]),
            ..model::Placement::default()
        },
        networks: vec![model::NetworkAttachmentConfig {
            target: "backend".to_owned(),
            ..model::NetworkAttachmentConfig::default()
        }],
        force_update: 2,
        ..model::TaskSpec::default()
    }
}

fn service() -> model::Service {
    let endpoint = model::EndpointSpec {
        mode: model::ResolutionMode::DnsRr,
        ports: vec![port()],
    };
    let spec = model::ServiceSpec {
        annotations: Arc::new(annotations()),
        task: Arc::new(task_spec()),
        mode: model::ServiceMode::Replicated { replicas: 3 },
        update: Some(model::UpdateConfig {
            max_failure_ratio: 0.25,
            order: model::UpdateOrder::StartFirst,
            ..model::UpdateConfig::default()
        }),
        endpoint: Some(endpoint),
        ..model::ServiceSpec::default()
    };
    model::Service {
        id: "service000000000000000001".parse().unwrap(),
        meta: meta(),
        spec_version: Version(1200),
        previous_spec: Some(Arc::new(model::ServiceSpec {
            mode: model::ServiceMode::GlobalJob,
            ..spec.clone()
        })),
        previous_spec_version: Some(Version(1100)),
        endpoint: Some(endpoint_of(&spec)),
        spec: Arc::new(spec),
        update_status: Some(model::UpdateStatus {
            state: model::UpdateState::RollbackPaused,
            started_at: Some(Timestamp(1_700_000_050_000_000_001)),
            completed_at: None,
            message: "update paused".to_owned(),
        }),
        job_status: Some(model::JobStatus::default()),
        is_pending_delete: true,
    }
}

fn endpoint_of(spec: &model::ServiceSpec) -> model::Endpoint {
    model::Endpoint {
        spec: spec.endpoint.clone(),
        ports: vec![port()],
        virtual_ips: vec![model::VirtualIp {
            network_id: "n1".to_owned(),
            addr: "10.0.0.5/24".to_owned(),
        }],
    }
}

pub(crate) fn task_status() -> model::TaskStatus {
    model::TaskStatus {
        timestamp: Timestamp(1_700_000_000_000_000_002),
        state: TaskState::Failed,
        message: "started".to_owned(),
        err: "task: non-zero exit (1)".to_owned(),
        container: Some(model::ContainerStatus {
            container_id: "c0ffee".to_owned(),
            pid: 4242,
            exit_code: -1,
        }),
        ports: vec![port()],
        applied_by: Some("manager000000000000000001".parse().unwrap()),
        applied_at: Some(Timestamp(1_700_000_000_000_000_003)),
    }
}

pub(crate) fn task() -> model::Task {
    model::Task {
        id: "task000000000000000000001".parse().unwrap(),
        meta: meta(),
        spec: Arc::new(task_spec()),
        spec_version: Some(Version(1200)),
        service_id: Some("service000000000000000001".parse().unwrap()),
        slot: 3,
        node_id: Some("worker0000000000000000001".parse().unwrap()),
        annotations: Arc::default(),
        service_annotations: Arc::new(annotations()),
        status: task_status(),
        desired_state: TaskState::Shutdown,
        endpoint: Some(Arc::new(endpoint_of(&service().spec))),
        log_driver: Some(model::Driver {
            name: "json-file".to_owned(),
            options: labels(&[("max-size", "10m")]),
        }),
        networks: Vec::new(),
        assigned_generic_resources: vec![model::GenericResource::Named {
            kind: "gpu".to_owned(),
            value: "uuid1".to_owned(),
        }],
        job_iteration: Some(Version(0)),
    }
}

pub(crate) fn node() -> model::Node {
    model::Node {
        id: "manager000000000000000001".parse().unwrap(),
        meta: meta(),
        spec: model::NodeSpec {
            annotations: annotations(),
            desired_role: model::Role::Manager,
            membership: model::Membership::Accepted,
            availability: model::Availability::Drain,
        },
        description: Some(model::NodeDescription {
            hostname: "n1".to_owned(),
            platform: model::Platform {
                architecture: "x86_64".to_owned(),
                os: "linux".to_owned(),
            },
            resources: model::Resources {
                nano_cpus: 4_000_000_000,
                memory_bytes: 8 << 30,
                generic: vec![model::GenericResource::Discrete {
                    kind: "ssd".to_owned(),
                    value: 4,
                }],
            },
            engine: model::EngineDescription {
                engine_version: "28.2.2".to_owned(),
                labels: labels(&[("rack", "r1")]),
                plugins: vec![model::Plugin {
                    kind: "Log".to_owned(),
                    name: "json-file".to_owned(),
                }],
            },
            tls_info: Some(model::NodeTlsInfo {
                trust_root: b"root".to_vec(),
                cert_issuer_subject: b"subject".to_vec(),
                cert_issuer_public_key: b"key".to_vec(),
            }),
            is_fips: false,
        }),
        status: model::NodeStatus {
            state: model::NodeState::Ready,
            message: String::new(),
            addr: "192.0.2.1".to_owned(),
        },
        manager_status: Some(model::ManagerStatus {
            raft_id: u64::MAX >> 1,
            addr: "192.0.2.1:2377".to_owned(),
            is_leader: true,
            reachability: model::Reachability::Reachable,
        }),
        certificate: model::Certificate {
            role: model::Role::Manager,
            csr: b"csr".to_vec(),
            state: model::CertificateState::Issued,
            err: String::new(),
            certificate: b"pem".to_vec(),
            cn: "manager000000000000000001".to_owned(),
        },
        role: model::Role::Manager,
        attachments: Vec::new(),
        vxlan_udp_port: 4789,
    }
}

fn cluster() -> model::Cluster {
    let key = model::EncryptionKey {
        subsystem: "networking:gossip".to_owned(),
        key: Redacted(vec![7; 16]),
        lamport_time: 40_000,
    };
    model::Cluster {
        id: "cluster000000000000000001".parse().unwrap(),
        meta: meta(),
        spec: model::ClusterSpec {
            auto_lock_managers: true,
            ..model::ClusterSpec::default()
        },
        root_ca: model::RootCa {
            ca_key: Redacted(b"key pem".to_vec()),
            ca_cert: b"cert pem".to_vec(),
            ca_cert_hash: "sha256:00".to_owned(),
            join_tokens: model::JoinTokens {
                worker: Redacted("SWMTKN-1-a-b".to_owned()),
                manager: Redacted("SWMTKN-1-a-c".to_owned()),
            },
            root_rotation: Some(model::object::RootRotation::default()),
            last_forced_rotation: 1,
        },
        network_bootstrap_keys: vec![key.clone()],
        encryption_key_lamport_clock: 40_001,
        blacklisted_certificates: [(
            "worker0000000000000000002".to_owned(),
            Timestamp(1_700_000_000_000_000_000),
        )]
        .into(),
        unlock_keys: vec![key],
        is_fips: false,
        default_address_pool: vec![
            Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 8).unwrap().into(),
            "fd00::/48".parse().unwrap(),
        ],
        subnet_size: 24,
        vxlan_udp_port: 4789,
    }
}

/// One object of each kind there was at first.
pub(crate) fn objects() -> Vec<Object> {
    vec![
        Object::Node(node().into()),
        Object::Service(service().into()),
        Object::Task(task().into()),
        Object::Cluster(cluster().into()),
    ]
}

/// A kept spec of a service, as the manager stores it.
pub(crate) fn resource_objects() -> Vec<Object> {
    let revision = model::object::ServiceRevision {
        service: service().id,
        number: 7,
        spec_version: Version(1100),
        created_at: meta().created_at,
        previous: None,
        spec: service().spec,
    };
    let id = "resource0000000000000001a".parse().unwrap();
    let mut resource = skep_wire::revision::resource(id, &revision);
    resource.meta = meta();
    let mut extension =
        skep_wire::revision::extension("extension0000000000000001".parse().unwrap());
    extension.meta = meta();
    vec![
        Object::Extension(extension.into()),
        Object::Resource(resource.into()),
    ]
}

fn network() -> model::Network {
    let config = |subnet: &str, gateway: &str| model::IpamConfig {
        family: model::AddressFamily::V4,
        subnet: Some(subnet.parse().unwrap()),
        range: Some(subnet.parse().unwrap()),
        gateway: Some(gateway.parse().unwrap()),
        reserved: [("router".to_owned(), gateway.parse().unwrap())].into(),
    };
    let driver = |options: &[(&str, &str)]| model::Driver {
        name: "overlay".to_owned(),
        options: labels(options),
    };
    let ipam = model::IpamOptions {
        driver: Some(model::Driver {
            name: "default".to_owned(),
            options: labels(&[("com.docker.network.ipam.serial", "true")]),
        }),
        configs: vec![config("10.0.1.0/24", "10.0.1.1")],
    };
    model::Network {
        id: "network000000000000000001".parse().unwrap(),
        meta: meta(),
        spec: model::NetworkSpec {
            annotations: annotations(),
            driver: Some(driver(&[(model::MTU_OPTION, "1400")])),
            has_ipv6: true,
            is_internal: true,
            ipam: Some(ipam.clone()),
            is_attachable: true,
            is_ingress: true,
            config_from: Some("local".to_owned()),
        },
        driver_state: Some(driver(&[(model::VXLAN_IDS_OPTION, "4097")])),
        ipam: Some(model::IpamOptions {
            configs: vec![
                config("10.0.1.0/24", "10.0.1.1"),
                model::IpamConfig {
                    family: model::AddressFamily::V6,
                    subnet: Some("fd00:1::/64".parse().unwrap()),
                    ..model::IpamConfig::default()
                },
            ],
            ..ipam
        }),
        is_pending_delete: true,
    }
}

/// A network, and objects with places on it: kinds of fields that came second.
pub(crate) fn network_objects() -> Vec<Object> {
    let network = Arc::new(network());
    let attachment = model::NetworkAttachment {
        network: Arc::clone(&network),
        addresses: vec![
            "10.0.1.3/24".parse().unwrap(),
            "fd00:1::3/64".parse().unwrap(),
        ],
        aliases: texts(&["www"]),
        driver_options: labels(&[("a", "b")]),
    };
    let mut task = task();
    task.networks = vec![attachment.clone()];
    let mut node = node();
    node.attachments = vec![attachment];
    vec![
        Object::Network(network),
        Object::Task(task.into()),
        Object::Node(node.into()),
    ]
}

/// A secret and a config: kinds of objects that came third.
pub(crate) fn supply_objects() -> Vec<Object> {
    let driver = model::Driver {
        name: "golang".to_owned(),
        options: labels(&[("a", "b")]),
    };
    let annotations = model::Annotations {
        name: "password".to_owned(),
        labels: labels(&[("tier", "db")]),
    };
    let secret = model::Secret {
        id: "secret0000000000000000001".parse().unwrap(),
        meta: meta(),
        spec: model::SecretSpec {
            annotations: annotations.clone(),
            data: Redacted(b"hunter2".to_vec()),
            templating: Some(driver.clone()),
            driver: Some(driver.clone()),
        },
        is_internal: true,
    };
    let config = model::Config {
        id: "config0000000000000000001".parse().unwrap(),
        meta: meta(),
        spec: model::ConfigSpec {
            annotations,
            data: Redacted(b"worker 1;".to_vec()),
            templating: Some(driver),
        },
    };
    vec![Object::Secret(secret.into()), Object::Config(config.into())]
}
