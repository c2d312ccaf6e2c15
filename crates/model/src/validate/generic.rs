//! Rules of generic resources a task asks for. Swarm has the first one and drops what it finds.

use std::collections::BTreeSet;

use super::Problems;
use crate::spec::{GENERIC_RESOURCES_MAX, GenericResource, is_generic_name};

pub(super) fn check(wanted: &[GenericResource], found: &mut Problems) {
    if wanted.len() > GENERIC_RESOURCES_MAX {
        found.push(format!(
            "at most {GENERIC_RESOURCES_MAX} generic resources are allowed"
        ));
        return;
    }
    let mut kinds = BTreeSet::new();
    for resource in wanted {
        let kind = resource.kind();
        match resource {
            // Tasks ask for so many; which items they get is the scheduler's choice.
            GenericResource::Named { .. } => {
                found.push(format!("invalid argument for resource {kind}"));
            }
            GenericResource::Discrete { value, .. } if *value < 0 => {
                found.push(format!("cannot ask for negative resource {kind}"));
            }
            GenericResource::Discrete { .. } => {}
        }
        if !is_generic_name(kind) {
            found.push(format!("`{kind}` is not a name of a generic resource"));
        }
        if !kinds.insert(kind) {
            found.push(format!("generic resource {kind} is asked for twice"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_named() {
        let count = |kind: &str, value| GenericResource::Discrete {
            kind: kind.to_owned(),
            value,
        };
        let named = GenericResource::Named {
            kind: "gpu".to_owned(),
            value: "UUID1".to_owned(),
        };
        let mut found = Problems::default();
        check(
            &[named, count("ssd", -1), count("ssd", 1), count("a b", 0)],
            &mut found,
        );
        let texts: Vec<String> = found.0.into_iter().map(|problem| problem.0).collect();
        assert_eq!(
            texts,
            [
                "invalid argument for resource gpu",
                "cannot ask for negative resource ssd",
                "generic resource ssd is asked for twice",
                "`a b` is not a name of a generic resource",
            ]
        );
        let mut none = Problems::default();
        check(&[count("gpu", 2), count("ssd", 0)], &mut none);
        assert!(none.0.is_empty());
    }
}
