//! Secrets and configs: what is refused, and which agent is given what.

use skep_model::{
    ConfigId, ConfigSpec, Redacted, SecretId, SecretReference, SecretSpec,
    dispatch::AssignmentChange,
};

use super::*;

impl Harness {
    fn ask(&mut self, command: Command) -> Result<Answer, String> {
        let to = self.command(command);
        self.settle();
        let result = self.reply(to).expect("a command is answered").clone();
        result.map_err(|error| error.message)
    }

    fn create_secret(&mut self, name: &str) -> SecretId {
        let mut spec = SecretSpec::default();
        name.clone_into(&mut spec.annotations.name);
        spec.data = Redacted(name.as_bytes().to_vec());
        let spec = Box::new(spec);
        match self.ask(Command::CreateSecret { spec }) {
            Ok(Answer::Secret(id)) => id,
            other => panic!("not created: {other:?}"),
        }
    }

    /// Secrets given (`true`) and taken away, as agents were told.
    fn told(&self) -> Vec<(SecretId, bool)> {
        let messages = self.out.iter().filter_map(|effect| match effect {
            Effect::Send {
                message: ToAgent::Assignments(message),
                ..
            } => Some(&message.changes),
            _ => None,
        });
        let told = messages.flatten().filter_map(|change| match change {
            AssignmentChange::UpdateSecret(secret) => Some((secret.id, true)),
            AssignmentChange::RemoveSecret(id) => Some((*id, false)),
            _ => None,
        });
        told.collect()
    }
}

fn using(name: &str, secrets: &[(SecretId, &str)]) -> Command {
    let Command::CreateService { mut spec } = create(name, 1) else {
        panic!("no service");
    };
    let reference = |(id, name): &(SecretId, &str)| SecretReference {
        secret_id: id.to_string(),
        secret_name: (*name).to_owned(),
        file: Some(skep_model::FileTarget {
            name: (*name).to_owned(),
            ..skep_model::FileTarget::default()
        }),
    };
    let container = &mut Arc::make_mut(&mut spec.task).container;
    container.secrets = secrets.iter().map(reference).collect();
    Command::CreateService { spec }
}

#[test]
fn an_agent_has_what_its_tasks_use_and_no_longer() {
    let mut harness = Harness::with_agent();
    let (used, unused) = (
        harness.create_secret("used"),
        harness.create_secret("unused"),
    );
    harness.ask(using("web", &[(used, "used")])).unwrap();
    let task = harness.only_task();
    assert_eq!(harness.told(), [(used, true)]);

    // A new session starts over, with the same.
    harness.out.clear();
    harness.handle(Event::AgentGone { connection: AGENT });
    harness.register(ConnectionId(77));
    harness.settle();
    assert_eq!(harness.told(), [(used, true)]);

    harness.out.clear();
    harness.report(ConnectionId(77), task.id, TaskState::Running);
    harness.settle();
    assert_eq!(harness.told(), []);
    harness.report(ConnectionId(77), task.id, TaskState::Failed);
    harness.settle();
    // The replacement may be told of before the end of the old one, after it, or with it.
    let told = harness.told();
    assert!(told.iter().all(|(id, _)| *id != unused), "{told:?}");
    let tasks = harness.core.store().tasks();
    let live = tasks
        .filter(|task| !task.status.state.is_terminal())
        .count();
    let last = told.last().is_some_and(|(_, is_given)| *is_given);
    assert_eq!(last, live > 0 && !told.is_empty(), "{told:?}");
}

#[test]
fn what_is_in_use_stays_and_what_is_missing_is_named() {
    let mut harness = Harness::leading();
    let id = harness.create_secret("one");
    assert_eq!(
        harness.ask(using("web", &[(id, "other")])),
        Err("secret not found: other".to_owned())
    );
    let missing = SecretId::random(&mut Rng::from_seed(9));
    assert_eq!(
        harness.ask(using("web", &[(missing, "a"), (missing, "b")])),
        Err("secrets not found: a, b".to_owned())
    );
    harness.ask(using("web", &[(id, "one")])).unwrap();
    assert_eq!(
        harness.ask(Command::RemoveSecret { id }),
        Err("secret 'one' is in use by the following service: web".to_owned())
    );
    let spec = ConfigSpec::default();
    assert_eq!(
        harness.ask(Command::CreateConfig {
            spec: Box::new(spec)
        }),
        Err(
            "name must be provided; config data must be larger than 0 and less than 1024000 bytes"
                .to_owned()
        )
    );
    let id = ConfigId::random(&mut Rng::from_seed(9));
    assert_eq!(
        harness.ask(Command::RemoveConfig { id }),
        Err(format!("config {id} not found"))
    );
}

#[test]
fn only_labels_change() {
    let mut harness = Harness::leading();
    let id = harness.create_secret("one");
    let secret = Arc::clone(harness.core.store().secrets().get(id).unwrap());
    let update = |spec: SecretSpec| Command::UpdateSecret {
        id,
        version: secret.meta.version,
        spec: Box::new(spec),
    };
    let mut other = secret.spec.clone();
    other.data = Redacted(b"two".to_vec());
    assert_eq!(
        harness.ask(update(other)),
        Err("only updates to Labels are allowed".to_owned())
    );
    let mut labelled = secret.spec.clone();
    labelled.data = Redacted(Vec::new());
    let label = ("a".to_owned(), "b".to_owned());
    labelled.annotations.labels.extend([label]);
    harness.ask(update(labelled.clone())).unwrap();
    let stored = harness.core.store().secrets().get(id).unwrap();
    assert_eq!(stored.spec.annotations, labelled.annotations);
    assert_eq!(stored.spec.data, secret.spec.data);
    assert_eq!(
        harness.ask(update(labelled)),
        Err("update out of sequence".to_owned())
    );
}
