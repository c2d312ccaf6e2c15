//! Files people start from, and what becomes of each: `tests/files/<name>.out.yaml` holds the rendering. `UPDATE=1` rewrites it.

use std::{fs, path::PathBuf};

use skep_compose::{Environment, Loaded, Options, Project, Source, load, project::Content, render};

use crate::disk::Disk;

fn directory(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

/// All files of a directory of the tests and of those in it, at `/w`.
fn disk(name: &str) -> Disk {
    let mut disk = Disk::default();
    let mut open = vec![directory(name)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("directory of the tests") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let relative = path.strip_prefix(directory(name)).expect("is below it");
            let bytes = fs::read(&path).expect("file of the tests");
            disk = disk.with(relative.to_str().expect("ASCII"), bytes);
        }
    }
    disk
}

fn load_file(disk: &Disk, source: Source) -> Loaded {
    load_files(disk, &[source])
}

fn load_files(disk: &Disk, sources: &[Source]) -> Loaded {
    let options = Options {
        profiles: vec!["debug".to_owned()],
        ..Options::default()
    };
    let environment = [("HOME", "/home/ann"), ("SET", "value"), ("EMPTY", "")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = Environment::from(environment);
    match load(sources, &environment, disk, &options) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems}"),
    }
}

/// A project with what Docker adds when it prints one, and without what it forgets.
fn as_docker(mut project: Project) -> Project {
    for (key, network) in project
        .networks
        .iter_mut()
        .filter(|(_, network)| network.is_external)
    {
        network.name.get_or_insert_with(|| key.clone());
    }
    let objects = project.secrets.iter_mut().chain(&mut project.configs);
    for (key, object) in objects.filter(|(_, object)| object.content == Content::External) {
        object.name.get_or_insert_with(|| key.clone());
    }
    for (key, volume) in project
        .volumes
        .iter_mut()
        .filter(|(_, volume)| volume.is_external)
    {
        volume.name.get_or_insert_with(|| key.clone());
    }
    for service in project.services.values_mut() {
        service.oom_score_adj = None;
        service
            .ports
            .iter_mut()
            .for_each(|port| port.host_ip = None);
    }
    project
}

/// What `docker stack config` of docker 28.2 prints, its dollar signs doubled, for a file means the same as the file.
#[track_caller]
fn check_docker(name: &str) {
    let ours = load_file(&disk("stacks"), Source::File(format!("{name}.yml").into()));
    let path = directory("files").join(format!("{name}.docker.yaml"));
    let docker = Source::Bytes {
        name: "docker".into(),
        bytes: fs::read(path).expect("file of the tests"),
    };
    let docker = load_file(&disk("stacks"), docker);
    assert_eq!(as_docker(ours.project), as_docker(docker.project));
}

/// Renders a file, compares, and sees that the rendering says what the file said.
#[track_caller]
fn check(dir: &str, name: &str) {
    let disk = disk(dir);
    let loaded = load_file(&disk, Source::File(name.into()));
    let rendered = render(&loaded.document);
    let golden = directory("files").join(format!(
        "{}.out.yaml",
        name.split('.').next().unwrap_or_default()
    ));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&golden, &rendered).expect("golden file");
    }
    assert_eq!(
        rendered,
        fs::read_to_string(&golden).expect("golden file"),
        "{}",
        golden.display()
    );
    let again = Source::Bytes {
        name: "again".into(),
        bytes: rendered.clone().into_bytes(),
    };
    let again = load_file(&disk, again);
    assert_eq!(again.project, loaded.project);
    assert_eq!(render(&again.document), rendered);
}

#[test]
fn voting_app() {
    check("stacks", "voting.yml");
    check_docker("voting");
}

#[test]
fn wordpress_with_mysql() {
    check("stacks", "wordpress.yml");
    check_docker("wordpress");
}

#[test]
fn portainer_agents() {
    check("stacks", "portainer.yml");
    check_docker("portainer");
}

#[test]
fn traefik_with_labels() {
    check("stacks", "traefik.yml");
    check_docker("traefik");
}

#[test]
fn prometheus_and_grafana() {
    check("stacks", "monitoring.yml");
    check_docker("monitoring");
}

#[test]
fn all_options() {
    check("stacks", "options.yml");
    check_docker("options");
}

#[test]
fn modern_compose() {
    check("files", "modern.yaml");
}

/// `docker stack config -c compose.yaml -c over1.yaml` is the oracle, but for what Docker merges in ways of its own: it joins the
/// words of health tests, keeps nothing of earlier networks and volumes, and sorts mounts.
#[test]
fn merging_two_files_is_what_docker_does() {
    let disk = disk("files/merge");
    let sources = ["compose.yaml", "over1.yaml"].map(|name| Source::File(name.into()));
    let mut ours = load_files(&disk, &sources).project;
    let mut docker = load_file(&disk, Source::File("docker.yaml".into())).project;
    for project in [&mut ours, &mut docker] {
        for service in project.services.values_mut() {
            service
                .mounts
                .sort_by(|one, other| one.target.cmp(&other.target));
            if let Some(health) = &mut service.healthcheck {
                health.test = None;
            }
        }
    }
    assert_eq!(ours.services, docker.services);
    assert_eq!(as_docker(ours).secrets, docker.secrets);
}

/// Scalars, command lines, durations, sizes, ports and mounts in many forms: the stock command is the oracle.
#[test]
fn short_forms_are_what_docker_makes_of_them() {
    let disk = disk("files/scalars");
    let load = |name: &str| as_docker(load_file(&disk, Source::File(name.into())).project);
    let (ours, docker) = (load("compose.yaml"), load("docker.yaml"));
    for (name, service) in &ours.services {
        let theirs = &docker.services[name];
        for (variable, value) in &service.environment {
            assert_eq!(value, &theirs.environment[variable], "{variable}");
        }
        assert_eq!(service, theirs, "{name}");
    }
}

/// Docker's stacks do not know `+`, variables within defaults, and take `$A-b` for a default; the specification counts there.
#[test]
fn variables_are_what_docker_makes_of_them() {
    let disk = disk("files/variables");
    let load = |name: &str| load_file(&disk, Source::File(name.into())).project;
    let (ours, docker) = (load("compose.yaml"), load("docker.yaml"));
    assert_eq!(ours.services, docker.services);
}
