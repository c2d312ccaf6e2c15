//! Files become one tree: each is read, interpolated, brought into canonical form, gets what it includes and what its
//! services extend, and is merged onto those before it.

mod extends;
mod include;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use crate::{
    canonical::canonical,
    dotenv::{self, Format},
    input::{Environment, Files, Source},
    interpolate::Interpolator,
    merge::{merge, settle},
    node::{Mapping, Node, Value},
    paths::{Base, clean, is_remote},
    problem::{Place, Problems},
    yaml,
};

use self::extends::{Link, Scope};

/// Files of one project, however they are named. Each costs a read and its values.
const FILE_COUNT_MAX: usize = 256;
/// Values of a project while it is put together: what is extended and included is copied.
const NODE_COUNT_MAX: usize = 1_000_000;
/// Largest file with variables.
const ENV_FILE_BYTES_MAX: usize = 1 << 20;

/// Puts the files of a project together.
pub(crate) struct Loader<'a> {
    files: &'a dyn Files,
    is_interpolated: bool,
    working_dir: PathBuf,
    file_count: usize,
    node_count: usize,
    scopes: BTreeMap<PathBuf, Option<Rc<Scope>>>,
    cycles: BTreeSet<Vec<Link>>,
    /// What is wrong.
    pub(crate) problems: Problems,
    /// What is odd.
    pub(crate) warnings: Problems,
}

/// What the files of one model have in common: the project's, or those of an include.
pub(crate) struct Setting {
    /// Absolute directory of relative paths.
    pub(crate) dir: PathBuf,
    /// Variables.
    pub(crate) environment: Environment,
}

/// The documents of a file.
pub(crate) struct Parsed {
    /// Absolute; what includes and extensions are compared by.
    pub(crate) path: PathBuf,
    /// Its documents.
    pub(crate) documents: Vec<Node>,
}

// === impl Loader ===

impl<'a> Loader<'a> {
    pub(crate) fn new(files: &'a dyn Files, is_interpolated: bool) -> Self {
        Self {
            working_dir: clean(&files.working_dir()),
            files,
            is_interpolated,
            file_count: 0,
            node_count: 0,
            scopes: BTreeMap::new(),
            cycles: BTreeSet::new(),
            problems: Problems::default(),
            warnings: Problems::default(),
        }
    }

    /// The absolute path of one the user gave.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        clean(&self.working_dir.join(path))
    }

    /// Reads and parses a file; what is wrong with it is kept, and there is nothing then.
    pub(crate) fn parse(&mut self, source: &Source, from: Option<&Place>) -> Option<Parsed> {
        let (name, bytes) = match source {
            Source::File(path) => (
                self.display(path),
                self.read(path, yaml::FILE_BYTES_MAX, from)?,
            ),
            Source::Bytes { name, bytes } => (name.clone(), bytes.clone()),
        };
        let path = match source {
            Source::File(path) => self.absolute(path),
            Source::Bytes { name, .. } => name.clone(),
        };
        let file: Arc<Path> = name.into();
        match yaml::parse(&file, &bytes, &mut self.problems) {
            Ok(documents) => Some(Parsed { path, documents }),
            Err(problem) => {
                self.problems.push(problem.place, problem.text);
                None
            }
        }
    }

    /// The merged tree of the files of a model. `chain` are the files that include it, outermost first.
    pub(crate) fn model(
        &mut self,
        parsed: Vec<Parsed>,
        setting: &Setting,
        chain: &[PathBuf],
    ) -> Option<Node> {
        let mut model: Option<Node> = None;
        for file in parsed {
            for document in file.documents {
                let Some(document) = self.document(document, &file.path, setting, chain) else {
                    continue;
                };
                match &mut model {
                    Some(model) => merge(model, document, &[], &mut self.problems),
                    None => model = Some(document),
                }
                model.iter_mut().for_each(settle);
            }
        }
        if let Some(model) = model.as_mut().filter(|_| self.is_interpolated) {
            resolve_environment(model, &setting.environment);
        }
        model
    }

    /// One document, with what it includes and extends.
    fn document(
        &mut self,
        document: Node,
        path: &Path,
        setting: &Setting,
        chain: &[PathBuf],
    ) -> Option<Node> {
        let mut document = self.prepare(document, setting)?;
        let mut chain = chain.to_vec();
        chain.push(path.to_owned());
        let includes = document.as_map_mut().and_then(|map| map.remove("include"));
        if let Some(includes) = includes {
            document = self.include(document, &includes.node, setting, &chain);
        }
        self.extend_services(&mut document, path, setting);
        Some(document)
    }

    /// Interpolation, canonical form, absolute paths.
    fn prepare(&mut self, mut document: Node, setting: &Setting) -> Option<Node> {
        if !self.spend(document.count(), &document.place) {
            return None;
        }
        let Value::Map(map) = &mut document.value else {
            let text = format!(
                "a compose file is a mapping, and this is {}",
                document.kind()
            );
            self.problems.push(Some(document.place), text);
            return None;
        };
        map.retain(|key, _| !key.starts_with("x-"));
        if self.is_interpolated {
            let lookup = |name: &str| setting.environment.get(name).cloned();
            let mut interpolator = Interpolator::new(&lookup);
            interpolator.tree(&mut document, &mut self.problems, &mut self.warnings);
        }
        canonical(&mut document, self.is_interpolated, &mut self.problems);
        self.base(setting).resolve(&mut document);
        Some(document)
    }

    /// Where relative paths begin.
    pub(crate) fn base<'b>(&self, setting: &'b Setting) -> Base<'b> {
        Base {
            dir: &setting.dir,
            home: setting.environment.get("HOME").cloned(),
        }
    }

    /// The variables of files, those before them and of the environment taken into account, which wins.
    pub(crate) fn env_files(
        &mut self,
        paths: &[(PathBuf, Option<Place>)],
        environment: &Environment,
    ) -> Environment {
        let mut known = Environment::new();
        for (path, place) in paths {
            let read = self.env_file(path, Format::Dotenv, place.as_ref(), &known, environment);
            known.extend(read.unwrap_or_default());
        }
        known
    }

    /// The variables of one file; `None`: it could not be read, which has been told.
    pub(crate) fn env_file(
        &mut self,
        path: &Path,
        format: Format,
        place: Option<&Place>,
        known: &Environment,
        environment: &Environment,
    ) -> Option<Environment> {
        let bytes = self.read(path, ENV_FILE_BYTES_MAX, place)?;
        let lookup = |name: &str| environment.get(name).cloned();
        match dotenv::parse(&self.display(path), &bytes, format, known, &lookup) {
            Ok(variables) => Some(variables),
            Err(problem) => {
                self.problems.push(problem.place, problem.text);
                None
            }
        }
    }

    /// Whether a file can be read at all; only "no such file" is a no.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        let result = self.files.read(path, ENV_FILE_BYTES_MAX);
        !matches!(result, Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// The bytes of a file; what is wrong is told at the place that names it.
    pub(crate) fn read(
        &mut self,
        path: &Path,
        bytes_max: usize,
        from: Option<&Place>,
    ) -> Option<Vec<u8>> {
        self.file_count += 1;
        let result = if self.file_count > FILE_COUNT_MAX {
            Err(format!("more than {FILE_COUNT_MAX} files"))
        } else if path.to_str().is_some_and(is_remote) {
            Err("files of other machines are not fetched".to_owned())
        } else {
            match self.files.read(path, bytes_max) {
                Ok(bytes) if bytes.len() > bytes_max => {
                    Err(format!("has more than {bytes_max} bytes"))
                }
                Ok(bytes) => Ok(bytes),
                Err(error) => Err(reason(&error, bytes_max)),
            }
        };
        result
            .map_err(|why| {
                let shown = self.display(path);
                let text = format!("cannot read `{}`: {why}", shown.display());
                self.problems.push(from.cloned(), text);
            })
            .ok()
    }

    /// Counts values; whether there may be as many.
    fn spend(&mut self, count: usize, place: &Place) -> bool {
        self.node_count += count;
        if self.node_count > NODE_COUNT_MAX {
            let text = format!(
                "the files have more than {NODE_COUNT_MAX} values, with what is extended and included"
            );
            self.problems.push(Some(place.clone()), text);
            return false;
        }
        true
    }

    /// A path as problems show it: relative when it is below the working directory.
    fn display(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix("./").unwrap_or(path);
        path.strip_prefix(&self.working_dir)
            .unwrap_or(path)
            .to_owned()
    }
}

/// Why a file cannot be read, in fewer words than the system's.
fn reason(error: &io::Error, bytes_max: usize) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "no such file".to_owned()
    } else if error.kind() == io::ErrorKind::FileTooLarge {
        format!("has more than {bytes_max} bytes")
    } else if error.kind() == io::ErrorKind::IsADirectory {
        "is a directory".to_owned()
    } else {
        error.to_string()
    }
}

/// Variables named without a value get that of the environment, if it has one.
fn resolve_environment(model: &mut Node, environment: &Environment) {
    let Some(services) = model.get_mut("services").and_then(Node::as_map_mut) else {
        return;
    };
    for service in services.values_mut() {
        let Some(Value::Map(variables)) = service
            .node
            .get_mut("environment")
            .map(|node| &mut node.value)
        else {
            continue;
        };
        for (name, entry) in variables
            .iter_mut()
            .filter(|(_, entry)| entry.node.value == Value::Null)
        {
            if let Some(value) = environment.get(name) {
                entry.node.value = Value::Text(value.clone());
            }
        }
    }
}

/// A mapping without keys, at the place of another value.
pub(crate) fn empty_map(like: &Node) -> Node {
    Node::new(like.place.clone(), Value::Map(Mapping::new()))
}
