//! Life of services: created, listed, changed, scaled, rolled back, removed, and what their tasks say.

use skep_conformance::Node;

#[test]
fn service_is_created_shown_updated_scaled_and_removed() {
    let node = Node::start();
    let created = node.docker_ok(
        "service create --no-resolve-image --stop-signal KILL --name web --replicas 2 skep/busybox sleep 1000",
    );
    assert!(
        created.contains("overall progress: 2 out of 2 tasks"),
        "{created}"
    );
    assert!(created.contains("converged"), "{created}");
    let list = node.docker_ok("service ls");
    for text in ["web", "replicated", "2/2", "skep/busybox"] {
        assert!(list.contains(text), "{text}: {list}");
    }
    let tasks = node.docker_ok("service ps web");
    for text in ["web.1", "web.2", "Running"] {
        assert!(tasks.contains(text), "{text}: {tasks}");
    }
    let pretty = node.docker_ok("service inspect --pretty web");
    for text in [
        "Name:",
        "Service Mode:",
        "Replicas:",
        "Image:",
        "skep/busybox",
    ] {
        assert!(pretty.contains(text), "{text}: {pretty}");
    }

    let scaled = node.docker_ok("service scale web=4");
    assert!(
        scaled.contains("web scaled to 4") && scaled.contains("converged"),
        "{scaled}"
    );
    node.docker_ok("service scale -d web=1");
    node.running("web", 1);

    node.docker_ok(
        "service update -d --no-resolve-image --env-add COLOR=red --args 'sleep 2000' web",
    );
    node.task("web", "has the new environment", |task| {
        task["Status"]["State"] == "running"
            && task["Spec"]["ContainerSpec"]["Env"][0] == "COLOR=red"
    });
    assert_eq!(
        node.exec("web", "echo $COLOR; tr \"\\\\0\" \" \" </proc/1/cmdline"),
        "red\nsleep 2000"
    );
    let before = node.container("web");
    node.docker_ok("service update -d --no-resolve-image --force web");
    node.task("web", "is another container", |task| {
        let container = task["Status"]["ContainerStatus"]["ContainerID"].as_str();
        task["Status"]["State"] == "running" && container != Some(&before)
    });
    node.docker_ok("service rollback -d web");
    node.running("web", 1);

    assert_eq!(node.docker_ok("service rm web"), "web");
    node.empty();
    let gone = node.docker_fails("service inspect web");
    assert!(gone.contains("no such service: web"), "{gone}");
}

#[test]
fn update_to_another_image_is_rolled_back() {
    let node = Node::start();
    node.create("--name web skep/httpd");
    node.running("web", 1);
    node.docker_ok(
        "service update -d --no-resolve-image --image skep/busybox --args 'sleep 500' web",
    );
    node.task("web", "has the other image", |task| {
        task["Spec"]["ContainerSpec"]["Image"] == "skep/busybox:latest"
            && task["Status"]["State"] == "running"
    });
    node.docker_ok("service rollback -d web");
    node.task("web", "has the first image again", |task| {
        task["Spec"]["ContainerSpec"]["Image"] == "skep/httpd:latest"
            && task["Status"]["State"] == "running"
            && task["DesiredState"] == "running"
    });
    let image =
        node.docker_ok("service inspect -f '{{.Spec.TaskTemplate.ContainerSpec.Image}}' web");
    assert!(image.starts_with("skep/httpd"), "{image}");
}

#[test]
fn global_service_has_one_task_for_the_node() {
    let node = Node::start();
    let created = node.docker_ok(
        "service create --no-resolve-image --stop-signal KILL --name agent --mode global skep/busybox sleep 1000",
    );
    assert!(
        created.contains("overall progress: 1 out of 1 tasks"),
        "{created}"
    );
    assert!(created.contains("converged"), "{created}");
    let list = node.docker_ok("service ls");
    assert!(list.contains("global") && list.contains("1/1"), "{list}");
    let tasks = node.tasks("agent");
    let id = node.docker_ok("node inspect -f '{{.ID}}' self");
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0]["NodeID"], id.as_str());
    let scaled = node.docker_fails("service scale agent=2");
    assert!(
        scaled.contains("scale can only be used with replicated"),
        "{scaled}"
    );
}

#[test]
fn constraints_decide_and_explain() {
    let node = Node::start();
    node.docker_ok("node update --label-add disk=ssd self");
    node.create("--name fast --constraint node.labels.disk==ssd skep/busybox sleep 1000");
    node.create("--name slow --constraint node.labels.disk==tape skep/busybox sleep 1000");
    node.running("fast", 1);
    let waiting = node.task("slow", "is explained", |task| {
        task["Status"]["Err"].is_string()
    });
    assert_eq!(waiting["Status"]["State"], "pending");
    let shown = node.docker_ok("service ps --no-trunc slow");
    assert!(
        shown.contains("no suitable node (scheduling constraints not satisfied on 1 node)"),
        "{shown}"
    );
    node.docker_ok("node update --label-add disk=tape self");
    node.running("slow", 1);
    node.running("fast", 0);
}

#[test]
fn reservations_beyond_the_node_wait() {
    let node = Node::start();
    node.create("--name big --reserve-memory 100000g skep/busybox sleep 1000");
    node.create("--name busy --reserve-cpu 1000 skep/busybox sleep 1000");
    for service in ["big", "busy"] {
        node.task(service, "is explained", |task| {
            task["Status"]["Err"].is_string()
        });
        let shown = node.docker_ok(&format!("service ps --no-trunc {service}"));
        assert!(
            shown.contains("no suitable node (insufficient resources on 1 node)"),
            "{shown}"
        );
    }
    node.docker_ok("service update -d --no-resolve-image --reserve-memory 4m big");
    node.running("big", 1);
}

#[test]
fn restart_policy_is_obeyed() {
    let node = Node::start();
    node.create("--name none --restart-condition none skep/busybox sh -c 'exit 3'");
    node.create("--name done --restart-condition on-failure skep/busybox true");
    node.create(
        "--name tries --restart-condition on-failure --restart-max-attempts 2 --restart-delay 10ms \
         skep/busybox sh -c 'exit 4'",
    );
    node.create("--name ever --restart-condition any --restart-delay 10ms skep/busybox true");
    let failed = node.task_in("none", "failed");
    assert_eq!(
        failed["Status"]["ContainerStatus"]["ExitCode"], 3,
        "{failed}"
    );
    assert_eq!(
        failed["Status"]["Err"], "task: non-zero exit (3)",
        "{failed}"
    );
    node.task_in("done", "complete");
    skep_conformance::until(
        "an ended task is replaced",
        std::time::Duration::from_secs(40),
        || {
            let ended = node.tasks("ever").len();
            if ended >= 3 {
                Ok(())
            } else {
                Err(format!("{ended} tasks"))
            }
        },
    );
    let all = || {
        node.tasks("tries")
            .iter()
            .filter(|task| task["Status"]["State"] == "failed")
            .count()
    };
    skep_conformance::until(
        "three tries failed",
        std::time::Duration::from_secs(40),
        || {
            if all() == 3 {
                Ok(())
            } else {
                Err(format!("{} failed", all()))
            }
        },
    );
    assert_eq!(node.tasks("tries").len(), 3);
    assert_eq!(node.tasks("none").len(), 1);
    assert_eq!(node.tasks("done").len(), 1);
    let shown = node.docker_ok("service ps --no-trunc tries");
    assert!(shown.contains("task: non-zero exit (4)"), "{shown}");
}

#[test]
fn task_history_is_limited() {
    let node = Node::start();
    node.docker_ok("swarm update --task-history-limit 1");
    node.create("--name flap --restart-delay 10ms skep/busybox true");
    let mut seen = std::collections::BTreeSet::new();
    skep_conformance::until(
        "five tasks came and few are kept",
        std::time::Duration::from_secs(40),
        || {
            let tasks = node.tasks("flap");
            seen.extend(tasks.iter().map(|task| task["ID"].to_string()));
            let ended = tasks
                .iter()
                .filter(|task| task["Status"]["State"] == "complete")
                .count();
            if seen.len() >= 5 && ended <= 2 {
                Ok(())
            } else {
                Err(format!("{} seen, {ended} ended", seen.len()))
            }
        },
    );
}

#[test]
fn logs_are_shown_followed_and_cut() {
    let node = Node::start();
    node.create("--name talk skep/busybox sh -c 'echo one; echo two >&2; echo three; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo four; sleep 1000'");
    node.logged("talk", "three");
    let logs = node.docker("service logs talk");
    assert!(
        logs.stdout.contains("talk.1.") && logs.stdout.contains("| one"),
        "{logs:?}"
    );
    assert!(logs.stderr.contains("| two"), "{logs:?}");
    let last = node.docker("service logs --raw --tail 1 talk").text();
    assert_eq!(last.lines().count(), 1, "{last}");
    let stamped = node.docker_ok("service logs --raw -t talk");
    let first = stamped.lines().next().unwrap();
    assert!(
        first.starts_with("20") && first.contains("Z one"),
        "{stamped}"
    );
    let since = first.split(' ').next().unwrap().to_owned();
    let later = node.docker_ok("service logs --raw --since 2099-01-01T00:00:00Z talk");
    assert_eq!(later, "");
    let all = node.docker_ok(&format!("service logs --raw --since {since} talk"));
    assert!(all.contains("three"), "{all}");

    let container = node.container("talk");
    let file = node.dir().join("followed");
    let output = std::fs::File::create(&file).unwrap();
    let mut follow = node
        .docker_command("service logs --raw -f talk")
        .stdout(output)
        .spawn()
        .unwrap();
    let mut touched = false;
    skep_conformance::until(
        "a new line is followed",
        std::time::Duration::from_secs(40),
        || {
            let text = std::fs::read_to_string(&file).unwrap();
            if text.contains("three") && !touched {
                node.docker_ok(&format!("exec {container} touch /tmp/go"));
                touched = true;
            }
            if text.contains("four") {
                Ok(())
            } else {
                Err(text)
            }
        },
    );
    follow.kill().unwrap();
    follow.wait().unwrap();
    let direct = node.docker(&format!("logs {container}"));
    assert!(
        direct.stdout.contains("four") && direct.stderr.contains("two"),
        "{direct:?}"
    );
}
