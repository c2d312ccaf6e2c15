//! What happens in the simulated world, all of it.

use skep_agent::core::Attempt;
use skep_manager::{
    Joined,
    command::{Answer, Command, CommandError},
    event::{ReplyTo, ToAgent},
};
use skep_model::{
    Role, TaskId, TaskStatus,
    dispatch::{DispatchError, SessionRequest},
};

use crate::profile::Fault;

/// Index of a machine whose manager is meant.
pub(crate) type ManagerIndex = usize;
/// Index of a machine: of its agent, and of its node.
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
    /// A raft message arrives.
    Raft {
        from: ManagerIndex,
        to: ManagerIndex,
        message: Box<skep_raft::Message>,
    },
    /// A manager learns something about its way to a member.
    PeerNews {
        manager: ManagerIndex,
        raft_id: u64,
        news: PeerNews,
    },
    /// A manager is told that it was removed from the group.
    Expelled { manager: ManagerIndex, raft_id: u64 },
    /// A manager that hands leadership over waits no longer.
    Stop { manager: ManagerIndex, life: u64 },
    /// A machine looks whether it is what it shall be: node, manager, member.
    Enrol(AgentIndex),
    /// The role a node has, as its agent was told.
    RoleSeen(AgentIndex, Role),
    /// A request to join the raft group arrives at a manager.
    Join {
        manager: ManagerIndex,
        machine: AgentIndex,
        request: u64,
        is_relayed: bool,
    },
    /// Its answer arrives.
    Joined {
        machine: AgentIndex,
        request: u64,
        result: Result<Joined, CommandError>,
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
        is_relayed: bool,
    },
    /// The answer arrives at the client, with the certificate it is about.
    Answer {
        request: u64,
        result: Result<Answer, CommandError>,
        certificate: Option<Vec<u8>>,
    },
    /// The next fault of this kind.
    Fault(usize),
    /// One machine reaches another again.
    Unblock((AgentIndex, AgentIndex)),
    /// A fault that lasts ends.
    Heal(Fault, usize),
    /// No more faults from here on.
    Calm,
    /// Look whether all is as wished.
    Look,
}

/// What a manager learns about its way to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerNews {
    /// A message did not arrive.
    Unreachable,
    /// A snapshot arrived, or not.
    Snapshot(bool),
    /// The connection was reset.
    Lost,
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
