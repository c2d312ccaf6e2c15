//! The `filters` parameter: JSON, either `{"key":{"value":true}}` or the older `{"key":["value"]}`.

use std::collections::{BTreeMap, BTreeSet};

use regex::RegexBuilder;
use serde::Deserialize;

use crate::{
    error::{ApiError, Result},
    http::query::Query,
};

/// Memory of one pattern: a hundred times what names need. A larger one is refused, so matches nothing.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Values to match, by key. No key: everything matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Map(BTreeMap<String, bool>),
    List(Vec<String>),
}

impl Filters {
    /// Reads `filters` and refuses keys that are not `accepted`.
    pub(crate) fn from_query(query: &Query, accepted: &[&str]) -> Result<Self> {
        let filters = Self::parse(query.text("filters"))?;
        match filters
            .0
            .keys()
            .find(|key| !accepted.contains(&key.as_str()))
        {
            Some(key) => Err(ApiError::invalid(format!("invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let map: BTreeMap<String, Values> =
            serde_json::from_str(text).map_err(|_| ApiError::invalid("invalid filter"))?;
        let values = |values| match values {
            Values::Map(map) => map.into_keys().collect(),
            Values::List(list) => list.into_iter().collect(),
        };
        Ok(Self(
            map.into_iter()
                .map(|(key, list)| (key, values(list)))
                .collect(),
        ))
    }

    /// The values of `key`.
    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether `key` was given with at least one value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|values| !values.is_empty())
    }

    /// Whether one of the values equals `text`, or there are none.
    pub(crate) fn equals(&self, key: &str, text: &str) -> bool {
        !self.has(key) || self.values(key).any(|value| value == text)
    }

    /// Whether one of the values starts `text`, or there are none.
    pub(crate) fn starts(&self, key: &str, text: &str) -> bool {
        !self.has(key) || self.values(key).any(|value| text.starts_with(value))
    }

    /// Whether one of the values, read as a regular expression, matches a part of one of the names, or
    /// there are none. As in Docker one that cannot be read matches nothing.
    pub(crate) fn matches_names(&self, key: &str, names: &[&str]) -> bool {
        !self.has(key)
            || self.values(key).any(|value| {
                let pattern = RegexBuilder::new(value)
                    .size_limit(PATTERN_BYTES_MAX)
                    .build();
                pattern.is_ok_and(|pattern| names.iter().any(|name| pattern.is_match(name)))
            })
    }

    /// Whether `labels` has every `key` or `key=value` of filter `key`.
    pub(crate) fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(key).all(|wanted| has_label(labels, wanted))
    }

    /// Whether `labels` has none of the `key` or `key=value` of filter `key`.
    pub(crate) fn labels_absent(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        !self.values(key).any(|wanted| has_label(labels, wanted))
    }

    /// A single yes or no.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let values: Vec<_> = self.values(key).collect();
        match values.as_slice() {
            [] => Ok(default),
            ["true" | "1"] => Ok(true),
            ["false" | "0"] => Ok(false),
            values => {
                let list = values.join(" ");
                Err(ApiError::invalid(format!(
                    "invalid filter '{key}=[{list}]'"
                )))
            }
        }
    }
}

/// Whether `labels` has `wanted` (`key` or `key=value`).
fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_json_forms_are_read() {
        let modern = Filters::parse(r#"{"name":{"web":true,"db":true}}"#).expect("valid");
        let old = Filters::parse(r#"{"name":["db","web"]}"#).expect("valid");
        assert_eq!(modern, old);
        assert!(modern.starts("name", "web.1") && !modern.starts("name", "x"));
        assert!(modern.starts("id", "anything"));
    }

    #[test]
    fn names_are_matched_by_regular_expressions() {
        let check = |value: &str| {
            let filters = Filters::parse(&format!("{{\"name\":[{value:?}]}}")).expect("valid");
            filters.matches_names("name", &["/web.1.abc", "web.1.abc"])
        };
        for value in [
            "web", "^web", "abc$", "^/web", "w.b", "b.[0-9]", "(x|web)", "",
        ] {
            assert!(check(value), "{value}");
        }
        for value in ["^eb", "web$", "we?b{2}", "(", "a{9999999}"] {
            assert!(!check(value), "{value}");
        }
    }

    #[test]
    fn unknown_and_malformed_filters_are_refused() {
        let query = Query::parse("filters={\"nam\":{\"x\":true}}");
        let error = Filters::from_query(&query, &["name"]).expect_err("unknown");
        assert_eq!(error.message, "invalid filter 'nam'");
        assert!(Filters::parse("{").is_err());
        assert!(Filters::parse("[]").is_err());
    }

    #[test]
    fn all_labels_must_match() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let check = |json: &str| {
            Filters::parse(json)
                .expect("valid")
                .labels("label", &labels)
        };
        assert!(check(r#"{"label":["a"]}"#) && check(r#"{"label":["a=1"]}"#) && check("{}"));
        assert!(!check(r#"{"label":["a=2"]}"#) && !check(r#"{"label":["a","b"]}"#));
    }
}
