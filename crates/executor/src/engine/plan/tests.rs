//! What Docker decides between a container spec and the OCI configuration, case by case.

use std::sync::Arc;

use skep_model::{Annotations, ContainerSpec, Endpoint, PortConfig, Rng, TaskSpec, TaskStatus};

use super::*;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[track_caller]
fn check_command(given: (&str, &str), image: (&str, &str), expected: &str) {
    let spec = ContainerSpec {
        command: words(given.0),
        args: words(given.1),
        ..ContainerSpec::default()
    };
    let (entrypoint, cmd) = command(&spec, &words(image.0), &words(image.1));
    let all: Vec<String> = entrypoint.into_iter().chain(cmd).collect();
    assert_eq!(all, words(expected));
}

#[test]
fn a_given_entrypoint_drops_the_images_command() {
    check_command(("", ""), ("/init", "run"), "/init run");
    check_command(("", "other"), ("/init", "run"), "/init other");
    check_command(("sh", ""), ("/init", "run"), "sh");
    check_command(("sh", "-c x"), ("/init", "run"), "sh -c x");
    check_command(("", ""), ("", "run"), "run");
}

fn task(container: ContainerSpec) -> Task {
    let mut rng = Rng::from_seed(3);
    Task {
        id: TaskId::random(&mut rng),
        meta: skep_model::Meta::default(),
        spec: Arc::new(TaskSpec {
            container,
            ..TaskSpec::default()
        }),
        spec_version: None,
        service_id: Some(skep_model::ServiceId::random(&mut rng)),
        slot: 2,
        node_id: Some(skep_model::NodeId::random(&mut rng)),
        annotations: Arc::default(),
        service_annotations: Arc::new(Annotations {
            name: "web".to_owned(),
            ..Annotations::default()
        }),
        status: TaskStatus::default(),
        desired_state: skep_model::TaskState::Running,
        endpoint: None,
        log_driver: None,
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    }
}

#[test]
fn the_specs_environment_wins_and_a_bare_name_unsets() {
    let spec = ContainerSpec {
        env: words("A=2 C=3 B"),
        ..ContainerSpec::default()
    };
    let env = environment(&spec, &task(spec.clone()), &words("A=1 B=1 PATH=/bin"));
    assert_eq!(env, words("PATH=/bin A=2 C=3"));
}

#[test]
fn a_terminal_gets_its_type_and_every_process_a_path() {
    let spec = ContainerSpec {
        has_tty: true,
        ..ContainerSpec::default()
    };
    let env = environment(&spec, &task(spec.clone()), &[]);
    assert_eq!(env, [DEFAULT_PATH, "TERM=xterm"]);
}

#[test]
fn reserved_items_are_told_by_kind() {
    let named = |value: &str| model::GenericResource::Named {
        kind: "gpu".to_owned(),
        value: value.to_owned(),
    };
    let count = model::GenericResource::Discrete {
        kind: "ssd".to_owned(),
        value: 2,
    };
    let mut task = task(ContainerSpec::default());
    task.assigned_generic_resources = vec![named("UUID1"), count, named("UUID2")];
    let env = environment(&ContainerSpec::default(), &task, &[]);
    let expected = ["DOCKER_RESOURCE_GPU=UUID1,UUID2", "DOCKER_RESOURCE_SSD=2"];
    assert_eq!(env[1..], expected);
}

#[test]
fn labels_tie_the_container_to_its_task() {
    let task = task(ContainerSpec::default());
    let labels = labels(&task, &BTreeMap::new());
    assert!(is_container_of(&labels, task.id));
    assert_eq!(labels[LABEL_TASK_NAME], format!("web.2.{}", task.id));
    assert_eq!(labels[LABEL_SERVICE_NAME], "web");
}

#[test]
fn only_host_mode_ports_are_the_containers() {
    let port = |mode| PortConfig {
        target_port: 80,
        published_port: 8080,
        publish_mode: mode,
        ..PortConfig::default()
    };
    let ports = vec![
        port(model::PublishMode::Ingress),
        port(model::PublishMode::Host),
    ];
    let endpoint = Endpoint {
        ports,
        ..Endpoint::default()
    };
    let task = Task {
        endpoint: Some(Arc::new(endpoint)),
        ..task(ContainerSpec::default())
    };
    let found = host_ports(&task);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].published, found[0].target), (8080, 80));
}

#[test]
fn image_volumes_yield_to_mounts_at_the_same_place() {
    let mut mounts = Mounts::default();
    let tmpfs = model::Mount {
        kind: model::MountKind::Tmpfs,
        target: "/cache".to_owned(),
        ..model::Mount::default()
    };
    mounts.add(&tmpfs).unwrap();
    mounts.add_image_volumes(["/cache", "/data"].into_iter());
    let targets: Vec<&str> = mounts
        .volumes
        .iter()
        .map(|volume| &volume.target[..])
        .collect();
    assert_eq!(targets, ["/data"]);
}

#[test]
fn what_this_node_lacks_is_refused_by_name() {
    let pipe = model::Mount {
        kind: model::MountKind::NamedPipe,
        ..model::Mount::default()
    };
    assert_eq!(
        Mounts::default().add(&pipe),
        Err(Error::Unsupported("npipe mount"))
    );
    let relative = model::Mount {
        source: "data".to_owned(),
        ..model::Mount::default()
    };
    let refused = Mounts::default().add(&relative);
    assert_eq!(refused, Err(Error::RelativePath("data".to_owned())));
}

#[test]
fn signals_are_known_by_name_and_number() {
    for (text, number) in [
        ("", 15),
        ("KILL", 9),
        ("sigusr1", 10),
        ("9", 9),
        ("SIGRTMIN+3", 37),
        ("TERM", 15),
    ] {
        assert_eq!(signal_number(text), Ok(number), "{text}");
    }
    for text in ["NOPE", "0", "65", "-1", "RTMIN+99", "SIG"] {
        assert_eq!(
            signal_number(text),
            Err(Error::Signal(text.to_owned())),
            "{text}"
        );
    }
}

#[test]
fn memory_plus_swap_is_the_limit_docker_sets() {
    let requirements = |swap_bytes| model::ResourceRequirements {
        limits: model::Resources {
            memory_bytes: 100,
            ..model::Resources::default()
        },
        swap_bytes,
        ..model::ResourceRequirements::default()
    };
    assert_eq!(resources(&requirements(None)).memory_swap_bytes, 0);
    assert_eq!(resources(&requirements(Some(50))).memory_swap_bytes, 150);
    assert_eq!(resources(&requirements(Some(-1))).memory_swap_bytes, -1);
}
