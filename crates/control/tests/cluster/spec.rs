//! Words of a script that make a service spec.

use std::{sync::Arc, time::Duration};

use skep_model::{
    Driver, EndpointSpec, FailureAction, GenericResource, Mount, MountKind,
    NetworkAttachmentConfig, Platform, PortConfig, Protocol, PublishMode, ResolutionMode,
    RestartCondition, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder,
};

/// The spec called `name` that `args` make of `old`.
pub(crate) fn service(name: &str, old: Option<&ServiceSpec>, args: &[&str]) -> ServiceSpec {
    let mut spec = old.cloned().unwrap_or_else(|| {
        let mut spec = ServiceSpec::default();
        Arc::make_mut(&mut spec.annotations).name = name.to_owned();
        Arc::make_mut(&mut spec.task).container.image = "app:1".to_owned();
        spec
    });
    let mut constraints = Vec::new();
    for arg in args {
        if *arg == "force" {
            Arc::make_mut(&mut spec.task).force_update += 1;
            continue;
        }
        let (key, value) = arg.split_once('=').unwrap();
        if key == "constraint" {
            constraints.push(value.to_owned());
        } else if let Some(key) = key.strip_prefix("update-") {
            set_update(spec.update.get_or_insert_default(), key, value);
        } else if let Some(key) = key.strip_prefix("rollback-") {
            set_update(spec.rollback.get_or_insert_default(), key, value);
        } else if !set_service(&mut spec, key, value) {
            set_task(Arc::make_mut(&mut spec.task), key, value);
        }
    }
    if !constraints.is_empty() {
        Arc::make_mut(&mut spec.task).placement.constraints = constraints;
    }
    spec
}

fn set_service(spec: &mut ServiceSpec, key: &str, value: &str) -> bool {
    match key {
        "replicas" => {
            spec.mode = ServiceMode::Replicated {
                replicas: value.parse().unwrap(),
            }
        }
        "mode" if value == "global" => spec.mode = ServiceMode::Global,
        "mode" if value == "global-job" => spec.mode = ServiceMode::GlobalJob,
        // `2/5`: five completions, two at once.
        "job" => {
            let (concurrent, total) = value.split_once('/').unwrap();
            spec.mode = ServiceMode::ReplicatedJob {
                max_concurrent: concurrent.parse().unwrap(),
                total_completions: total.parse().unwrap(),
            }
        }
        "schedule" => {
            let labels = &mut Arc::make_mut(&mut spec.annotations).labels;
            labels.insert("skep.job.schedule".to_owned(), value.replace('_', " "));
        }
        "label" => {
            let (key, value) = value.split_once(':').unwrap();
            let labels = &mut Arc::make_mut(&mut spec.annotations).labels;
            // Words of a command have no spaces.
            labels.insert(key.to_owned(), value.replace('+', " "));
        }
        "mode" if value == "dnsrr" => {
            let endpoint = spec.endpoint.get_or_insert_with(EndpointSpec::default);
            endpoint.mode = ResolutionMode::DnsRr;
        }
        "publish" => publish(spec, value),
        "port" => {
            let numbers: Vec<u16> = value.split(':').map(|n| n.parse().unwrap()).collect();
            let endpoint = spec.endpoint.get_or_insert_with(EndpointSpec::default);
            endpoint.ports = vec![PortConfig {
                published_port: numbers[0],
                target_port: numbers[1],
                publish_mode: PublishMode::Host,
                ..PortConfig::default()
            }];
        }
        _ => return false,
    }
    true
}

/// `8080:80`, `:53/udp`, `8080:80/tcp/host`; several with commas. `-` is none.
fn publish(spec: &mut ServiceSpec, value: &str) {
    let endpoint = spec.endpoint.get_or_insert_with(EndpointSpec::default);
    endpoint.ports.clear();
    for text in value.split(',').filter(|text| *text != "-") {
        let mut parts = text.split('/');
        let (published, target) = parts.next().unwrap().split_once(':').unwrap();
        let mut port = PortConfig {
            published_port: published.parse().unwrap_or(0),
            target_port: target.parse().unwrap(),
            ..PortConfig::default()
        };
        for word in parts {
            match word {
                "udp" => port.protocol = Protocol::Udp,
                "host" => port.publish_mode = PublishMode::Host,
                _ => port.protocol = Protocol::Tcp,
            }
        }
        endpoint.ports.push(port);
    }
}

fn set_task(task: &mut TaskSpec, key: &str, value: &str) {
    let text = value.to_owned();
    match key {
        "image" => task.container.image = text,
        "networks" => {
            let named = |target: &str| NetworkAttachmentConfig {
                target: target.to_owned(),
                ..NetworkAttachmentConfig::default()
            };
            let names = value.split(',').filter(|name| *name != "-");
            task.networks = names.map(named).collect();
        }
        "mount" => task.container.mounts.push(Mount {
            kind: MountKind::Volume,
            target: text,
            ..Mount::default()
        }),
        "auth" => task.container.registry_auth.0 = text,
        "cpu" => task.resources.reservations.nano_cpus = nano_cpus(value),
        "mem" => task.resources.reservations.memory_bytes = bytes(value),
        "gpu" => {
            task.resources.reservations.generic = vec![GenericResource::Discrete {
                kind: "gpu".to_owned(),
                value: value.parse().unwrap(),
            }];
        }
        "spread" => task.placement.spread_over = value.split(',').map(str::to_owned).collect(),
        "max-per-node" => task.placement.max_replicas = value.parse().unwrap(),
        "platform" => {
            let (os, architecture) = value.split_once('/').unwrap();
            task.placement.platforms.push(Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
            });
        }
        "log-driver" => {
            task.log_driver = Some(Driver {
                name: text,
                ..Driver::default()
            });
        }
        "restart" => {
            task.restart.condition = match value {
                "none" => RestartCondition::None,
                "on-failure" => RestartCondition::OnFailure,
                "any" => RestartCondition::Any,
                other => panic!("unknown condition `{other}`"),
            }
        }
        "delay" => task.restart.delay = duration(value),
        "attempts" => task.restart.max_attempts = value.parse().unwrap(),
        "window" => task.restart.window = duration(value),
        other => panic!("unknown word `{other}`"),
    }
}

fn set_update(config: &mut UpdateConfig, key: &str, value: &str) {
    match key {
        "parallelism" => config.parallelism = value.parse().unwrap(),
        "delay" => config.delay = duration(value),
        "monitor" => config.monitor = Some(duration(value)),
        "ratio" => config.max_failure_ratio = value.parse().unwrap(),
        "failure" => {
            config.failure_action = match value {
                "pause" => FailureAction::Pause,
                "continue" => FailureAction::Continue,
                "rollback" => FailureAction::Rollback,
                other => panic!("unknown action `{other}`"),
            }
        }
        "order" => {
            config.order = match value {
                "stop-first" => UpdateOrder::StopFirst,
                "start-first" => UpdateOrder::StartFirst,
                other => panic!("unknown order `{other}`"),
            }
        }
        other => panic!("unknown word `{other}`"),
    }
}

/// `5s`, `2m`, `24h`.
pub(crate) fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().unwrap();
    Duration::from_secs(match unit {
        "s" => number,
        "m" => number * 60,
        "h" => number * 3600,
        other => panic!("unknown unit `{other}`"),
    })
}

/// `8G`, `512M`.
pub(crate) fn bytes(text: &str) -> i64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: i64 = number.parse().unwrap();
    match unit {
        "G" => number << 30,
        "M" => number << 20,
        other => panic!("unknown unit `{other}`"),
    }
}

/// Whole cores.
pub(crate) fn nano_cpus(text: &str) -> i64 {
    text.parse::<i64>().unwrap() * 1_000_000_000
}
