//! Connections between agents and managers: ordered streams that delay, break and lose their tail.
//!
//! A message is lost only with its connection, as over TCP. A cut connection is silent: each side
//! notices when it happens to, or by its own timeouts. A partition cuts what is sent across it.

use std::{collections::BTreeMap, time::Duration};

use skep_model::{Rng, Timestamp, dispatch::DispatchError};

use crate::{
    event::{AgentIndex, AgentSide, ConnectionNumber, Down, Event, ManagerIndex, Up},
    profile::{Profile, span},
    queue::Queue,
};

/// When a manager at the latest notices that a silent connection is dead.
const KEEPALIVE: Duration = Duration::from_secs(40);
/// Longest delay once all is calm; heartbeats at the shortest period must get through in time.
const CALM_DELAY_MAX: Duration = Duration::from_millis(100);

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) side: AgentSide,
    pub(crate) manager: ManagerIndex,
    /// Life of the manager it leads to.
    pub(crate) manager_life: u64,
    /// False once the agent closed it, or for a ghost: a registration the network repeated.
    pub(crate) is_agent_open: bool,
    pub(crate) is_manager_open: bool,
    is_cut: bool,
    up_at: Timestamp,
    down_at: Timestamp,
}

/// All connections and partitions.
#[derive(Debug)]
pub(crate) struct Network {
    rng: Rng,
    connections: BTreeMap<ConnectionNumber, Connection>,
    next_number: ConnectionNumber,
    partitioned: BTreeMap<AgentIndex, bool>,
    delay_max: Duration,
    breaks: u64,
    repeats: u64,
}

impl Network {
    /// A network as `profile` has it.
    pub(crate) fn new(rng: Rng, profile: &Profile) -> Self {
        Self {
            rng,
            connections: BTreeMap::new(),
            next_number: 0,
            partitioned: BTreeMap::new(),
            delay_max: profile.delay_max,
            breaks: profile.breaks,
            repeats: profile.repeats,
        }
    }

    /// No more breaks and repetitions; partitions end.
    pub(crate) fn calm(&mut self) {
        self.breaks = 0;
        self.repeats = 0;
        self.delay_max = self.delay_max.min(CALM_DELAY_MAX);
        self.partitioned.clear();
    }

    /// Begins or ends the partition of an agent's node.
    pub(crate) fn partition(&mut self, agent: AgentIndex, is_partitioned: bool) {
        self.partitioned.insert(agent, is_partitioned);
    }

    /// A connection by its number.
    pub(crate) fn get(&self, number: ConnectionNumber) -> Option<&Connection> {
        self.connections.get(&number)
    }

    /// Opens a connection and sends the registration over it, perhaps twice over two connections.
    pub(crate) fn open(
        &mut self,
        queue: &mut Queue,
        side: AgentSide,
        to: (ManagerIndex, Option<u64>),
        register: Up,
    ) -> ConnectionNumber {
        let (manager, manager_life) = to;
        let number = self.add(queue.now(), side, manager, manager_life.unwrap_or(0));
        if manager_life.is_none() {
            // Nobody listens.
            let error = DispatchError::Unavailable("connection refused".to_owned());
            self.down(queue, number, Down::Ended(error));
            return number;
        }
        if self.rng.percent(self.repeats) {
            let ghost = self.add(queue.now(), side, manager, manager_life.unwrap_or(0));
            self.up(queue, ghost, register.clone());
            if let Some(ghost) = self.connections.get_mut(&ghost) {
                ghost.is_agent_open = false;
            }
            let delay = span(&mut self.rng, KEEPALIVE);
            queue.after(delay, Event::Gone { connection: ghost });
        }
        self.up(queue, number, register);
        number
    }

    fn add(
        &mut self,
        now: Timestamp,
        side: AgentSide,
        manager: ManagerIndex,
        manager_life: u64,
    ) -> ConnectionNumber {
        self.next_number += 1;
        let connection = Connection {
            side,
            manager,
            manager_life,
            is_agent_open: true,
            is_manager_open: true,
            is_cut: false,
            up_at: now,
            down_at: now,
        };
        self.connections.insert(self.next_number, connection);
        self.next_number
    }

    /// Sends to the manager.
    pub(crate) fn up(&mut self, queue: &mut Queue, number: ConnectionNumber, message: Up) {
        if !self.passes(queue, number) {
            return;
        }
        let delay = span(&mut self.rng, self.delay_max);
        let is_repeatable = matches!(message, Up::Statuses(_) | Up::Heartbeat);
        let repeat = (is_repeatable && self.rng.percent(self.repeats)).then(|| message.clone());
        let extra = span(&mut self.rng, self.delay_max);
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        for (message, delay) in [(Some(message), delay), (repeat, delay + extra)] {
            let Some(message) = message else { continue };
            connection.up_at = connection.up_at.max(queue.now() + delay);
            let event = Event::Up {
                connection: number,
                message,
            };
            queue.at(connection.up_at, event);
        }
    }

    /// Sends to the agent.
    pub(crate) fn down(&mut self, queue: &mut Queue, number: ConnectionNumber, message: Down) {
        if !self.passes(queue, number) {
            return;
        }
        let delay = span(&mut self.rng, self.delay_max);
        let is_repeatable = matches!(message, Down::Message(_));
        let repeat = (is_repeatable && self.rng.percent(self.repeats)).then(|| message.clone());
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        connection.down_at = connection.down_at.max(queue.now() + delay);
        for message in [Some(message), repeat].into_iter().flatten() {
            let event = Event::Down {
                connection: number,
                message,
            };
            queue.at(connection.down_at, event);
        }
    }

    /// Whether a message sent now arrives; the first that does not cuts the connection.
    fn passes(&mut self, queue: &mut Queue, number: ConnectionNumber) -> bool {
        let is_broken = self.rng.below(10_000) < self.breaks;
        let Some(connection) = self.connections.get(&number) else {
            return false;
        };
        if connection.is_cut {
            return false;
        }
        let agent = connection.side.agent;
        let is_partitioned = self.partitioned.get(&agent).copied().unwrap_or(false);
        if is_broken || is_partitioned {
            self.cut(queue, number);
            return false;
        }
        true
    }

    /// Cuts a connection: what is on its way still arrives, nothing more does.
    pub(crate) fn cut(&mut self, queue: &mut Queue, number: ConnectionNumber) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        connection.is_cut = true;
        let delay = span(&mut self.rng, KEEPALIVE);
        queue.after(delay, Event::Gone { connection: number });
        if self.rng.percent(60) {
            let error = DispatchError::Unavailable("connection reset".to_owned());
            let delay = span(&mut self.rng, Duration::from_secs(3));
            let event = Event::Down {
                connection: number,
                message: Down::Ended(error),
            };
            queue.after(delay, event);
        }
    }

    /// Cuts one of the agent's open connections.
    pub(crate) fn cut_one_of(&mut self, queue: &mut Queue, agent: AgentIndex) {
        let open = |(_, c): &(&u64, &Connection)| c.side.agent == agent && c.is_agent_open;
        let number = self
            .connections
            .iter()
            .find(open)
            .map(|(number, _)| *number);
        if let Some(number) = number {
            self.cut(queue, number);
        }
    }

    /// The agent closes its end, or dies; the manager notices after what is under way.
    pub(crate) fn close_agent(&mut self, queue: &mut Queue, number: ConnectionNumber) {
        let delay = span(&mut self.rng, self.delay_max);
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        if !connection.is_agent_open {
            return;
        }
        connection.is_agent_open = false;
        if !connection.is_manager_open {
            self.connections.remove(&number);
            return;
        }
        if connection.is_cut {
            return;
        }
        let agent = connection.side.agent;
        if self.partitioned.get(&agent).copied().unwrap_or(false) {
            self.cut(queue, number);
        } else {
            connection.up_at = connection.up_at.max(queue.now() + delay);
            queue.at(connection.up_at, Event::Gone { connection: number });
        }
    }

    /// The manager ends the connection for `error`.
    pub(crate) fn close_manager(
        &mut self,
        queue: &mut Queue,
        number: ConnectionNumber,
        error: DispatchError,
    ) {
        self.down(queue, number, Down::Ended(error));
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_manager_open = false;
        }
    }

    /// A manager died: its connections are reset, as far as the network lets agents know.
    pub(crate) fn manager_died(&mut self, queue: &mut Queue, manager: ManagerIndex) {
        let open = |(_, c): &(&u64, &Connection)| c.manager == manager && c.is_manager_open;
        let numbers: Vec<u64> = self
            .connections
            .iter()
            .filter(open)
            .map(|(n, _)| *n)
            .collect();
        for number in numbers {
            let error = DispatchError::Unavailable("connection reset".to_owned());
            self.close_manager(queue, number, error);
        }
        self.forget_closed();
    }

    /// The manager knows that the connection ended; nothing more is heard of it there.
    pub(crate) fn gone(&mut self, number: ConnectionNumber) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_manager_open = false;
            connection.is_cut = true;
            if !connection.is_agent_open {
                self.connections.remove(&number);
            }
        }
    }

    fn forget_closed(&mut self) {
        self.connections
            .retain(|_, connection| connection.is_agent_open || connection.is_manager_open);
    }
}
