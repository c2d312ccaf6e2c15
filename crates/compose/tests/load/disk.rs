//! A disk that is a map, and short ways to load from it.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use skep_compose::{Environment, Files, Loaded, Options, Problems, Source, load, project::Service};

/// Files by absolute path; the working directory is `/w`.
#[derive(Debug, Default)]
pub(crate) struct Disk(BTreeMap<PathBuf, Vec<u8>>);

impl Disk {
    /// Files by path relative to the working directory.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|&(path, text)| (Path::new("/w").join(path), text.as_bytes().to_vec()));
        Self(files.collect())
    }

    /// With one more file.
    pub(crate) fn with(mut self, path: &str, bytes: Vec<u8>) -> Self {
        self.0.insert(Path::new("/w").join(path), bytes);
        self
    }
}

impl Files for Disk {
    fn read(&self, path: &Path, _bytes_max: usize) -> io::Result<Vec<u8>> {
        let path = Path::new("/w").join(path);
        self.0
            .get(&path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn working_dir(&self) -> PathBuf {
        "/w".into()
    }
}

/// The environment of tests.
pub(crate) fn environment() -> Environment {
    let variables = [("HOME", "/home/ann"), ("TAG", "1.2"), ("EMPTY", "")];
    variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// Loads `compose.yaml` and, on top of it, those of `over1.yaml`, `over2.yaml` that are there.
pub(crate) fn try_load(files: &[(&str, &str)], options: &Options) -> Result<Loaded, Problems> {
    let names = ["compose.yaml", "over1.yaml", "over2.yaml"];
    let sources = names
        .into_iter()
        .filter(|name| files.iter().any(|(path, _)| path == name));
    let sources: Vec<Source> = sources.map(|name| Source::File(name.into())).collect();
    load(&sources, &environment(), &Disk::new(files), options)
}

/// As [`try_load`], for files without problems.
#[track_caller]
pub(crate) fn loaded(files: &[(&str, &str)]) -> Loaded {
    match try_load(files, &Options::default()) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems}"),
    }
}

/// The service `web` of one file that holds the lines of its body.
#[track_caller]
pub(crate) fn web(body: &str) -> Service {
    let lines = body
        .trim_matches('\n')
        .lines()
        .map(|line| format!("    {line}\n"));
    let text = format!(
        "services:\n  web:\n    image: nginx\n{}",
        lines.collect::<String>()
    );
    loaded(&[("compose.yaml", &text)]).project.services["web"].clone()
}

/// What is said of files.
#[track_caller]
pub(crate) fn problems(files: &[(&str, &str)]) -> String {
    match try_load(files, &Options::default()) {
        Ok(loaded) => panic!("nothing is wrong: {:?}", loaded.project),
        Err(problems) => problems.to_string(),
    }
}
