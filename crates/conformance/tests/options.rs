//! Every option of a service's containers, observed from inside the container or in the kernel.

use std::{fs, path::Path, time::Duration};

use skep_conformance::{Node, until};

#[test]
fn container_has_its_command_environment_identity_and_place() {
    let node = Node::start();
    node.create(
        "--name who --env COLOR=red --env EMPTY= --label s=1 --container-label c=2 --user 65534:65534 \
         --workdir /var/log --hostname h-1 skep/busybox sh -c 'echo args $0 $1; exec sleep 1000' A 'B C'",
    );
    node.logged("who", "args A B C");
    assert_eq!(
        node.exec("who", "echo $COLOR; id -u; id -g; pwd; hostname"),
        "red\n65534\n65534\n/var/log\nh-1"
    );
    assert_eq!(node.exec("who", "env | grep -c ^EMPTY=$"), "1");
    let container = node.container("who");
    assert_eq!(
        node.docker_ok(&format!(
            "inspect -f '{{{{.Config.Labels.c}}}}' {container}"
        )),
        "2"
    );
    assert_eq!(
        node.docker_ok(&format!(
            "inspect -f '{{{{index .Config.Labels \"com.docker.swarm.service.name\"}}}}' {container}"
        )),
        "who"
    );
    assert_eq!(
        node.docker_ok("service inspect -f '{{.Spec.Labels.s}}' who"),
        "1"
    );

    node.docker_ok(
        "service create -d --no-resolve-image --stop-signal KILL --name command --entrypoint /bin/sleep skep/busybox 777",
    );
    assert_eq!(
        node.exec("command", "tr \"\\\\0\" \" \" </proc/1/cmdline"),
        "/bin/sleep 777"
    );
}

#[test]
fn container_can_have_a_terminal() {
    let node = Node::start();
    node.create("--name tty -t skep/busybox sh -c 'test -t 1 && echo terminal $TERM; sleep 1000'");
    node.create("--name plain skep/busybox sh -c 'test -t 1 || echo none; sleep 1000'");
    node.logged("plain", "none");
    node.logged("tty", "terminal xterm");
}

#[test]
fn container_root_can_be_read_only() {
    let node = Node::start();
    node.create(
        "--name ro --read-only --mount type=tmpfs,dst=/scratch,tmpfs-size=1m skep/busybox sleep 1000",
    );
    let said = node.exec("ro", "touch /etc/x 2>&1; touch /scratch/x && echo scratch");
    assert!(
        said.contains("Read-only file system") && said.ends_with("scratch"),
        "{said}"
    );
    let full = node.exec(
        "ro",
        "dd if=/dev/zero of=/scratch/big bs=64k count=64 2>&1 || true",
    );
    assert!(full.contains("No space left"), "{full}");
}

#[test]
fn container_is_stopped_by_its_signal_and_killed_after_its_grace() {
    let node = Node::start();
    let trap = "sh -c 'trap \"echo got it; exit 0\" USR1; while :; do sleep 0.05; done'";
    node.docker_ok(&format!(
        "service create -d --no-resolve-image --name polite --stop-signal SIGUSR1 --restart-condition none \
         skep/busybox {trap}"
    ));
    node.docker_ok(
        "service create -d --no-resolve-image --name deaf --stop-grace-period 1s skep/busybox sleep 1000",
    );
    let containers = [(node.container("polite"), 0), (node.container("deaf"), 137)];
    node.docker_ok("service scale -d polite=0 deaf=0");
    node.running("polite", 0);
    node.running("deaf", 0);
    for (container, code) in containers {
        let line = format!(
            "events --since 1h --until 0s --filter container={container} --filter event=die"
        );
        until("the end is told", Duration::from_secs(20), || {
            let died = node.docker_ok(&line);
            if died.contains(&format!("exitCode={code},")) {
                Ok(())
            } else {
                Err(died)
            }
        });
    }
}

#[test]
fn container_has_capabilities_ulimits_and_sysctls() {
    let node = Node::start();
    node.create(
        "--name caps --cap-add NET_ADMIN --cap-drop CHOWN --ulimit nofile=1234:2345 \
         --sysctl net.ipv4.ip_default_ttl=77 skep/busybox sleep 1000",
    );
    let said = node.exec(
        "caps",
        "grep CapEff /proc/1/status; ulimit -Sn; ulimit -Hn; cat /proc/sys/net/ipv4/ip_default_ttl",
    );
    let lines: Vec<&str> = said.lines().collect();
    let effective = u64::from_str_radix(lines[0].split_whitespace().last().unwrap(), 16).unwrap();
    assert_eq!(effective & 1, 0, "CHOWN is dropped: {said}");
    assert_eq!(effective >> 12 & 1, 1, "NET_ADMIN is added: {said}");
    assert_eq!(effective >> 21 & 1, 0, "SYS_ADMIN is not given: {said}");
    assert_eq!(lines[1..], ["1234", "2345", "77"], "{said}");
    let changed = node.exec("caps", "chown 1 /etc/passwd 2>&1 || true");
    assert!(changed.contains("not permitted"), "{changed}");
}

#[test]
fn container_has_bind_volume_and_image_content() {
    let node = Node::start();
    let shared = node.dir().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("in"), "from host").unwrap();
    let source = shared.display();
    node.create(&format!(
        "--name files --mount type=bind,src={source},dst=/shared --mount type=bind,src={source},dst=/ro,readonly \
         --mount type=volume,src=pages,dst=/www --mount type=volume,src=blank,dst=/www2,volume-nocopy \
         skep/httpd sleep 1000"
    ));
    assert_eq!(
        node.exec(
            "files",
            "cat /shared/in; echo back > /shared/out; cat /www/index.html"
        ),
        "from hostit works"
    );
    assert_eq!(fs::read_to_string(shared.join("out")).unwrap(), "back\n");
    let refused = node.exec("files", "touch /ro/x 2>&1; ls /ro");
    assert!(
        refused.contains("Read-only file system") && refused.ends_with("in\nout"),
        "{refused}"
    );
    node.exec("files", "echo kept > /www/kept");
    node.docker_ok("service rm files");
    node.empty();
    node.create("--name again --mount type=volume,src=pages,dst=/data skep/busybox sleep 1000");
    assert_eq!(
        node.exec("again", "cat /data/kept /data/index.html"),
        "kept\nit works"
    );
    let volumes = node.docker_ok("volume ls -q");
    assert!(
        volumes.contains("pages") && volumes.contains("blank"),
        "{volumes}"
    );
    let used = node.docker_fails("volume rm pages");
    assert!(used.contains("volume is in use"), "{used}");
    node.create(&format!("--name lost --restart-condition none --mount type=bind,src={source}/none,dst=/x skep/busybox true"));
    let rejected = node.task_in("lost", "rejected");
    let text = rejected["Status"]["Err"].as_str().unwrap();
    assert!(text.contains("bind source path does not exist"), "{text}");
}

/// One value of the container's control group of a version 1 hierarchy.
fn cgroup(controller: &str, container: &str, file: &str) -> String {
    let path = Path::new("/sys/fs/cgroup")
        .join(controller)
        .join("skep")
        .join(container)
        .join(file);
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim()
        .to_owned()
}

#[test]
fn container_limits_reach_the_kernel() {
    let node = Node::start();
    node.create(
        "--name small --limit-memory 32m --limit-cpu 0.5 --limit-pids 20 skep/busybox sleep 1000",
    );
    let container = node.container("small");
    if Path::new("/sys/fs/cgroup/memory").exists() {
        assert_eq!(
            cgroup("memory", &container, "memory.limit_in_bytes"),
            "33554432"
        );
        assert_eq!(cgroup("pids", &container, "pids.max"), "20");
        let quota: f64 = cgroup("cpu", &container, "cpu.cfs_quota_us")
            .parse()
            .unwrap();
        let period: f64 = cgroup("cpu", &container, "cpu.cfs_period_us")
            .parse()
            .unwrap();
        assert!((quota / period - 0.5).abs() < 0.001, "{quota} of {period}");
    }
    let stats = node.docker_ok("stats --no-stream --format '{{.MemUsage}} {{.PIDs}}'");
    assert!(stats.contains("/ 32MiB 1"), "{stats}");
}

#[test]
fn container_that_needs_too_much_memory_is_reported() {
    let node = Node::start();
    node.create(
        "--name greedy --limit-memory 16m --restart-condition none skep/busybox tail /dev/zero",
    );
    let failed = node.task_in("greedy", "failed");
    assert_eq!(
        failed["Status"]["ContainerStatus"]["ExitCode"], 137,
        "{failed}"
    );
    let container = failed["Status"]["ContainerStatus"]["ContainerID"]
        .as_str()
        .unwrap();
    assert_eq!(
        node.docker_ok(&format!(
            "inspect -f '{{{{.State.OOMKilled}}}}' {container}"
        )),
        "true"
    );
    let shown = node.docker_ok("service ps --no-trunc greedy");
    assert!(
        shown.contains("task: non-zero exit (137): OOMKilled"),
        "{shown}"
    );
    until("the event is told", Duration::from_secs(20), || {
        let now = node.inside_ok("date +%s");
        let filter = format!("--filter container={container} --filter event=oom");
        let events = node.docker_ok(&format!("events --since 1 --until {} {filter}", now.trim()));
        if events.contains("container oom") {
            Ok(())
        } else {
            Err(events)
        }
    });
}
