//! Names of objects by their ids, from lists of the Engine API.

use std::collections::BTreeMap;

use serde_json::Value;

/// Names of objects by their ids; `pointer` (RFC 6901) leads to the name in each.
pub(crate) fn names(objects: &Value, pointer: &str) -> BTreeMap<String, String> {
    let objects = objects.as_array().into_iter().flatten();
    let pairs = objects.filter_map(|object| {
        let name = object.pointer(pointer)?.as_str()?;
        Some((object["ID"].as_str()?.to_owned(), name.to_owned()))
    });
    pairs.collect()
}
