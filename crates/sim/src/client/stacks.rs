//! What clients ask about stacks: a document of a few variants again and again, there and back, and away.

use std::sync::Arc;

use skep_manager::command::Command;
use skep_model::{
    Annotations, ContainerSpec, FileTarget, NetworkAttachmentConfig, NetworkSpec, Redacted,
    SecretReference, SecretSpec, Service, ServiceMode, ServiceSpec, TaskSpec,
    reserved::service::depends::DEPENDS_ON,
    stack::{ApplyOptions, NAMESPACE_LABEL, StackSpec},
};
use skep_store::Store;

use super::Clients;

/// Label of a stack's service: which variant of the document it is of.
pub(crate) const VARIANT: &str = "sim.variant";
/// Stacks there are, beside [`OUTSIDE`].
const STACKS: u64 = 2;
/// The number of a stack whose objects are removed one by one, as by `docker stack rm`.
const OUTSIDE_NUMBER: u64 = 2;
/// Its name.
pub(crate) const OUTSIDE: &str = "stack-2";
/// Variants of a document.
const VARIANTS: u64 = 6;

impl Clients {
    /// A deploy, mostly; often the last one again, as people do who do not know what became of it.
    pub(super) fn stack_command(&mut self) -> Command {
        let rng = &mut self.of_stacks;
        if rng.percent(25) {
            let variant = rng.below(VARIANTS);
            self.is_emptying = true;
            return self.deploy_variant(OUTSIDE_NUMBER, variant);
        }
        let stack = rng.below(STACKS);
        let name = format!("stack-{stack}");
        match rng.below(100) {
            0..60 => self.last_stack = Some((stack, rng.below(VARIANTS))),
            60..80 => {}
            80..90 => {
                let number = Some(rng.below(4)).filter(|number| *number > 0);
                return Command::RollBackStack { name, number };
            }
            _ => return Command::RemoveStack { name },
        }
        let (stack, variant) = self.last_stack.unwrap_or((stack, 0));
        self.deploy_variant(stack, variant)
    }

    /// The next removal, when the stack [`OUTSIDE`] is there and is taken apart: one after the other, as
    /// single ones among all the rest would hardly ever come to the last.
    pub(super) fn outside_removal(&mut self, store: &Store) -> Option<Command> {
        let removal = removal(store).filter(|_| self.is_emptying)?;
        // What others use is refused again and again: sooner or later the client gives up.
        self.is_emptying = self.of_stacks.percent(95);
        Some(removal)
    }

    fn deploy_variant(&mut self, stack: u64, variant: u64) -> Command {
        self.variants.insert(stack, variant);
        apply(document(stack, variant))
    }

    /// The documents that were deployed last, one of each stack.
    pub(crate) fn documents(&self) -> Vec<StackSpec> {
        let variants = self.variants.iter();
        let documents = variants.map(|(stack, variant)| document(*stack, *variant));
        documents.collect()
    }

    /// A deploy of `document`, with the number of its request.
    pub(crate) fn deploy(&mut self, document: &StackSpec) -> (u64, Command) {
        self.next_request += 1;
        (self.next_request, apply(document.clone()))
    }
}

fn apply(document: StackSpec) -> Command {
    Command::ApplyStack {
        spec: Box::new(document),
        options: ApplyOptions {
            prune: true,
            ..ApplyOptions::default()
        },
    }
}

/// Takes one object from the stack [`OUTSIDE`], in the order of Docker's command; none when there is none.
fn removal(store: &Store) -> Option<Command> {
    let is_of = |annotations: &Annotations| {
        let of = annotations.labels.get(NAMESPACE_LABEL);
        of.is_some_and(|stack| stack == OUTSIDE)
    };
    // Who waits for another first: left alone it would wait for ever, as it is meant to.
    let services = store.services();
    let services = services.filter(|service| is_of(&service.spec.annotations));
    let service = services.max_by(|a, b| a.name().cmp(b.name()));
    let mut secrets = store.secrets().all();
    let secret = secrets.find(|secret| is_of(&secret.spec.annotations));
    let mut networks = store.networks().all();
    let network = networks.find(|network| is_of(&network.spec.annotations));
    let service = service.map(|service| Command::RemoveService { id: service.id });
    let secret = secret.map(|secret| Command::RemoveSecret { id: secret.id });
    let network = network.map(|network| Command::RemoveNetwork { id: network.id });
    service.or(secret).or(network)
}

/// Whether a service is for stacks' commands alone.
pub(super) fn is_of_stack(service: &Service) -> bool {
    let labels = &service.spec.annotations.labels;
    labels.contains_key(NAMESPACE_LABEL)
}

/// One to three services, each waiting for the one before it, with a secret that changes.
fn document(stack: u64, variant: u64) -> StackSpec {
    let name = format!("stack-{stack}");
    let named = |what: &str| Annotations {
        name: format!("{name}_{what}"),
        ..Annotations::default()
    };
    let service = |number: u64| {
        let mut annotations = named(&format!("s{number}"));
        let labels = &mut annotations.labels;
        labels.insert(VARIANT.to_owned(), variant.to_string());
        if let Some(before) = number.checked_sub(1) {
            let condition = ["started", "healthy"][usize::from(number == 2)];
            labels.insert(
                DEPENDS_ON.to_owned(),
                format!("{name}_s{before}={condition}"),
            );
        }
        let container = ContainerSpec {
            image: "registry.example/app:1".to_owned(),
            env: vec![format!("VARIANT={variant}")],
            secrets: vec![SecretReference {
                secret_name: format!("{name}_pw"),
                file: Some(FileTarget {
                    name: "pw".to_owned(),
                    mode: 0o444,
                    ..FileTarget::default()
                }),
                ..SecretReference::default()
            }],
            ..ContainerSpec::default()
        };
        let network = NetworkAttachmentConfig {
            target: format!("{name}_net"),
            ..NetworkAttachmentConfig::default()
        };
        ServiceSpec {
            annotations: annotations.into(),
            task: Arc::new(TaskSpec {
                container,
                networks: vec![network],
                ..TaskSpec::default()
            }),
            mode: ServiceMode::Replicated {
                replicas: 1 + variant % 2,
            },
            ..ServiceSpec::default()
        }
    };
    let content = u8::try_from(1 + variant % 3).unwrap_or(1);
    StackSpec {
        networks: vec![NetworkSpec {
            annotations: named("net"),
            ..NetworkSpec::default()
        }],
        secrets: vec![SecretSpec {
            annotations: named("pw"),
            data: Redacted(vec![content]),
            ..SecretSpec::default()
        }],
        services: (0..=variant % 3).map(service).collect(),
        name,
        ..StackSpec::default()
    }
}
