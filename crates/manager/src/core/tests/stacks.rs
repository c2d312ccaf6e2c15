//! Stacks: all or nothing, again and again, there and back.

use skep_model::{
    Annotations, ConfigSpec, NetworkAttachmentConfig, NetworkSpec, Redacted, SecretReference,
    SecretSpec, Version,
    stack::{ApplyOptions, NAMESPACE_LABEL, StackAction, StackObject, StackOutcome, StackSpec},
};

use super::*;
use crate::{core::stacks, entry};

mod outside;
mod returns;

impl Harness {
    fn ask_stack(&mut self, command: Command) -> Result<Arc<StackOutcome>, CommandError> {
        let to = self.command(command);
        self.settle();
        match self.reply(to).expect("a command is answered").clone()? {
            Answer::Stack(outcome) => Ok(outcome),
            other => panic!("not an outcome: {other:?}"),
        }
    }

    fn deploy(&mut self, spec: &StackSpec) -> Result<Arc<StackOutcome>, CommandError> {
        self.deploy_with(spec, ApplyOptions::default())
    }

    fn deploy_with(
        &mut self,
        spec: &StackSpec,
        options: ApplyOptions,
    ) -> Result<Arc<StackOutcome>, CommandError> {
        let spec = Box::new(spec.clone());
        self.ask_stack(Command::ApplyStack { spec, options })
    }

    fn roll_back(&mut self, number: Option<u64>) -> Result<Arc<StackOutcome>, CommandError> {
        let name = "app".to_owned();
        self.ask_stack(Command::RollBackStack { name, number })
    }

    fn secret_of(&self, service: &str) -> String {
        let service = self.core.store().service_by_name(service).unwrap();
        let secret = &service.spec.task.container.secrets[0];
        let stored = self.core.store().secrets().by_name(&secret.secret_name);
        assert_eq!(secret.secret_id, stored.unwrap().id.as_str());
        secret.secret_name.clone()
    }
}

fn named(name: &str) -> Annotations {
    Annotations {
        name: name.to_owned(),
        ..Annotations::default()
    }
}

fn service(name: &str, replicas: u64) -> ServiceSpec {
    let Command::CreateService { mut spec } = create(name, replicas) else {
        panic!("no service");
    };
    let task = Arc::make_mut(&mut spec.task);
    task.networks = vec![NetworkAttachmentConfig {
        target: "app_net".to_owned(),
        ..NetworkAttachmentConfig::default()
    }];
    task.container.secrets = vec![SecretReference {
        secret_name: "app_pw".to_owned(),
        file: Some(skep_model::FileTarget {
            name: "pw".to_owned(),
            ..skep_model::FileTarget::default()
        }),
        ..SecretReference::default()
    }];
    *spec
}

fn application(password: &[u8]) -> StackSpec {
    StackSpec {
        name: "app".to_owned(),
        networks: vec![NetworkSpec {
            annotations: named("app_net"),
            ..NetworkSpec::default()
        }],
        secrets: vec![SecretSpec {
            annotations: named("app_pw"),
            data: Redacted(password.to_vec()),
            ..SecretSpec::default()
        }],
        services: vec![service("app_db", 1), service("app_web", 2)],
        ..StackSpec::default()
    }
}

fn actions(outcome: &StackOutcome) -> Vec<(StackObject, &str, StackAction)> {
    let changes = outcome.changes.iter();
    changes
        .map(|change| (change.kind, change.stored_as.as_str(), change.action))
        .collect()
}

#[test]
fn a_stack_is_deployed_in_one_entry_and_a_repeat_writes_nothing() {
    let mut harness = Harness::with_agent();
    let spec = application(b"one");
    let to = harness.command(Command::ApplyStack {
        spec: Box::new(spec.clone()),
        options: ApplyOptions::default(),
    });
    let (request_id, written) = harness.turn().unwrap();
    let is_task = |action: &Action| matches!(action.object, skep_store::Object::Task(_));
    assert!(!written.iter().any(is_task), "reconcilers follow later");
    assert_eq!(entry::encode_whole(1, &written).len(), 1);
    harness.commit(request_id, Vec::new());
    let Some(Ok(Answer::Stack(outcome))) = harness.reply(to) else {
        panic!("not deployed");
    };
    assert_eq!(outcome.revision, 1);
    assert_eq!(
        actions(outcome),
        [
            (StackObject::Secret, "app_pw", StackAction::Create),
            (StackObject::Network, "app_net", StackAction::Create),
            (StackObject::Service, "app_db", StackAction::Create),
            (StackObject::Service, "app_web", StackAction::Create),
        ]
    );
    harness.settle();
    assert_eq!(harness.core.store().task_count(), 3);
    let before = harness.index;
    let outcome = harness.deploy(&spec).unwrap();
    assert_eq!(outcome.revision, 1);
    let is_unchanged =
        |change: &skep_model::stack::StackChange| change.action == StackAction::Unchanged;
    assert!(outcome.changes.iter().all(is_unchanged), "{outcome:?}");
    assert_eq!(harness.index, before, "nothing is written");
}

#[test]
fn all_problems_are_told_and_nothing_is_done() {
    let mut harness = Harness::with_agent();
    harness.create_service("app_db", 1);
    let before = harness.core.store().clone();
    let mut spec = application(b"one");
    spec.external.networks = vec!["missing".to_owned()];
    spec.secrets[0].annotations.name = "-".to_owned();
    Arc::make_mut(&mut spec.services[1].task).container.image = String::new();
    Arc::make_mut(&mut spec.services[1].task).container.secrets = Vec::new();
    let error = harness.deploy(&spec).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    let lines: Vec<&str> = error.message.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].starts_with("secret -: "), "{lines:?}");
    assert_eq!(
        lines[1],
        "network missing: it is external and does not exist"
    );
    assert_eq!(lines[2], "service app_db: secret app_pw not found");
    assert!(lines[3].starts_with("service app_web: "), "{lines:?}");
    assert_eq!(*harness.core.store(), before);
    let error = harness.deploy(&application(b"one")).unwrap_err();
    assert_eq!(
        error.message,
        "service app_db: it exists and is not of stack app"
    );
}

#[test]
fn changed_content_gets_a_name_of_its_own_and_a_rollback_the_old_one() {
    let mut harness = Harness::with_agent();
    harness.deploy(&application(b"one")).unwrap();
    let outcome = harness.deploy(&application(b"two")).unwrap();
    assert_eq!(outcome.revision, 2);
    // The SHA-256 of `two` begins so.
    assert_eq!(harness.secret_of("app_web"), "app_pw-3fc4ccfe");
    assert!(harness.core.store().secrets().by_name("app_pw").is_some());
    // Without data it is the one in force.
    let outcome = harness.deploy(&application(b"")).unwrap();
    assert!(
        outcome
            .changes
            .iter()
            .all(|change| change.action == StackAction::Unchanged)
    );
    let outcome = harness.roll_back(None).unwrap();
    assert_eq!(outcome.revision, 1);
    assert_eq!(harness.secret_of("app_web"), "app_pw");
    let service = harness.core.store().service_by_name("app_web").unwrap();
    assert_eq!(service.spec_version, Version(0), "the spec it had then");
    let kept = stacks::revisions(harness.core.store(), "app");
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().all(|one| one.spec.secrets[0].data.0.is_empty()));
    harness.roll_back(Some(2)).unwrap();
    assert_eq!(harness.secret_of("app_db"), "app_pw-3fc4ccfe");
    let error = harness.roll_back(Some(7)).unwrap_err();
    assert_eq!(error.message, "stack app has no revision 7: kept are 1, 2");
}

#[test]
fn a_long_name_is_shortened_for_content_that_changed() {
    let mut harness = Harness::with_agent();
    let names = ["a", "b"].map(|end| format!("app_{}{end}", "x".repeat(59)));
    let deploy = |harness: &mut Harness, content: &[u8]| {
        let spec = StackSpec {
            name: "app".to_owned(),
            configs: Vec::from(names.clone().map(|name| ConfigSpec {
                annotations: named(&name),
                data: Redacted(content.to_vec()),
                ..ConfigSpec::default()
            })),
            ..StackSpec::default()
        };
        let outcome = harness.deploy(&spec).unwrap();
        let stored = outcome.changes.iter().map(|one| one.stored_as.clone());
        stored.collect::<Vec<_>>()
    };
    assert_eq!(deploy(&mut harness, b"one"), names);
    let changed = deploy(&mut harness, b"two");
    assert!(changed.iter().all(|name| name.len() == 64), "{changed:?}");
    assert_ne!(changed[0], changed[1], "what was cut off tells them apart");
    assert_eq!(deploy(&mut harness, b"two"), changed);
}

#[test]
fn a_secret_is_kept_as_long_as_a_revision_needs_it() {
    let mut harness = Harness::with_agent();
    for number in 0..skep_model::stack::REVISIONS_KEPT {
        let password = number.to_string();
        harness.deploy(&application(password.as_bytes())).unwrap();
        assert!(harness.core.store().secrets().by_name("app_pw").is_some());
    }
    // The first revision is forgotten, and with it what it alone needed; then what the second did.
    let outcome = harness.deploy(&application(b"last")).unwrap();
    let removed = (StackObject::Secret, "app_pw", StackAction::Remove);
    assert!(actions(&outcome).contains(&removed), "{outcome:?}");
    let kept = stacks::revisions(harness.core.store(), "app");
    assert_eq!(kept[0].number, 2);
    let error = harness.roll_back(Some(1)).unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let id = harness
        .core
        .store()
        .secrets()
        .by_name(&kept[0].secrets["app_pw"]);
    let gone = Command::RemoveSecret { id: id.unwrap().id };
    harness.command(gone);
    harness.settle();
    let error = harness.roll_back(Some(2)).unwrap_err();
    assert!(error.message.contains("which is gone"), "{error}");
}

#[test]
fn pruning_removes_what_the_document_has_not() {
    let mut harness = Harness::with_agent();
    harness.deploy(&application(b"one")).unwrap();
    let mut smaller = application(b"one");
    smaller.services.truncate(1);
    let outcome = harness.deploy(&smaller).unwrap();
    assert!(harness.core.store().service_by_name("app_web").is_some());
    assert_eq!(outcome.revision, 2);
    let options = ApplyOptions {
        prune: true,
        expect: Some(1),
        ..ApplyOptions::default()
    };
    let error = harness.deploy_with(&smaller, options).unwrap_err();
    assert_eq!(error.code, Code::AlreadyExists);
    assert_eq!(error.message, "stack app is at revision 2, not at 1");
    let options = ApplyOptions {
        expect: Some(2),
        ..options
    };
    let outcome = harness.deploy_with(&smaller, options).unwrap();
    assert_eq!(
        actions(&outcome).last(),
        Some(&(StackObject::Service, "app_web", StackAction::Remove))
    );
    assert!(harness.core.store().service_by_name("app_web").is_none());
    assert_eq!(outcome.revision, 2, "the document is the one in force");
}

#[test]
fn a_removed_stack_goes_with_its_last_network() {
    let mut harness = Harness::with_agent();
    harness.deploy(&application(b"one")).unwrap();
    let store = harness.core.store();
    let network = store.networks().by_name("app_net").unwrap().id;
    let Command::CreateService { mut spec } = create("other", 1) else {
        panic!("no service");
    };
    let other = NetworkAttachmentConfig {
        target: network.to_string(),
        ..NetworkAttachmentConfig::default()
    };
    Arc::make_mut(&mut spec.task).networks = vec![other];
    let to = harness.command(Command::CreateService { spec });
    harness.settle();
    let Some(Ok(Answer::Service(other))) = harness.reply(to).cloned() else {
        panic!("not created");
    };
    let remove = || Command::RemoveStack {
        name: "app".to_owned(),
    };
    let error = harness.ask_stack(remove()).unwrap_err();
    assert_eq!(error.message, "network app_net is in use by service other");
    harness.command(Command::RemoveService { id: other });
    harness.settle();
    let outcome = harness.ask_stack(remove()).unwrap();
    assert_eq!(outcome.changes.len(), 4);
    let store = harness.core.store();
    assert_eq!(store.service_count(), 0);
    assert!(store.secrets().by_name("app_pw").is_none());
    // Nobody has to ask again: the tasks were told to end in a later entry.
    assert!(store.networks().get(network).is_none());
    assert!(stacks::find(store, "app").is_none());
    assert!(stacks::revisions(store, "app").is_empty());
    let error = harness.ask_stack(remove()).unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

#[test]
fn a_plan_shows_changes_and_places_and_writes_nothing() {
    let mut harness = Harness::with_agent();
    let before = harness.core.store().clone();
    let mut spec = application(b"one");
    let task = Arc::make_mut(&mut spec.services[1].task);
    task.placement.constraints = vec!["node.labels.nowhere == true".to_owned()];
    let planned = stacks::plan(
        (harness.core.store(), harness.index),
        &Group::default(),
        (spec.clone(), ApplyOptions::default()),
        harness.now,
    )
    .unwrap();
    assert_eq!(planned.outcome.revision, 1);
    assert_eq!(planned.services[0].name, "app_db");
    assert_eq!(planned.services[0].nodes, [(harness.node_id(), 1)].into());
    assert_eq!(planned.services[1].pending, 2);
    assert!(
        planned.services[1].reason.contains("no suitable node"),
        "{planned:?}"
    );
    assert_eq!(*harness.core.store(), before);
    let outcome = harness.deploy(&spec).unwrap();
    assert_eq!(
        *outcome, planned.outcome,
        "the deploy does what was planned"
    );
}

#[test]
fn what_is_too_large_is_refused_and_large_contents_are_cut_off() {
    let mut harness = Harness::with_agent();
    let mut spec = application(b"one");
    for number in 0..3 {
        spec.configs.push(ConfigSpec {
            annotations: named(&format!("app_config{number}")),
            data: Redacted(vec![7; 700_000]),
            ..ConfigSpec::default()
        });
    }
    harness.command(Command::ApplyStack {
        spec: Box::new(spec.clone()),
        options: ApplyOptions::default(),
    });
    let (request_id, written) = harness.turn().unwrap();
    let entries = entry::encode_whole(request_id.0, &written);
    assert_eq!(entries.len(), 4);
    let ids: Vec<u64> = entries
        .iter()
        .map(|entry| entry::request_id(entry))
        .collect();
    assert_eq!(ids, [0, 0, 0, request_id.0]);
    harness.commit(request_id, Vec::new());
    harness.settle();
    spec.source = "x".repeat(entry::ENTRY_BYTES_MAX);
    let before = harness.core.store().clone();
    let error = harness.deploy(&spec).unwrap_err();
    assert_eq!(error.code, Code::OutOfRange);
    assert!(error.message.contains("one entry holds 1048576"), "{error}");
    let largest = "(largest: stack/app/00000000000000000002 10";
    assert!(error.message.contains(largest), "{error}");
    assert_eq!(*harness.core.store(), before);
}

#[test]
fn a_stack_of_labels_is_adopted_as_it_is() {
    let mut harness = Harness::with_agent();
    let Command::CreateService { mut spec } = create("app_web", 1) else {
        panic!("no service");
    };
    let annotations = Arc::make_mut(&mut spec.annotations);
    let label = (NAMESPACE_LABEL.to_owned(), "app".to_owned());
    annotations.labels.extend([label]);
    let stack = StackSpec {
        name: "app".to_owned(),
        services: vec![(*spec).clone()],
        ..StackSpec::default()
    };
    harness.command(Command::CreateService { spec });
    harness.settle();
    let outcome = harness.deploy(&stack).unwrap();
    assert_eq!(outcome.revision, 1);
    assert_eq!(
        actions(&outcome),
        [(StackObject::Service, "app_web", StackAction::Unchanged)]
    );
}

#[test]
fn services_are_made_after_those_they_wait_for_and_never_in_a_circle() {
    use skep_model::reserved::service::depends::DEPENDS_ON;
    let mut harness = Harness::with_agent();
    let mut spec = application(b"one");
    let wait = |spec: &mut StackSpec, index: usize, on: &str| {
        let annotations = Arc::make_mut(&mut spec.services[index].annotations);
        let label = (DEPENDS_ON.to_owned(), on.to_owned());
        annotations.labels.extend([label]);
    };
    wait(&mut spec, 0, "app_web=started");
    harness.deploy(&spec).unwrap();
    let web = harness.core.store().service_by_name("app_web").unwrap();
    let placed = harness.core.store().tasks_on_node(harness.node_id());
    let placed: Vec<_> = placed.map(|task| task.service_id).collect();
    assert_eq!(placed, [Some(web.id), Some(web.id)], "the other waits");
    wait(&mut spec, 1, "app_db=started");
    let error = harness.deploy(&spec).unwrap_err();
    assert_eq!(
        error.message,
        "services wait for each other: app_db, app_web"
    );
    wait(&mut spec, 0, "app_other=healthy");
    wait(&mut spec, 1, "app_web=completed");
    let error = harness.deploy(&spec).unwrap_err();
    assert_eq!(
        error.message,
        "service app_db: label `skep.depends-on`: it waits for services that do not exist: \
         app_other\nservice app_web: label `skep.depends-on`: it would wait for itself"
    );
}

#[test]
fn a_chain_is_made_from_its_end_whatever_its_length_and_case() {
    use skep_model::reserved::service::depends::DEPENDS_ON;
    let mut harness = Harness::with_agent();
    let mut spec = StackSpec {
        name: "app".to_owned(),
        ..StackSpec::default()
    };
    let count = 300;
    for number in 0..count {
        let Command::CreateService { spec: mut link } = create(&format!("app_s{number}"), 0) else {
            panic!("no service");
        };
        if number + 1 < count {
            let label = (
                DEPENDS_ON.to_owned(),
                format!("APP_S{}=started", number + 1),
            );
            Arc::make_mut(&mut link.annotations).labels.extend([label]);
        }
        spec.services.push(*link);
    }
    let outcome = harness.deploy(&spec).unwrap();
    let made: Vec<_> = outcome.changes.iter().map(|one| one.name.clone()).collect();
    let expected: Vec<_> = (0..count)
        .rev()
        .map(|number| format!("app_s{number}"))
        .collect();
    assert_eq!(made, expected);
    spec.services = vec![service("app_one_too_many", 0); 1001];
    let error = harness.deploy(&spec).unwrap_err();
    assert_eq!(error.message, "a stack has at most 1000 objects, not 1001");
}
