//! Connections between agents and managers: ordered streams that delay, break and lose their tail.
//!
//! A message is lost only with its connection, as over TCP. A cut connection is silent: each side
//! notices when it happens to, or by its own timeouts. What is sent over a link that is not open cuts
//! the connection. A manager that does not lead relays to the one that does: such a connection needs
//! both ways.

use std::{collections::BTreeMap, time::Duration};

use skep_model::{Rng, Timestamp, dispatch::DispatchError};

use crate::{
    event::{AgentIndex, AgentSide, ConnectionNumber, Down, Event, ManagerIndex, Up},
    links::Links,
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
    /// The manager that relays, if any.
    via: Option<ManagerIndex>,
    /// Life of the manager it leads to.
    pub(crate) manager_life: u64,
    /// False once the agent closed it, or for a ghost: a registration the network repeated.
    pub(crate) is_agent_open: bool,
    pub(crate) is_manager_open: bool,
    is_cut: bool,
    up_at: Timestamp,
    down_at: Timestamp,
}

/// Where a connection leads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) manager: ManagerIndex,
    /// None: nobody listens there.
    pub(crate) life: Option<u64>,
    pub(crate) via: Option<ManagerIndex>,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Network {
    rng: Rng,
    connections: BTreeMap<ConnectionNumber, Connection>,
    next_number: ConnectionNumber,
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
            delay_max: profile.delay_max,
            breaks: profile.breaks,
            repeats: profile.repeats,
        }
    }

    /// No more breaks and repetitions.
    pub(crate) fn calm(&mut self) {
        self.breaks = 0;
        self.repeats = 0;
        self.delay_max = self.delay_max.min(CALM_DELAY_MAX);
    }

    /// A connection by its number.
    pub(crate) fn get(&self, number: ConnectionNumber) -> Option<&Connection> {
        self.connections.get(&number)
    }

    /// Opens a connection and sends the registration over it, perhaps twice over two connections.
    pub(crate) fn open(
        &mut self,
        (queue, links): (&mut Queue, &Links),
        side: AgentSide,
        route: Route,
        register: Up,
    ) -> ConnectionNumber {
        let number = self.add(queue.now(), side, route);
        if route.life.is_none() {
            let error = DispatchError::Unavailable("connection refused".to_owned());
            self.down(queue, links, number, Down::Ended(error));
            return number;
        }
        if self.rng.percent(self.repeats) {
            let ghost = self.add(queue.now(), side, route);
            self.up(queue, links, ghost, register.clone());
            if let Some(ghost) = self.connections.get_mut(&ghost) {
                ghost.is_agent_open = false;
            }
            let delay = span(&mut self.rng, KEEPALIVE);
            queue.after(delay, Event::Gone { connection: ghost });
        }
        self.up(queue, links, number, register);
        number
    }

    fn add(&mut self, now: Timestamp, side: AgentSide, route: Route) -> ConnectionNumber {
        self.next_number += 1;
        let connection = Connection {
            side,
            manager: route.manager,
            via: route.via,
            manager_life: route.life.unwrap_or(0),
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
    pub(crate) fn up(
        &mut self,
        queue: &mut Queue,
        links: &Links,
        number: ConnectionNumber,
        message: Up,
    ) {
        if !self.passes(queue, links, number) {
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
    pub(crate) fn down(
        &mut self,
        queue: &mut Queue,
        links: &Links,
        number: ConnectionNumber,
        message: Down,
    ) {
        if !self.passes(queue, links, number) {
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
    fn passes(&mut self, queue: &mut Queue, links: &Links, number: ConnectionNumber) -> bool {
        let is_broken = self.rng.below(10_000) < self.breaks;
        let Some(connection) = self.connections.get(&number) else {
            return false;
        };
        if connection.is_cut {
            return false;
        }
        if is_broken || !connection.is_connected(links) {
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
    pub(crate) fn close_agent(
        &mut self,
        queue: &mut Queue,
        links: &Links,
        number: ConnectionNumber,
    ) {
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
        if connection.is_connected(links) {
            connection.up_at = connection.up_at.max(queue.now() + delay);
            queue.at(connection.up_at, Event::Gone { connection: number });
        } else {
            self.cut(queue, number);
        }
    }

    /// The manager ends the connection for `error`.
    pub(crate) fn close_manager(
        &mut self,
        queue: &mut Queue,
        links: &Links,
        number: ConnectionNumber,
        error: DispatchError,
    ) {
        self.down(queue, links, number, Down::Ended(error));
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_manager_open = false;
        }
    }

    /// A manager died: its connections are reset, as far as the network lets agents know.
    pub(crate) fn manager_died(&mut self, queue: &mut Queue, links: &Links, manager: ManagerIndex) {
        let relayed = |(_, c): &(&u64, &Connection)| c.via == Some(manager) && c.is_manager_open;
        let numbers: Vec<u64> = self
            .connections
            .iter()
            .filter(relayed)
            .map(|(n, _)| *n)
            .collect();
        for number in numbers {
            self.cut(queue, number);
        }
        let open = |(_, c): &(&u64, &Connection)| c.manager == manager && c.is_manager_open;
        let numbers: Vec<u64> = self
            .connections
            .iter()
            .filter(open)
            .map(|(n, _)| *n)
            .collect();
        for number in numbers {
            let error = DispatchError::Unavailable("connection reset".to_owned());
            self.close_manager(queue, links, number, error);
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

impl Connection {
    fn is_connected(&self, links: &Links) -> bool {
        let agent = self.side.agent;
        match self.via {
            None => links.is_connected(agent, self.manager),
            Some(via) => links.is_connected(agent, via) && links.is_connected(via, self.manager),
        }
    }
}
