//! How machines become nodes, managers and members, as the daemon does it.
//!
//! A machine that joins asks for a certificate with a token. A node whose role differs from that of
//! its certificate renews it. With a manager's certificate it joins the raft group. **It deletes its
//! raft state only when it is removed from the group**, by its own log or by what other members say:
//! not because a session says worker, since a leader that was replaced without noticing may tell an
//! old role, nor because its certificate does, since a group that waits for its vote to remove it
//! would wait for ever. And it never takes a raft id again whose log it has deleted.

use std::time::Duration;

use skep_manager::{
    Joined,
    command::{Answer, CertificateRequest, Code, Command, CommandError},
};
use skep_model::{Availability, Redacted, Role};

use crate::{
    event::{AgentIndex, Event, ManagerIndex},
    facts::Observation,
    manager::Identity,
    profile::span,
    vault::is_managers,
    world::World,
};

/// How often a machine looks whether it is what it shall be.
const LOOK_MAX: Duration = Duration::from_secs(4);
/// Requests of machines have numbers from here on.
pub(crate) const REQUESTS_FROM: u64 = 1 << 41;

/// Where a machine stands.
#[derive(Debug, Clone)]
pub(crate) struct Enrolment {
    /// Whether it is a node, or shall become one, and as what.
    pub(crate) joins_as: Option<Role>,
    pub(crate) is_node: bool,
    /// The role its agent was told.
    role_seen: Role,
    /// The role of its certificate.
    role_certified: Role,
    token: Option<String>,
    /// The request whose answer it waits for; answers to older ones do not count.
    request: Option<u64>,
}

impl Enrolment {
    /// A node from the beginning.
    pub(crate) fn node(role: Role) -> Self {
        Self {
            joins_as: Some(role),
            is_node: true,
            role_seen: role,
            role_certified: role,
            token: None,
            request: None,
        }
    }

    /// A machine that is no node yet.
    pub(crate) fn spare() -> Self {
        Self {
            joins_as: None,
            is_node: false,
            ..Self::node(Role::Worker)
        }
    }
}

impl World {
    /// A machine looks whether it is what it shall be, now and again.
    pub(crate) fn enrol(&mut self, machine: AgentIndex) {
        let delay = span(&mut self.rng, LOOK_MAX);
        self.ctx.queue.after(delay, Event::Enrol(machine));
        let enrolment = &self.enrolments[machine];
        if !enrolment.is_node {
            if let Some(role) = enrolment.joins_as {
                self.ask_to_join(machine, role);
            }
        } else if enrolment.role_seen != enrolment.role_certified {
            let node_id = self.ctx.nodes[machine];
            let command = Command::IssueCertificate {
                csr: format!("csr of {node_id}").into_bytes(),
                request: CertificateRequest::Renew { node_id },
            };
            self.ask(machine, command);
        } else if enrolment.role_certified == Role::Manager
            && self.managers[machine].raft_id().is_none()
        {
            let request = self.next_request(machine);
            let manager = self.agents[machine].ask(&self.ctx);
            let event = Event::Join {
                manager,
                machine,
                request,
                is_relayed: false,
            };
            if let Some(delay) = self.ctx.links.request(machine, manager) {
                self.ctx.queue.after(delay, event);
            }
        }
    }

    fn ask_to_join(&mut self, machine: AgentIndex, role: Role) {
        let cluster = self.ctx.facts.store().cluster();
        let Some(tokens) = cluster.map(|cluster| cluster.root_ca.join_tokens.clone()) else {
            return;
        };
        let current = match role {
            Role::Worker => tokens.worker,
            Role::Manager => tokens.manager,
        };
        let token = self.enrolments[machine].token.get_or_insert(current.0);
        let command = Command::IssueCertificate {
            csr: format!("csr of machine {machine}").into_bytes(),
            request: CertificateRequest::Join {
                token: Redacted(token.clone()),
                availability: Availability::Active,
            },
        };
        self.ask(machine, command);
    }

    /// Sends a machine's own request to some manager.
    fn ask(&mut self, machine: AgentIndex, command: Command) {
        let request = self.next_request(machine);
        self.ctx
            .trace(format_args!("machine {machine} asks {command:?}"));
        self.ctx.observe(&Observation::Issued {
            request,
            command: &command,
        });
        let manager = self.agents[machine].ask(&self.ctx);
        let event = Event::Command {
            manager,
            request,
            command: Box::new(command),
            is_relayed: false,
        };
        if let Some(delay) = self.ctx.links.request(machine, manager) {
            self.ctx.queue.after(delay, event);
        }
    }

    fn next_request(&mut self, machine: AgentIndex) -> u64 {
        self.requests += 1;
        let request = REQUESTS_FROM + self.requests;
        self.enrolments[machine].request = Some(request);
        self.ctx.enrolments.insert(request, machine);
        request
    }

    /// The agent of a machine was told the role of its node.
    pub(crate) fn role_seen(&mut self, machine: AgentIndex, role: Role) {
        self.enrolments[machine].role_seen = role;
    }

    /// A command arrives at a manager, which relays it if it does not lead.
    pub(crate) fn command(
        &mut self,
        manager: ManagerIndex,
        request: u64,
        command: Box<Command>,
        is_relayed: bool,
    ) {
        if let Some((leader, delay)) = self.relay(manager, is_relayed) {
            let event = Event::Command {
                manager: leader,
                request,
                command,
                is_relayed: true,
            };
            return self.ctx.queue.after(delay, event);
        }
        self.managers[manager].command(&mut self.ctx, request, *command);
    }

    /// A request to join the group arrives at a manager, which relays it if it does not lead.
    pub(crate) fn join(
        &mut self,
        manager: ManagerIndex,
        machine: AgentIndex,
        request: u64,
        is_relayed: bool,
    ) {
        if let Some((leader, delay)) = self.relay(manager, is_relayed) {
            let event = Event::Join {
                manager: leader,
                machine,
                request,
                is_relayed: true,
            };
            return self.ctx.queue.after(delay, event);
        }
        self.managers[manager].join_request(&mut self.ctx, request, machine);
    }

    /// To whom a manager that does not lead passes a request on.
    fn relay(
        &mut self,
        manager: ManagerIndex,
        is_relayed: bool,
    ) -> Option<(ManagerIndex, Duration)> {
        let leader = self.ctx.leaders_known[manager].filter(|leader| *leader != manager)?;
        if is_relayed || self.managers[manager].replica().is_none() || self.rng.percent(10) {
            return None;
        }
        let delay = self.ctx.links.request(manager, leader)?;
        Some((leader, delay))
    }

    /// The answer to a machine's request for a certificate.
    pub(crate) fn certified(
        &mut self,
        request: u64,
        result: &Result<Answer, CommandError>,
        certificate: Option<&[u8]>,
    ) {
        let Some(machine) = self.ctx.enrolments.remove(&request) else {
            return;
        };
        if self.enrolments[machine].request != Some(request) {
            return;
        }
        self.enrolments[machine].request = None;
        match (result, certificate) {
            (Ok(Answer::Certificate { node_id, .. }), Some(chain)) => {
                let node = *node_id;
                self.ctx.observe(&Observation::Certificate { node, chain });
                let is_manager = is_managers(chain);
                let role = if is_manager {
                    Role::Manager
                } else {
                    Role::Worker
                };
                self.enrolments[machine].role_certified = role;
                if !self.enrolments[machine].is_node {
                    self.become_node(machine, node, role);
                }
            }
            (Err(error), _) if error.code == Code::InvalidArgument => {
                // The token was replaced: whoever joins the machine looks up the new one.
                self.enrolments[machine].token = None;
            }
            _ => {}
        }
    }

    fn become_node(&mut self, machine: AgentIndex, node: skep_model::NodeId, role: Role) {
        self.ctx
            .trace(format_args!("machine {machine} is node {node}"));
        let enrolment = &mut self.enrolments[machine];
        enrolment.is_node = true;
        enrolment.role_seen = role;
        self.ctx.nodes[machine] = node;
        let agent = &mut self.agents[machine];
        agent.node_id = node;
        agent.is_enrolled = true;
        let description = &agent.description;
        self.ctx
            .observe(&Observation::Described { node, description });
        agent.start(&mut self.ctx);
    }

    /// The answer to a machine that joins the group.
    pub(crate) fn joined(
        &mut self,
        machine: AgentIndex,
        request: u64,
        result: Result<Joined, CommandError>,
    ) {
        self.ctx.enrolments.remove(&request);
        let enrolment = &mut self.enrolments[machine];
        let is_current = enrolment.request == Some(request);
        let is_wanted = is_current && enrolment.role_certified == Role::Manager;
        if !is_wanted || self.managers[machine].raft_id().is_some() {
            return;
        }
        enrolment.request = None;
        match result {
            Ok(joined) if self.managers[machine].was(joined.raft_id) => {}
            Ok(joined) => {
                let identity = Identity {
                    raft_id: joined.raft_id,
                    members: joined.members,
                    joined_at: self.ctx.facts.index(),
                };
                self.managers[machine].join(&mut self.ctx, identity);
            }
            Err(error) => {
                self.ctx
                    .trace(format_args!("machine {machine} may not join: {error}"));
            }
        }
    }
}
