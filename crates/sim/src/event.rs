//! What happens in the simulated world, all of it.

use skep_agent::core::Attempt;
use skep_manager::{
    command::{Answer, Command, CommandError},
    event::{ReplyTo, ToAgent},
};
use skep_model::{
    TaskId, TaskStatus,
    dispatch::{DispatchError, SessionRequest},
};

use crate::profile::Fault;

/// Index of a manager.
pub(crate) type ManagerIndex = usize;
/// Index of an agent, and of its node.
pub(crate) type AgentIndex = usize;
/// Number of a connection between an agent and a manager.
pub(crate) type ConnectionNumber = u64;

/// An event of the world.
#[derive(Debug)]
pub(crate) enum Event {
    /// Raft's clock ticks.
    RaftTick(ManagerIndex),
    /// The moment a manager's core asked for.
    ManagerWake { manager: ManagerIndex, life: u64 },
    /// A crashed manager starts.
    ManagerRestart(ManagerIndex),
    /// The disk has finished its request.
    DiskDone { manager: ManagerIndex, life: u64 },
    /// A manager whose log failed tries again.
    RetryFault { manager: ManagerIndex, life: u64 },
    /// A raft message arrives.
    Raft {
        to: ManagerIndex,
        message: Box<skep_raft::Message>,
    },
    /// Something of an agent arrives at its manager.
    Up {
        connection: ConnectionNumber,
        message: Up,
    },
    /// The manager notices that a connection ended.
    Gone { connection: ConnectionNumber },
    /// Something of a manager arrives at its agent.
    Down {
        connection: ConnectionNumber,
        message: Down,
    },
    /// The moment an agent's core asked for.
    AgentWake { agent: AgentIndex, life: u64 },
    /// A crashed agent starts.
    AgentRestart(AgentIndex),
    /// An operation on a container is over.
    OpDone { agent: AgentIndex, number: u64 },
    /// A container's process ends by itself.
    ContainerEnds {
        agent: AgentIndex,
        task: TaskId,
        number: u64,
    },
    /// The answer to a request to describe a node.
    Described { agent: AgentIndex, life: u64 },
    /// A client thinks of something to do.
    Client,
    /// A command arrives at a manager.
    Command {
        manager: ManagerIndex,
        request: u64,
        command: Box<Command>,
    },
    /// The answer arrives at the client.
    Answer {
        request: u64,
        result: Result<Answer, CommandError>,
    },
    /// The next fault of this kind.
    Fault(usize),
    /// A fault that lasts ends.
    Heal(Fault, usize),
    /// No more faults from here on.
    Calm,
    /// Look whether all is as wished.
    Look,
}

/// What an agent says, with what the connection must remember.
#[derive(Debug, Clone)]
pub(crate) enum Up {
    /// Opens the session.
    Register(Box<SessionRequest>),
    /// Still there.
    Heartbeat,
    /// Tasks changed.
    Statuses(Vec<(TaskId, TaskStatus)>),
}

/// What an agent hears.
#[derive(Debug, Clone)]
pub(crate) enum Down {
    /// Of the dispatcher.
    Message(ToAgent),
    /// Its report was stored, or not.
    Stored(Result<(), DispatchError>),
    /// The connection ended.
    Ended(DispatchError),
}

/// Whose answer a manager's reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AgentSide {
    pub(crate) agent: AgentIndex,
    pub(crate) life: u64,
    pub(crate) attempt: Attempt,
}

/// The manager's number of a client's request.
pub(crate) fn reply_to(request: u64) -> ReplyTo {
    ReplyTo(request)
}
