//! What compose files a command is about, and the machine they are read on.

use std::{
    env, fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use skep_compose::{
    Environment, Files, Loaded, Options, Problem, Source, Unsupported,
    convert::{self, StackDocument},
};

/// Files that are looked for when none is named, the first that is there.
const DEFAULT_FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];
/// What stands for standard input.
const STDIN: &str = "-";
/// Largest file on standard input: more than any a person wrote, and little memory.
const STDIN_BYTES_MAX: u64 = 16 << 20;

/// Which files, and how they are read.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Input {
    /// A compose file, `-` for standard input; more are merged onto it [default: COMPOSE_FILE, else compose.yaml and its like]
    #[arg(short = 'c', long = "compose-file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A file with variables, instead of `.env`
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// A profile to activate [default: COMPOSE_PROFILES]
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// Leave out what a cluster cannot honour, instead of refusing the file
    #[arg(long)]
    ignore_unsupported: bool,
}

/// This machine's files.
struct Disk {
    dir: PathBuf,
}

// === impl Input ===

impl Input {
    /// Reads the files; `name` is the stack's, if it was given. Warnings go to standard error.
    pub(super) fn load(&self, name: Option<&str>) -> anyhow::Result<Loaded> {
        let environment = environment();
        let sources = self.sources(&environment)?;
        let disk = Disk::new()?;
        let loaded = skep_compose::load(&sources, &environment, &disk, &self.options(name));
        let loaded = loaded.map_err(|problems| anyhow::anyhow!("{problems}"))?;
        warn(&loaded.project.warnings);
        Ok(loaded)
    }

    /// Merges the files and leaves their variables as they are.
    pub(super) fn merge(&self) -> anyhow::Result<String> {
        let environment = environment();
        let sources = self.sources(&environment)?;
        let options = self.options(None);
        let merged = skep_compose::merge(&sources, &environment, &Disk::new()?, &options);
        let document = merged.map_err(|problems| anyhow::anyhow!("{problems}"))?;
        Ok(skep_compose::render(&document))
    }

    /// The stack that the files say. Warnings go to standard error.
    pub(super) fn document(&self, name: Option<&str>) -> anyhow::Result<StackDocument> {
        let loaded = self.load(name)?;
        let Some(name) = &loaded.project.name else {
            bail!("the stack has no name: give one as argument, or as `name:` in the file");
        };
        let places = |path: &[&str]| loaded.document.place(path);
        let converted = convert::stack(&loaded.project, name, &places);
        let mut document = converted.map_err(|problems| anyhow::anyhow!("{problems}"))?;
        warn(&document.warnings);
        document.source = skep_compose::render(&loaded.document);
        Ok(document)
    }

    fn options(&self, name: Option<&str>) -> Options {
        Options {
            project_name: name.map(str::to_owned),
            env_files: self.env_files.clone(),
            profiles: self.profiles.clone(),
            unsupported: match self.ignore_unsupported {
                true => Unsupported::Warn,
                false => Unsupported::Refuse,
            },
            ..Options::default()
        }
    }

    fn sources(&self, environment: &Environment) -> anyhow::Result<Vec<Source>> {
        let mut files = self.files.clone();
        if files.is_empty() {
            files = named(environment);
        }
        if files.is_empty() {
            let found = DEFAULT_FILES.iter().find(|name| Path::new(name).exists());
            let found = found.context("no compose file: name one with -c")?;
            files.push(PathBuf::from(found));
        }
        files.into_iter().map(source).collect()
    }
}

/// The files of `COMPOSE_FILE`.
fn named(environment: &Environment) -> Vec<PathBuf> {
    let separator = environment
        .get("COMPOSE_PATH_SEPARATOR")
        .map_or(":", String::as_str);
    let list = environment.get("COMPOSE_FILE").map_or("", String::as_str);
    let names = list.split(separator).filter(|name| !name.is_empty());
    names.map(PathBuf::from).collect()
}

fn source(file: PathBuf) -> anyhow::Result<Source> {
    if file != Path::new(STDIN) {
        return Ok(Source::File(file));
    }
    let mut bytes = Vec::new();
    let input = io::stdin().lock();
    let count = input.take(STDIN_BYTES_MAX + 1).read_to_end(&mut bytes);
    let count = count.context("failed to read standard input")?;
    if count as u64 > STDIN_BYTES_MAX {
        bail!("standard input is no compose file: it has more than {STDIN_BYTES_MAX} bytes");
    }
    Ok(Source::Bytes {
        name: "<stdin>".into(),
        bytes,
    })
}

/// The variables of this process; what is not UTF-8 no file can name.
pub(super) fn environment() -> Environment {
    let text = |value: std::ffi::OsString| value.into_string().ok();
    let pairs = env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
    pairs.collect()
}

fn warn(warnings: &[Problem]) {
    for warning in warnings {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
}

// === impl Disk ===

impl Disk {
    fn new() -> anyhow::Result<Self> {
        let dir = env::current_dir().context("failed to find the working directory")?;
        Ok(Self { dir })
    }
}

impl Files for Disk {
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        let file = fs::File::open(self.dir.join(path))?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut bytes = Vec::new();
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        match bytes.len() > bytes_max {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => Ok(bytes),
        }
    }

    fn working_dir(&self) -> PathBuf {
        self.dir.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(files: Vec<PathBuf>) -> Input {
        Input {
            files,
            env_files: Vec::new(),
            profiles: Vec::new(),
            ignore_unsupported: false,
        }
    }

    #[test]
    fn files_are_those_named_else_those_of_the_environment() {
        let environment: Environment = [("COMPOSE_FILE", "a.yml:b/c.yml"), ("X", "y")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let file = |name: &str| Source::File(name.into());
        let named = args(vec!["x.yml".into()]).sources(&environment).unwrap();
        assert_eq!(named, [file("x.yml")]);
        let others = args(Vec::new()).sources(&environment).unwrap();
        assert_eq!(others, [file("a.yml"), file("b/c.yml")]);
        let mut other = environment;
        other.insert("COMPOSE_PATH_SEPARATOR".to_owned(), ",".to_owned());
        other.insert("COMPOSE_FILE".to_owned(), "a:b,c".to_owned());
        assert_eq!(
            args(Vec::new()).sources(&other).unwrap(),
            [file("a:b"), file("c")]
        );
    }

    #[test]
    fn files_have_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "12345").unwrap();
        let disk = Disk {
            dir: dir.path().to_owned(),
        };
        assert_eq!(disk.read(Path::new("f"), 5).unwrap(), b"12345");
        let kind = |path: &str, limit| disk.read(Path::new(path), limit).unwrap_err().kind();
        assert_eq!(kind("f", 4), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(".", 4), io::ErrorKind::IsADirectory);
        assert_eq!(kind("none", 4), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_stack_is_made_of_a_file_and_needs_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f.yml");
        fs::write(&file, "services: {web: {image: app}}").unwrap();
        let args = args(vec![file.clone()]);
        let document = args.document(Some("shop")).unwrap();
        assert_eq!(document.services[0]["Name"], "shop_web");
        assert!(
            document.source.contains("image: app"),
            "{}",
            document.source
        );
        fs::write(&file, "services: {web: {image: app, networks: [lost]}}").unwrap();
        let refused = args.document(Some("shop")).unwrap_err().to_string();
        assert!(
            refused.contains("f.yml:1:") && refused.contains("lost"),
            "{refused}"
        );
    }
}
