//! Variables: where they come from and what wins.

use skep_compose::{Options, Source, load, merge, render};

use crate::disk::{Disk, environment, loaded, problems, try_load};

const FILE: &str = "services: {web: {image: 'nginx:${TAG}${COLOR:-}'}}";

#[track_caller]
fn image(files: &[(&str, &str)], options: &Options) -> String {
    match try_load(files, options) {
        Ok(loaded) => loaded.project.services["web"].image.clone(),
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn dotenv_file_of_the_project_is_read() {
    assert_eq!(
        image(
            &[("compose.yaml", FILE), (".env", "COLOR=-red\nTAG=9")],
            &Options::default()
        ),
        "nginx:1.2-red"
    );
}

#[test]
fn named_files_replace_the_dotenv_file() {
    let options = Options {
        env_files: vec!["a.env".into(), "b.env".into()],
        ..Options::default()
    };
    let files = [
        ("compose.yaml", FILE),
        (".env", "COLOR=-red"),
        ("a.env", "COLOR=-green\nBASE=b"),
        ("b.env", "COLOR=-${BASE}lue"),
    ];
    assert_eq!(image(&files, &options), "nginx:1.2-blue");
    let problems = try_load(&files[..3], &options).unwrap_err().to_string();
    assert_eq!(problems, "cannot read `b.env`: no such file");
}

#[test]
fn dotenv_file_is_the_one_of_the_project_directory() {
    let options = Options {
        project_directory: Some("sub".into()),
        ..Options::default()
    };
    let text = "services: {web: {image: 'x${COLOR}', volumes: ['./a:/a']}}";
    let loaded = try_load(
        &[("compose.yaml", text), ("sub/.env", "COLOR=blue")],
        &options,
    )
    .unwrap();
    let service = &loaded.project.services["web"];
    assert_eq!(
        (service.image.as_str(), service.mounts[0].source.as_deref()),
        ("xblue", Some("/w/sub/a"))
    );
}

#[test]
fn numbers_and_truth_values_may_be_variables() {
    let text = "services: {web: {image: x, tty: '${T:-yes}', ports: ['${P:-80}:80'], deploy: {replicas: '${N:-3}', resources: {limits: {cpus: '${C:-0.5}', memory: '${M:-64m}'}}}}}";
    let service = &loaded(&[("compose.yaml", text)]).project.services["web"];
    assert!(service.has_tty);
    assert_eq!(service.ports[0].published, Some(80));
    assert_eq!(service.deploy.replicas, Some(3));
    assert_eq!(
        service.deploy.limits.as_ref().unwrap().nano_cpus,
        Some(500_000_000)
    );
}

#[test]
fn variables_that_are_not_set_are_told_once() {
    let text = "services:\n  web:\n    image: x${NOPE}\n    hostname: a$NOPE-${EMPTY}\n    user: ${NO2-5}\nx-a: ${NOPE3}\n";
    let project = loaded(&[("compose.yaml", text)]).project;
    let warnings: Vec<String> = project.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["compose.yaml:4:15: variable `NOPE` is not set and becomes nothing"]
    );
    assert_eq!(project.services["web"].hostname.as_deref(), Some("a-"));
}

#[test]
fn names_of_projects_come_from_three_places() {
    let text = "name: ${N:-file}\nservices: {web: {image: 'x:${COMPOSE_PROJECT_NAME}'}}";
    let loaded = loaded(&[("compose.yaml", text)]);
    assert_eq!(loaded.project.name.as_deref(), Some("file"));
    assert_eq!(loaded.project.services["web"].image, "x:file");
    let options = Options {
        project_name: Some("given".to_owned()),
        ..Options::default()
    };
    let given = try_load(&[("compose.yaml", text)], &options).unwrap();
    assert_eq!(given.project.name.as_deref(), Some("given"));
    assert!(render(&given.document).starts_with("name: given\n"));
    let from_env = try_load(
        &[("compose.yaml", text), (".env", "COMPOSE_PROJECT_NAME=env")],
        &Options::default(),
    )
    .unwrap();
    assert_eq!(from_env.project.name.as_deref(), Some("env"));
}

#[test]
fn env_files_of_services_stand_below_environment() {
    let text = "services:\n  web:\n    image: x\n    env_file: [a.env, {path: b.env}, {path: c.env, required: false}, {path: raw.env, format: raw}]\n    environment: [A=own]\n    label_file: l.env\n    labels: {m: own}\n";
    let files = [
        ("compose.yaml", text),
        ("a.env", "A=a\nB=a\nC=$TAG"),
        ("b.env", "B=b\nD=\"$B\\t${C}\""),
        ("raw.env", "R='$A'"),
        ("l.env", "l=1\nm=2"),
    ];
    let service = &loaded(&files).project.services["web"];
    let got: Vec<(&str, Option<&str>)> = service
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()))
        .collect();
    assert_eq!(
        got,
        [
            ("A", Some("own")),
            ("B", Some("b")),
            ("C", Some("1.2")),
            ("D", Some("b\t1.2")),
            ("R", Some("'$A'"))
        ]
    );
    assert_eq!(service.labels["l"], "1");
    assert_eq!(service.labels["m"], "own");
    assert_eq!(
        problems(&files[..2]),
        "compose.yaml:4:23: cannot read `b.env`: no such file\ncompose.yaml:4:70: cannot read `raw.env`: no such file\ncompose.yaml:6:17: cannot read `l.env`: no such file"
    );
}

#[test]
fn mistakes_of_env_files_have_their_line() {
    let text = "services: {web: {image: x, env_file: a.env}}";
    assert_eq!(
        problems(&[("compose.yaml", text), ("a.env", "A=1\nB C=2")]),
        "a.env:2:1: character ` ` in the name of variable `B C`"
    );
    assert_eq!(
        problems(&[
            ("compose.yaml", text),
            (".env", "A=${B:?no}"),
            ("a.env", "")
        ]),
        ".env:1:1: required variable `B` is not set: no"
    );
}

#[test]
fn files_from_standard_input_are_relative_to_the_working_directory() {
    let source = Source::Bytes {
        name: "<stdin>".into(),
        bytes: b"services: {web: {image: x, volumes: ['./a:/a'], env_file: e.env, tty: 5}}"
            .to_vec(),
    };
    let disk = Disk::new(&[("e.env", "")]);
    let problems = load(&[source], &environment(), &disk, &Options::default()).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "<stdin>:1:71: `services.web.tty` must be `true` or `false`, not `5`"
    );
}

#[test]
fn merging_without_interpolation_keeps_variables() {
    let text = "services:\n  web:\n    image: nginx:${TAG}\n    ports: ['${P}:80', '81:81']\n    environment: ['A=${B}']\n    tty: ${T}\n";
    let sources = [Source::File("compose.yaml".into())];
    let document = merge(
        &sources,
        &environment(),
        &Disk::new(&[("compose.yaml", text)]),
        &Options::default(),
    )
    .unwrap();
    let expect = "\
services:
  web:
    environment:
      A: ${B}
    image: nginx:${TAG}
    ports:
      - ${P}:80
      - mode: ingress
        protocol: tcp
        published: 81
        target: 81
    tty: ${T}
";
    assert_eq!(render(&document), expect);
}
