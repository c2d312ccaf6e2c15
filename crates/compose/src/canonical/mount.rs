//! Mounts, `[SOURCE:]TARGET[:OPTIONS]`, and devices, `SOURCE[:TARGET[:PERMISSIONS]]`.

use crate::{
    node::{Mapping, Node, Value, insert},
    project::Propagation,
    word::{Word, nearest},
};

/// Options of mounts, beside propagations.
const OPTIONS: [&str; 8] = [
    "ro",
    "rw",
    "nocopy",
    "z",
    "Z",
    "cached",
    "consistent",
    "delegated",
];

/// The mapping a mount stands for.
pub(super) fn expand(item: &Node) -> Result<Vec<Node>, String> {
    let Value::Text(text) = &item.value else {
        return Ok(vec![item.clone()]);
    };
    let parts: Vec<&str> = text.split(':').collect();
    if text.is_empty() || (parts.len() > 1 && parts.iter().any(|part| part.is_empty())) {
        return Err(format!("mount `{text}` has an empty part"));
    }
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(format!("mount `{text}` has too many colons")),
    };
    let is_bind = source.is_some_and(|source| source.starts_with(['.', '/', '~']));
    let node = |value| Node::new(item.place.clone(), value);
    let said = |text: &str| node(Value::Text(text.to_owned()));
    let mut bind = Mapping::new();
    let mut volume = Mapping::new();
    let mut map = Mapping::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => insert(&mut map, "read_only", node(Value::Bool(true))),
            "rw" => {
                map.remove("read_only");
            }
            "nocopy" => insert(&mut volume, "nocopy", node(Value::Bool(true))),
            "z" | "Z" => insert(&mut bind, "selinux", said(option)),
            "cached" | "consistent" | "delegated" => insert(&mut map, "consistency", said(option)),
            _ if Propagation::parse(option).is_some() => {
                insert(&mut bind, "propagation", said(option))
            }
            _ => {
                let known = OPTIONS
                    .into_iter()
                    .chain(Propagation::ALL.iter().map(|word| word.as_str()));
                let hint = nearest(option, known)
                    .map_or(String::new(), |word| format!("; did you mean `{word}`?"));
                return Err(format!("unknown option `{option}` of mount `{text}`{hint}"));
            }
        }
    }
    insert(
        &mut map,
        "type",
        said(if is_bind { "bind" } else { "volume" }),
    );
    insert(&mut map, "target", said(target));
    if let Some(source) = source {
        insert(&mut map, "source", said(source));
    }
    if is_bind && !bind.is_empty() {
        insert(&mut map, "bind", node(Value::Map(bind)));
    }
    if !is_bind && !volume.is_empty() {
        insert(&mut map, "volume", node(Value::Map(volume)));
    }
    let edit = item.edit;
    Ok(vec![Node {
        edit,
        ..node(Value::Map(map))
    }])
}

/// The mapping a device stands for.
pub(super) fn device(item: &Node) -> Result<Vec<Node>, String> {
    let Value::Text(text) = &item.value else {
        return Ok(vec![item.clone()]);
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        // `/dev/x:r` has permissions, not a target.
        [source, last] if !last.starts_with('/') => (*source, *source, *last),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ => return Err(format!("device `{text}` has too many colons")),
    };
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("device `{text}` has an empty part"));
    }
    let mut map = Mapping::new();
    for (key, value) in [
        ("source", source),
        ("target", target),
        ("permissions", permissions),
    ] {
        insert(&mut map, key, Node::text(item.place.clone(), value));
    }
    let edit = item.edit;
    Ok(vec![Node {
        edit,
        ..Node::new(item.place.clone(), Value::Map(map))
    }])
}
