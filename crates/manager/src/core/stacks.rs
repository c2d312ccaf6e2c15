//! Commands on stacks: a whole document, or nothing, in one transaction with its revision.
//!
//! The objects are made and changed by the functions of the single commands. A stack's command is
//! alone in its entry, see [`is_whole`]. Design: `docs/design/stacks.md`.

mod deploy;
mod found;
mod kept;
mod networks;
mod plan;
mod removal;
mod services;
mod supplies;

use std::{collections::BTreeMap, sync::Arc};

use skep_model::{
    Rng, Service,
    stack::{self, ApplyOptions, NAMESPACE_LABEL, StackOutcome, StackSpec},
};
use skep_store::{Store, Transaction};

use self::deploy::Deploy;
pub(crate) use self::plan::{astray, plan};
pub(super) use self::removal::{end_tasks, forget_emptied, remove, sweep};
pub use self::{
    kept::{Standing, find, list, revisions},
    plan::{PlannedService, StackPlan},
};
use crate::{
    command::{Answer, Code, Command, CommandError},
    entry,
    group::Group,
};

/// Objects that are named when all are too large together.
const LARGEST_TOLD: usize = 3;

/// Whether a command must be alone in its entry, so that all of it is committed or none.
pub(super) fn is_whole(command: &Command) -> bool {
    matches!(
        command,
        Command::ApplyStack { .. } | Command::RollBackStack { .. } | Command::RemoveStack { .. }
    )
}

/// Makes the stack what the document says, or says all that is wrong.
pub(super) fn apply(
    tx: &mut Transaction,
    (rng, group): (&mut Rng, &Group),
    spec: StackSpec,
    options: ApplyOptions,
) -> Result<Answer, CommandError> {
    let mut trial = tx.clone();
    let outcome = try_apply(&mut trial, (rng, group), spec, options)?;
    *tx = trial;
    Ok(Answer::Stack(Arc::new(outcome)))
}

fn try_apply(
    trial: &mut Transaction,
    (rng, group): (&mut Rng, &Group),
    spec: StackSpec,
    options: ApplyOptions,
) -> Result<StackOutcome, CommandError> {
    let stored = standing_of(trial.view(), &spec.name)?;
    let present = stored
        .as_ref()
        .map_or(0, |standing| standing.stack.revision);
    if let Some(expected) = options.expect.filter(|expected| *expected != present) {
        let message = format!(
            "stack {} is at revision {present}, not at {expected}",
            spec.name
        );
        return Err(CommandError::new(Code::AlreadyExists, message));
    }
    let deploy = Deploy::new(trial, (rng, group), stored, options);
    let outcome = deploy.to(spec)?;
    check_size(trial)?;
    Ok(outcome)
}

/// Makes the stack what it was, or says why that is not possible any more.
pub(super) fn roll_back(
    tx: &mut Transaction,
    (rng, group): (&mut Rng, &Group),
    name: &str,
    number: Option<u64>,
) -> Result<Answer, CommandError> {
    let stored = standing_of(tx.view(), name)?.filter(|standing| !standing.stack.is_removed);
    let Some(stored) = stored else {
        return Err(not_found(name));
    };
    let kept = revisions(tx.view(), name);
    let present = stored.stack.revision;
    let wanted = match number {
        Some(number) => kept.iter().find(|revision| revision.number == number),
        None => stored.stack.rolls_back_to(&kept),
    };
    let Some(revision) = wanted else {
        let numbers: Vec<String> = kept.iter().map(|r| r.number.to_string()).collect();
        let message = match number {
            Some(number) => format!("stack {name} has no revision {number}"),
            None => format!("stack {name} has nothing to return to from revision {present}"),
        };
        let message = format!("{message}: kept are {}", numbers.join(", "));
        return Err(CommandError::new(Code::NotFound, message));
    };
    let mut trial = tx.clone();
    let options = ApplyOptions {
        prune: true,
        ..ApplyOptions::default()
    };
    let deploy = Deploy::new(&mut trial, (rng, group), Some(stored), options);
    let outcome = deploy.back_to(revision)?;
    check_size(&trial)?;
    *tx = trial;
    Ok(Answer::Stack(Arc::new(outcome)))
}

/// The stack of this name, which may differ from another's not only by case.
fn standing_of(view: &Store, name: &str) -> Result<Option<Standing>, CommandError> {
    if let Some(problem) = stack::name_problem(name) {
        return Err(CommandError::new(Code::InvalidArgument, problem));
    }
    let found = find(view, name);
    match found {
        Some(standing) if standing.stack.name != name => {
            let message = format!("the name clashes with stack {}", standing.stack.name);
            Err(CommandError::new(Code::AlreadyExists, message))
        }
        found => Ok(found),
    }
}

/// What must be in one entry fits one.
fn check_size(trial: &Transaction) -> Result<(), CommandError> {
    let bytes = entry::whole_bytes(trial.actions());
    if bytes <= entry::ENTRY_BYTES_MAX {
        return Ok(());
    }
    let mut parts = entry::whole_parts(trial.actions());
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let parts = parts.iter().take(LARGEST_TOLD);
    let largest: Vec<String> = parts.map(|(what, size)| format!("{what} {size}")).collect();
    let message = format!(
        "the stack is too large: its changes take {bytes} bytes of the log, and one entry holds {}; \
         deploy it in smaller stacks (largest: {})",
        entry::ENTRY_BYTES_MAX,
        largest.join(", ")
    );
    Err(CommandError::new(Code::OutOfRange, message))
}

/// Whether the labels are those of an object of the stack.
fn is_of(labels: &BTreeMap<String, String>, stack: &str) -> bool {
    labels
        .get(NAMESPACE_LABEL)
        .is_some_and(|name| name == stack)
}

/// Services of the stack, in id order.
fn services_of<'a>(view: &'a Store, stack: &str) -> impl Iterator<Item = &'a Arc<Service>> {
    let services = view.services();
    services.filter(move |service| is_of(&service.spec.annotations.labels, stack))
}

fn not_found(name: &str) -> CommandError {
    CommandError::new(Code::NotFound, format!("stack {name} not found"))
}
