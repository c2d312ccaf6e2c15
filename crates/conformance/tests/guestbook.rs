//! The example application, from end to end: deployed on three nodes by the stock docker command, used, changed and removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use skep_conformance::{Cluster, Output, Requests, guestbook, root, until};

/// Longest wait for what takes some seconds at most. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);

const PASSWORD: &str = "correct-horse-battery-staple";

/// Three nodes with the images, and a directory with the application's files.
fn cluster() -> (Cluster, PathBuf) {
    let cluster = Cluster::start(3, 3);
    for name in ["guestbook", "redis"] {
        cluster.load_archive(&guestbook().join(format!("{name}.tar")));
    }
    let dir = cluster.dir().join("guestbook");
    fs::create_dir(&dir).expect("a directory");
    for name in ["stack.yml", "page.html"] {
        fs::copy(root().join("examples/guestbook").join(name), dir.join(name)).expect("a file");
    }
    fs::write(dir.join("db-password"), PASSWORD).expect("a file");
    (cluster, dir)
}

/// Deploys it through a node, with variables for the stack file, and waits until every task runs.
#[track_caller]
fn deploy(cluster: &Cluster, number: usize, dir: &Path, variables: &[(&str, &str)]) {
    let file = dir.join("stack.yml");
    let line = format!(
        "stack deploy --resolve-image never -c {} book",
        file.display()
    );
    let mut command = cluster.node(number).docker_command(&line);
    command.envs(variables.iter().copied());
    let output: Output = command.output().expect("a shell").into();
    assert_eq!(output.status, 0, "{output:?}");
    for (service, count) in [("book_web", 3), ("book_api", 2), ("book_db", 1)] {
        cluster.placed(number, service, count);
    }
}

/// A page, as a browser on the machine gets it through a node.
struct Page(String);

impl Page {
    #[track_caller]
    fn get(cluster: &Cluster, number: usize) -> Self {
        Self::ask(cluster, number, &[])
    }

    #[track_caller]
    fn ask(cluster: &Cluster, number: usize, flags: &[&str]) -> Self {
        let url = format!("http://{}:8080/", cluster.address(number));
        let text = until(&format!("{url} answers"), PATIENCE, || {
            let mut curl = cluster.inside(Path::new("curl"));
            curl.args(["-fsSL", "--max-time", "20"]).args(flags);
            let output: Output = curl.arg(&url).output().expect("curl can be run").into();
            match output.status {
                0 => Ok(output.stdout),
                _ => Err(output.text()),
            }
        });
        Self(text)
    }

    /// What stands in bold: replica and node of `web`, the client, replica and node of `api`, the count of visits.
    fn facts(&self) -> Vec<String> {
        let bold = self.0.split("<b>").skip(1);
        let bold = bold.filter_map(|rest| rest.split("</b>").next());
        bold.map(str::to_owned).collect()
    }

    fn visit_count(&self) -> u64 {
        let facts = self.facts();
        let count = facts.last().and_then(|count| count.parse().ok());
        count.unwrap_or_else(|| panic!("no count: {}", self.0))
    }
}

/// Which node every replica of a service runs on.
fn replicas(cluster: &Cluster, service: &str) -> BTreeMap<String, String> {
    let line = format!(
        "service ps -f desired-state=running --format '{{{{.Name}}}} {{{{.Node}}}}' {service}"
    );
    let listed = cluster.node(1).docker_ok(&line);
    let lines = listed.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(name, node)| (name.to_owned(), node.to_owned()))
        .collect()
}

#[test]
fn page_is_served_through_every_node_and_says_who_serves_whom() {
    let (cluster, dir) = cluster();
    deploy(&cluster, 1, &dir, &[]);
    let (webs, apis) = (
        replicas(&cluster, "book_web"),
        replicas(&cluster, "book_api"),
    );
    let first = cluster.address(1);
    let (network, _) = first.rsplit_once('.').expect("an IPv4 address");
    let machine = format!("{network}.254");
    let mut seen = BTreeSet::new();
    let mut count_last = 0;
    until("every replica answers", PATIENCE, || {
        for number in cluster.numbers() {
            let page = Page::get(&cluster, number);
            let facts = page.facts();
            let [replica, node, client, api, api_node, _] = facts.as_slice() else {
                panic!("not six facts: {}", page.0);
            };
            assert_eq!(webs.get(replica), Some(node), "{}", page.0);
            assert_eq!(apis.get(api), Some(api_node), "{}", page.0);
            assert_eq!(*client, machine, "through node{number}");
            assert!(page.visit_count() > count_last, "the count grows");
            count_last = page.visit_count();
            seen.insert(replica.clone());
        }
        match seen.len() == webs.len() {
            true => Ok(()),
            false => Err(format!("{seen:?} of {webs:?}")),
        }
    });

    // What is written through one node is read through another.
    Page::ask(&cluster, 2, &["--data-urlencode", "text=Greetings & <b>"]);
    let entry = format!("<li><q>Greetings &amp; &lt;b&gt;</q> {machine}</li>");
    let page = Page::get(&cluster, 3);
    assert!(page.0.contains(&entry), "{}", page.0);
    // The database is on one network, the page on another.
    let node = cluster.node(1);
    let script = |service: &str, script: &str| {
        let (name, node) = replicas(&cluster, service)
            .pop_first()
            .expect("a replica runs");
        let number = node.trim_start_matches("node").parse().expect("a number");
        let engine = cluster.node(number);
        let container = engine.docker_ok(&format!("ps -q -f name={name}"));
        engine
            .docker(&format!("exec {container} sh -c '{script}'"))
            .text()
    };
    assert!(script("book_api", "nslookup db").contains("Address"));
    assert!(!script("book_web", "nslookup db").contains("Name:"));
    assert!(script("book_db", "redis-cli ping").contains("NOAUTH"));

    // Data outlives the container: the volume is its node's, and so is the task.
    let container = || node.docker_ok("ps -q -f name=book_db");
    let before = container();
    node.docker_ok("service update -q --force book_db");
    completed(&cluster, "book_db");
    assert_ne!(container(), before);
    let page = Page::get(&cluster, 2);
    assert!(page.visit_count() > count_last, "{}", page.0);
    assert!(page.0.contains(&entry), "{}", page.0);
}

#[test]
fn password_is_nowhere_but_in_the_secret() {
    let (cluster, dir) = cluster();
    deploy(&cluster, 2, &dir, &[]);
    Page::get(&cluster, 3);
    let node = cluster.node(1);
    let mut shown = String::new();
    for kind in ["service", "secret", "config"] {
        let names = node.docker_ok(&format!("{kind} ls -q")).replace('\n', " ");
        shown += &node.docker_ok(&format!("{kind} inspect {names}"));
    }
    for service in ["book_web", "book_api", "book_db"] {
        shown += &serde_json::json!(node.tasks(service)).to_string();
    }
    let mut secret_count = 0;
    for number in cluster.numbers() {
        let engine = cluster.node(number);
        for container in engine.docker_ok("ps -q").lines() {
            shown += &engine.docker_ok(&format!("inspect {container}"));
            shown += &engine.docker_ok(&format!("exec {container} env"));
            shown += &engine.docker_ok(&format!("exec {container} cat /proc/1/cmdline"));
            let read = format!("exec {container} cat /run/secrets/db-password");
            secret_count += usize::from(engine.docker(&read).stdout == PASSWORD);
        }
        shown += &engine.log();
    }
    assert!(shown.contains("db-password"), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    assert_eq!(secret_count, 3, "two replicas of api, and the database");
    let data = cluster.dir().join("data");
    let found = cluster.inside_ok(&format!("grep -rl {PASSWORD} {} || true", data.display()));
    assert_eq!(found, "", "on a disk");
}

#[test]
fn updates_and_scaling_fail_no_request() {
    let (cluster, dir) = cluster();
    deploy(&cluster, 1, &dir, &[]);
    let node = cluster.node(1);
    let unnoticed = |path: &str, what: &str, work: &mut dyn FnMut()| {
        Requests::unnoticed(&cluster, (8080, path), what, work);
    };
    // The heading is the stack file's: a second deploy changes one service.
    let tasks = |name: &str| node.docker_ok(&format!("service ps -q {name}"));
    let before = (tasks("book_api"), tasks("book_db"));
    unnoticed("/whoami", "a new heading", &mut || {
        deploy(&cluster, 2, &dir, &[("GUESTBOOK_TITLE", "Visitors")]);
        completed(&cluster, "book_web");
    });
    assert!(Page::get(&cluster, 3).0.contains("<h1>Visitors</h1>"));
    assert_eq!((tasks("book_api"), tasks("book_db")), before);
    unnoticed("/whoami", "scaling", &mut || {
        for count in [5, 2] {
            node.docker_ok(&format!("service scale -d book_web={count}"));
            cluster.placed(1, "book_web", count);
        }
    });
    // Through the whole of it, the database included.
    let before = Page::get(&cluster, 1).visit_count();
    node.docker_ok("service update -q --force book_api");
    completed(&cluster, "book_api");
    assert_eq!(Page::get(&cluster, 1).visit_count(), before + 1);
}

/// Waits until a service's last update is through.
#[track_caller]
fn completed(cluster: &Cluster, service: &str) {
    until(&format!("{service} is updated"), PATIENCE, || {
        let shown = cluster.node(1).json(&format!("/services/{service}"));
        match shown["UpdateStatus"]["State"] == "completed" {
            true => Ok(()),
            false => Err(shown["UpdateStatus"].to_string()),
        }
    });
}

#[test]
fn stack_is_deployed_again_and_removed_whole() {
    let (cluster, dir) = cluster();
    deploy(&cluster, 1, &dir, &[]);
    let count = Page::get(&cluster, 1).visit_count();
    let node = cluster.node(3);
    let remove = || {
        node.docker_ok("stack rm book");
        for number in cluster.numbers() {
            cluster.node(number).empty();
        }
        for kind in ["service", "secret", "config"] {
            assert_eq!(node.docker_ok(&format!("{kind} ls -q")), "", "{kind}");
        }
        let networks = "network ls -q -f label=com.docker.stack.namespace";
        until("no network is left", PATIENCE, || {
            match node.docker_ok(networks) {
                left if left.is_empty() => Ok(()),
                left => Err(left),
            }
        });
        for number in cluster.numbers() {
            let supplies = cluster
                .dir()
                .join(format!("run/default/node{number}/supplies"));
            let left = cluster.inside_ok(&format!("ls {} 2>/dev/null || true", supplies.display()));
            assert_eq!(left, "", "node{number}");
        }
    };
    remove();
    // The volume is the user's to remove, so the book goes on where it was.
    assert_eq!(cluster.node(1).docker_ok("volume ls -q"), "book_data");
    deploy(&cluster, 2, &dir, &[]);
    assert_eq!(Page::get(&cluster, 2).visit_count(), count + 1);
    remove();
    cluster.node(1).docker_ok("volume rm book_data");
}

#[test]
fn new_page_and_password_are_rolled_out_and_taken_back() {
    let (cluster, dir) = cluster();
    let host = format!("unix://{}", cluster.node(1).socket().display());
    let stack = |words: &str| cluster.skep_ok(&format!("stack --host {host} {words}"));
    let deploy = format!(
        "deploy --detach=false --timeout 60s --resolve-image never -c {} book",
        dir.join("stack.yml").display()
    );
    stack(&deploy);
    let count = Page::get(&cluster, 2).visit_count();
    let page = fs::read_to_string(dir.join("page.html")).expect("a page");
    fs::write(dir.join("page.html"), page.replace("You are", "This is")).expect("a file");
    fs::write(dir.join("db-password"), "another").expect("a file");
    let plan = deploy.replace("deploy --detach=false --timeout 60s", "plan");
    let told = stack(&plan);
    for part in [
        "config book_page",
        "secret book_db-password",
        "service book_web",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(
        !told.contains(PASSWORD) && !told.contains("another"),
        "{told}"
    );
    assert!(
        !Page::get(&cluster, 3).0.contains("This is visit"),
        "a plan changes nothing"
    );

    stack(&deploy);
    let page = Page::get(&cluster, 1);
    assert!(page.0.contains("This is visit"), "{}", page.0);
    assert!(page.visit_count() > count, "{}", page.0);
    let shown = stack("history book");
    assert_eq!(shown.lines().count(), 3, "two revisions: {shown}");
    stack("rollback --detach=false --timeout 60s book");
    let page = Page::get(&cluster, 3);
    assert!(page.0.contains("You are visit"), "{}", page.0);
    stack("rm book");
    assert_eq!(cluster.node(1).docker_ok("secret ls -q"), "");
}
