//! `env_file` and `label_file` of services: the files are read, and stand below `environment` and `labels`.

use std::path::PathBuf;

use crate::{
    dotenv::Format,
    input::Environment,
    model::Loader,
    node::{Entry, Mapping, Node, Value},
    problem::Place,
    scalar,
    word::nearest,
};

/// Keys of the long form.
const KEYS: [&str; 3] = ["path", "required", "format"];

/// One file.
struct EnvFile {
    path: PathBuf,
    place: Place,
    is_required: bool,
    format: Format,
}

/// Puts the variables and labels of files into the services that name them.
pub(crate) fn fold(loader: &mut Loader<'_>, root: &mut Node, environment: &Environment) {
    let Some(services) = root.get_mut("services").and_then(Node::as_map_mut) else {
        return;
    };
    for service in services.values_mut() {
        let Some(map) = service.node.as_map_mut() else {
            continue;
        };
        for (key, target) in [("env_file", "environment"), ("label_file", "labels")] {
            let Some(entry) = map
                .remove(key)
                .filter(|entry| entry.node.value != Value::Null)
            else {
                continue;
            };
            let files = files(loader, &entry.node, key);
            let read = read(loader, &files, environment);
            let place = entry.place;
            let node = Node::new(place.clone(), Value::Map(Mapping::new()));
            let target = map
                .entry(target.to_owned())
                .or_insert(Entry { place, node });
            if target.node.value == Value::Null {
                target.node.value = Value::Map(Mapping::new());
            }
            if let Some(values) = target.node.as_map_mut() {
                for (name, entry) in read {
                    values.entry(name).or_insert(entry);
                }
            }
        }
    }
}

/// The values of files, later ones on top of earlier ones.
fn read(loader: &mut Loader<'_>, files: &[EnvFile], environment: &Environment) -> Mapping {
    let mut known = Environment::new();
    let mut mapping = Mapping::new();
    for file in files {
        if !file.is_required && !loader.exists(&file.path) {
            continue;
        }
        let read = loader.env_file(
            &file.path,
            file.format,
            Some(&file.place),
            &known,
            environment,
        );
        for (name, value) in read.unwrap_or_default() {
            let place = file.place.clone();
            let node = Node::text(place.clone(), value.clone());
            mapping.insert(name.clone(), Entry { place, node });
            known.insert(name, value);
        }
    }
    mapping
}

/// The files a key names; what is wrong is told.
fn files(loader: &mut Loader<'_>, node: &Node, key: &str) -> Vec<EnvFile> {
    let mut files = Vec::new();
    let Some(list) = node.as_list() else {
        let text = format!(
            "`{key}` must be a path or a list of paths, not {}",
            node.kind()
        );
        loader.problems.push(Some(node.place.clone()), text);
        return files;
    };
    for item in list {
        if let Some(path) = item.as_text() {
            files.push(EnvFile {
                path: path.into(),
                place: item.place.clone(),
                is_required: true,
                format: Format::Dotenv,
            });
            continue;
        }
        match long(loader, item) {
            Ok(file) => files.push(file),
            Err(text) => loader.problems.push(Some(item.place.clone()), text),
        }
    }
    files
}

fn long(loader: &mut Loader<'_>, item: &Node) -> Result<EnvFile, String> {
    for (key, entry) in item.as_map().into_iter().flatten() {
        if !KEYS.contains(&key.as_str()) && !key.starts_with("x-") {
            let hint = nearest(key, KEYS)
                .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
            loader.problems.push(
                Some(entry.place.clone()),
                format!("unknown key `{key}` in `env_file`{hint}"),
            );
        }
    }
    let path = item
        .get("path")
        .and_then(Node::as_text)
        .ok_or("an entry of `env_file` needs `path`, a path")?;
    let required = match item.get("required").map(|node| &node.value) {
        None => Some(true),
        Some(Value::Bool(is)) => Some(*is),
        Some(Value::Text(text)) => scalar::truth(text),
        Some(Value::Null | Value::Int(_) | Value::Float(_) | Value::List(_) | Value::Map(_)) => {
            None
        }
    };
    let format = match item.get("format").map(Node::as_text) {
        None => Format::Dotenv,
        Some(Some("raw")) => Format::Raw,
        Some(_) => return Err("`format` of `env_file` must be `raw`".to_owned()),
    };
    Ok(EnvFile {
        path: path.into(),
        place: item.place.clone(),
        is_required: required.ok_or("`required` of `env_file` must be `true` or `false`")?,
        format,
    })
}
