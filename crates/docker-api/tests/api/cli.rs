//! The stock `docker` CLI against the server. Skipped, loudly, where there is none.

use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;

use crate::server::Served;

/// Runs `docker` with `args`; `None` when it is not installed.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
async fn docker(served: &Served, args: &[&str], input: &[u8]) -> Option<Output> {
    let mut command = tokio::process::Command::new("docker");
    command
        .args(args)
        .env("DOCKER_HOST", served.host())
        .env("DOCKER_CONFIG", served.directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("SKIPPED: no docker CLI ({error})");
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(input).await.unwrap();
    Some(child.wait_with_output().await.unwrap())
}

/// Runs `docker`, which must succeed, and returns what it printed.
async fn ok(served: &Served, args: &[&str]) -> Option<String> {
    with_input(served, args, b"").await
}

async fn with_input(served: &Served, args: &[&str], input: &[u8]) -> Option<String> {
    let output = docker(served, args, input).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        text(&output.stderr)
    );
    Some(text(&output.stdout) + &text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_created_followed_changed_and_removed() {
    let served = Served::start();
    let Some(text) = ok(&served, &["swarm", "init"]).await else {
        return;
    };
    assert!(text.contains("Swarm initialized: current node"), "{text}");
    let create = ["service", "create", "--name", "web", "--no-resolve-image"];
    let monitor = ["--update-monitor", "100ms", "--replicas", "2", "-p"];
    let rest = [
        "mode=host,target=80,published=8080",
        "busybox",
        "sleep",
        "1000",
    ];
    let args = [&create[..], &monitor[..], &rest[..]].concat();
    let text = ok(&served, &args).await.unwrap();
    assert!(
        text.contains("overall progress: 2 out of 2 tasks"),
        "{text}"
    );
    assert!(text.contains("converged"), "{text}");
    let text = ok(&served, &["service", "ls"]).await.unwrap();
    assert!(text.contains("web") && text.contains("2/2"), "{text}");
    let text = ok(&served, &["service", "ps", "web"]).await.unwrap();
    assert!(text.contains("web.1") && text.contains("host1"), "{text}");
    let text = ok(&served, &["service", "inspect", "--pretty", "web"])
        .await
        .unwrap();
    assert!(
        text.contains("Replicas:") && text.contains("PublishMode = host"),
        "{text}"
    );
    let text = ok(&served, &["service", "scale", "web=3"]).await.unwrap();
    assert!(text.contains("web scaled to 3"), "{text}");
    let text = ok(
        &served,
        &["service", "update", "--env-add", "A=b", "-q", "web"],
    )
    .await
    .unwrap();
    assert!(text.contains("web"), "{text}");
    let text = ok(&served, &["service", "update", "--rollback", "-d", "web"])
        .await
        .unwrap();
    assert!(text.contains("web"), "{text}");
    let text = ok(&served, &["service", "logs", "-t", "web"])
        .await
        .unwrap();
    assert!(text.contains("web.1.") && text.contains("@host1"), "{text}");
    assert!(text.contains("| hello from slot 1"), "{text}");
    let text = ok(&served, &["service", "rm", "web"]).await.unwrap();
    assert_eq!(text.trim(), "web");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_swarm_are_shown_and_changed() {
    let served = Served::start();
    if ok(&served, &["swarm", "init"]).await.is_none() {
        return;
    }
    let text = ok(&served, &["node", "ls"]).await.unwrap();
    assert!(text.contains("host1") && text.contains("Leader"), "{text}");
    let text = ok(&served, &["node", "inspect", "--pretty", "self"])
        .await
        .unwrap();
    assert!(
        text.contains("Availability:         \tActive") || text.contains("Active"),
        "{text}"
    );
    ok(
        &served,
        &["node", "update", "--label-add", "rack=1", "host1"],
    )
    .await;
    let text = ok(&served, &["node", "inspect", "self"]).await.unwrap();
    assert!(text.contains("\"rack\": \"1\""), "{text}");
    let text = ok(&served, &["swarm", "update", "--task-history-limit", "2"])
        .await
        .unwrap();
    assert!(text.contains("Swarm updated."), "{text}");
    let text = ok(&served, &["swarm", "join-token", "-q", "worker"])
        .await
        .unwrap();
    assert_eq!(text.trim(), "SWMTKN-1-w");
    let text = ok(&served, &["info"]).await.unwrap();
    assert!(
        text.contains("Swarm: active") && text.contains("Is Manager: true"),
        "{text}"
    );
    assert!(text.contains("Task History Retention Limit: 2"), "{text}");
    let refused = docker(&served, &["swarm", "leave"], b"").await.unwrap();
    assert!(!refused.status.success());
    let text = ok(&served, &["swarm", "leave", "--force"]).await.unwrap();
    assert!(text.contains("Node left the swarm."), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_listed_pulled_loaded_and_removed() {
    let served = Served::start();
    let Some(text) = ok(&served, &["image", "ls"]).await else {
        return;
    };
    assert!(
        text.contains("busybox") && text.contains("latest"),
        "{text}"
    );
    let text = ok(&served, &["pull", "busybox"]).await.unwrap();
    assert!(
        text.contains("Pull complete") && text.contains("Status: Downloaded"),
        "{text}"
    );
    let refused = docker(&served, &["pull", "registry:5000/private"], b"")
        .await
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no basic auth credentials"));
    let text = with_input(&served, &["load"], b"archive").await.unwrap();
    assert!(
        text.contains("Loaded image: busybox:latest (7 bytes)"),
        "{text}"
    );
    let text = with_input(&served, &["import", "-", "x:y"], b"archive")
        .await
        .unwrap();
    assert!(text.contains("sha256:abab"), "{text}");
    let text = ok(&served, &["image", "inspect", "busybox"]).await.unwrap();
    assert!(text.contains("\"Architecture\": \"amd64\""), "{text}");
    ok(&served, &["tag", "busybox", "b:2"]).await;
    assert!(
        ok(&served, &["history", "busybox"])
            .await
            .unwrap()
            .contains("CMD sh")
    );
    let text = ok(&served, &["image", "rm", "busybox"]).await.unwrap();
    assert!(text.contains("Untagged: busybox:latest") && text.contains("Deleted: sha256:"));
    let text = ok(&served, &["image", "prune", "-f"]).await.unwrap();
    assert!(text.contains("Total reclaimed space: 123B"), "{text}");
    let text = ok(&served, &["system", "df"]).await.unwrap();
    assert!(text.contains("Images"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_shown_and_entered() {
    let served = Served::start();
    let Some(text) = ok(&served, &["ps"]).await else {
        return;
    };
    assert!(
        text.contains("0.0.0.0:8080->80/tcp") && text.contains("web.1.abc"),
        "{text}"
    );
    assert!(
        ok(&served, &["ps", "-a"])
            .await
            .unwrap()
            .contains("Exited (3)")
    );
    assert!(
        ok(&served, &["inspect", "web.1.abc"])
            .await
            .unwrap()
            .contains("\"Pid\": 42")
    );
    assert_eq!(
        ok(&served, &["logs", "web.1.abc"]).await.unwrap(),
        "out\nerr\n"
    );
    assert!(
        ok(&served, &["top", "web.1.abc"])
            .await
            .unwrap()
            .contains("sleep 1000")
    );
    let text = ok(&served, &["stats", "--no-stream", "web.1.abc"])
        .await
        .unwrap();
    assert!(
        text.contains("50.00%") && text.contains("1MiB / 8GiB"),
        "{text}"
    );
    let exec = docker(&served, &["exec", "-i", "web.1.abc", "cat"], b"hello")
        .await
        .unwrap();
    assert_eq!(exec.stdout, b"hello");
    assert_eq!(exec.status.code(), Some(5));
    ok(&served, &["stop", "web.1.abc"]).await;
    ok(&served, &["kill", "web.1.abc"]).await;
    assert_eq!(
        ok(&served, &["wait", "web.1.abc"]).await.unwrap().trim(),
        "7"
    );
    let refused = docker(&served, &["rm", "web.1.abc"], b"").await.unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("container is running"));
    ok(&served, &["rm", "-f", "web.1.abc"]).await;
    assert!(
        ok(&served, &["volume", "ls"])
            .await
            .unwrap()
            .contains("data")
    );
    assert!(
        ok(&served, &["network", "ls"])
            .await
            .unwrap()
            .contains("bridge")
    );
    assert!(
        ok(&served, &["version"])
            .await
            .unwrap()
            .contains("1.51 (minimum version 1.24)")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_joins_and_is_no_manager() {
    let served = Served::start();
    let args = ["swarm", "join", "--token", "SWMTKN-1-w", "192.0.2.1:2377"];
    let Some(text) = ok(&served, &args).await else {
        return;
    };
    assert!(
        text.contains("This node joined a swarm as a worker."),
        "{text}"
    );
    let text = ok(&served, &["info"]).await.unwrap();
    assert!(
        text.contains("Swarm: active") && text.contains("Is Manager: false"),
        "{text}"
    );
    assert!(
        text.contains("Manager Addresses:\n   192.0.2.1:2377"),
        "{text}"
    );
    let refused = docker(&served, &["node", "ls"], b"").await.unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        text.contains("Worker nodes can't be used to view or modify cluster state."),
        "{text}"
    );
}
