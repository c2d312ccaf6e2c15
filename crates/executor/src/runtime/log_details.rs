//! The labels and variables of a container that its log options `labels`, `labels-regex`, `env` and `env-regex` write with every line.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use super::config::LogConfigError;

/// Largest compiled expression. Real ones take some kilobytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Whether an option is one of those read here.
pub(super) fn is_detail(option: &str) -> bool {
    ["labels", "labels-regex", "env", "env-regex"].contains(&option)
}

/// What `options` choose. A variable wins over a label of its name, as with Docker.
pub(crate) fn details(
    options: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
    env: &[String],
) -> Result<BTreeMap<String, String>, LogConfigError> {
    let labels = labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    let env = env.iter().filter_map(|entry| entry.split_once('='));
    let mut chosen = BTreeMap::new();
    choose(options, "labels", labels, &mut chosen)?;
    choose(options, "env", env, &mut chosen)?;
    Ok(chosen)
}

fn choose<'p>(
    options: &BTreeMap<String, String>,
    kind: &str,
    pairs: impl Iterator<Item = (&'p str, &'p str)>,
    chosen: &mut BTreeMap<String, String>,
) -> Result<(), LogConfigError> {
    let names = options.get(kind).map_or("", String::as_str);
    let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
    let option = format!("{kind}-regex");
    let expression = options.get(&option).filter(|text| !text.is_empty());
    let expression = expression.map(|text| compile(text)).transpose();
    let expression = expression.map_err(|value| LogConfigError::InvalidValue { option, value })?;
    let is_wanted = |name: &str| {
        let matches = |expression: &Regex| expression.is_match(name);
        names.contains(&name) || expression.as_ref().is_some_and(matches)
    };
    let wanted = pairs.filter(|(name, _)| is_wanted(name));
    chosen.extend(wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    Ok(())
}

fn compile(text: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(text);
    let compiled = builder.size_limit(REGEX_BYTES_MAX).build();
    compiled.map_err(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
        pairs.iter().map(owned).collect()
    }

    #[track_caller]
    fn check(options: &[(&str, &str)], expect: &[(&str, &str)]) {
        let labels = map(&[("tier", "web"), ("team.a", "x"), ("team.b", "y")]);
        let env = ["tier=from-env", "A=1=2", "B="].map(str::to_owned);
        let chosen = details(&map(options), &labels, &env).unwrap();
        assert_eq!(chosen, map(expect), "{options:?}");
    }

    #[test]
    fn options_name_labels_and_variables_or_match_them() {
        check(&[], &[]);
        check(
            &[("labels", "tier,none,team.a")],
            &[("tier", "web"), ("team.a", "x")],
        );
        check(
            &[("labels-regex", "^team")],
            &[("team.a", "x"), ("team.b", "y")],
        );
        check(&[("env", "A,B,C")], &[("A", "1=2"), ("B", "")]);
        check(&[("env-regex", "^[AB]$")], &[("A", "1=2"), ("B", "")]);
        check(
            &[("labels", "tier"), ("env", "tier")],
            &[("tier", "from-env")],
        );
        let broken = map(&[("env-regex", "(")]);
        details(&broken, &BTreeMap::new(), &[]).unwrap_err();
    }
}
