//! Files of secrets and configs, in a directory that is in memory.

use skep_model::{ConfigSpec, Meta, Rng, SecretSpec, template::NodeLabels};

use super::*;

fn secret(rng: &mut Rng, name: &str, data: &[u8]) -> Arc<Secret> {
    let mut spec = SecretSpec {
        data: Redacted(data.to_vec()),
        ..SecretSpec::default()
    };
    name.clone_into(&mut spec.annotations.name);
    Arc::new(Secret {
        id: SecretId::random(rng),
        meta: Meta::default(),
        spec,
        is_internal: false,
    })
}

fn using(secret: &Secret, target: &str) -> ContainerSpec {
    ContainerSpec {
        secrets: vec![SecretReference {
            secret_id: secret.id.to_string(),
            secret_name: secret.name().to_owned(),
            file: Some(FileTarget {
                name: target.to_owned(),
                uid: "0".to_owned(),
                gid: "0".to_owned(),
                mode: 0o440,
            }),
        }],
        ..ContainerSpec::default()
    }
}

fn given(secrets: &[&Arc<Secret>], is_complete: bool) -> Given {
    Given {
        is_complete,
        secrets: secrets.iter().map(|secret| Arc::clone(secret)).collect(),
        ..Given::default()
    }
}

fn container(digit: char) -> ContainerId {
    let id: String = std::iter::repeat_n(digit, 64).collect();
    id.parse().unwrap()
}

#[test]
fn files_lie_in_memory_as_long_as_their_container() {
    let dir = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let supplies = Supplies::open(dir.path()).unwrap();
    let secret = secret(&mut Rng::from_seed(1), "key", b"hidden");
    supplies.take(given(&[&secret], true));
    let id = container('a');
    let mounts = supplies
        .write(&id, &using(&secret, "key.pem"), &Context::default())
        .unwrap();
    assert_eq!(mounts[0].destination, "/run/secrets/key.pem");
    assert!(mounts[0].is_readonly);
    let MountKind::Bind { source, .. } = &mounts[0].kind else {
        panic!("not a bind mount");
    };
    assert_eq!(fs::read(source).unwrap(), b"hidden");
    assert_eq!(
        fs::metadata(source).unwrap().permissions().mode() & 0o7777,
        0o440
    );
    supplies.remove(&id).unwrap();
    assert!(!source.exists());
    supplies.remove(&id).unwrap();
}

#[test]
fn what_is_taken_away_is_not_given() {
    let dir = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let supplies = Supplies::open(dir.path()).unwrap();
    let mut rng = Rng::from_seed(2);
    let (one, two) = (secret(&mut rng, "one", b"1"), secret(&mut rng, "two", b"2"));
    let write = |secret: &Arc<Secret>| {
        let written = supplies.write(
            &container('b'),
            &using(secret, "/abs/path"),
            &Context::default(),
        );
        written
            .map(|mounts| mounts[0].destination.clone())
            .map_err(|error| error.to_string())
    };
    assert_eq!(write(&one), Err(SupplyError::NotYet.to_string()));
    supplies.take(given(&[&one, &two], true));
    assert_eq!(write(&one), Ok("/abs/path".to_owned()));
    supplies.take(Given {
        gone_secrets: vec![one.id],
        ..Given::default()
    });
    assert_eq!(
        write(&one),
        Err(SupplyError::NoSecret(one.id.to_string()).to_string())
    );
    assert!(write(&two).is_ok());
    supplies.take(given(&[], true));
    assert!(write(&two).is_err());
}

#[test]
fn modes_are_gos() {
    assert_eq!(kernel_mode(0o444), 0o444);
    assert_eq!(kernel_mode(1 << 23 | 1 << 22 | 1 << 20 | 0o755), 0o7755);
}

fn config(rng: &mut Rng, name: &str, template: &str) -> Arc<Config> {
    let mut spec = ConfigSpec {
        data: Redacted(template.as_bytes().to_vec()),
        templating: Some(Driver {
            name: template::DRIVER.to_owned(),
            ..Driver::default()
        }),
        ..ConfigSpec::default()
    };
    name.clone_into(&mut spec.annotations.name);
    Arc::new(Config {
        id: ConfigId::random(rng),
        meta: Meta::default(),
        spec,
    })
}

#[test]
fn templates_know_the_task_and_what_else_it_has() {
    let dir = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let supplies = Supplies::open(dir.path()).unwrap();
    let mut rng = Rng::from_seed(3);
    let password = secret(&mut rng, "password", b"hunter2");
    let written = |text: &str, context: &Context| {
        let config = config(&mut Rng::from_seed(4), "app", text);
        let mut spec = using(&password, "db");
        spec.env = vec!["MODE=fast".to_owned()];
        spec.configs = vec![ConfigReference {
            config_id: config.id.to_string(),
            config_name: "app".to_owned(),
            target: Some(ConfigTarget::File(FileTarget {
                name: "/app.conf".to_owned(),
                uid: "0".to_owned(),
                gid: "0".to_owned(),
                mode: 0o444,
            })),
        }];
        supplies.take(Given {
            configs: vec![config],
            ..given(&[&password], true)
        });
        let mounts = supplies.write(&container('c'), &spec, context);
        let mounts = mounts.map_err(|error| (error.is_temporary(), error.to_string()))?;
        let MountKind::Bind { source, .. } = &mounts[1].kind else {
            panic!("not a bind mount");
        };
        Ok(fs::read_to_string(source).unwrap())
    };
    let context = Context {
        task_slot: "3".to_owned(),
        node_labels: NodeLabels::Known(BTreeMap::new()),
        ..Context::default()
    };
    assert_eq!(
        written(
            "{{.Task.Slot}} {{env \"MODE\"}} {{env \"NONE\"}} {{secret \"db\"}}",
            &context
        )
        .unwrap(),
        "3 fast  hunter2"
    );
    // Itself is asked for as it is stored.
    let itself = "{{config \"/app.conf\"}}";
    assert_eq!(written(itself, &context).unwrap(), itself);
    let failed = |text: &str| written(text, &context).unwrap_err();
    assert_eq!(
        failed("{{secret \"key\"}}"),
        (
            false,
            "failed to expand templated config app: template: expansion:1:2: executing \"expansion\" \
             at <secret \"key\">: error calling secret: secret target key not found"
                .to_owned()
        )
    );
    // What goes into messages is seen by everybody.
    let (_, leak) = failed("{{range secret \"db\"}}{{end}}");
    assert!(
        leak.contains("range can't iterate over") && !leak.contains("hunter2"),
        "{leak}"
    );
    let untold = Context::default();
    let (is_temporary, _) = written("{{.Node.Labels.x}}", &untold).unwrap_err();
    assert!(is_temporary);
}
