//! The stacks in `stacks/` become what the docker command sends for them, which `stacks/record` wrote down.
//!
//! What differs on purpose is named in [`OWN`]: Skep's labels, the scope of networks, and a key that docker 28.2 reads but loses.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use skep_compose::{
    Environment, Files, Options, Problem, Source,
    convert::{self, StackDocument},
};

/// What the recorder calls the directory of the stacks.
const DIR: &str = "/stacks";

/// Fields that only Skep sends.
const OWN: [&str; 2] = ["OomScoreAdj", "Scope"];

/// Values that are defaults of the server: docker sends them or not, depending on how a port is written.
const DEFAULTS: [(&str, &str); 2] = [("Protocol", "tcp"), ("PublishMode", "ingress")];

/// The directory of the stacks under the recorder's name.
struct Stacks;

impl Files for Stacks {
    fn read(&self, path: &Path, _: usize) -> io::Result<Vec<u8>> {
        let path = path.strip_prefix(DIR).unwrap_or(path);
        fs::read(home().join(path))
    }

    fn working_dir(&self) -> PathBuf {
        DIR.into()
    }
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stacks")
}

fn document(file: &str) -> (StackDocument, Vec<Problem>) {
    let source = Source::File(file.into());
    let loaded = skep_compose::load(&[source], &Environment::new(), &Stacks, &Options::default());
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    let places = |path: &[&str]| loaded.document.place(path);
    let document = convert::stack(&loaded.project, "app", &places);
    let document = document.unwrap_or_else(|problems| panic!("{problems}"));
    (document, loaded.project.warnings)
}

/// Without what is empty, which JSON of Go's has and JSON of ours has not, and without what is Skep's own.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let is_own = |key: &str| key.starts_with("skep.") || OWN.contains(&key);
            let is_default = |key: &str, value: &Value| {
                let mut defaults = DEFAULTS.iter();
                defaults.any(|(name, default)| *name == key && value == default)
            };
            let kept = entries.iter().filter(|(key, _)| !is_own(key));
            let kept = kept.filter(|(key, value)| !is_default(key, value));
            let kept = kept.map(|(key, value)| (key.clone(), plain(value)));
            let kept: Map<_, _> = kept.filter(|(_, value)| !is_empty(value)).collect();
            Value::Object(kept)
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Number(number) => number.as_f64().into(),
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(entries) => entries.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        // `"Replicas": 0` means something, but no stack here has it.
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}

#[track_caller]
fn check(name: &str, external: &str) {
    let (document, _) = document(&format!("{name}.yml"));
    let recorded = fs::read(home().join(name).with_extension("json")).expect("it was recorded");
    let recorded: Value = serde_json::from_slice(&recorded).expect("the recorder writes JSON");
    let sent = document.to_json();
    for kind in ["Networks", "Secrets", "Configs", "Services"] {
        let by_name = |value: &Value| -> Vec<Value> {
            let specs = value[kind].as_array().into_iter().flatten();
            let mut specs: Vec<Value> = specs.map(plain).collect();
            specs.sort_by_key(|spec| spec["Name"].to_string());
            specs
        };
        let (ours, theirs) = (by_name(&sent), by_name(&recorded));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{kind} of {name}: ours, then docker's");
        }
        assert_eq!(ours.len(), theirs.len(), "{kind} of {name}");
    }
    let names = document.external;
    let names = [names.networks, names.secrets, names.configs]
        .into_iter()
        .flatten();
    assert_eq!(names.collect::<Vec<_>>().join(" "), external);
}

#[test]
fn the_voting_application_is_what_docker_makes_of_it() {
    check("voting", "");
    let (document, _) = document("voting.yml");
    let worker = document
        .services
        .iter()
        .find(|spec| spec["Name"] == "app_worker")
        .unwrap();
    assert_eq!(
        worker["Labels"][convert::DEPENDS_ON],
        "app_db=started,app_redis=started"
    );
}

#[test]
fn wordpress_is_what_docker_makes_of_it() {
    check("wordpress", "");
}

#[test]
fn the_portainer_agent_is_what_docker_makes_of_it() {
    check("portainer", "");
}

#[test]
fn traefik_is_what_docker_makes_of_it() {
    check("traefik", "traefik-public");
}

#[test]
fn prometheus_and_grafana_are_what_docker_makes_of_them() {
    check("monitoring", "grafana_admin");
}

#[test]
fn every_option_is_what_docker_makes_of_it() {
    check("options", "public outside-secret outside");
}

#[test]
fn public_stacks_need_no_warning() {
    for name in ["voting", "wordpress", "portainer", "traefik", "monitoring"] {
        let (document, warnings) = document(&format!("{name}.yml"));
        assert_eq!(
            (document.warnings, warnings),
            (Vec::new(), Vec::new()),
            "{name}"
        );
    }
}
