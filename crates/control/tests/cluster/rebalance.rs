//! Rebalancing ends, and ends well: a potential that every move lowers, and an oracle that looks at every pair of nodes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use skep_model::{NodeId, ServiceId, Task, TaskState};

use crate::world::World;

/// Sums of squares: of each service's tasks by zone, by node, and of all tasks by node. Compared service by service; a
/// move of one leaves the others' as they are.
type Potential = (BTreeMap<ServiceId, (u64, u64)>, u64);

const SERVICES: [&str; 3] = ["s0", "s1", "s2"];

#[derive(Debug, Clone)]
struct Case {
    /// Zone and cores of each node; those from the third on come late.
    nodes: Vec<(u8, u8)>,
    /// Replicas, cores, preference for zones, start-first, only in zone 1.
    services: Vec<(u64, u8, bool, bool, bool)>,
    budget: u8,
}

fn case() -> impl Strategy<Value = Case> {
    let node = (0u8..3, 1u8..9);
    let flag = || prop::bool::weighted(0.3);
    let service = (0u64..7, 0u8..3, flag(), flag(), flag());
    (
        prop::collection::vec(node, 2..6),
        prop::collection::vec(service, SERVICES.len()),
        1u8..4,
    )
        .prop_map(|(nodes, services, budget)| Case {
            nodes,
            services,
            budget,
        })
}

fn running(world: &World) -> impl Iterator<Item = &Task> {
    let tasks = world.store().tasks().map(|task| task.as_ref());
    tasks.filter(|task| {
        task.status.state == TaskState::Running && task.desired_state == TaskState::Running
    })
}

/// Whether no task is on its way.
fn is_quiet(world: &World) -> bool {
    let mut tasks = world.store().tasks();
    tasks.all(|task| {
        let is_settled = task.status.state == task.desired_state || task.status.state.is_terminal();
        // One that found no node waits for ever.
        is_settled || task.status.state == TaskState::Pending && task.node_id.is_none()
    })
}

fn zone(world: &World, node: NodeId) -> String {
    let labels = &world.store().node(node).unwrap().spec.annotations.labels;
    labels["zone"].clone()
}

fn spreads(world: &World, service: ServiceId) -> bool {
    let service = world.store().service(service).unwrap();
    !service.spec.task.placement.spread_over.is_empty()
}

fn squares<K: Ord>(keys: impl Iterator<Item = K>) -> u64 {
    let mut counts: BTreeMap<K, u64> = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts.values().map(|count| count * count).sum()
}

fn potential(world: &World) -> Potential {
    let mut services = BTreeMap::new();
    for service in world.store().services() {
        let tasks = || running(world).filter(|task| task.service_id == Some(service.id));
        let by_zone = match spreads(world, service.id) {
            true => squares(tasks().map(|task| zone(world, task.node_id.unwrap()))),
            false => 0,
        };
        services.insert(
            service.id,
            (by_zone, squares(tasks().map(|task| task.node_id))),
        );
    }
    (services, squares(running(world).map(|task| task.node_id)))
}

fn is_lower(after: &Potential, before: &Potential) -> bool {
    let mut pairs = after.0.iter().map(|(id, after)| (after, &before.0[id]));
    let is_none_higher = pairs.all(|(after, before)| after <= before);
    is_none_higher && (after.0 != before.0 || after.1 < before.1)
}

/// A task that could stand better: its move would lower the potential, and its node has room.
fn better(world: &World) -> Option<String> {
    let nodes: Vec<_> = world.store().nodes().collect();
    let before = potential(world);
    for task in running(world) {
        let service = world.store().service(task.service_id.unwrap()).unwrap();
        let wanted = task.spec.resources.reservations.nano_cpus;
        for node in &nodes {
            let whole = node.description.as_ref().unwrap().resources.nano_cpus;
            let used: i64 = running(world)
                .filter(|other| other.node_id == Some(node.id))
                .map(|other| other.spec.resources.reservations.nano_cpus)
                .sum();
            let has_room = wanted == 0 || used + wanted <= whole;
            let is_allowed =
                task.spec.placement.constraints.is_empty() || zone(world, node.id) == "1";
            if !has_room || !is_allowed || Some(node.id) == task.node_id {
                continue;
            }
            let moved = |other: &Task| match other.id == task.id {
                true => Some(node.id),
                false => other.node_id,
            };
            let mine = || running(world).filter(|other| other.service_id == Some(service.id));
            let by_zone = match spreads(world, service.id) {
                true => squares(mine().map(|other| zone(world, moved(other).unwrap()))),
                false => 0,
            };
            let mut after = before.clone();
            after
                .0
                .insert(service.id, (by_zone, squares(mine().map(moved))));
            after.1 = squares(running(world).map(moved));
            // Evener nodes are no reason to leave a zone or to swap one.
            let is_within = !spreads(world, service.id)
                || by_zone < before.0[&service.id].0
                || zone(world, node.id) == zone(world, task.node_id.unwrap());
            if is_within && is_lower(&after, &before) {
                return Some(format!(
                    "{} {} to {}",
                    service.name(),
                    task.slot,
                    node.hostname()
                ));
            }
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn moves_lower_a_potential_and_end_where_none_helps(case in case()) {
        let mut world = World::new();
        let run = |world: &mut World, command: &str| {
            let output = world.run(command);
            assert_eq!(output, "", "{command}");
        };
        let (first, late) = case.nodes.split_at(2);
        let add = |index: usize, (zone, cpus): &(u8, u8)| {
            format!("node add n{index} label.zone={zone} cpu={cpus}")
        };
        for (index, node) in first.iter().enumerate() {
            run(&mut world, &add(index, node));
        }
        for (name, service) in SERVICES.iter().zip(&case.services) {
            let (replicas, cpus, spreads, is_start_first, is_fixed) = service;
            let words = [
                (*cpus > 0).then(|| format!("cpu={cpus}")),
                spreads.then(|| "spread=node.labels.zone".to_owned()),
                is_start_first.then(|| "update-order=start-first".to_owned()),
                is_fixed.then(|| "constraint=node.labels.zone==1".to_owned()),
            ];
            let words: Vec<String> = words.into_iter().flatten().collect();
            let words = words.join(" ");
            run(&mut world, &format!("service create {name} replicas={replicas} {words}"));
        }
        for (index, node) in late.iter().enumerate() {
            run(&mut world, &add(index + 2, node));
        }
        run(&mut world, &format!("cluster label skep.rebalance.budget={}", case.budget));
        run(&mut world, "cluster label skep.rebalance=continuous");
        let mut count = running(&world).count();
        let mut last = potential(&world);
        for _ in 0..200 {
            run(&mut world, "tick 1s");
            // Never fewer than before; a move may make room for a task that waited.
            let running_now = running(&world).count();
            prop_assert!(running_now >= count);
            let now = potential(&world);
            if running_now > count {
                (count, last) = (running_now, now);
                continue;
            }
            if is_quiet(&world) && now != last {
                prop_assert!(is_lower(&now, &last), "{:?} after {:?}", now, last);
                last = now;
            }
        }
        prop_assert_eq!(world.run("show moves"), "");
        // Services of which some tasks found no node are left alone.
        let is_whole = world.store().tasks().all(|task| task.status.state != TaskState::Pending);
        if is_whole {
            prop_assert_eq!(better(&world), None);
        }
    }
}
