//! What becomes of projects that say what the recorded stacks do not.

use super::*;
use crate::project::{
    Condition, Dependency, Deploy, DeployMode, Device, FileObject, FileReference, Mount, Network,
    Port, Restart, Service, Tmpfs, TmpfsOptions, VolumeOptions,
};

fn service() -> Service {
    Service {
        image: "app".to_owned(),
        ..Service::default()
    }
}

fn project(services: &[(&str, Service)]) -> Project {
    let own = |(name, service): &(&str, Service)| ((*name).to_owned(), service.clone());
    Project {
        services: services.iter().map(own).collect(),
        ..Project::default()
    }
}

/// The line is the length of the path.
fn place(path: &[&str]) -> Place {
    Place {
        file: std::path::Path::new("f.yml").into(),
        line: u32::try_from(path.len()).unwrap(),
        column: 1,
    }
}

fn document(project: &Project) -> StackDocument {
    stack(project, "app", &place).unwrap()
}

fn warnings(document: &StackDocument) -> Vec<String> {
    document.warnings.iter().map(ToString::to_string).collect()
}

fn problems(project: &Project) -> String {
    stack(project, "app", &place).unwrap_err().to_string()
}

fn awaiting(name: &str, condition: Condition) -> Service {
    let dependency = Dependency {
        condition,
        is_restart: false,
        is_required: true,
    };
    Service {
        depends_on: [(name.to_owned(), dependency)].into(),
        ..service()
    }
}

#[test]
fn what_docker_leaves_out_becomes_labels() {
    let mut web = awaiting("db", Condition::Healthy);
    web.depends_on
        .extend(awaiting("cache", Condition::Started).depends_on);
    web.is_privileged = true;
    web.shm_size = Some(1 << 20);
    web.pid = Some("host".to_owned());
    web.security_opt = [
        "no-new-privileges:true",
        "seccomp=unconfined",
        "no-new-privileges:false",
    ]
    .map(str::to_owned)
    .to_vec();
    web.devices = vec![Device {
        source: "/dev/a".to_owned(),
        target: "/dev/b".to_owned(),
        permissions: "rw".to_owned(),
    }];
    let project = project(&[("web", web), ("db", service()), ("cache", service())]);
    let document = document(&project);
    assert_eq!(
        document.services[2]["Labels"],
        json!({
            "com.docker.stack.image": "app",
            "com.docker.stack.namespace": "app",
            "skep.depends-on": "app_cache=started,app_db=healthy",
            "skep.run.devices": "/dev/a:/dev/b:rw",
            "skep.run.pid": "host",
            "skep.run.privileged": "true",
            "skep.run.security-opt": "no-new-privileges=true,seccomp=unconfined",
            "skep.run.shm-size": "1048576",
        })
    );
    let labels = document.services[2]["Labels"].as_object().unwrap().iter();
    let labels: BTreeMap<String, String> = labels
        .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    let read = skep_model::reserved::service::run::RunPolicy::of(&labels).unwrap();
    assert!(read.is_privileged && read.is_pid_host && read.is_no_new_privileges);
    assert_eq!((read.shm_bytes, read.devices.len()), (Some(1 << 20), 1));
}

#[test]
fn who_is_waited_for_to_complete_is_a_job() {
    let mut migrate = service();
    migrate.restart = Some(Restart::No);
    let web = awaiting("migrate", Condition::Completed);
    let document = document(&project(&[("web", web), ("migrate", migrate)]));
    let job = &document.services[0];
    assert!(job["Mode"]["ReplicatedJob"].is_object(), "{job}");
    assert_eq!(job["TaskTemplate"]["RestartPolicy"]["Condition"], "none");
    assert_eq!(
        warnings(&document),
        [
            "f.yml:3:1: service `migrate`: it is a job (`deploy.mode: replicated-job`), as others wait for it to complete"
        ]
    );
}

#[test]
fn mounts_of_memory_and_without_a_name_keep_their_options() {
    let mut web = service();
    web.tmpfs = vec![Tmpfs {
        target: "/run".to_owned(),
        options: TmpfsOptions {
            size_bytes: Some(4096),
            mode: Some(0o700),
        },
        flags: vec!["noexec".to_owned(), "uid=5".to_owned()],
    }];
    web.mounts = vec![Mount {
        target: "/data".to_owned(),
        volume: Some(VolumeOptions {
            is_nocopy: true,
            ..VolumeOptions::default()
        }),
        ..Mount::default()
    }];
    let document = document(&project(&[("web", web)]));
    assert_eq!(
        document.services[0]["TaskTemplate"]["ContainerSpec"]["Mounts"],
        json!([
            {"Type": "volume", "Target": "/data", "VolumeOptions": {"NoCopy": true}},
            {"Type": "tmpfs", "Target": "/run",
             "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448, "Options": [["noexec"], ["uid", "5"]]}},
        ])
    );
}

#[test]
fn what_is_done_otherwise_than_the_file_reads_is_told() {
    let mut web = service();
    web.restart = Some(Restart::No);
    web.command = Some(Vec::new());
    web.ports = vec![Port {
        target: 80,
        host_ip: Some("127.0.0.1".to_owned()),
        ..Port::default()
    }];
    let document = document(&project(&[("web", web)]));
    let warnings = warnings(&document).join("\n");
    for word in ["restart: no", "empty `command`", "not only 127.0.0.1"] {
        assert!(warnings.contains(word), "{warnings}");
    }
    assert_eq!(
        document.services[0]["TaskTemplate"].get("RestartPolicy"),
        None
    );
}

#[test]
fn what_cannot_be_said_is_a_problem_with_its_place() {
    let mut web = service();
    web.deploy = Deploy {
        mode: DeployMode::Global,
        replicas: Some(2),
        labels: [("skep.run.privileged".to_owned(), "false".to_owned())].into(),
        ..Deploy::default()
    };
    web.is_privileged = true;
    web.networks = [("lost".to_owned(), crate::project::ServiceNetwork::default())].into();
    web.mounts = vec![Mount {
        source: Some("lost".to_owned()),
        target: "/d".to_owned(),
        ..Mount::default()
    }];
    let reference = |source: &str, target: &str| FileReference {
        source: source.to_owned(),
        target: Some(target.to_owned()),
        ..FileReference::default()
    };
    web.secrets = vec![reference("a", "x"), reference("lost", "x")];
    let mut project = project(&[("web", web)]);
    project.secrets = [("a".to_owned(), FileObject::default())].into();
    assert_eq!(
        problems(&project),
        "f.yml:3:1: service `web`: `privileged` and the label `skep.run.privileged` contradict each other\n\
         f.yml:3:1: service `web`: mode `global` has no `replicas`\n\
         f.yml:3:1: service `web`: network `lost` is not defined\n\
         f.yml:3:1: service `web`: secret `lost` is not defined\n\
         f.yml:3:1: service `web`: two secrets have the target `x`\n\
         f.yml:3:1: service `web`: volume `lost` is not defined"
    );
    for name in ["", " \"'", "a/b"] {
        let refused = stack(&Project::default(), name, &place);
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("is no name of a stack")
        );
    }
}

#[test]
fn data_is_sent_but_not_shown() {
    let data = Content::Data(skep_model::redact::Redacted(b"hunter2".to_vec()));
    let secret = FileObject {
        content: data,
        ..FileObject::default()
    };
    let mut project = project(&[("web", service())]);
    project.secrets = [("key".to_owned(), secret)].into();
    project.networks = [("default".to_owned(), Network::default())].into();
    let mut document = document(&project);
    let shown = format!("{document:?}");
    assert!(
        shown.contains("app_key") && !shown.contains("aHVudGVyMg"),
        "{shown}"
    );
    let sent = document.to_json();
    assert_eq!(sent["Secrets"][0]["Data"], "aHVudGVyMg==");
    assert_eq!((sent.get("Expect"), sent.get("RegistryAuth")), (None, None));
    document.expect = Some(3);
    document.registry_auth = [("app_web".to_owned(), "e30=".to_owned())].into();
    assert_eq!(document.to_json()["Expect"], 3);
}
