//! Random commands against a cluster: after each the invariants hold, and when the trouble ends
//! everything runs that should.

use std::collections::BTreeSet;

use proptest::prelude::*;
use skep_model::{ServiceMode, TaskState, UpdateState, reserved::task::moved_by};

use crate::world::World;

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const SERVICES: [&str; 5] = ["web", "db", "all", "job", "gob"];

/// What a generated number stands for depends on what exists, so that any list of numbers is a
/// valid history.
#[derive(Debug, Clone)]
struct Step {
    what: u8,
    who: usize,
    how: usize,
}

fn step() -> impl Strategy<Value = Step> {
    (0u8..19, 0usize..12, 0usize..12).prop_map(|(what, who, how)| Step { what, who, how })
}

struct Chaos {
    world: World,
    nodes: BTreeSet<&'static str>,
    services: BTreeSet<&'static str>,
    log: Vec<String>,
}

impl Chaos {
    fn new() -> Self {
        let mut chaos = Self {
            world: World::new(),
            nodes: BTreeSet::new(),
            services: BTreeSet::new(),
            log: Vec::new(),
        };
        chaos.run("cluster label skep.rebalance.budget=2");
        chaos.run("network create ingress ingress");
        // Three slices of seven addresses.
        chaos.run("network between nodes 10.98.0.0/26");
        chaos.run("network create back ipv6");
        // Too small for all services at once.
        chaos.run("network create small subnet=10.99.0.0/28");
        chaos.run("node add n1 cpu=4 gpu=a,b label.rack=a plugin=Network/overlay");
        chaos
            .run("node add n2 cpu=4 gpu=2 label.rack=b plugin=Network/overlay plugin=Network/skep");
        chaos.nodes.extend(["n1", "n2"]);
        chaos
    }

    fn run(&mut self, command: &str) {
        self.log.push(command.to_owned());
        let output = self.world.run(command);
        assert_eq!(output, "", "after {:#?}", self.log);
    }

    fn step(&mut self, step: &Step) {
        let node = NODES[step.who % NODES.len()];
        let service = SERVICES[step.who % SERVICES.len()];
        let has_node = self.nodes.contains(node);
        let has_service = self.services.contains(service);
        let command = match step.what {
            0 if !has_node => {
                self.nodes.insert(node);
                format!(
                    "node add {node} cpu=4 gpu=2 label.rack={} plugin=Network/{}",
                    ["a", "b"][step.how % 2],
                    ["skep", "overlay", "skep"][step.how % 3]
                )
            }
            0 | 1 if has_node => {
                let to = ["active", "pause", "drain"][step.how % 3];
                format!("node update {node} availability={to}")
            }
            2 if has_node => format!("node {} {node}", ["up", "down"][step.how % 2]),
            3 if has_node && step.how == 0 => {
                self.nodes.remove(node);
                format!("node rm {node}")
            }
            4 if has_node => {
                let rack = ["a", "b", "c"][step.how % 3];
                format!("node update {node} label.rack={rack}")
            }
            5 if has_node && step.how == 0 => {
                format!("node update {node} plugin=Network/skep")
            }
            5 if has_node && step.how % 2 == 1 => {
                let gpus = ["a,b", "b", "3"][step.how % 3];
                format!("node update {node} gpu={gpus}")
            }
            5 if has_node => format!("node update {node} cpu={}", 1 + step.how % 4),
            6 | 7 if !has_service => {
                self.services.insert(service);
                create(service, step.how)
            }
            6..=8 => update(service, step.how),
            9 if has_service && step.how == 0 => {
                self.services.remove(service);
                format!("service rm {service}")
            }
            10 | 11 => {
                let place = match service {
                    "all" | "gob" => node.to_owned(),
                    "job" => (step.how % 4).to_string(),
                    _ => (1 + step.how % 4).to_string(),
                };
                let name = format!("{service}.{place}");
                if !has_service || !self.world.has_task(&name) {
                    return;
                }
                let end = ["fail", "reject", "complete"][step.how % 3];
                format!("task {end} {name}")
            }
            _ => match self.command_of_cluster(step, service) {
                Some(command) => command,
                None => return,
            },
        };
        if command.starts_with("service update") && !self.services.contains(service) {
            return;
        }
        self.run(&command);
    }

    /// What is not about one node or the life of a service.
    fn command_of_cluster(&self, step: &Step, service: &str) -> Option<String> {
        Some(match step.what {
            12 => format!("agents {}", ["act", "wait"][step.how % 2]),
            13 => "leader change".to_owned(),
            14 => format!("tick {}s", [1, 5, 10, 70][step.how % 4]),
            15 | 16 => {
                let networks = ["-", "small", "back,small", "back"][step.how % 4];
                format!("service update {service} networks={networks}")
            }
            17 => {
                let ports = ["-", ":80", ":80,:53/udp"][step.how % 3];
                format!("service update {service} publish={ports}")
            }
            18 => {
                let mode = ["off", "on-join", "continuous"][step.how % 3];
                format!("cluster label skep.rebalance={mode}")
            }
            _ => return None,
        })
    }

    /// All nodes are well, all services can run somewhere, time passes.
    fn heal(&mut self) {
        for node in NODES {
            if self.nodes.insert(node) {
                self.run(&format!("node add {node}"));
            }
            self.run(&format!("node up {node}"));
            self.run(&format!(
                "node update {node} availability=active cpu=64 gpu=64 label.rack=a"
            ));
        }
        self.run("agents act");
        for service in self.services.clone() {
            // Nobody completes the tasks of jobs before the end.
            let more = match service {
                "job" | "gob" => "label=skep.job.deadline:1h",
                _ => "",
            };
            self.run(&format!(
                "service update {service} image=app:healed networks=back {more}"
            ));
        }
        self.run("cluster label skep.rebalance=continuous");
        self.run("tick 12m");
        self.world.complete_jobs();
    }

    /// The present run is complete, wherever it shall be, and nothing is left of any other.
    fn check_job(&self, service: &skep_model::Service) {
        let name = service.name();
        let status = service.job_status.as_ref().unwrap();
        let tasks = || self.world.store().tasks_of_service(service.id);
        let wanted = match service.spec.mode {
            ServiceMode::ReplicatedJob {
                total_completions, ..
            } => usize::try_from(total_completions).unwrap(),
            _ => self.nodes.len(),
        };
        let complete: BTreeSet<_> = tasks()
            .filter(|task| task.job_iteration == Some(status.job_iteration))
            .filter(|task| task.status.state == TaskState::Complete)
            .filter(|task| task.spec.container.image == "app:healed")
            .map(|task| (task.slot, task.node_id.filter(|_| name == "gob")))
            .collect();
        assert_eq!(complete.len(), wanted, "{name} after {:#?}", self.log);
        assert!(
            tasks().all(|task| task.status.state.is_terminal()),
            "{name} still runs after {:#?}",
            self.log
        );
    }

    /// Nothing is left that could be spread better, and nothing moves to and fro.
    fn check_balanced(&mut self) {
        let made = |world: &World| {
            let tasks = world.store().tasks();
            let moves = tasks.filter(|task| moved_by(task).is_some());
            moves.map(|task| (task.meta.created_at, task.id)).max()
        };
        // Jobs that ended have left gaps.
        self.run("tick 2m");
        let (moves, newest) = (self.world.run("show moves"), made(&self.world));
        assert_eq!(moves, "", "after {:#?}", self.log);
        self.run("tick 5m");
        assert_eq!(made(&self.world), newest, "after {:#?}", self.log);
    }

    /// Every slot runs the wanted image, and nothing else runs.
    fn check_converged(&self) {
        let store = self.world.store();
        for service in store.services() {
            if service.job_status.is_some() {
                self.check_job(service);
                continue;
            }
            let running: Vec<_> = store
                .tasks_of_service(service.id)
                .filter(|task| task.status.state == TaskState::Running)
                .collect();
            let wanted = match service.spec.mode {
                ServiceMode::Replicated { replicas } => usize::try_from(replicas).unwrap(),
                _ => self.nodes.len(),
            };
            let name = service.name();
            assert_eq!(running.len(), wanted, "{name} after {:#?}", self.log);
            let image = |task: &skep_model::Task| task.spec.container.image.clone();
            assert!(
                running.iter().all(|task| image(task) == "app:healed"),
                "{name} runs something else after {:#?}",
                self.log
            );
            let state = service.update_status.as_ref().map(|status| status.state);
            assert!(
                matches!(state, None | Some(UpdateState::Completed)),
                "{name} is {state:?} after {:#?}",
                self.log
            );
        }
    }
}

fn create(service: &str, how: usize) -> String {
    let extra = [
        "",
        "delay=1s",
        "update-order=start-first",
        "update-parallelism=2 update-delay=2s",
        "update-failure=rollback label=skep.update.deadline:20s",
        "update-failure=continue label=skep.update.deadline:8s",
        "cpu=1 gpu=1",
        "port=80:80",
        "spread=node.labels.rack label=skep.placement.prefer:node.labels.rack==b,service!=db",
        "max-per-node=2",
        "update-order=start-first update-failure=rollback rollback-order=start-first",
        "restart=on-failure attempts=2",
    ][how];
    if let "job" | "gob" = service {
        return create_job(service, how);
    }
    // Services must not take each other's ports, or not all of them can run.
    let port = SERVICES.iter().position(|name| *name == service).unwrap() + 80;
    let extra = extra.replace("80:80", &format!("{port}:80"));
    match service {
        "all" => format!("service create all mode=global {extra}"),
        name => format!("service create {name} replicas=3 {extra}"),
    }
}

fn create_job(service: &str, how: usize) -> String {
    let mode = match service {
        "gob" => "mode=global-job",
        _ => "job=2/3",
    };
    let extra = [
        "",
        "delay=1s",
        "schedule=*_*_*_*_*",
        "schedule=*_*_*_*_* label=skep.job.concurrency:allow",
        "schedule=*_*_*_*_* label=skep.job.concurrency:replace delay=1s",
        "schedule=*/2_*_*_*_* label=skep.job.deadline:61s label=skep.job.history:1",
        "label=skep.job.deadline:30s",
        "restart=none",
        "attempts=2 delay=1s",
        "cpu=2",
        "restart=on-failure label=skep.job.history:2",
        "max-per-node=1",
    ][how];
    format!("service create {service} {mode} {extra}")
}

fn update(service: &str, how: usize) -> String {
    let change = match how {
        0..3 => format!("image=app:{how}"),
        3 => "constraint=node.labels.rack==a".to_owned(),
        4 => "constraint=node.labels.rack!=c".to_owned(),
        5 => "force".to_owned(),
        6 => "cpu=1".to_owned(),
        7 => "delay=2s".to_owned(),
        8 if service == "job" => "job=1/2".to_owned(),
        9 if service == "job" => "job=3/4".to_owned(),
        count if !["all", "job", "gob"].contains(&service) => {
            format!("replicas={}", (count - 8) % 4 + 1)
        }
        _ => "force".to_owned(),
    };
    format!("service update {service} {change}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_trouble_ends(steps in prop::collection::vec(step(), 1..60)) {
        let mut chaos = Chaos::new();
        for step in &steps {
            chaos.step(step);
        }
        chaos.heal();
        chaos.check_converged();
        chaos.check_balanced();
    }
}
