//! Registration with a dispatcher: open, first answer, heartbeats, loss, back-off, description.
//!
//! Every attempt to hold a session has a number; answers to earlier attempts are recognised by it
//! and dropped. One state machine, so one file. What a session is used for is `core`'s business.

use std::time::Duration;

use skep_model::{
    NodeDescription, Rng, SessionId, Timestamp,
    dispatch::{
        AssignmentSequence, AssignmentsKind, AssignmentsMessage, DispatchError, HeartbeatRequest,
        HeartbeatResponse, SessionRequest,
    },
};

use super::Effect;

/// How long the first message of a session may take; Swarm's value.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the first set of assignments may take. Swarm waits for ever; a dispatcher that has
/// registered the node and cannot send its set within this time is better replaced by another.
const ASSIGNMENTS_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the answer to a heartbeat may take at most. It is one period: the dispatcher gives a node
/// up after three, so one lost answer still leaves time to reach another manager.
const HEARTBEAT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// And at least: a busy manager is not a lost one.
const HEARTBEAT_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Bounds of the heartbeat period taken from a dispatcher: a wild value may neither flood the
/// manager nor silence the node.
const HEARTBEAT_PERIOD_MIN: Duration = Duration::from_millis(10);
const HEARTBEAT_PERIOD_MAX: Duration = Duration::from_secs(3600);

/// Back-off between attempts, Swarm's values: the first loss is often a change of leader and heals
/// at once; thousands of workers must not come back in step.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(8);

/// How often the node is described anew; Swarm's value. A change re-opens the session.
const DESCRIBE_PERIOD: Duration = Duration::from_secs(20);

/// How soon a failed first description is tried again; without one there is no session.
const DESCRIBE_RETRY: Duration = Duration::from_secs(1);

/// Number of an attempt to hold a session; grows by one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// What a session message meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It belongs to an attempt that is over.
    Stale,
    /// It was the first: the node is registered.
    Registered,
    /// It was a later one of the same session.
    Known,
}

#[derive(Debug)]
enum State {
    /// Waits for the node's description.
    Undescribed,
    /// Waits before the next attempt.
    Waiting { until: Timestamp },
    /// Has asked for a session.
    Opening { deadline: Timestamp },
    /// Has a session.
    Registered(Registered),
}

#[derive(Debug)]
struct Registered {
    id: SessionId,
    heartbeat: Heartbeat,
    /// How long the answer to the next heartbeat may take.
    heartbeat_timeout: Duration,
    /// Position in the assignments; `NONE` until the first set.
    sequence: AssignmentSequence,
    /// When the first set is overdue.
    assignments_deadline: Timestamp,
}

#[derive(Debug)]
enum Heartbeat {
    Due(Timestamp),
    InFlight {
        sent_at: Timestamp,
        deadline: Timestamp,
    },
}

#[derive(Debug)]
enum Description {
    DueAt(Timestamp),
    Asked {
        /// Something changed since.
        again: bool,
    },
}

/// The session's state machine.
#[derive(Debug)]
pub(super) struct Session {
    state: State,
    attempt: Attempt,
    /// Presented at the next attempt, so that a dispatcher that knows it need not make another.
    last_id: Option<SessionId>,
    description: Option<NodeDescription>,
    describe: Description,
    backoff: Duration,
    rng: Rng,
    error: Option<DispatchError>,
}

// === impl Session ===

impl Session {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            state: State::Undescribed,
            attempt: Attempt(0),
            last_id: None,
            description: None,
            describe: Description::DueAt(Timestamp(i64::MIN)),
            backoff: BACKOFF_MIN,
            rng,
            error: None,
        }
    }

    /// The attempt and session, while registered.
    pub(super) fn registered(&self) -> Option<(Attempt, SessionId)> {
        self.registered_id().map(|id| (self.attempt, id))
    }

    pub(super) fn registered_id(&self) -> Option<SessionId> {
        match &self.state {
            State::Registered(registered) => Some(registered.id),
            State::Undescribed | State::Waiting { .. } | State::Opening { .. } => None,
        }
    }

    pub(super) fn is_registered_as(&self, attempt: Attempt) -> bool {
        self.registered()
            .is_some_and(|(current, _)| current == attempt)
    }

    /// The attempt under way, registered or not.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        match self.state {
            State::Undescribed | State::Waiting { .. } => None,
            State::Opening { .. } | State::Registered(_) => Some(self.attempt),
        }
    }

    pub(super) fn error(&self) -> Option<&DispatchError> {
        self.error.as_ref()
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let session = match &self.state {
            State::Undescribed => None,
            State::Waiting { until } => Some(*until),
            State::Opening { deadline } => Some(*deadline),
            State::Registered(registered) => Some(registered.deadline()),
        };
        let describe = match self.describe {
            Description::DueAt(at) => Some(at),
            Description::Asked { .. } => None,
        };
        [session, describe].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn advance(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        if matches!(self.describe, Description::DueAt(at) if at <= now) {
            self.describe = Description::Asked { again: false };
            out.push(Effect::Describe);
        }
        match &mut self.state {
            State::Undescribed => {}
            State::Waiting { until } if *until <= now => self.open(now, out),
            State::Waiting { .. } => {}
            State::Opening { deadline } if *deadline <= now => {
                self.lose(now, timed_out("registration"), out);
            }
            State::Opening { .. } => {}
            State::Registered(registered) => {
                if let Some(what) = registered.overdue(now) {
                    self.lose(now, timed_out(what), out);
                } else if registered.is_heartbeat_due(now) {
                    registered.heartbeat = Heartbeat::InFlight {
                        sent_at: now,
                        deadline: now + registered.heartbeat_timeout,
                    };
                    let request = HeartbeatRequest {
                        session_id: registered.id,
                    };
                    out.push(Effect::SendHeartbeat {
                        attempt: self.attempt,
                        request,
                    });
                }
            }
        }
    }

    /// Asks for a description at once; one that is under way may miss the change, so it is asked for
    /// again when it comes.
    pub(super) fn redescribe(&mut self, out: &mut Vec<Effect>) {
        match self.describe {
            Description::DueAt(_) => {
                self.describe = Description::Asked { again: false };
                out.push(Effect::Describe);
            }
            Description::Asked { .. } => self.describe = Description::Asked { again: true },
        }
    }

    pub(super) fn on_described(
        &mut self,
        now: Timestamp,
        description: Option<NodeDescription>,
        out: &mut Vec<Effect>,
    ) {
        let period = match (&description, &self.description) {
            (None, None) => DESCRIBE_RETRY,
            (Some(_), _) | (None, Some(_)) => DESCRIBE_PERIOD,
        };
        let is_stale = matches!(self.describe, Description::Asked { again: true });
        self.describe = Description::DueAt(if is_stale { now } else { now + period });
        if description.is_none() || description == self.description {
            return;
        }
        self.description = description;
        match self.state {
            State::Undescribed => self.open(now, out),
            // The next attempt brings the new description by itself.
            State::Waiting { .. } => {}
            State::Opening { .. } | State::Registered(_) => {
                out.push(Effect::CloseSession(self.attempt));
                self.open(now, out);
            }
        }
    }

    pub(super) fn on_message(
        &mut self,
        now: Timestamp,
        attempt: Attempt,
        session_id: SessionId,
        out: &mut Vec<Effect>,
    ) -> Verdict {
        if self.attempt() != Some(attempt) {
            return Verdict::Stale;
        }
        match &self.state {
            State::Registered(registered) if registered.id == session_id => Verdict::Known,
            State::Registered(_) => {
                // A dispatcher must not swap sessions within a stream: start over.
                self.lose(now, DispatchError::SessionInvalid, out);
                Verdict::Stale
            }
            State::Undescribed | State::Waiting { .. } | State::Opening { .. } => {
                self.last_id = Some(session_id);
                self.error = None;
                self.state = State::Registered(Registered {
                    id: session_id,
                    heartbeat: Heartbeat::Due(now),
                    heartbeat_timeout: HEARTBEAT_TIMEOUT_MAX,
                    sequence: AssignmentSequence::NONE,
                    assignments_deadline: now + ASSIGNMENTS_TIMEOUT,
                });
                out.push(Effect::OpenAssignments {
                    attempt,
                    session_id,
                });
                Verdict::Registered
            }
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Timestamp,
        attempt: Attempt,
        result: Result<HeartbeatResponse, DispatchError>,
        out: &mut Vec<Effect>,
    ) {
        if !self.is_registered_as(attempt) {
            return;
        }
        let State::Registered(registered) = &mut self.state else {
            return;
        };
        match (result, &registered.heartbeat) {
            (Ok(answer), Heartbeat::InFlight { sent_at, .. }) => {
                let period = answer
                    .period
                    .clamp(HEARTBEAT_PERIOD_MIN, HEARTBEAT_PERIOD_MAX);
                registered.heartbeat = Heartbeat::Due(*sent_at + period);
                registered.heartbeat_timeout =
                    period.clamp(HEARTBEAT_TIMEOUT_MIN, HEARTBEAT_TIMEOUT_MAX);
            }
            // A repeated answer.
            (Ok(_), Heartbeat::Due(_)) => {}
            (Err(error), _) => self.lose(now, error, out),
        }
    }

    /// Whether the message is the next one and to be applied. A repeated or older one is dropped; a
    /// gap ends the session, whose successor starts with the whole set.
    pub(super) fn accept_assignments(
        &mut self,
        now: Timestamp,
        attempt: Attempt,
        message: &AssignmentsMessage,
        out: &mut Vec<Effect>,
    ) -> bool {
        if !self.is_registered_as(attempt) {
            return false;
        }
        let State::Registered(registered) = &mut self.state else {
            return false;
        };
        if message.results_in <= registered.sequence {
            return false;
        }
        let is_next = match message.kind {
            AssignmentsKind::Complete => true,
            AssignmentsKind::Incremental => {
                registered.sequence != AssignmentSequence::NONE
                    && message.applies_to == registered.sequence
            }
        };
        if is_next {
            registered.sequence = message.results_in;
            self.backoff = BACKOFF_MIN;
        } else {
            let text = format!(
                "assignments {} apply to {}, not to {}",
                message.results_in, message.applies_to, registered.sequence
            );
            self.lose(now, DispatchError::Unavailable(text), out);
        }
        is_next
    }

    /// The attempt's streams or requests failed.
    pub(super) fn on_lost(
        &mut self,
        now: Timestamp,
        attempt: Attempt,
        error: DispatchError,
        out: &mut Vec<Effect>,
    ) {
        if self.attempt() == Some(attempt) {
            self.lose(now, error, out);
        }
    }

    /// Ends the session for good.
    pub(super) fn close(&mut self, out: &mut Vec<Effect>) {
        out.extend(self.attempt().map(Effect::CloseSession));
        self.state = State::Undescribed;
        self.describe = Description::Asked { again: false };
    }

    fn open(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let Some(description) = self.description.clone() else {
            return;
        };
        self.attempt = Attempt(self.attempt.0 + 1);
        self.state = State::Opening {
            deadline: now + REGISTER_TIMEOUT,
        };
        let request = SessionRequest {
            description,
            session_id: self.last_id,
        };
        out.push(Effect::OpenSession {
            attempt: self.attempt,
            request,
        });
    }

    fn lose(&mut self, now: Timestamp, error: DispatchError, out: &mut Vec<Effect>) {
        out.push(Effect::CloseSession(self.attempt));
        match &error {
            DispatchError::SessionInvalid
            | DispatchError::NodeNotRegistered
            | DispatchError::NodeNotFound => self.last_id = None,
            DispatchError::PermissionDenied(_)
            | DispatchError::RegisteredTooOften
            | DispatchError::NoLeader(_)
            | DispatchError::Unavailable(_) => {}
        }
        self.error = Some(error);
        let bound = u64::try_from(self.backoff.as_nanos()).unwrap_or(u64::MAX);
        let delay = Duration::from_nanos(self.rng.below(bound));
        self.backoff = (BACKOFF_MIN + 2 * self.backoff).min(BACKOFF_MAX);
        self.state = State::Waiting { until: now + delay };
    }
}

// === impl Registered ===

impl Registered {
    fn deadline(&self) -> Timestamp {
        let heartbeat = match self.heartbeat {
            Heartbeat::Due(at) => at,
            Heartbeat::InFlight { deadline, .. } => deadline,
        };
        if self.sequence == AssignmentSequence::NONE {
            heartbeat.min(self.assignments_deadline)
        } else {
            heartbeat
        }
    }

    fn is_heartbeat_due(&self, now: Timestamp) -> bool {
        matches!(self.heartbeat, Heartbeat::Due(at) if at <= now)
    }

    fn overdue(&self, now: Timestamp) -> Option<&'static str> {
        match self.heartbeat {
            Heartbeat::InFlight { deadline, .. } if deadline <= now => Some("heartbeat"),
            Heartbeat::InFlight { .. } | Heartbeat::Due(_)
                if self.sequence == AssignmentSequence::NONE
                    && self.assignments_deadline <= now =>
            {
                Some("assignments")
            }
            Heartbeat::InFlight { .. } | Heartbeat::Due(_) => None,
        }
    }
}

fn timed_out(what: &str) -> DispatchError {
    DispatchError::Unavailable(format!("{what} timed out"))
}
