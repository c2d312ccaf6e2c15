//! `skep exec` and `skep net doctor --node` on three machines, from each manager.

use std::{process::Stdio, time::Duration};

use skep_conformance::{Cluster, until};

/// Longest wait for what should be quick.
const PATIENCE: Duration = Duration::from_secs(60);

/// `skep` as it is run beside a node's daemon.
fn on(cluster: &Cluster, number: usize, line: &str) -> String {
    let socket = cluster.node(number).socket().display().to_string();
    format!("{line} --host unix://{socket}")
}

/// `skep exec` through a node's daemon.
fn exec(cluster: &Cluster, number: usize, flags: &str, line: &str) -> String {
    format!("{} {line}", on(cluster, number, &format!("exec {flags}")))
}

#[test]
fn a_command_runs_beside_a_task_of_any_node() {
    let cluster = Cluster::start(3, 2);
    let node = cluster.node(1);
    node.create("--name web --replicas 3 --env WHO=web skep/busybox sleep 1000");
    node.create("--name each --mode global skep/busybox sleep 1000");
    node.running("web", 3);
    node.running("each", 3);

    check_names(&cluster);
    check_flags(&cluster);
    check_refusals(&cluster);
}

/// Each slot from each manager, wherever both are, with a shell's own exit code; and a task by its node, its id, its
/// service.
fn check_names(cluster: &Cluster) {
    let node = cluster.node(1);
    for asked in [1, 2] {
        for slot in 1..=3 {
            let name = format!("web.{slot}");
            let output = cluster.skep(&exec(
                cluster,
                asked,
                "",
                &format!("{name} sh -c 'echo $WHO; echo bad >&2; exit {slot}'"),
            ));
            assert_eq!(output.stdout, "web\n", "{output:?}");
            assert_eq!(
                (&*output.stderr, output.status),
                ("bad\n", slot),
                "{output:?}"
            );
        }
    }
    let host = cluster.skep_ok(&exec(cluster, 2, "", "each.node3 hostname"));
    let container = node
        .tasks("each")
        .into_iter()
        .find(|task| task["NodeID"] == cluster.id(3).as_str());
    let container =
        container.expect("a task on the node")["Status"]["ContainerStatus"]["ContainerID"].clone();
    assert!(
        container.as_str().is_some_and(|id| id.starts_with(&host)),
        "{host} {container}"
    );
    let task = node.tasks("web")[0]["ID"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(
        cluster.skep_ok(&exec(cluster, 1, "", &format!("{task} echo by id"))),
        "by id"
    );
    assert_eq!(
        cluster.skep_ok(&exec(cluster, 1, "", "web echo any")),
        "any"
    );
}

/// Flags of `docker exec`.
fn check_flags(cluster: &Cluster) {
    let flags = "-e A=1 -u 7:8 -w /tmp";
    let told = cluster.skep_ok(&exec(
        cluster,
        2,
        flags,
        "web.2 sh -c 'echo $A $(id -u) $(id -g) $(pwd)'",
    ));
    assert_eq!(told, "1 7 8 /tmp");
    let input = format!("{} < /etc/hostname", exec(cluster, 2, "-i", "web.3 wc -l"));
    assert_eq!(cluster.skep_ok(&input), "1");
    // More than any queue on the way, both ways.
    let flood = format!(
        "{} < /tmp/flood | md5sum",
        exec(cluster, 2, "-i", "web.1 cat")
    );
    cluster.inside_ok("mkdir -p /tmp; head -c 20000000 /dev/urandom > /tmp/flood");
    let sum = cluster.inside_ok("md5sum < /tmp/flood; rm -f /tmp/flood.none");
    let flood = cluster.skep_command(&flood).output().expect("a shell");
    assert_eq!(
        String::from_utf8_lossy(&flood.stdout).trim(),
        sum,
        "{flood:?}"
    );
    cluster.inside_ok("rm /tmp/flood");
    cluster.skep_ok(&exec(
        cluster,
        1,
        "-d",
        "web.3 sh -c 'sleep 1; touch /tmp/later'",
    ));
    until("it was done in the background", PATIENCE, || {
        let output = cluster.skep(&exec(cluster, 2, "", "web.3 ls /tmp/later"));
        if output.status == 0 {
            Ok(())
        } else {
            Err(output.text())
        }
    });
    let tty = cluster.skep_ok(&exec(cluster, 2, "-t", "web.1 tty"));
    assert!(tty.starts_with("/dev/pts"), "{tty}");
}

/// What cannot be.
fn check_refusals(cluster: &Cluster) {
    let missing = cluster.skep(&exec(cluster, 2, "", "web.2 /no/such"));
    assert_eq!(missing.status, 127, "{missing:?}");
    for (line, text) in [
        ("web.9 true", "service web has no task 9"),
        ("nobody true", "task nobody not found"),
        ("nobody.1 true", "task nobody.1 not found"),
    ] {
        let refused = cluster.skep_fails(&exec(cluster, 2, "", line));
        assert!(refused.contains(text), "{refused}");
    }
    let refused = cluster.skep_fails(&exec(cluster, 3, "", "web.1 true"));
    assert!(refused.contains("not a swarm manager"), "{refused}");
}

#[test]
fn who_goes_in_the_middle_is_told_of_and_nothing_is_done_twice() {
    let cluster = Cluster::start(3, 3);
    let leader = cluster.leader_as_seen_by(1);
    let (asked, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let node = cluster.node(asked);
    node.create(&format!(
        "--name web --constraint node.hostname==node{other} --mount type=volume,source=runs,target=/runs skep/busybox sleep 1000"
    ));
    node.running("web", 1);
    // The node's daemon is killed under the command, which goes on.
    let line = exec(
        &cluster,
        asked,
        "",
        "web.1 sh -c 'echo run >> /runs/all; sleep 2; echo end >> /runs/all'",
    );
    let mut command = cluster.skep_command(&line);
    let client = command.stderr(Stdio::piped()).spawn().expect("skep");
    let runs = || cluster.skep(&exec(&cluster, asked, "", "web.1 cat /runs/all"));
    until("it runs", PATIENCE, || {
        let runs = runs();
        if runs.stdout == "run\n" {
            Ok(())
        } else {
            Err(runs.text())
        }
    });
    cluster.skep_ok(&format!("local stop --kill node{other}"));
    let output = client.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("disconnected"),
        "{said}"
    );
    cluster.skep_ok(&format!("local start node{other}"));
    until("the command has gone on", PATIENCE, || {
        let runs = runs();
        if runs.stdout == "run\nend\n" {
            Ok(())
        } else {
            Err(runs.text())
        }
    });
}

#[test]
fn networks_of_other_nodes_are_examined_through_a_manager() {
    let cluster = Cluster::start(3, 1);
    let all = cluster.skep_ok(&on(&cluster, 1, "net doctor --all"));
    for number in cluster.numbers() {
        assert!(all.contains(&format!("node{number}: all is well")), "{all}");
    }
    let one = cluster.skep_ok(&on(&cluster, 1, "net doctor --heal --node node3"));
    assert_eq!(one.lines().count(), 1, "{one}");
    cluster.skep_ok("local stop --kill node3");
    let output = cluster.skep(&on(&cluster, 1, "net doctor --all"));
    assert!(
        output.status != 0 && output.stdout.contains("node1: all is well"),
        "{output:?}"
    );
    let text = format!("node {} is not available", cluster.id(1));
    assert!(
        !output.text().contains(&text) && output.text().contains("is not available"),
        "{output:?}"
    );
}
