//! Rules about `Cargo.toml` files.

use crate::workspace::{check, metadata, package_dir, packages, root};

fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(root().join(path)).expect("a member has a manifest")
}

/// The lines of a section.
fn section<'a>(text: &'a str, header: &str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| *line != header).skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn members_take_lints_and_dependencies_from_the_workspace() {
    let mut offenders = Vec::new();
    for package in packages(&metadata(false)) {
        let path = package_dir(package).join("Cargo.toml");
        let text = read(&path);
        if section(&text, "[lints]") != ["workspace = true"] {
            offenders.push(format!(
                "{}: [lints] must be `workspace = true`",
                path.display()
            ));
        }
        for header in [
            "[dependencies]",
            "[dev-dependencies]",
            "[build-dependencies]",
        ] {
            let entries = section(&text, header).into_iter();
            let own =
                entries.filter(|line| line.contains('=') && !line.contains("workspace = true"));
            offenders.extend(own.map(|line| format!("{}: {line}", path.display())));
        }
    }
    check(
        &offenders,
        "declare dependencies in the root Cargo.toml and write `name.workspace = true` here",
    );
}

#[test]
fn workspace_dependencies_are_sorted_and_versioned() {
    let text = read("Cargo.toml".as_ref());
    let entries = section(&text, "[workspace.dependencies]");
    let name = |line: &&str| {
        line.split([' ', '.', '='])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let names: Vec<String> = entries.iter().map(name).collect();
    let (ours, theirs): (Vec<String>, Vec<String>) = names
        .into_iter()
        .partition(|name| name.starts_with("skep-"));
    for group in [ours, theirs] {
        let unsorted: Vec<String> = group
            .windows(2)
            .filter(|pair| pair[0] > pair[1])
            .map(|pair| format!("{} comes before {}", pair[1], pair[0]))
            .collect();
        check(&unsorted, "[workspace.dependencies] is sorted, ours last");
    }
    let wild = entries.iter().filter(|line| line.contains("\"*\""));
    check(
        &wild.map(|line| (*line).to_owned()).collect::<Vec<_>>(),
        "dependencies have versions",
    );
}
