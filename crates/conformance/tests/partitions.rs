//! What a cluster survives: its leader killed, nodes cut off, nodes unplugged.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use skep_conformance::{Cluster, until};

/// Longest until a cluster that has a quorum takes commands again.
const WRITABLE: Duration = Duration::from_secs(5);

/// Creates a service on any of `managers`; returns how long that took.
fn write(cluster: &Cluster, managers: &[usize], name: &str) -> Duration {
    let start = Instant::now();
    let body = format!(
        r#"{{"Name":"{name}","TaskTemplate":{{"ContainerSpec":{{"Image":"skep/busybox"}}}},"Mode":{{"Replicated":{{"Replicas":0}}}}}}"#
    );
    until("a manager takes commands", Duration::from_secs(30), || {
        let mut said = String::new();
        for &number in managers {
            let answer = cluster
                .node(number)
                .http("POST", "/services/create", Some(&body));
            // A command whose fate was unknown may have been carried out.
            if answer.status == 201 || answer.status == 409 {
                return Ok(());
            }
            said += &format!("node{number}: {}; ", answer.message());
        }
        Err(said)
    });
    start.elapsed()
}

#[test]
fn killed_leader_is_replaced_and_its_tasks_run_elsewhere() {
    let cluster = Cluster::start(3, 3);
    cluster
        .node(1)
        .create("--name web --replicas 6 skep/busybox sleep 1000");
    cluster.placed(1, "web", 6);
    let leader = cluster.leader_as_seen_by(1);
    let others: Vec<usize> = cluster
        .numbers()
        .filter(|number| *number != leader)
        .collect();

    cluster.skep_ok(&format!("local stop --kill node{leader}"));
    let elapsed = write(&cluster, &others, "after-kill");
    assert!(elapsed < WRITABLE, "{elapsed:?}");
    let next = cluster.leader_as_seen_by(others[0]);
    assert_ne!(next, leader);
    assert_eq!(cluster.leader_as_seen_by(others[1]), next, "managers agree");
    cluster.placed_without(others[0], "web", 6, &[leader]);

    cluster.skep_ok(&format!("local start node{leader}"));
    let all = [
        ("node1", "ready reachable"),
        ("node2", "ready reachable"),
        ("node3", "ready reachable"),
    ];
    cluster.listed(leader, &all);
    cluster.converged(leader, "web", 6);
    for number in cluster.numbers() {
        let names = cluster
            .node(number)
            .docker_ok("service ls --format '{{.Name}}'");
        assert!(names.contains("after-kill"), "node{number}: {names}");
    }

    // Without a majority nothing is promised; with it all is there again.
    cluster.skep_ok(&format!("local stop --power-off node{}", others[0]));
    cluster.skep_ok(&format!("local stop --power-off node{}", others[1]));
    let refused = cluster
        .node(leader)
        .docker_fails("service create -d --no-resolve-image skep/busybox");
    assert!(refused.contains("does not have a leader"), "{refused}");
    cluster.skep_ok(&format!("local start node{} node{}", others[0], others[1]));
    cluster.listed(leader, &all);
    write(&cluster, &[1], "after-all");
    cluster.converged(1, "web", 6);
}

#[test]
fn cut_worker_is_replaced_and_gives_up_what_it_ran() {
    let cluster = Cluster::start(4, 3);
    let ready = |worker| {
        let manager = "ready reachable";
        [
            ("node1", manager),
            ("node2", manager),
            ("node3", manager),
            ("node4", worker),
        ]
    };
    cluster
        .node(1)
        .create("--name web --replicas 4 skep/busybox sleep 1000");
    assert_eq!(cluster.placed(1, "web", 4).get(&4), Some(&1));
    let container = cluster.node(4).docker_ok("ps -q");

    cluster.skep_ok("local cut node4");
    cluster.listed(2, &ready("down"));
    cluster.placed_without(2, "web", 4, &[4]);
    assert_eq!(
        cluster.node(4).docker_ok("ps -q"),
        container,
        "a node alone keeps what it runs"
    );
    cluster.skep_ok("local heal");
    cluster.listed(2, &ready("ready"));
    cluster.converged(2, "web", 4);

    // One way is enough to lose it, and healing as good.
    cluster.skep_ok("local cut node4 --one-way in");
    cluster.listed(3, &ready("down"));
    cluster.skep_ok("local heal node4");
    cluster.listed(3, &ready("ready"));
    cluster.converged(3, "web", 4);
}

#[test]
fn cut_leader_gives_way_and_follows_after_healing() {
    let cluster = Cluster::start(3, 3);
    let leader = cluster.leader_as_seen_by(1);
    let others: Vec<usize> = cluster
        .numbers()
        .filter(|number| *number != leader)
        .collect();
    cluster.skep_ok(&format!("local cut node{leader}"));
    let elapsed = write(&cluster, &others, "majority");
    assert!(elapsed < WRITABLE, "{elapsed:?}");
    // The old leader must not answer as if it still led.
    until(
        "the lonely manager knows it",
        Duration::from_secs(20),
        || {
            let answer = cluster.node(leader).http("GET", "/services", None);
            match answer.status {
                503 => Ok(()),
                _ => Err(format!("{} {}", answer.status, answer.body)),
            }
        },
    );
    let refused = cluster
        .node(leader)
        .docker_fails("service create -d --no-resolve-image --name minority skep/busybox");
    assert!(refused.contains("does not have a leader"), "{refused}");
    cluster.skep_ok("local heal");
    let all = [
        ("node1", "ready reachable"),
        ("node2", "ready reachable"),
        ("node3", "ready reachable"),
    ];
    for number in cluster.numbers() {
        cluster.listed(number, &all);
        let names = cluster
            .node(number)
            .docker_ok("service ls --format '{{.Name}}'");
        assert_eq!(names, "majority", "node{number}");
    }
}

/// Clients on all managers while managers die, one after the other: what was acknowledged is there, once.
#[test]
fn acknowledged_services_survive_the_death_of_their_managers() {
    let cluster = Cluster::start(3, 3);
    let acknowledged = thread::scope(|scope| {
        let clients: Vec<_> = cluster
            .numbers()
            .map(|number| {
                let cluster = &cluster;
                scope.spawn(move || stream(cluster, number))
            })
            .collect();
        for victim in [1, 2, 3] {
            let victim = format!("node{victim}");
            cluster.skep_ok(&format!("local stop --kill {victim}"));
            cluster.skep_ok(&format!("local start {victim}"));
            let manager = "ready reachable";
            cluster.listed(
                1,
                &[("node1", manager), ("node2", manager), ("node3", manager)],
            );
        }
        fs::write(cluster.dir().join("stop"), "").unwrap();
        let joined = clients.into_iter().map(|client| client.join().unwrap());
        joined.flatten().collect::<Vec<String>>()
    });
    assert!(acknowledged.len() > 30, "{acknowledged:?}");
    let listed = cluster.node(1).docker_ok("service ls --format '{{.Name}}'");
    let mut names: Vec<&str> = listed.lines().collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "a service is there twice");
    for name in &acknowledged {
        assert!(
            names.binary_search(&name.as_str()).is_ok(),
            "{name} was acknowledged and is lost"
        );
    }
}

/// Creates services on one manager until told to stop; returns the acknowledged ones.
fn stream(cluster: &Cluster, number: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for index in 0.. {
        if cluster.dir().join("stop").exists() {
            break;
        }
        let name = format!("s{number}-{index}");
        let body = format!(
            r#"{{"Name":"{name}","TaskTemplate":{{"ContainerSpec":{{"Image":"skep/busybox"}}}},"Mode":{{"Replicated":{{"Replicas":0}}}}}}"#
        );
        match cluster
            .node(number)
            .try_http("POST", "/services/create", Some(&body))
        {
            Ok(answer) if answer.status == 201 => acknowledged.push(name),
            // The daemon is dead for now: leave the processor to whoever starts it.
            Ok(_) | Err(_) => thread::yield_now(),
        }
    }
    acknowledged
}
