//! How large a document may be, and what makes it larger.

use std::cmp::Reverse;

use anyhow::bail;
use serde_json::Value;
use skep_docker_api::client::BODY_BYTES_MAX;

/// Objects that are named.
const TOLD_MAX: usize = 3;

/// The body, if the daemon takes as much.
///
/// # Errors
/// It is larger; says which objects are the largest.
pub(super) fn checked(body: Value) -> anyhow::Result<Value> {
    check(&body, BODY_BYTES_MAX)?;
    Ok(body)
}

fn check(body: &Value, bytes_max: usize) -> anyhow::Result<()> {
    let bytes = body.to_string().len();
    if bytes <= bytes_max {
        return Ok(());
    }
    let kinds = [
        ("network", "Networks"),
        ("secret", "Secrets"),
        ("config", "Configs"),
        ("service", "Services"),
    ];
    let mut parts: Vec<(String, usize)> = vec![("the file".to_owned(), size(&body["Source"]))];
    for (noun, key) in kinds {
        for object in body[key].as_array().into_iter().flatten() {
            let name = object["Name"].as_str().unwrap_or_default();
            parts.push((format!("{noun} {name}"), size(object)));
        }
    }
    parts.sort_by_key(|(_, bytes)| Reverse(*bytes));
    let parts = parts.iter().take(TOLD_MAX);
    let largest: Vec<String> = parts
        .map(|(what, bytes)| format!("{what} {bytes}"))
        .collect();
    bail!(
        "the stack is too large to be sent: {bytes} bytes with contents as base64, and the limit is {bytes_max}; largest: {}",
        largest.join(", ")
    )
}

fn size(value: &Value) -> usize {
    value.to_string().len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_too_large_names_the_largest_objects() {
        let body = json!({
            "Source": "services: {}",
            "Configs": [{"Name": "app_big", "Data": "x".repeat(300)}],
            "Secrets": [{"Name": "app_pw", "Data": "x".repeat(100)}],
            "Services": [{"Name": "app_web"}],
        });
        check(&body, 1000).unwrap();
        let error = check(&body, 500).unwrap_err().to_string();
        assert_eq!(
            error,
            "the stack is too large to be sent: 538 bytes with contents as base64, and the limit is 500; largest: config app_big 328, \
             secret app_pw 127, service app_web 18"
        );
    }
}
