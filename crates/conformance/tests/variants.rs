//! The basics again with each OCI runtime, with Debian's older docker command, and on cgroup v2.

use std::{env, fs, path::PathBuf, process::Command};

use skep_conformance::{Node, Options, binary, images, root};

/// A service's life, in short.
fn check_basics(options: Options) {
    let node = Node::with(options);
    let created = node.docker_ok(
        "service create --no-resolve-image --stop-signal KILL --name web --replicas 2 --limit-memory 64m \
         --env A=b skep/busybox sh -c 'echo hello; sleep 1000'",
    );
    assert!(
        created.contains("overall progress: 2 out of 2 tasks"),
        "{created}"
    );
    assert!(
        created.contains("converged") || created.contains("verify: Service converged"),
        "{created}"
    );
    assert!(node.docker_ok("service ls").contains("2/2"));
    assert!(node.docker_ok("service ps web").contains("web.2"));
    assert!(
        node.docker_ok("service inspect --pretty web")
            .contains("Replicas:")
    );
    node.logged("web", "hello");
    node.docker_ok("service scale -d web=1");
    assert_eq!(node.exec("web", "echo $A"), "b");
    let container = node.container("web");
    assert!(node.docker_ok("ps").contains(&container[..12]));
    assert_eq!(node.docker_ok(&format!("logs {container}")), "hello");
    assert!(
        node.docker_ok(&format!("top {container}"))
            .contains("sleep 1000")
    );
    assert!(node.docker_ok("stats --no-stream").contains("/ 64MiB"));
    assert_eq!(
        node.docker(&format!("exec {container} sh -c 'exit 7'"))
            .status,
        7
    );
    node.docker_ok("service update -d --no-resolve-image --force web");
    node.task("web", "is another container", |task| {
        let now = task["Status"]["ContainerStatus"]["ContainerID"].as_str();
        task["Status"]["State"] == "running" && now != Some(&container)
    });
    for command in [
        "version",
        "info",
        "node ls",
        "node ps self",
        "images",
        "node inspect --pretty self",
    ] {
        node.docker_ok(command);
    }
    node.docker_ok("service rm web");
    node.empty();
    check_networks(&node);
    node.docker_ok("swarm leave --force");
}

/// A network's life, in short.
fn check_networks(node: &Node) {
    node.docker_ok("network create -d overlay --attachable --subnet 10.11.0.0/24 back");
    node.docker_ok("service create -d --no-resolve-image --name api --replicas 0 --network back -p 8080:80 skep/httpd");
    let listed = node.docker_ok("network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'");
    assert!(listed.contains("back overlay swarm"), "{listed}");
    let subnet = node.docker_ok("network inspect -v -f '{{(index .IPAM.Config 0).Subnet}}' back");
    assert_eq!(subnet, "10.11.0.0/24");
    let pretty = node.docker_ok("service inspect --pretty api");
    assert!(pretty.contains("Networks: back"), "{pretty}");
    assert!(node.docker_ok("service ls").contains("*:8080->80/tcp"));
    let refused = node.docker_fails("network rm back");
    assert!(refused.contains("is in use by service"), "{refused}");
    node.docker_ok("service rm api");
    assert!(node.docker_ok("network prune -f").contains("back"));
}

#[expect(clippy::print_stderr, reason = "a skipped test must be loud")]
fn skip(reason: &str, detail: &[u8]) {
    eprintln!("SKIPPED: {reason}: {}", String::from_utf8_lossy(detail));
}

fn runtime(name: &str) -> Options {
    Options {
        flags: vec!["--oci-runtime".into(), name.into()],
        ..Options::default()
    }
}

#[test]
fn basics_work_with_crun() {
    check_basics(runtime("crun"));
}

#[test]
fn basics_work_with_runc() {
    check_basics(runtime("runc"));
}

#[test]
fn basics_work_with_the_docker_command_of_debian() {
    let output = Command::new(root().join("fixtures/docker-20.10"))
        .output()
        .unwrap();
    if !output.status.success() {
        skip("Debian's docker.io package cannot be had", &output.stderr);
        return;
    }
    let docker = String::from_utf8(output.stdout).unwrap();
    check_basics(Options {
        docker: Some(docker.trim().into()),
        ..Options::default()
    });
}

/// The machine is emulated: this takes half a minute alone, and twice that beside other tests.
#[test]
fn limits_hold_on_cgroup_v2() {
    let script = fs::read_to_string(root().join("fixtures/vm/limits-on-cgroup-v2")).unwrap();
    // The guest has memory of its own at /tmp, /run and /var/lib, so what it is to see is put where
    // the virtual machine's kernel is kept.
    let cache = env::var_os("SKEP_CACHE").map_or("/var/cache/skep".into(), PathBuf::from);
    fs::create_dir_all(&cache).unwrap();
    let shared = tempfile::Builder::new()
        .prefix("guest-")
        .tempdir_in(cache)
        .unwrap();
    let (skep, archives) = (shared.path().join("skep"), shared.path().join("images"));
    fs::copy(binary(), &skep).unwrap();
    fs::create_dir(&archives).unwrap();
    for archive in fs::read_dir(images()).unwrap() {
        let archive = archive.unwrap();
        fs::copy(archive.path(), archives.join(archive.file_name())).unwrap();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let variables = format!(
        "SKEP={} IMAGES={} PATH={}\n",
        skep.display(),
        archives.display(),
        path.display()
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), variables + &script).unwrap();
    let mut run = Command::new(root().join("fixtures/vm/run"));
    run.arg(file.path()).env("SKEP_VM_TIMEOUT", "600");
    let output = run.output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{said:?}");
    assert!(said[0].contains("limits hold on cgroup v2"), "{said:?}");
}
