//! Faults that happen on their own: which, to whom, and how long they last.

use std::time::Duration;

use skep_model::Rng;

use crate::{
    event::{Event, ManagerIndex},
    facts::Observation,
    manager::Manager,
    profile::{Fault, pick, span},
    setup::description,
    world::World,
};

impl World {
    pub(crate) fn schedule_fault(&mut self, index: usize) {
        let (_, mean) = self.profile.faults[index];
        let delay = span(&mut self.rng, mean * 2);
        self.ctx.queue.after(delay, Event::Fault(index));
    }

    pub(crate) fn fault(&mut self, index: usize) {
        if self.calm_since.is_some() {
            return;
        }
        self.schedule_fault(index);
        let (fault, _) = self.profile.faults[index];
        let agent = pick(&mut self.rng, self.agents.len() as u64);
        let manager = self.pick_manager();
        let ctx = &mut self.ctx;
        ctx.trace(format_args!("fault {fault:?} ({agent}, {manager})"));
        match fault {
            Fault::AgentCrash if self.rng.percent(50) => self.agents[agent].doom(),
            Fault::AgentCrash => self.agents[agent].crash(ctx),
            Fault::NodeReboot => self.agents[agent].reboot(ctx),
            Fault::Partition => ctx.links.isolate(agent, true),
            Fault::OneWay => {
                let pair = (agent, manager);
                ctx.links.block(pair, true);
                let lasts = span(&mut self.rng, Duration::from_secs(30));
                ctx.queue.after(lasts, Event::Unblock(pair));
            }
            Fault::ManagerStop => self.managers[manager].stop(ctx),
            Fault::VoterCrash => {
                for manager in &mut self.managers {
                    manager.die_after_vote();
                }
                if let Some(leader) = self.managers.iter().position(Manager::is_leading) {
                    self.managers[leader].crash(ctx);
                }
            }
            Fault::ConnectionBreak => ctx.network.cut_one_of(&mut ctx.queue, agent),
            Fault::ManagerCrash if self.rng.percent(60) => self.managers[manager].doom(),
            Fault::ManagerCrash => self.managers[manager].crash(ctx),
            Fault::SlowDisk => self.managers[manager].disk.set_slow(true),
            Fault::FullDisk => self.managers[manager].disk.set_full(true),
            Fault::WriteError => self.managers[manager].disk.fail_next(),
            Fault::ManagerClock => {
                let nanos = jump(&mut self.rng);
                self.managers[manager].jump(ctx, nanos);
            }
            Fault::AgentClock => {
                let nanos = jump(&mut self.rng);
                self.agents[agent].jump(ctx, nanos);
            }
            Fault::Redescribe => {
                let mut anew = description(&mut self.rng, agent);
                // A machine that has Skep keeps it.
                let before = &self.agents[agent].description.engine;
                if before.plugins.len() > anew.engine.plugins.len() {
                    anew.engine = before.clone();
                }
                self.agents[agent].description = anew;
                let seen = Observation::Described {
                    node: self.agents[agent].node_id,
                    description: &self.agents[agent].description,
                };
                ctx.observe(&seen);
            }
        }
        let lasts = span(&mut self.rng, Duration::from_secs(30));
        let heal = match fault {
            Fault::Partition => Some(agent),
            Fault::SlowDisk | Fault::FullDisk => Some(manager),
            _ => None,
        };
        if let Some(target) = heal {
            self.ctx.queue.after(lasts, Event::Heal(fault, target));
        }
    }

    pub(crate) fn heal(&mut self, fault: Fault, index: usize) {
        match fault {
            Fault::Partition => self.ctx.links.isolate(index, false),
            Fault::SlowDisk => self.managers[index].disk.set_slow(false),
            Fault::FullDisk => self.managers[index].disk.set_full(false),
            _ => {}
        }
    }

    /// A machine whose manager runs, mostly the leader's; any when there is none.
    fn pick_manager(&mut self) -> ManagerIndex {
        let members: Vec<ManagerIndex> = (0..self.managers.len())
            .filter(|index| self.managers[*index].raft_id().is_some())
            .collect();
        let leader = self.managers.iter().position(Manager::is_leading);
        match leader {
            Some(leader) if self.rng.percent(40) => leader,
            _ => members[pick(&mut self.rng, members.len() as u64)],
        }
    }
}

/// Clocks jump forward by much or little, back by little.
fn jump(rng: &mut Rng) -> i64 {
    let millis = match rng.below(3) {
        0 => rng.below(60_000),
        _ => rng.below(3000),
    };
    let millis = i64::try_from(millis).expect("a small number fits");
    let is_back = millis < 3000 && rng.percent(50);
    if is_back {
        -millis * 1_000_000
    } else {
        millis * 1_000_000
    }
}
