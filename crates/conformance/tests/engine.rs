//! The containers of the node, through the engine's own commands.

use std::{
    io::{Read, Write},
    process::Stdio,
    time::Duration,
};

use skep_conformance::{Node, until};

#[test]
fn containers_are_listed_inspected_and_measured() {
    let node = Node::start();
    node.create("--name web skep/busybox sh -c 'echo hello; exec sleep 1000'");
    let container = node.container("web");
    let list = node.docker_ok("ps --no-trunc");
    for text in [container.as_str(), "skep/busybox", "web.1.", "Up "] {
        assert!(list.contains(text), "{text}: {list}");
    }
    let short = &container[..12];
    assert_eq!(node.docker_ok(&format!("ps -q --filter id={short}")), short);
    assert_eq!(
        node.docker_ok("ps -q --filter label=com.docker.swarm.service.name=other"),
        ""
    );
    let state = node.docker_ok(&format!(
        "inspect -f '{{{{.State.Status}}}} {{{{.State.Running}}}}' {short}"
    ));
    assert_eq!(state, "running true");
    assert_eq!(
        node.docker_ok(&format!("inspect -f '{{{{.Path}}}}' {short}")),
        "sh"
    );
    let pid = node.docker_ok(&format!("inspect -f '{{{{.State.Pid}}}}' {short}"));
    assert_eq!(
        node.inside_ok(&format!("tr '\\0' ' ' </proc/{pid}/cmdline")),
        "sleep 1000"
    );
    assert!(
        node.docker_ok(&format!("top {short}"))
            .contains("sleep 1000")
    );
    assert_eq!(node.docker_ok(&format!("logs {short}")), "hello");
    let stats = node.docker_ok("stats --no-stream");
    assert!(
        stats.contains("web.1.") && stats.contains("iB / "),
        "{stats}"
    );
    let missing = node.docker_fails("inspect --type container nobody");
    assert!(missing.contains("No such container: nobody"), "{missing}");
}

#[test]
fn exec_runs_commands_with_their_input_terminal_and_status() {
    let node = Node::start();
    node.create("--name web skep/busybox sleep 1000");
    let container = node.container("web");
    let failed = node.docker(&format!(
        "exec {container} sh -c 'echo out; echo err >&2; exit 7'"
    ));
    assert_eq!(
        (
            failed.status,
            failed.stdout.as_str(),
            failed.stderr.as_str()
        ),
        (7, "out\n", "err\n")
    );
    let said = node.docker_ok(&format!(
        "exec -e A=b -w /tmp -u 65534 {container} sh -c 'echo $A; pwd; id -u'"
    ));
    assert_eq!(said, "b\n/tmp\n65534");
    let unknown = node.docker(&format!("exec {container} /no/such/program"));
    assert!([126, 127].contains(&unknown.status), "{unknown:?}");

    let mut wc = node.docker_command(&format!("exec -i {container} wc -c"));
    let mut child = wc
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = vec![b'x'; 300_000];
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let mut counted = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut counted)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(counted.trim(), "300000");

    let socket = node.dir().join("skep.sock");
    let script = format!(
        "script -qec \"docker -H unix://{} exec -it {container} sh -c 'test -t 0 && stty size && echo is terminal'\" /dev/null",
        socket.display()
    );
    let terminal = node.inside_ok(&format!(
        "stty rows 24 cols 80 2>/dev/null; {script} </dev/null"
    ));
    assert!(terminal.contains("is terminal"), "{terminal}");
}

#[test]
fn stopped_and_removed_containers_are_replaced() {
    let node = Node::start();
    node.create("--name web --restart-delay 10ms skep/busybox sleep 1000");
    for command in ["stop -t 1", "kill", "rm -f"] {
        let before = node.container("web");
        node.docker_ok(&format!("{command} {before}"));
        node.task("web", "is another container", |task| {
            let container = task["Status"]["ContainerStatus"]["ContainerID"].as_str();
            task["Status"]["State"] == "running" && container != Some(&before)
        });
    }
    let running = node.container("web");
    let refused = node.docker_fails(&format!("rm {running}"));
    assert!(refused.contains("container is running"), "{refused}");
}

#[test]
fn wait_and_events_tell_of_an_end() {
    let node = Node::start();
    let file = node.dir().join("events");
    let output = std::fs::File::create(&file).unwrap();
    // From before the service is made: the command takes a moment to subscribe.
    let mut events = node
        .docker_command("events --since 1")
        .stdout(output)
        .spawn()
        .unwrap();
    node.create("--name web --restart-condition none skep/busybox sh -c 'while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 5'");
    let container = node.container("web");
    let mut wait = node.docker_command(&format!("wait {container}"));
    let mut wait = wait.stdout(Stdio::piped()).spawn().unwrap();
    // The container ends as soon as the file is there, and takes the process that made it along.
    let made = node.docker(&format!("exec {container} touch /tmp/go"));
    assert!([0, 137].contains(&made.status), "{made:?}");
    let mut code = String::new();
    wait.stdout
        .take()
        .unwrap()
        .read_to_string(&mut code)
        .unwrap();
    wait.wait().unwrap();
    assert_eq!(code.trim(), "5");
    until("events tell", Duration::from_secs(20), || {
        let text = std::fs::read_to_string(&file).unwrap();
        let wanted = [
            "service create",
            "container create",
            "container start",
            "container die",
            "exitCode=5",
        ];
        match wanted.iter().find(|part| !text.contains(*part)) {
            None => Ok(()),
            Some(part) => Err(format!("no `{part}` in {text}")),
        }
    });
    events.kill().unwrap();
    events.wait().unwrap();
    until("past events are told", Duration::from_secs(20), || {
        let line = "events --since 1h --until 0s --filter type=container --filter event=die";
        let past = node.docker_ok(line);
        if past.contains(&container) {
            Ok(())
        } else {
            Err(past)
        }
    });
}

#[test]
fn host_ports_reach_the_container_and_conflict() {
    let node = Node::start();
    node.create("--name web --publish mode=host,published=8080,target=80 skep/httpd");
    let container = node.container("web");
    let page = until("the page is served", Duration::from_secs(20), || {
        let output = node.inside("curl -s -m 2 http://127.0.0.1:8080/");
        if output.status == 0 {
            Ok(output.stdout)
        } else {
            Err(format!("{output:?}"))
        }
    });
    assert_eq!(page, "it works\n");
    assert_eq!(
        node.exec("web", "wget -q -O - http://127.0.0.1:80/"),
        "it works"
    );
    let shown = node.docker_ok("service ps web");
    assert!(shown.contains("*:8080->80/tcp"), "{shown}");
    let listed = node.docker_ok(&format!(
        "ps --filter id={container} --format '{{{{.Ports}}}}'"
    ));
    assert!(listed.contains("8080->80/tcp"), "{listed}");

    node.create("--name second --publish mode=host,published=8080,target=80 skep/httpd");
    node.task("second", "is explained", |task| {
        task["Status"]["Err"].is_string()
    });
    let shown = node.docker_ok("service ps --no-trunc second");
    assert!(
        shown.contains("no suitable node (host-mode port already in use on 1 node)"),
        "{shown}"
    );
    node.docker_ok("service rm web");
    node.running("second", 1);
}

#[test]
fn containers_reach_the_host_and_the_outside() {
    let node = Node::start();
    node.inside_ok("ip link add outside type veth peer name beyond && ip link set beyond up && ip addr add 192.0.2.1/24 dev outside && ip link set outside up");
    let dir = node.dir().join("page");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("index.html"), "host page").unwrap();
    let mut server = node.spawn_inside(
        "busybox",
        &[
            "httpd",
            "-f",
            "-p",
            "192.0.2.1:8000",
            "-h",
            dir.to_str().unwrap(),
        ],
    );
    node.create("--name web skep/busybox sleep 1000");
    let container = node.container("web");
    until("the host's page is seen", Duration::from_secs(20), || {
        let output = node.docker(&format!(
            "exec {container} wget -q -O - http://192.0.2.1:8000/"
        ));
        if output.stdout == "host page" {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
    server.kill().unwrap();
    server.wait().unwrap();
}
