//! The end of a run: a client deploys again what was deployed in the storm, interrupted or not.
//!
//! When all is calm and as wished, each document deployed last is deployed again, and once more when all is as wished
//! after that. The first time the stack must become what the document says, whatever became of it
//! in the storm; the second time nothing may be left to do.

use std::time::Duration;

use skep_manager::command::{Answer, Command, CommandError};
use skep_model::{
    Timestamp,
    stack::{StackAction, StackSpec},
};

use crate::{event::Event, facts::Observation, world::World};

/// Times each document is deployed.
const ROUNDS: u32 = 2;
/// Deploys of one round that may fail, as leaders can change in the calm, too.
const FAILURES_MAX: u32 = 20;

/// How long a client waits for an answer before it asks again.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How far a run has come with that.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    round: u32,
    failures: u32,
    /// When the last documents were sent.
    pub(crate) since: Option<Timestamp>,
    /// Requests that wait for their answer.
    waiting: Vec<(u64, StackSpec)>,
    /// Documents whose request failed.
    failed: Vec<StackSpec>,
}

impl World {
    /// Takes the next step when all is as wished; false when none is left.
    pub(crate) fn repeat(&mut self) -> bool {
        let documents = self.clients.documents();
        let waited = self.repeats.since.map(|since| self.ctx.now().since(since));
        if !self.repeats.waiting.is_empty() {
            // A leader may still die in the calm, with what it was asked.
            if waited.is_some_and(|waited| waited > ANSWER_MAX) {
                let unanswered = std::mem::take(&mut self.repeats.waiting);
                for (_, spec) in unanswered {
                    self.not_deployed(spec, "no answer");
                }
            }
            return true;
        }
        let failed = std::mem::take(&mut self.repeats.failed);
        if !failed.is_empty() {
            self.deploy(failed);
            return true;
        }
        if self.repeats.round > 0 {
            let leader = self.managers.iter().find(|manager| manager.is_leading());
            let store = leader.and_then(|leader| leader.store()).cloned();
            for spec in &documents {
                if let Some(store) = &store {
                    self.ctx.observe(&Observation::Redeployed { spec, store });
                }
            }
        }
        if documents.is_empty() || self.repeats.round == ROUNDS {
            return false;
        }
        self.repeats.round += 1;
        self.repeats.failures = 0;
        self.deploy(documents);
        true
    }

    fn deploy(&mut self, documents: Vec<StackSpec>) {
        self.repeats.since = Some(self.ctx.now());
        let leader = self.managers.iter().position(|m| m.is_leading());
        let Some(manager) = leader else {
            self.repeats.failed = documents;
            return;
        };
        for spec in documents {
            let (request, command) = self.clients.deploy(&spec);
            self.ctx
                .trace(format_args!("request {request} repeats {}", spec.name));
            self.ctx.observe(&Observation::Issued {
                request,
                command: &command,
            });
            self.repeats.waiting.push((request, spec));
            let command: Box<Command> = Box::new(command);
            let event = Event::Command {
                manager,
                request,
                command,
                is_relayed: false,
            };
            self.ctx.queue.after(Duration::from_millis(1), event);
        }
    }

    /// An answer came, perhaps to one of these.
    pub(crate) fn repeated(&mut self, request: u64, result: &Result<Answer, CommandError>) {
        let mut waiting = self.repeats.waiting.iter();
        let Some(index) = waiting.position(|(number, _)| *number == request) else {
            return;
        };
        let (_, spec) = self.repeats.waiting.remove(index);
        match result {
            Ok(Answer::Stack(outcome)) => {
                let mut changes = outcome.changes.iter();
                let changed = changes.find(|change| change.action != StackAction::Unchanged);
                if let Some(change) = changed.filter(|_| self.repeats.round == ROUNDS) {
                    let problem = format!("{} was deployed twice, and again {change:?}", spec.name);
                    self.ctx.violate("redeploys", &problem);
                }
            }
            Ok(answer) => {
                let problem = format!("{} was deployed, answer {answer:?}", spec.name);
                self.ctx.violate("redeploys", &problem);
            }
            Err(error) => self.not_deployed(spec, &error.to_string()),
        }
    }

    /// The deploy is to be repeated.
    fn not_deployed(&mut self, spec: StackSpec, problem: &str) {
        self.repeats.failures += 1;
        if self.repeats.failures > FAILURES_MAX {
            let problem = format!("{} is not deployed again: {problem}", spec.name);
            self.ctx.violate("redeploys", &problem);
        }
        self.repeats.failed.push(spec);
    }
}
