//! `include`: other projects' files, with directories and variables of their own, below the file that includes them.

use std::path::{Path, PathBuf};

use super::{Loader, Parsed, Setting, empty_map};
use crate::{
    input::Source,
    merge::merge,
    node::{Node, Value},
    problem::Place,
    word::nearest,
};

/// What a model gives to the one that includes it.
const SECTIONS: [&str; 5] = ["services", "networks", "volumes", "secrets", "configs"];
/// Files that include each other.
const DEPTH_MAX: usize = 32;
/// Keys of the long form.
const KEYS: [&str; 3] = ["path", "project_directory", "env_file"];

// === impl Loader ===

impl Loader<'_> {
    /// The document on top of all it includes.
    pub(super) fn include(
        &mut self,
        document: Node,
        includes: &Node,
        setting: &Setting,
        chain: &[PathBuf],
    ) -> Node {
        let Some(list) = includes.as_list() else {
            if includes.value != Value::Null {
                let text = format!("`include` must be a list, and is {}", includes.kind());
                self.problems.push(Some(includes.place.clone()), text);
            }
            return document;
        };
        let mut base = empty_map(&document);
        for item in list {
            if let Some(model) = self.included(item, setting, chain) {
                merge(&mut base, model, &[], &mut self.problems);
            }
        }
        merge(&mut base, document, &[], &mut self.problems);
        base
    }

    /// The model of one entry of `include`.
    fn included(&mut self, item: &Node, setting: &Setting, chain: &[PathBuf]) -> Option<Node> {
        let paths = self.paths(item)?;
        let (main, place) = paths.first()?;
        let base = self.base(setting);
        let main = base.absolute(main);
        let absolute: Vec<(PathBuf, Place)> = paths
            .iter()
            .map(|(path, place)| (base.absolute(path), place.clone()))
            .collect();
        let dir = match item.get("project_directory").and_then(Node::as_text) {
            Some(dir) => base.absolute(dir),
            None => main.parent().map(Path::to_owned).unwrap_or_default(),
        };
        if chain.contains(&main) || chain.len() > DEPTH_MAX {
            let shown = chain
                .iter()
                .chain([&main])
                .map(|path| self.display(path).display().to_string());
            let shown: Vec<String> = shown.collect();
            let text = match chain.contains(&main) {
                true => format!("files include each other: {}", shown.join(" → ")),
                false => format!("more than {DEPTH_MAX} files include each other"),
            };
            self.problems.push(Some(place.clone()), text);
            return None;
        }
        let inner = self.inner_setting(item, dir, setting);
        let sources = absolute
            .into_iter()
            .map(|(path, place)| (Source::File(path), place));
        let parsed: Vec<Parsed> = sources
            .filter_map(|(source, place)| self.parse(&source, Some(&place)))
            .collect();
        let mut model = self.model(parsed, &inner, chain)?;
        if let Some(map) = model.as_map_mut() {
            map.retain(|key, _| SECTIONS.contains(&key.as_str()));
        }
        self.spend(model.count(), &item.place).then_some(model)
    }

    /// Directory and variables of an included model: the including one's win over those of its files.
    fn inner_setting(&mut self, item: &Node, dir: PathBuf, setting: &Setting) -> Setting {
        let named: Vec<(PathBuf, Option<Place>)> =
            match item.get("env_file").and_then(Node::as_list) {
                Some(list) => {
                    let base = self.base(setting);
                    let texts = list
                        .iter()
                        .filter_map(|node| Some((node.as_text()?, &node.place)));
                    let texts = texts.filter(|&(text, _)| text != "/dev/null");
                    texts
                        .map(|(text, place)| (base.absolute(text), Some(place.clone())))
                        .collect()
                }
                None => {
                    let default = dir.join(".env");
                    if self.exists(&default) {
                        vec![(default, None)]
                    } else {
                        Vec::new()
                    }
                }
            };
        let mut environment = self.env_files(&named, &setting.environment);
        environment.extend(setting.environment.clone());
        Setting { dir, environment }
    }

    /// The paths of an entry, with its shape checked.
    fn paths(&mut self, item: &Node) -> Option<Vec<(String, Place)>> {
        let Some(map) = item.as_map() else {
            let text = format!(
                "an entry of `include` is a path or a mapping, not {}",
                item.kind()
            );
            self.problems.push(Some(item.place.clone()), text);
            return None;
        };
        for (key, entry) in map.iter().filter(|(key, _)| !KEYS.contains(&key.as_str())) {
            let hint = nearest(key, KEYS)
                .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
            self.problems.push(
                Some(entry.place.clone()),
                format!("unknown key `{key}` in `include`{hint}"),
            );
        }
        let list = map
            .get("path")
            .and_then(|entry| entry.node.as_list())
            .unwrap_or_default();
        let paths = list
            .iter()
            .map(|node| Some((node.as_text()?.to_owned(), node.place.clone())));
        let paths = paths
            .collect::<Option<Vec<_>>>()
            .filter(|paths| !paths.is_empty());
        if paths.is_none() {
            self.problems.push(
                Some(item.place.clone()),
                "`include` needs `path`, a path or a list of paths",
            );
        }
        paths
    }
}
