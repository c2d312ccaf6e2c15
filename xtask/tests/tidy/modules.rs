//! Dead files: Rust files that no `mod` line leads to are not compiled, however they look.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::workspace::{check, metadata, package_dir, packages, root, rust_files};

/// Modules declared in a file: `mod name;`, each with the path given by an attribute, if any.
fn declared(text: &str) -> Vec<(String, Option<String>)> {
    let mut modules = Vec::new();
    let mut path = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.split('"').next().map(str::to_owned);
        }
        let start = line
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub(super) ");
        let start = start.trim_start_matches("pub ");
        if let Some(name) = start
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        {
            modules.push((name.to_owned(), path.take()));
        }
    }
    modules
}

/// Marks a file and everything its `mod` lines lead to.
fn reach(file: &Path, is_root: bool, reached: &mut BTreeSet<PathBuf>) {
    if !reached.insert(file.to_owned()) {
        return;
    }
    let Ok(text) = std::fs::read_to_string(root().join(file)) else {
        return;
    };
    let beside = file.parent().expect("a file lies in a directory");
    let dir = if is_root {
        beside.to_owned()
    } else {
        file.with_extension("")
    };
    for (name, path) in declared(&text) {
        let module = match path {
            Some(path) => beside.join(path),
            None => dir.join(format!("{name}.rs")),
        };
        reach(&module, false, reached);
    }
}

#[test]
fn every_rust_file_is_reached() {
    let metadata = metadata(false);
    let mut reached = BTreeSet::new();
    let mut dirs = Vec::new();
    for package in packages(&metadata) {
        dirs.push(package_dir(package));
        for target in package["targets"].as_array().unwrap() {
            let source = Path::new(target["src_path"].as_str().unwrap());
            reach(source.strip_prefix(root()).unwrap(), true, &mut reached);
        }
    }
    // What a build script or a test includes by other means is named there.
    let files = rust_files();
    let is_included = |path: &str| {
        let name = path.rsplit('/').next().expect("a path has a last part");
        let include = format!("include!(\"{name}\")");
        files.iter().any(|file| file.text.contains(&include))
    };
    let offenders: Vec<String> = files
        .iter()
        .map(|file| &file.path)
        .filter(|path| dirs.iter().any(|dir| Path::new(path).starts_with(dir)))
        .filter(|path| !reached.contains(Path::new(path)) && !is_included(path))
        .cloned()
        .collect();
    check(
        &offenders,
        "files that no `mod` line leads to are not compiled: declare or delete them",
    );
}
