//! Label of services about what must be the case before their first tasks start.
//!
//! What holds tasks back is decided in `skep_control`; here is what the label says. Design:
//! `docs/design/stacks.md`.

use std::collections::BTreeMap;

use super::super::Labels;

/// Services waited for, by name, each with a condition: `app_db=healthy,app_migrate=completed`.
pub const DEPENDS_ON: &str = "skep.depends-on";

/// Labels of services read here.
pub const KNOWN: [&str; 1] = [DEPENDS_ON];

/// Services one service waits for. Each is looked at whenever a task of it changes.
pub const DEPENDENCIES_MAX: usize = 64;

/// What a service waits for in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Its tasks run.
    Started,
    /// Its tasks run, and are healthy if they can tell.
    Healthy,
    /// It is a job, and its present run is complete.
    Completed,
}

/// A label that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDepends {
    /// Not `service=condition`.
    #[error("label `{DEPENDS_ON}`: `{0}` is not of the form service=condition")]
    Form(String),
    /// No such condition.
    #[error(
        "label `{DEPENDS_ON}`: condition `{condition}` of `{service}` is none of started, healthy, \
         completed"
    )]
    Condition {
        /// The service waited for.
        service: String,
        /// What was given.
        condition: String,
    },
    /// One service with two conditions.
    #[error("label `{DEPENDS_ON}`: `{0}` stands twice")]
    Twice(String),
    /// More than [`DEPENDENCIES_MAX`].
    #[error("label `{DEPENDS_ON}`: at most {DEPENDENCIES_MAX} services, not {0}")]
    Many(usize),
}

/// What a service waits for, by the names of the services.
pub type Dependencies = BTreeMap<String, Condition>;

// === impl Condition ===

impl Condition {
    /// Its name in the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
        }
    }

    fn read(text: &str) -> Option<Self> {
        let all = [Self::Started, Self::Healthy, Self::Completed];
        all.into_iter().find(|condition| condition.name() == text)
    }
}

/// What the label says; what cannot be read is left out.
pub fn dependencies(labels: &Labels) -> Dependencies {
    read(labels).0
}

/// The services a label that was accepted names, without the trouble of reading the conditions.
pub fn names(labels: &Labels) -> impl Iterator<Item = &str> {
    let text = labels.get(DEPENDS_ON).map_or("", String::as_str);
    let parts = text.split(',').filter_map(|part| part.split_once('='));
    parts.map(|(name, _)| name.trim())
}

/// Everything wrong with the label.
pub(super) fn problems(labels: &Labels) -> Vec<InvalidDepends> {
    read(labels).1
}

fn read(labels: &Labels) -> (Dependencies, Vec<InvalidDepends>) {
    let mut found = Dependencies::new();
    let mut problems = Vec::new();
    let Some(text) = labels.get(DEPENDS_ON).filter(|text| !text.is_empty()) else {
        return (found, problems);
    };
    let count = text.split(',').count();
    if count > DEPENDENCIES_MAX {
        return (found, vec![InvalidDepends::Many(count)]);
    }
    for part in text.split(',').map(str::trim) {
        let Some((service, condition)) = part.split_once('=').filter(|(name, _)| !name.is_empty())
        else {
            problems.push(InvalidDepends::Form(part.to_owned()));
            continue;
        };
        match Condition::read(condition) {
            None => problems.push(InvalidDepends::Condition {
                service: service.to_owned(),
                condition: condition.to_owned(),
            }),
            Some(condition) => {
                if found.insert(service.to_owned(), condition).is_some() {
                    problems.push(InvalidDepends::Twice(service.to_owned()));
                }
            }
        }
    }
    (found, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, Condition)], wrong: &[&str]) {
        let labels = Labels::from([(DEPENDS_ON.to_owned(), text.to_owned())]);
        let (found, problems) = read(&labels);
        let found: Vec<_> = found.iter().map(|(name, c)| (name.as_str(), *c)).collect();
        assert_eq!(found, expected);
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, wrong);
    }

    #[test]
    fn a_label_names_services_and_conditions() {
        check("", &[], &[]);
        check(
            "app_db=healthy, migrate=completed,cache=started",
            &[
                ("app_db", Condition::Healthy),
                ("cache", Condition::Started),
                ("migrate", Condition::Completed),
            ],
            &[],
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        check(
            "db",
            &[],
            &["label `skep.depends-on`: `db` is not of the form service=condition"],
        );
        check(
            "db=up",
            &[],
            &[
                "label `skep.depends-on`: condition `up` of `db` is none of started, healthy, completed",
            ],
        );
        check(
            "db=started,db=healthy",
            &[("db", Condition::Healthy)],
            &["label `skep.depends-on`: `db` stands twice"],
        );
        let many = vec!["a=started"; DEPENDENCIES_MAX + 1].join(",");
        check(
            &many,
            &[],
            &["label `skep.depends-on`: at most 64 services, not 65"],
        );
    }
}
