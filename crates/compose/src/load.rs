//! From sources to a project: the steps, in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    check::check,
    decode::Decoder,
    document::Document,
    env_file,
    input::{Environment, Files, Options, Source},
    interpolate::Interpolator,
    model::{Loader, Parsed, Setting},
    node::{Node, Value},
    problem::{Place, Problems},
    project::Project,
};

/// Most sources of one project; more are a mistake of a script.
const SOURCE_COUNT_MAX: usize = 64;

/// A project and the file it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What the files say.
    pub project: Project,
    /// The merged file, without the services of inactive profiles.
    pub document: Document,
}

/// Loads compose files, later ones on top of earlier ones.
///
/// # Errors
/// All that is wrong with them.
pub fn load(
    sources: &[Source],
    environment: &Environment,
    files: &dyn Files,
    options: &Options,
) -> Result<Loaded, Problems> {
    let mut loader = Loader::new(files, true);
    let Some(begun) = begin(&mut loader, sources, environment, options) else {
        return Err(failed(loader.problems));
    };
    let Begun {
        mut root,
        name,
        setting,
    } = begun;
    let inactive = remove_inactive(&mut root, &profiles(&setting.environment, options));
    env_file::fold(&mut loader, &mut root, &setting.environment);
    let mut decoder = Decoder::new(&mut loader, &setting.environment, options.unsupported);
    let mut project = decoder.project(&root, name);
    let document = Document {
        root,
        is_interpolated: true,
    };
    check(&mut project, &document, &inactive, &mut loader.problems);
    project.warnings = std::mem::take(&mut loader.warnings).into_vec();
    loader.problems.into_result(Loaded { project, document })
}

/// Merges compose files without replacing variables, and without looking at what they say. Included files and extended
/// services are put in, profiles are not heeded.
///
/// # Errors
/// What keeps the files from being merged.
pub fn merge(
    sources: &[Source],
    environment: &Environment,
    files: &dyn Files,
    options: &Options,
) -> Result<Document, Problems> {
    let mut loader = Loader::new(files, false);
    let Some(Begun { root, .. }) = begin(&mut loader, sources, environment, options) else {
        return Err(failed(loader.problems));
    };
    let document = Document {
        root,
        is_interpolated: false,
    };
    loader.problems.into_result(document)
}

/// What loading begins with: the merged tree and what was needed for it.
struct Begun {
    root: Node,
    name: Option<String>,
    setting: Setting,
}

/// Reads and merges; `None` when not even that is possible.
fn begin(
    loader: &mut Loader<'_>,
    sources: &[Source],
    environment: &Environment,
    options: &Options,
) -> Option<Begun> {
    if sources.is_empty() || sources.len() > SOURCE_COUNT_MAX {
        let text = format!("from 1 to {SOURCE_COUNT_MAX} compose files can be given");
        loader.problems.push(None, text);
        return None;
    }
    let dir = directory(loader, sources, options);
    let mut variables = variables(loader, &dir, environment, options);
    let mut parsed: Vec<Parsed> = Vec::new();
    for source in sources {
        parsed.extend(loader.parse(source, None));
    }
    let name = project_name(loader, &parsed, &variables, options);
    if let Some(name) = &name {
        variables.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
    }
    let setting = Setting {
        dir,
        environment: variables,
    };
    let is_whole = parsed.len() == sources.len();
    let model = loader.model(parsed, &setting, &[]);
    let Some(mut root) = model.filter(|_| is_whole) else {
        if is_whole && loader.problems.is_empty() {
            loader.problems.push(None, "the compose files are empty");
        }
        return None;
    };
    let map = root.as_map_mut()?;
    map.remove("version");
    match (&name, map.get_mut("name")) {
        (Some(name), Some(entry)) => entry.node.value = Value::Text(name.clone()),
        (Some(name), None) => {
            let mut node = Node::text(root.place.clone(), name);
            node.place.line = 0;
            crate::node::insert(root.as_map_mut()?, "name", node);
        }
        (None, _) => {}
    }
    Some(Begun {
        root,
        name,
        setting,
    })
}

/// The directory of relative paths.
fn directory(loader: &Loader<'_>, sources: &[Source], options: &Options) -> PathBuf {
    if let Some(dir) = &options.project_directory {
        return loader.absolute(dir);
    }
    let first = match sources.first() {
        Some(Source::File(path)) => path.parent(),
        Some(Source::Bytes { .. }) | None => None,
    };
    loader.absolute(first.unwrap_or(Path::new("")))
}

/// The variables: those of the environment win over those of files.
fn variables(
    loader: &mut Loader<'_>,
    dir: &Path,
    environment: &Environment,
    options: &Options,
) -> Environment {
    let default = dir.join(".env");
    let paths: Vec<(PathBuf, Option<Place>)> = match options.env_files.as_slice() {
        [] if loader.exists(&default) => vec![(default, None)],
        [] => Vec::new(),
        named => named
            .iter()
            .map(|path| (loader.absolute(path), None))
            .collect(),
    };
    let mut variables = loader.env_files(&paths, environment);
    variables.extend(environment.clone());
    variables
}

/// The name of the project: an option, a variable, or what the last file says.
fn project_name(
    loader: &mut Loader<'_>,
    parsed: &[Parsed],
    variables: &Environment,
    options: &Options,
) -> Option<String> {
    let given = options
        .project_name
        .clone()
        .or_else(|| variables.get("COMPOSE_PROJECT_NAME").cloned());
    if let Some(name) = given.filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let documents = parsed.iter().flat_map(|file| &file.documents);
    let node = documents
        .filter_map(|document| document.get("name"))
        .next_back()?;
    let lookup = |name: &str| variables.get(name).cloned();
    // What is wrong with it is told when the file is merged.
    let name = Interpolator::new(&lookup)
        .text(node.as_text().unwrap_or_default())
        .ok()?;
    let is_possible =
        |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "_-".contains(char);
    let is_first = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
    if !name.starts_with(is_first) || !name.chars().all(is_possible) {
        let text = format!(
            "`{name}` is no name of a project: lower-case letters, digits, `_` and `-` are, with a letter or digit first"
        );
        loader.problems.push(Some(node.place.clone()), text);
        return None;
    }
    Some(name)
}

fn profiles(variables: &Environment, options: &Options) -> BTreeSet<String> {
    if !options.profiles.is_empty() {
        return options.profiles.iter().cloned().collect();
    }
    let text = variables.get("COMPOSE_PROFILES").map_or("", String::as_str);
    text.split(',')
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Takes away the services none of whose profiles is active; their names and profiles.
fn remove_inactive(root: &mut Node, active: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut inactive = BTreeMap::new();
    let Some(services) = root.get_mut("services").and_then(Node::as_map_mut) else {
        return inactive;
    };
    services.retain(|name, entry| {
        let profiles = entry
            .node
            .get("profiles")
            .and_then(Node::as_list)
            .unwrap_or_default();
        let profiles: Vec<&str> = profiles.iter().filter_map(Node::as_text).collect();
        let is_active = profiles.is_empty()
            || active.contains("*")
            || profiles.iter().any(|&name| active.contains(name));
        if !is_active {
            inactive.insert(name.clone(), profiles.join("`, `"));
        }
        is_active
    });
    inactive
}

/// Problems that are an error for sure.
fn failed(mut problems: Problems) -> Problems {
    if problems.is_empty() {
        problems.push(None, "the compose files could not be read");
    }
    match problems.into_result(()) {
        Ok(()) => Problems::default(),
        Err(problems) => problems,
    }
}
