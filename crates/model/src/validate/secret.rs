//! Rules for secrets and configs, with SwarmKit's texts.

use super::{Problem, Problems};
use crate::{
    spec::{Annotations, CONFIG_BYTES_MAX, ConfigSpec, Driver, SECRET_BYTES_MAX, SecretSpec},
    template::{DRIVER, Template},
};

/// Longest name of a secret or config.
pub const SUPPLY_NAME_BYTES_MAX: usize = 64;

/// Everything wrong with a secret spec.
pub fn secret_spec(spec: &SecretSpec) -> Vec<Problem> {
    let mut found = Problems::default();
    check_name(&spec.annotations, &mut found);
    match &spec.driver {
        Some(driver) if driver.name.is_empty() => found.push("secret driver must have a name"),
        // The data is the driver's.
        Some(_) => {}
        None => check_size("secret", spec.data.0.len(), SECRET_BYTES_MAX, &mut found),
    }
    check_templating(spec.templating.as_ref(), &spec.data.0, &mut found);
    found.0
}

/// Everything wrong with a config spec.
pub fn config_spec(spec: &ConfigSpec) -> Vec<Problem> {
    let mut found = Problems::default();
    check_name(&spec.annotations, &mut found);
    check_size("config", spec.data.0.len(), CONFIG_BYTES_MAX, &mut found);
    check_templating(spec.templating.as_ref(), &spec.data.0, &mut found);
    found.0
}

fn check_name(annotations: &Annotations, found: &mut Problems) {
    let name = annotations.name.as_str();
    if name.is_empty() {
        found.push("name must be provided");
        return;
    }
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric();
    let bytes = name.as_bytes();
    let is_valid = bytes.len() <= SUPPLY_NAME_BYTES_MAX
        && bytes.first().is_some_and(is_plain)
        && bytes.last().is_some_and(is_plain)
        && bytes
            .iter()
            .all(|byte| is_plain(byte) || b"-_.".contains(byte));
    if !is_valid {
        found.push(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end \
             character must be [a-zA-Z0-9]",
        );
    }
}

fn check_size(noun: &str, length: usize, most: usize, found: &mut Problems) {
    if length == 0 || length > most {
        let below = most + 1;
        found.push(format!(
            "{noun} data must be larger than 0 and less than {below} bytes"
        ));
    }
}

/// Swarm takes any driver and any text; the tasks that use them are then rejected.
fn check_templating(driver: Option<&Driver>, data: &[u8], found: &mut Problems) {
    match driver.map(|driver| driver.name.as_str()) {
        None => {}
        Some("") => found.push("template driver must have a name"),
        Some(DRIVER) => {
            if let Err(error) = Template::parse_payload(data) {
                found.push(error.to_string());
            }
        }
        Some(other) => found.push(format!(
            "unrecognized template type {other:?}: `{DRIVER}` is the only one"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Redacted;

    fn secret(name: &str, length: usize) -> SecretSpec {
        SecretSpec {
            annotations: Annotations {
                name: name.to_owned(),
                ..Annotations::default()
            },
            data: Redacted(vec![7; length]),
            ..SecretSpec::default()
        }
    }

    fn texts(spec: &SecretSpec) -> Vec<String> {
        secret_spec(spec).into_iter().map(|found| found.0).collect()
    }

    #[test]
    fn names_are_swarms() {
        let long = "a".repeat(64);
        for name in ["a", "A.b-c_9", "0", &long] {
            assert_eq!(texts(&secret(name, 1)), [""; 0], "{name}");
        }
        let longer = "a".repeat(65);
        for name in [".a", "a-", "a b", "ä", "a/b", &longer] {
            assert!(
                texts(&secret(name, 1))[0].starts_with("invalid name, only 64"),
                "{name}"
            );
        }
        assert_eq!(texts(&secret("", 1)), ["name must be provided"]);
    }

    #[test]
    fn data_has_limits() {
        let text = "secret data must be larger than 0 and less than 512000 bytes";
        assert_eq!(texts(&secret("a", 511_999)), [""; 0]);
        assert_eq!(texts(&secret("a", 512_000)), [text]);
        assert_eq!(texts(&secret("a", 0)), [text]);
        let mut driven = secret("a", 0);
        driven.driver = Some(Driver::default());
        assert_eq!(texts(&driven), ["secret driver must have a name"]);
    }

    #[test]
    fn templates_are_gos_and_can_be_read() {
        let with = |driver: &str, data: &str| {
            let mut spec = secret("a", 1);
            spec.data.0 = data.as_bytes().to_vec();
            spec.templating = Some(Driver {
                name: driver.to_owned(),
                ..Driver::default()
            });
            texts(&spec)
        };
        assert_eq!(with("golang", "{{secret \"x\"}}"), [""; 0]);
        assert_eq!(with("", "x"), ["template driver must have a name"]);
        assert_eq!(
            with("jinja", "x"),
            ["unrecognized template type \"jinja\": `golang` is the only one"]
        );
        assert_eq!(
            with("golang", "{{if}}"),
            ["template: expansion:1: missing value for if"]
        );
    }

    #[test]
    fn configs_may_be_larger() {
        let mut spec = ConfigSpec {
            data: Redacted(vec![7; 1_023_999]),
            ..ConfigSpec::default()
        };
        spec.annotations.name = "a".to_owned();
        assert_eq!(config_spec(&spec), []);
        spec.data.0.push(7);
        let found = config_spec(&spec);
        assert_eq!(
            found[0].0,
            "config data must be larger than 0 and less than 1024000 bytes"
        );
    }
}
