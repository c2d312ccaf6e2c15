//! Files people start from, and what becomes of each: `tests/files/<name>.out.yaml` holds the rendering. `UPDATE=1` rewrites it.

use std::{fs, path::PathBuf};

use skep_compose::{Environment, Loaded, Options, Source, load, render};

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
    let options = Options {
        profiles: vec!["debug".to_owned()],
        ..Options::default()
    };
    match load(&[source], &Environment::new(), disk, &options) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems}"),
    }
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
}

#[test]
fn wordpress_with_mysql() {
    check("stacks", "wordpress.yml");
}

#[test]
fn portainer_agents() {
    check("stacks", "portainer.yml");
}

#[test]
fn traefik_with_labels() {
    check("stacks", "traefik.yml");
}

#[test]
fn prometheus_and_grafana() {
    check("stacks", "monitoring.yml");
}

#[test]
fn all_options() {
    check("stacks", "options.yml");
}

#[test]
fn modern_compose() {
    check("files", "modern.yaml");
}
