//! One seed, from its profile to its verdict.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use skep_model::Rng;

use crate::{
    bug::Bug,
    context::Violation,
    profile::Profile,
    world::{Options, World},
};

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Events it took.
    pub event_count: u64,
    /// Entries committed.
    pub entry_count: u64,
    /// Commands that succeeded.
    pub command_count: u64,
    /// Virtual time it took.
    pub virtual_time: Duration,
    /// How long after the last fault all was as wished.
    pub converged_after: Option<Duration>,
    /// Hash of the trace.
    pub hash: u64,
    /// What went wrong first.
    pub violation: Option<Violation>,
    /// The trace, when asked for.
    pub trace: Option<String>,
}

/// Runs a seed. A panic of a core is a violation like any other.
pub fn run_seed(seed: u64, options: &Options) -> Outcome {
    let mut rng = Rng::from_seed(seed);
    let mut profile = Profile::random(&mut rng);
    if options.bug == Some(Bug::ForgetVote) {
        profile.focus_on_elections();
    }
    if options.is_busy {
        profile.focus_on_work();
    }
    let mut world = World::new(rng, profile, options);
    let ran = panic::catch_unwind(AssertUnwindSafe(|| world.run(options.steps_max)));
    if let Err(cause) = ran {
        world.ctx.violate("no-panic", &text_of(cause.as_ref()));
    }
    outcome(seed, world)
}

/// What became of a world.
pub(crate) fn outcome(seed: u64, mut world: World) -> Outcome {
    Outcome {
        seed,
        event_count: world.event_count,
        entry_count: world.ctx.facts.index(),
        command_count: world.clients.answers.0,
        virtual_time: world.elapsed(),
        converged_after: world.converged_after,
        hash: world.ctx.trace.hash(),
        violation: world.violation().cloned(),
        trace: world.ctx.trace.take_text(),
    }
}

fn text_of(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panic without a message".to_owned())
}
