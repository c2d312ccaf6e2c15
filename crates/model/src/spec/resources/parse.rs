//! What a node says it has: terms like `SSD=4` and `NVIDIA-GPU=UUID1`, with Docker's rules and texts.

use std::collections::BTreeMap;

use super::GenericResource;

/// Kinds and items a node may have together, and kinds a task may ask for. Docker has no limit; every task placed on
/// the node is compared with the list.
pub const GENERIC_RESOURCES_MAX: usize = 256;
/// Longest name of a kind or an item: what fits an environment variable's name with room to spare.
pub const GENERIC_NAME_LENGTH_MAX: usize = 128;

/// Why a list of terms names no resources. The texts are Docker's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenericError {
    /// Not `KIND=VALUE`.
    #[error(
        "could not parse GenericResource: incorrect term {0}, missing '=' or malformed expression"
    )]
    Term(String),
    /// Less than none.
    #[error("could not parse GenericResource: cannot ask for negative resource {0}")]
    Negative(String),
    /// A count beside items, or two counts.
    #[error(
        "could not parse GenericResource: mixed discrete and named resources in expression '{kind}={values}'"
    )]
    Mixed {
        /// The kind.
        kind: String,
        /// What was given for it.
        values: String,
    },
    /// Twice the same item.
    #[error("could not parse GenericResource: `{kind}={item}` is given twice")]
    Twice {
        /// The kind.
        kind: String,
        /// The item.
        item: String,
    },
    /// It ends up in the environment of containers.
    #[error(
        "could not parse GenericResource: `{0}` is not a name: letters, digits and `-_.:/` are, up to {GENERIC_NAME_LENGTH_MAX}"
    )]
    Name(String),
    /// More than anybody needs.
    #[error("could not parse GenericResource: at most {GENERIC_RESOURCES_MAX} are allowed")]
    TooMany,
}

/// Reads the terms of a node, by kind.
///
/// # Errors
/// The first mistake.
pub fn parse_generic(terms: &[String]) -> Result<Vec<GenericResource>, GenericError> {
    if terms.len() > GENERIC_RESOURCES_MAX {
        return Err(GenericError::TooMany);
    }
    let mut by_kind: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for term in terms {
        let split = term.split_once('=').filter(|(_, v)| !v.contains('='));
        let (kind, value) = split.ok_or_else(|| GenericError::Term(term.clone()))?;
        let (kind, value) = (kind.trim(), value.trim());
        for name in [kind, value] {
            if !is_generic_name(name) {
                return Err(GenericError::Name(name.to_owned()));
            }
        }
        by_kind.entry(kind).or_default().push(value);
    }
    let mut found = Vec::new();
    for (kind, values) in by_kind {
        found.extend(of_kind(kind, &values)?);
    }
    Ok(found)
}

fn of_kind(kind: &str, values: &[&str]) -> Result<Vec<GenericResource>, GenericError> {
    let counts = values.iter().filter_map(|value| value.parse::<i64>().ok());
    let counts: Vec<i64> = counts.collect();
    if let ([count], [_]) = (counts.as_slice(), values) {
        return match u64::try_from(*count) {
            Err(_) => Err(GenericError::Negative(kind.to_owned())),
            Ok(_) => Ok(vec![GenericResource::Discrete {
                kind: kind.to_owned(),
                value: *count,
            }]),
        };
    }
    if !counts.is_empty() {
        return Err(GenericError::Mixed {
            kind: kind.to_owned(),
            values: format!("[{}]", values.join(" ")),
        });
    }
    let mut items: Vec<GenericResource> = Vec::new();
    for value in values {
        let item = GenericResource::Named {
            kind: kind.to_owned(),
            value: (*value).to_owned(),
        };
        if items.contains(&item) {
            return Err(GenericError::Twice {
                kind: kind.to_owned(),
                item: (*value).to_owned(),
            });
        }
        items.push(item);
    }
    Ok(items)
}

/// Whether a kind or an item may be called so. `=` and white space would break the environment they are told in.
pub fn is_generic_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= GENERIC_NAME_LENGTH_MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(terms: &[&str], expected: Result<&[(&str, &str)], &str>) {
        let terms: Vec<String> = terms.iter().map(|term| (*term).to_owned()).collect();
        let shown = |resource: &GenericResource| match resource {
            GenericResource::Named { kind, value } => (kind.clone(), value.clone()),
            GenericResource::Discrete { kind, value } => (kind.clone(), format!("#{value}")),
        };
        let actual = parse_generic(&terms)
            .map(|found| found.iter().map(shown).collect::<Vec<_>>())
            .map_err(|error| error.to_string());
        let owned = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(kind, value)| ((*kind).to_owned(), (*value).to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(actual, expected.map(owned).map_err(str::to_owned));
    }

    #[test]
    fn one_number_is_a_count_and_words_are_items() {
        check(
            &["SSD=4", "gpu=UUID1", "gpu = UUID2"],
            Ok(&[("SSD", "#4"), ("gpu", "UUID1"), ("gpu", "UUID2")]),
        );
        check(&[], Ok(&[]));
        check(&["gpu=0"], Ok(&[("gpu", "#0")]));
    }

    #[test]
    fn mistakes_have_dockers_texts() {
        check(
            &["gpu"],
            Err(
                "could not parse GenericResource: incorrect term gpu, missing '=' or malformed expression",
            ),
        );
        check(
            &["a=b=c"],
            Err(
                "could not parse GenericResource: incorrect term a=b=c, missing '=' or malformed expression",
            ),
        );
        check(
            &["gpu=-1"],
            Err("could not parse GenericResource: cannot ask for negative resource gpu"),
        );
        check(
            &["gpu=1", "gpu=a"],
            Err(
                "could not parse GenericResource: mixed discrete and named resources in expression 'gpu=[1 a]'",
            ),
        );
    }

    #[test]
    fn what_would_break_the_environment_is_refused() {
        check(
            &["gpu=a", "gpu=a"],
            Err("could not parse GenericResource: `gpu=a` is given twice"),
        );
        check(
            &["g u=1"],
            Err(
                "could not parse GenericResource: `g u` is not a name: letters, digits and `-_.:/` are, up to 128",
            ),
        );
        let many = vec!["a=b"; GENERIC_RESOURCES_MAX + 1];
        check(
            &many,
            Err("could not parse GenericResource: at most 256 are allowed"),
        );
    }
}
