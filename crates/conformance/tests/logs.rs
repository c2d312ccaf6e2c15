//! `docker service logs` over three nodes: by time, every option, through losses, and nothing left when the client goes.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use skep_conformance::{Cluster, Engine, until};

/// Longest wait for what should be quick.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts for ever, ten lines a second, each with the container's name.
const COUNT: &str = "skep/busybox sh -c 'h=$(hostname); n=0; while true; do echo \"$h $n\"; n=$((n+1)); sleep 0.1; done'";

/// `docker service logs -f` into a file.
struct Followed {
    process: Child,
    file: PathBuf,
}

impl Followed {
    fn start(cluster: &Cluster, node: &Engine, line: &str) -> Self {
        let file = cluster.dir().join("followed");
        let output = fs::File::create(&file).expect("a file");
        let mut command = node.docker_command(&format!("service logs -f {line}"));
        let command = command
            .stdout(output.try_clone().expect("a file"))
            .stderr(Stdio::from(output));
        let process = command.spawn().expect("docker can be run");
        Self { process, file }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).expect("text")
    }

    /// The numbers of each container so far.
    fn counts(&self) -> BTreeMap<String, Vec<u32>> {
        let mut counts = BTreeMap::<_, Vec<u32>>::new();
        let text = self.text();
        // The last line may be half written.
        let end = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..end].lines() {
            let (name, number) = line.split_once(' ').expect("a name and a number");
            let number = number
                .parse()
                .unwrap_or_else(|_| panic!("no number: {line}"));
            counts.entry(name.to_owned()).or_default().push(number);
        }
        counts
    }

    /// Waits until so many containers have written so many more lines than `before`.
    fn grown(&self, what: &str, before: &BTreeMap<String, Vec<u32>>, containers: usize) {
        until(what, PATIENCE, || {
            let now = self.counts();
            let seen = |name: &str| before.get(name).map_or(0, Vec::len);
            let grown = now
                .iter()
                .filter(|(name, counts)| counts.len() >= seen(name) + 5);
            if grown.count() >= containers {
                Ok(())
            } else {
                let sizes: Vec<_> = now.iter().map(|(name, it)| (name, it.len())).collect();
                Err(format!("{sizes:?}"))
            }
        });
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn lines_of_three_nodes_come_by_time_with_every_option() {
    let cluster = Cluster::start(3, 3);
    // Asked of one that leads and of one that does not.
    let leader = cluster.leader_as_seen_by(1);
    let node = cluster.node(leader % 3 + 1);
    node.create(
        "--name talk --mode global --env TIER=web --log-driver json-file --log-opt env=TIER --log-opt labels=com.docker.swarm.task.id,com.docker.swarm.service.name \
         skep/busybox sh -c 'for n in 1 2 3 4 5 6 7 8 9; do echo line $n; sleep 0.1; done; echo bad >&2; echo end; sleep 1000'",
    );
    let tasks = node.running("talk", 3);
    until("all have ended", PATIENCE, || {
        let text = node.docker("service logs --raw talk").text();
        let ends = text.lines().filter(|line| *line == "end").count();
        if ends == 3 { Ok(()) } else { Err(text) }
    });
    for number in cluster.numbers() {
        let stamped = cluster.node(number).docker("service logs -t --raw talk");
        let lines: Vec<&str> = stamped.stdout.lines().collect();
        assert_eq!(lines.len(), 30, "{stamped:?}");
        assert!(lines.is_sorted(), "by time: {lines:#?}");
        assert_eq!(stamped.stderr.lines().count(), 3, "{stamped:?}");
    }

    // One task alone, with its last lines, and what lies between two times.
    let task = tasks[0]["ID"].as_str().expect("an id");
    let stamped = node.docker_ok(&format!("service logs -t --raw {task}"));
    let times: Vec<&str> = stamped
        .lines()
        .map(|line| line.split(' ').next().expect("a time"))
        .collect();
    assert_eq!(times.len(), 10, "{stamped}");
    let last = node.docker_ok(&format!("service logs --raw --tail 2 {task} 2>&1"));
    assert_eq!(last.lines().count(), 2, "{last}");
    let each = node.docker_ok("service logs --raw --tail 2 talk 2>&1");
    assert_eq!(each.lines().count(), 6, "two of each task: {each}");
    let later = node.docker_ok(&format!("service logs --raw --since {} {task}", times[4]));
    assert_eq!(later.lines().next(), Some("line 5"), "{later}");
    let between = format!(
        "/services/talk/logs?stdout=1&since={}&until={}",
        times[2], times[3]
    );
    let between = node.http("GET", &between, None).body;
    assert!(
        between.contains("line 3") && !between.contains("line 9"),
        "{between:?}"
    );
    let one = format!("/tasks/{task}/logs?stdout=1&until={}", times[2]);
    let one = node.http("GET", &one, None).body;
    assert_eq!(one.matches("line ").count(), 3, "{one:?}");

    who_wrote_a_line(&cluster, node, task);
    let container = container(&tasks[0]);
    let number = number_of(&cluster, &tasks[0]);
    let direct = cluster
        .node(number)
        .docker_ok(&format!("logs --details {container}"));
    assert!(direct.contains("TIER=web,"), "{direct}");
    let refused = node.docker_fails("service logs --tail -1 talk");
    assert!(refused.contains("negative"), "{refused}");
}

fn who_wrote_a_line(cluster: &Cluster, node: &Engine, task: &str) {
    let host = |number: usize| format!("@node{number}");
    let named = node.docker_ok("service logs talk");
    for number in cluster.numbers() {
        assert!(named.contains(&host(number)), "{named}");
    }
    assert!(named.contains(&task[..12]), "{named}");
    let bare = node.docker_ok("service logs --no-task-ids talk");
    assert!(
        !bare.contains(&task[..12]) && bare.contains("@node1"),
        "{bare}"
    );
    let ids = node.docker_ok("service logs --no-resolve --no-trunc talk");
    assert!(ids.contains(&cluster.id(1)) && ids.contains(task), "{ids}");
    let details = node.docker_ok("service logs --details talk");
    let detail = "TIER=web,com.docker.swarm.service.name=talk";
    assert!(details.contains(detail), "{details}");
    let raw = node.http("GET", "/services/talk/logs?stdout=1&details=1", None);
    let id = format!("com.docker.swarm.node.id={}", cluster.id(2));
    assert!(raw.body.contains(&id), "{:?}", raw.body);
}

#[test]
fn a_reader_that_follows_loses_nothing_and_sees_nothing_twice() {
    let cluster = Cluster::start(3, 3);
    let leader = cluster.leader_as_seen_by(1);
    let asked = leader % 3 + 1;
    let node = cluster.node(asked);
    node.create(&format!("--name count --mode global {COUNT}"));
    node.running("count", 3);
    let followed = Followed::start(&cluster, node, "--raw count");
    followed.grown("three containers are followed", &BTreeMap::new(), 3);

    cluster.skep_ok(&format!("local stop --kill node{leader}"));
    let before = followed.counts();
    // The others elect a leader, who is asked for what was not read.
    followed.grown("others are followed on", &before, 2);
    cluster.skep_ok(&format!("local start node{leader}"));
    let before = followed.counts();
    followed.grown("all three are followed again", &before, 3);

    let before = followed.counts();
    node.docker_ok("service update -d --force --update-parallelism 0 count");
    until("new tasks are followed", PATIENCE, || {
        let now = followed.counts();
        let new = now
            .iter()
            .filter(|(name, counts)| !before.contains_key(*name) && counts.len() > 5);
        let new = new.count();
        if new >= 3 {
            Ok(())
        } else {
            Err(format!("{new} of 3"))
        }
    });
    for (name, counts) in followed.counts() {
        let all: Vec<u32> = (0..u32::try_from(counts.len()).expect("few")).collect();
        assert_eq!(counts, all, "each line of {name} once");
    }

    assert!(open_logs(&cluster) > 0, "somebody reads");
    drop(followed);
    until("nobody reads a log", PATIENCE, || {
        match open_logs(&cluster) {
            0 => Ok(()),
            count => Err(format!("{count} open")),
        }
    });
}

#[test]
fn what_cannot_be_read_is_said() {
    let cluster = Cluster::start(3, 1);
    let node = cluster.node(1);
    node.create(
        "--name mute --log-driver none --constraint node.hostname==node2 skep/busybox sleep 1000",
    );
    let task = &node.running("mute", 1)[0];
    let refusal = "configured logging driver does not support reading";
    let said = node.docker_fails("service logs mute");
    assert!(said.contains(refusal), "{said}");
    let container = container(task);
    let said = cluster.node(2).docker_fails(&format!("logs {container}"));
    assert!(said.contains(refusal), "{said}");

    node.create("--name stuck --constraint node.hostname==nowhere skep/busybox sleep 1000");
    let task = node.task_in("stuck", "pending");
    let said = node.docker_fails("service logs stuck");
    let text = format!(
        "task {} has not been scheduled",
        task["ID"].as_str().expect("an id")
    );
    assert!(
        said.contains("incomplete log stream") && said.contains(&text),
        "{said}"
    );

    node.create("--name talk --mode global skep/busybox sh -c 'echo here; sleep 1000'");
    node.running("talk", 3);
    until("all have spoken", PATIENCE, || {
        let text = node.docker("service logs --raw talk").text();
        if text.matches("here").count() == 3 {
            Ok(())
        } else {
            Err(text)
        }
    });
    let (second, third) = (cluster.id(2), cluster.id(3));
    cluster.skep_ok("local stop --kill node3");
    let said = node.docker("service logs --raw talk");
    assert_eq!(said.stdout.matches("here").count(), 2, "{said:?}");
    assert!(
        said.stderr
            .contains(&format!("node {third} is not available")),
        "{said:?}"
    );
    assert!(!said.text().contains(&second), "{said:?}");
    cluster.skep_ok("local start node3");
    until("the node is back", PATIENCE, || {
        let said = node.docker("service logs --raw talk");
        // A new task may have been started meanwhile.
        if said.status == 0 && said.stdout.matches("here").count() >= 3 {
            Ok(())
        } else {
            Err(said.text())
        }
    });
}

/// How many logs the daemons have open; the monitors of containers do not count.
fn open_logs(cluster: &Cluster) -> usize {
    let script = "for p in /proc/[0-9]*; do \
        if tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q ' daemon .*--run-dir'; then ls -l $p/fd 2>/dev/null | grep -- '-json.log' || true; fi; done | wc -l";
    cluster.inside_ok(script).parse().expect("a number")
}

fn container(task: &serde_json::Value) -> String {
    let id = task["Status"]["ContainerStatus"]["ContainerID"].as_str();
    id.expect("a container").to_owned()
}

fn number_of(cluster: &Cluster, task: &serde_json::Value) -> usize {
    let id = task["NodeID"].as_str().expect("a node");
    let mut numbers = cluster.numbers();
    let number = numbers.find(|number| cluster.id(*number) == id);
    number.expect("a node of the cluster")
}
