//! What survives: the daemon killed, stopped, killed while it writes; containers that end while nobody looks.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use skep_conformance::{Node, until};

/// Containers with their processes.
fn processes(node: &Node) -> BTreeMap<String, String> {
    let ids = node.docker_ok("ps -q --no-trunc").replace('\n', " ");
    let text = node.docker_ok(&format!(
        "inspect -f '{{{{.Id}}}} {{{{.State.Pid}}}}' {ids}"
    ));
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(id, pid)| (id.to_owned(), pid.to_owned()))
        .collect()
}

/// Fifty containers outlive the daemon; the one that ended meanwhile is reported and replaced.
#[test]
fn killed_daemon_finds_its_fifty_containers_again() {
    const COUNT: usize = 50;
    let mut node = Node::start();
    node.create(&format!("--name many --replicas {COUNT} --restart-delay 10ms skep/busybox sh -c 'trap \"exit 9\" USR1; while :; do sleep 1000 & wait; done'"));
    node.running("many", COUNT);
    let before = processes(&node);
    assert_eq!(before.len(), COUNT);
    node.kill_daemon();
    for pid in before.values() {
        node.inside_ok(&format!("kill -0 {pid}"));
    }
    let (lost, pid) = before.first_key_value().unwrap();
    node.inside_ok(&format!(
        "kill -USR1 {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.02; done"
    ));

    let start = Instant::now();
    node.start_daemon();
    let after = until("all are found again", Duration::from_secs(20), || {
        let found = processes(&node);
        let known = before.keys().filter(|id| found.contains_key(*id)).count();
        if known == COUNT - 1 {
            Ok(found)
        } else {
            Err(format!("{known} found"))
        }
    });
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    for (id, pid) in before.iter().filter(|(id, _)| *id != lost) {
        assert_eq!(after.get(id), Some(pid), "{id} is another process");
    }
    let failed = node.task("many", "failed meanwhile", |task| {
        task["Status"]["State"] == "failed"
    });
    let status = &failed["Status"]["ContainerStatus"];
    assert_eq!(status["ContainerID"], lost.as_str(), "{failed}");
    assert_eq!(status["ExitCode"], 9, "{failed}");
    node.running("many", COUNT);
    let end = processes(&node);
    assert_eq!(end.len(), COUNT);
    assert_eq!(
        end.iter()
            .filter(|(id, pid)| before.get(*id) == Some(pid))
            .count(),
        COUNT - 1
    );
}

#[test]
fn acknowledged_services_survive_a_kill() {
    let mut node = Node::start();
    let dir = node.dir().to_owned();
    let script = format!(
        "cd {} && for n in $(seq 2000); do \
           body='{{\"Name\":\"s'$n'\",\"TaskTemplate\":{{\"ContainerSpec\":{{\"Image\":\"skep/busybox\"}}}},\"Mode\":{{\"Replicated\":{{\"Replicas\":0}}}}}}'; \
           curl -sf --unix-socket skep.sock -H 'Content-Type: application/json' -d \"$body\" http://docker/services/create >> acknowledged || exit 0; \
           echo >> acknowledged; done",
        dir.display()
    );
    let mut burst = node.spawn_inside("bash", &["-c", &script]);
    let count = || {
        std::fs::read_to_string(dir.join("acknowledged"))
            .unwrap_or_default()
            .matches("\"ID\"")
            .count()
    };
    until("some are acknowledged", Duration::from_secs(40), || {
        if count() >= 30 {
            Ok(())
        } else {
            Err(format!("{} acknowledged", count()))
        }
    });
    node.kill_daemon();
    burst.wait().unwrap();
    node.start_daemon();
    until("the node leads again", Duration::from_secs(20), || {
        let answer = node.http("GET", "/services", None);
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.message())
        }
    });
    let kept = node.json("/services").to_string();
    let text = std::fs::read_to_string(dir.join("acknowledged")).unwrap();
    let ids: Vec<&str> = text.split('"').filter(|part| part.len() == 25).collect();
    assert!(ids.len() >= 30, "{text}");
    for id in ids {
        assert!(kept.contains(id), "{id} was acknowledged and is lost");
    }
}

#[test]
fn stopped_daemon_leaves_containers_running() {
    let mut node = Node::start();
    node.create("--name web --replicas 3 skep/busybox sleep 1000");
    node.running("web", 3);
    let before = processes(&node);
    node.stop_daemon();
    for pid in before.values() {
        node.inside_ok(&format!("kill -0 {pid}"));
    }
    node.start_daemon();
    until("all are found again", Duration::from_secs(20), || {
        let after = processes(&node);
        if after == before {
            Ok(())
        } else {
            Err(format!("{after:?}"))
        }
    });
    node.running("web", 3);
    node.docker_ok("service rm web");
    node.empty();
}
