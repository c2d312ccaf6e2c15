//! Volumes: the docker command's verbs, the local driver's options, and plugins, real and false.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use skep_conformance::Node;

/// The text with which the one task of a service was rejected.
#[track_caller]
fn rejection(node: &Node, service: &str) -> String {
    let task = node.task_in(service, "rejected");
    task["Status"]["Err"].as_str().expect("a reason").to_owned()
}

/// Waits until a shell line inside the node prints `expected`.
#[track_caller]
fn becomes(node: &Node, script: &str, expected: &str) {
    let begin = Instant::now();
    loop {
        let found = node.inside(script).stdout.trim().to_owned();
        if found == expected {
            return;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{script}: {found}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until the node names these volume drivers.
#[track_caller]
fn becomes_known(node: &Node, drivers: &str) {
    let begin = Instant::now();
    while node.docker_ok("info -f '{{.Plugins.Volume}}'") != drivers {
        assert!(begin.elapsed() < Duration::from_secs(60), "{drivers}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// One volume holds 5000 bytes, and the size of all is known.
#[track_caller]
fn check_sizes(node: &Node) {
    let used = node.json("/system/df?type=volume");
    let usages = used["Volumes"].as_array().expect("a list").iter();
    let usages: Vec<&Value> = usages.map(|volume| &volume["UsageData"]).collect();
    let cache = usages.iter().find(|usage| usage["Size"] == 5000);
    assert_eq!(cache.expect("the anonymous one")["RefCount"], 1);
    let is_known = |usage: &&Value| usage["Size"].as_i64().is_some_and(|size| size >= 0);
    assert!(usages.iter().all(is_known), "{used}");
}

#[test]
fn volumes_are_made_shown_measured_and_removed() {
    let node = Node::start();
    assert_eq!(
        node.docker_ok("volume create --label team=blue --label tier data"),
        "data"
    );
    assert_eq!(node.docker_ok("volume create data"), "data");
    let anonymous = node.docker_ok("volume create");
    assert_eq!(anonymous.len(), 64);
    node.docker_ok("volume create spare");
    let shown = node.json("/volumes/data");
    assert_eq!(
        (&shown["Driver"], &shown["Scope"]),
        (&json!("local"), &json!("local"))
    );
    assert_eq!(shown["Labels"], json!({ "team": "blue", "tier": "" }));
    // Made beforehand and empty, it gets what the image has there; another of the name does not change it.
    node.create(
        "--name web --mount type=volume,src=data,dst=/etc,volume-label=team=red --mount type=volume,dst=/cache \
         skep/busybox sleep 1000",
    );
    let passwd = node.exec(
        "web",
        "cat /etc/passwd; echo x >/etc/own; head -c 5000 /dev/zero >/cache/x",
    );
    assert!(passwd.contains("root"), "{passwd}");
    assert_eq!(
        node.docker_ok("volume inspect -f '{{.Labels.team}}' data"),
        "blue"
    );
    let list = |filters: &str| {
        let listed = node.docker_ok(&format!("volume ls -q {filters}"));
        let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
        names.retain(|name| name.len() < 64);
        names
    };
    assert_eq!(list(""), ["data", "spare"]);
    assert_eq!(list("-f dangling=true"), ["spare"]);
    assert_eq!(list("-f dangling=false"), ["data"]);
    assert_eq!(list("-f label=team=blue"), ["data"]);
    assert_eq!(list("-f label=tier -f name=at"), ["data"]);
    assert_eq!(list("-f driver=nothing"), [""; 0]);
    check_sizes(&node);

    let refused = node.docker_fails("volume rm data");
    let container = node.container("web");
    assert!(
        refused.contains(&format!("remove data: volume is in use - [{container}]")),
        "{refused}"
    );
    let refused = node.docker_fails("volume rm nothing");
    assert!(refused.contains("get nothing: no such volume"), "{refused}");
    node.docker_ok("volume rm -f nothing");
    let pruned = node.docker_ok("volume prune -f");
    assert!(
        pruned.contains(&anonymous) && !pruned.contains("spare"),
        "{pruned}"
    );
    let pruned = node.docker_ok("volume prune -af --filter label!=keep");
    assert!(
        pruned.contains("spare") && !pruned.contains("data"),
        "{pruned}"
    );
    node.docker_ok("service rm web");
    node.empty();
    assert_eq!(list(""), ["data"]);
    assert_eq!(node.docker_ok("volume rm data"), "data");
}

#[test]
fn volumes_that_cannot_be_are_refused() {
    let node = Node::start();
    for (line, text) in [
        ("create a", "volume name is too short"),
        ("create -d nothing x1", "plugin \"nothing\" not found"),
        ("create -o colour=red x1", "invalid option: \"colour\""),
        (
            "create -o type=nfs x1",
            "missing required option: \"device\"",
        ),
        ("create --type mount x1", "ClusterVolumeSpec"),
        ("update --availability drain x1", "get x1: no such volume"),
    ] {
        let refused = node.docker_fails(&format!("volume {line}"));
        assert!(refused.contains(text), "{line}: {refused}");
    }
    assert_eq!(node.docker_ok("volume ls -q"), "");
}

#[test]
fn options_of_the_local_driver_are_mounted() {
    let mut node = Node::start();
    let dir = node.dir().join("theirs");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "kept").unwrap();
    let options =
        "volume-opt=type=tmpfs,volume-opt=device=tmpfs,\"volume-opt=o=size=1m,mode=0750\"";
    node.docker_ok(&format!(
        "volume create -o type=none -o o=bind -o device={} bound",
        dir.display()
    ));
    node.create(&format!(
        "--name web --replicas 2 --mount 'type=volume,src=mem-{{{{.Task.Slot}}}},dst=/mem,{options}' \
         --mount type=volume,src=bound,dst=/bound skep/busybox sleep 1000"
    ));
    let tasks = node.running("web", 2);
    for task in &tasks {
        let container = task["Status"]["ContainerStatus"]["ContainerID"]
            .as_str()
            .unwrap();
        let script = "stat -c %a /mem; df -k /mem | tail -1 | tr -s \" \" | cut -d \" \" -f 2; cat /bound/file";
        let said = node.docker_ok(&format!("exec {container} sh -c '{script}'"));
        assert_eq!(said, "750\n1024\nkept");
    }
    assert_eq!(
        node.docker_ok("volume inspect -f '{{json .Options}}' mem-1"),
        "{\"device\":\"tmpfs\",\"o\":\"size=1m,mode=0750\",\"type\":\"tmpfs\"}"
    );
    let mounts = "grep -c '/volumes/.*/_data' /proc/mounts";
    assert_eq!(node.inside(mounts).stdout.trim(), "3");
    // Who has what outlives the daemon.
    node.kill_daemon();
    node.start_daemon();
    node.running("web", 2);
    let refused = node.docker_fails("volume rm -f bound");
    assert!(refused.contains("volume is in use"), "{refused}");
    node.docker_ok("service rm web");
    node.empty();
    becomes(&node, mounts, "0");
    node.docker_ok("volume rm bound mem-1 mem-2");
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "kept");
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test is reported")]
fn what_cannot_be_mounted_rejects_the_task() {
    let node = Node::start();
    let nothing = "type=volume,src=lost,dst=/x,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/nowhere";
    node.create(&format!(
        "--name lost --restart-condition none --mount {nothing} skep/busybox true"
    ));
    let text = rejection(&node, "lost");
    assert!(
        text.contains(
            "error while mounting volume lost: failed to mount local volume: mount /nowhere:"
        ) && text.contains("no such file or directory"),
        "{text}"
    );
    let remote = "type=volume,src=far,dst=/x,volume-opt=type=nfs,volume-opt=device=:/export,volume-opt=o=addr=host.invalid";
    node.create(&format!(
        "--name far --restart-condition none --mount {remote} skep/busybox true"
    ));
    let text = rejection(&node, "far");
    assert!(
        text.contains("error resolving passed in network volume address: lookup host.invalid"),
        "{text}"
    );
    let has_nfs = fs::read_to_string("/proc/filesystems")
        .unwrap()
        .contains("\tnfs\n");
    if has_nfs {
        eprintln!("SKIPPED: this kernel has nfs, and no server to refuse it");
    } else {
        let remote = remote
            .replace("far", "near")
            .replace("host.invalid", "127.0.0.1");
        node.create(&format!(
            "--name near --restart-condition none --mount {remote} skep/busybox true"
        ));
        let text = rejection(&node, "near");
        assert!(
            text.contains("this node's kernel has no file system `nfs`"),
            "{text}"
        );
    }
}

/// A plugin of volumes that are directories, in this process.
struct Plugin {
    socket: PathBuf,
    is_silent: Arc<AtomicBool>,
    calls: Arc<Mutex<Vec<String>>>,
}

// === impl Plugin ===

impl Plugin {
    fn start(node: &Node, name: &str) -> Self {
        own_plugins_dir(node);
        let (dir, socket) = (
            node.dir().join(name),
            node.dir().join(format!("{name}.sock")),
        );
        fs::create_dir(&dir).expect("a plugin that works");
        let listener = UnixListener::bind(&socket).expect("a plugin that works");
        let plugin = Self {
            socket: socket.clone(),
            is_silent: Arc::default(),
            calls: Arc::default(),
        };
        let (is_silent, calls) = (Arc::clone(&plugin.is_silent), Arc::clone(&plugin.calls));
        thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.expect("a plugin that works");
                if is_silent.load(Ordering::SeqCst) {
                    kept.push(stream);
                    continue;
                }
                let Some((method, body)) = request(&mut stream) else {
                    continue;
                };
                calls
                    .lock()
                    .expect("a plugin that works")
                    .push(method.clone());
                let answer = answer(&dir, &method, &body).to_string();
                let length = answer.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(format!("{head}{answer}").as_bytes());
            }
        });
        node.inside_ok(&format!(
            "ln -s {} /run/docker/plugins/{name}.sock",
            socket.display()
        ));
        plugin
    }

    fn count(&self, method: &str) -> usize {
        let calls = self.calls.lock().expect("a plugin that works");
        calls.iter().filter(|call| *call == method).count()
    }
}

/// Plugins of this node alone.
fn own_plugins_dir(node: &Node) {
    node.inside_ok(
        "mkdir -p /run/docker/plugins && { mountpoint -q /run/docker/plugins || mount -t tmpfs none /run/docker/plugins; }",
    );
}

fn request(stream: &mut UnixStream) -> Option<(String, Value)> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        text.extend(&buffer[..length]);
        let whole = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = whole.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_lowercase();
        let wanted = head.split("content-length: ").nth(1);
        let wanted = wanted.and_then(|rest| rest.lines().next()?.parse().ok());
        if body.len() >= wanted.unwrap_or(0) {
            let method = whole.split([' ', '/']).nth(2)?.to_owned();
            return Some((method, serde_json::from_str(body).unwrap_or_default()));
        }
    }
}

fn answer(dir: &Path, method: &str, body: &Value) -> Value {
    let name = body["Name"].as_str().unwrap_or_default();
    let path = dir.join(name);
    let volume = |name: &str| json!({ "Name": name, "Mountpoint": dir.join(name), "Status": { "kept": "here" } });
    match method {
        "Plugin.Activate" => json!({ "Implements": ["VolumeDriver"] }),
        "VolumeDriver.Create" if body["Opts"]["room"] == "none" => json!({ "Err": "no room left" }),
        "VolumeDriver.Create" => {
            fs::create_dir_all(path).expect("a plugin that works");
            json!({})
        }
        "VolumeDriver.Mount" | "VolumeDriver.Path" => json!({ "Mountpoint": path }),
        "VolumeDriver.Get" if path.exists() => json!({ "Volume": volume(name) }),
        "VolumeDriver.Get" => json!({ "Err": "no such volume" }),
        "VolumeDriver.List" => {
            let names = fs::read_dir(dir)
                .expect("a plugin that works")
                .map(|entry| entry.expect("a plugin that works").file_name());
            let volumes: Vec<Value> = names
                .map(|name| volume(name.to_str().expect("a plugin that works")))
                .collect();
            json!({ "Volumes": volumes })
        }
        "VolumeDriver.Remove" => {
            fs::remove_dir_all(path).expect("a plugin that works");
            json!({})
        }
        _ => json!({}),
    }
}

#[test]
fn a_plugin_keeps_volumes() {
    let node = Node::start();
    let use_it = "--mount 'type=volume,src=far-{{.Task.Slot}},dst=/far,volume-driver=shelf'";
    // No node has it: the scheduler waits, and says for what.
    node.create(&format!("--name web {use_it} skep/busybox sleep 1000"));
    let waits = node.task("web", "waits for the plugin", |task| {
        let text = task["Status"]["Err"].as_str().unwrap_or_default();
        text.contains("missing plugin on 1 node")
    });
    assert_eq!(waits["Status"]["State"], "pending");
    let plugin = Plugin::start(&node, "shelf");
    node.running("web", 1);
    assert_eq!(
        node.docker_ok("info -f '{{.Plugins.Volume}}'"),
        "[local shelf]"
    );
    node.exec("web", "echo kept >/far/file");
    let kept = node.dir().join("shelf/far-1/file");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "kept\n");
    assert_eq!(
        node.docker_ok("volume inspect -f '{{.Driver}} {{.Status.kept}} {{.Mountpoint}}' far-1"),
        format!("shelf here {}", kept.parent().unwrap().display())
    );
    // One that was made elsewhere is there, too, and used by its name.
    fs::create_dir(node.dir().join("shelf/theirs")).unwrap();
    assert_eq!(
        node.docker_ok("volume ls --format '{{.Driver}} {{.Name}}'"),
        "shelf far-1\nshelf theirs"
    );
    node.create("--name other --mount type=volume,src=theirs,dst=/far skep/busybox sleep 1000");
    node.exec("other", "echo more >/far/file");
    assert!(node.dir().join("shelf/theirs/file").exists());
    let refused = node.docker_fails("volume create -d shelf -o room=none big");
    assert!(
        refused.contains("create big: VolumeDriver.Create: no room left"),
        "{refused}"
    );
    let refused = node.docker_fails("volume create far-1");
    assert!(
        refused.contains("driver shelf already has volume far-1"),
        "{refused}"
    );
    node.docker_ok("service rm web other");
    node.empty();
    assert_eq!(
        (
            plugin.count("VolumeDriver.Mount"),
            plugin.count("VolumeDriver.Unmount")
        ),
        (2, 2)
    );
    assert!(kept.exists());
    node.docker_ok("volume prune -af");
    assert!(kept.exists(), "plugins' volumes are not pruned");
}

#[test]
fn a_plugin_is_not_trusted_to_answer() {
    let node = Node::start();
    let plugin = Plugin::start(&node, "shelf");
    node.docker_ok("volume create -d shelf far-1");
    node.create("--name web --mount type=volume,src=far-1,dst=/far skep/busybox sleep 1000");
    node.running("web", 1);
    becomes_known(&node, "[local shelf]");

    // Silent: nothing waits for ever, and all says for whom it waited.
    plugin.is_silent.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    let listed = node.json("/volumes");
    assert!(
        listed["Warnings"][0]
            .as_str()
            .unwrap()
            .contains("volume plugin shelf did not answer"),
        "{listed}"
    );
    let refused = node.docker_fails("volume inspect far-1");
    assert!(
        refused.contains("did not answer VolumeDriver.Get within 10 s"),
        "{refused}"
    );
    assert!(begin.elapsed() < Duration::from_secs(40));
    node.create("--name fine --mount type=volume,src=own,dst=/x skep/busybox sleep 1000");
    node.running("fine", 1);

    // Dead: the task says so; with its file gone the node has it no more.
    fs::remove_file(&plugin.socket).unwrap();
    let refused = node.docker_fails("volume create -d shelf new1");
    assert!(
        refused.contains("volume plugin shelf cannot be reached"),
        "{refused}"
    );
    node.inside_ok("rm /run/docker/plugins/shelf.sock");
    becomes_known(&node, "[local]");
    // Its container goes all the same.
    node.docker_ok("service rm web");
    let left = || node.docker_ok("ps -aq --filter label=com.docker.swarm.service.name=web");
    let begin = Instant::now();
    while !left().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(200));
    }
    node.docker_ok("volume rm -f far-1");
    assert_eq!(node.docker_ok("volume ls -q"), "own");
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test is reported")]
fn rclone_serves_volumes() {
    let node = Node::start();
    let is_there = node.inside("command -v rclone && command -v fusermount3 && test -c /dev/fuse");
    if is_there.status != 0 {
        eprintln!("SKIPPED: rclone, fusermount3 or /dev/fuse is not here");
        return;
    }
    own_plugins_dir(&node);
    let (dir, home) = (node.dir().join("remote"), node.dir().join("rclone"));
    fs::create_dir(&dir).unwrap();
    fs::create_dir_all(home.join("cache")).unwrap();
    let home = home.display();
    let arguments = format!(
        "exec rclone serve docker --allow-other --socket-addr /run/docker/plugins/rclone.sock --base-dir {home} \
         --cache-dir {home}/cache --config {home}/rclone.conf >{home}/log 2>&1"
    );
    let mut rclone = node.spawn_inside("bash", &["-c", &arguments]);
    let mount = format!(
        "type=volume,src=far,dst=/far,volume-driver=rclone,volume-opt=remote=:local:{},volume-opt=vfs-cache-mode=full,\
         volume-opt=vfs-write-back=0s",
        dir.display()
    );
    node.create(&format!(
        "--name web --mount '{mount}' skep/busybox sleep 1000"
    ));
    node.exec("web", "echo kept >/far/file && cat /far/file");
    becomes(&node, &format!("cat {}/file", dir.display()), "kept");
    assert_eq!(
        node.docker_ok("volume ls --format '{{.Driver}} {{.Name}}'"),
        "rclone far"
    );
    node.docker_ok("service rm web");
    node.empty();
    becomes(&node, "grep -c fuse.rclone /proc/mounts", "0");
    assert_eq!(node.docker_ok("volume rm far"), "far");
    assert!(dir.join("file").exists());

    // Its death is told, and the node goes on.
    node.create(&format!(
        "--name doomed --mount '{mount}' skep/busybox sleep 1000"
    ));
    node.running("doomed", 1);
    // The node's processes are in a namespace of their own.
    node.inside_ok("pkill -KILL -x rclone");
    rclone.wait().unwrap();
    node.docker_ok("service rm doomed");
    node.empty();
    let refused = node.docker_fails("volume create -d rclone other");
    assert!(
        refused.contains("volume plugin rclone cannot be reached"),
        "{refused}"
    );
}
