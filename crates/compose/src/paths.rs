//! Relative paths of a file become absolute ones, before files with other directories are merged with it.

use std::path::{Component, Path, PathBuf};

use crate::node::{Node, Value};

/// Where relative paths of a file begin.
pub(crate) struct Base<'a> {
    /// An absolute directory.
    pub(crate) dir: &'a Path,
    /// What `~` stands for, if that is known.
    pub(crate) home: Option<String>,
}

// === impl Base ===

impl Base<'_> {
    /// The absolute path of a text, without `.` and `..`; what is of another machine stays as it is.
    pub(crate) fn absolute(&self, text: &str) -> PathBuf {
        if is_remote(text) {
            return PathBuf::from(text);
        }
        let path = match (text.strip_prefix('~'), &self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                Path::new(home).join(rest.trim_start_matches('/'))
            }
            _ => PathBuf::from(text),
        };
        clean(&self.dir.join(path))
    }

    /// Makes all paths of a file absolute, in its canonical form. Paths that hold a variable are left alone.
    pub(crate) fn resolve(&self, root: &mut Node) {
        for service in children(root, "services") {
            for key in ["env_file", "label_file", "volumes"] {
                let Some(Value::List(list)) = service.get_mut(key).map(|node| &mut node.value)
                else {
                    continue;
                };
                for item in list {
                    match key {
                        "label_file" => self.replace(item),
                        "env_file" => item
                            .get_mut("path")
                            .into_iter()
                            .for_each(|node| self.replace(node)),
                        _ if is_text(item.get("type"), "bind") => {
                            item.get_mut("source")
                                .into_iter()
                                .for_each(|node| self.replace(node));
                        }
                        _ => {}
                    }
                }
            }
            if let Some(file) = service
                .get_mut("extends")
                .and_then(|node| node.get_mut("file"))
            {
                self.replace(file);
            }
        }
        for section in ["secrets", "configs"] {
            for object in children(root, section) {
                object
                    .get_mut("file")
                    .into_iter()
                    .for_each(|node| self.replace(node));
            }
        }
        for volume in children(root, "volumes") {
            let is_local = volume.get("driver").is_none() || is_text(volume.get("driver"), "local");
            let Some(options) = volume.get_mut("driver_opts").filter(|_| is_local) else {
                continue;
            };
            let is_bind = options
                .get("o")
                .and_then(Node::as_text)
                .is_some_and(|o| o.split(',').any(|o| o == "bind"));
            if is_bind {
                options
                    .get_mut("device")
                    .into_iter()
                    .for_each(|node| self.replace(node));
            }
        }
    }

    fn replace(&self, node: &mut Node) {
        if let Value::Text(text) = &mut node.value
            && !text.is_empty()
            && !text.contains('$')
        {
            *text = self.absolute(text).to_string_lossy().into_owned();
        }
    }
}

/// Whether a text names something of another machine.
pub(crate) fn is_remote(text: &str) -> bool {
    text.contains("://") || text.starts_with("git@")
}

/// The path without `.`, `..` and double slashes, as far as that can be told without looking.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() && !out.has_root() {
                    out.push("..");
                }
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => out.push(component),
        }
    }
    out
}

fn is_text(node: Option<&Node>, text: &str) -> bool {
    node.and_then(Node::as_text) == Some(text)
}

fn children<'a>(root: &'a mut Node, section: &str) -> impl Iterator<Item = &'a mut Node> {
    root.get_mut(section)
        .and_then(Node::as_map_mut)
        .into_iter()
        .flat_map(|map| map.values_mut())
        .map(|entry| &mut entry.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute_and_clean() {
        let base = Base {
            dir: Path::new("/srv/app"),
            home: Some("/root".to_owned()),
        };
        for (text, expect) in [
            ("./x", "/srv/app/x"),
            ("../x/./y/", "/srv/x/y"),
            ("/a//b/../c", "/a/c"),
            ("~/x", "/root/x"),
            ("~", "/root"),
            ("~x", "/srv/app/~x"),
            ("../../../x", "/x"),
        ] {
            assert_eq!(base.absolute(text), Path::new(expect), "{text}");
        }
    }
}
