//! Volumes in a directory of their own, mounted for real where the test says so.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixListener,
};

use super::*;

fn volume(name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        driver: LOCAL_DRIVER.to_owned(),
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        created_at_ns: 0,
        is_anonymous: false,
    }
}

fn with_options(name: &str, options: &[(&str, &str)]) -> Volume {
    let options = options.iter();
    Volume {
        options: options
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..volume(name)
    }
}

fn filler(text: &'static str) -> Option<Fill> {
    Some(Box::new(move |dir| {
        fs::write(dir.join("a"), text)?;
        Ok(true)
    }))
}

#[tokio::test]
async fn an_empty_volume_is_filled_and_no_other() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    assert!(volumes.create(&volume("data")).await.unwrap());
    assert!(!volumes.create(&volume("data")).await.unwrap());
    let path = volumes.hold("data", "c1", filler("1")).await.unwrap();
    assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
    volumes.hold("data", "c2", filler("2")).await.unwrap();
    assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
    let (listed, warnings) = volumes.list().await.unwrap();
    assert_eq!((listed.len(), warnings.len()), (1, 0));
    assert_eq!(listed[0].volume, volume("data"));
    assert_eq!(volumes.size_bytes("data"), Some(1));
}

#[tokio::test]
async fn what_could_not_be_filled_stays_empty_and_free() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    volumes.create(&volume("data")).await.unwrap();
    let fail: Option<Fill> = Some(Box::new(|dir| {
        fs::write(dir.join("half"), "x")?;
        Err(io::Error::other("full"))
    }));
    assert!(volumes.hold("data", "c1", fail).await.is_err());
    assert_eq!(fs::read_dir(volumes.path("data")).unwrap().count(), 0);
    volumes.remove("data", false).await.unwrap();
    assert!(matches!(
        volumes.view("data").await,
        Err(Error::NotFound(_))
    ));
}

#[tokio::test]
async fn a_used_volume_stays() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    volumes.create(&volume("data")).await.unwrap();
    for owner in ["c1", "c2"] {
        volumes.hold("data", owner, None).await.unwrap();
    }
    let refused = volumes.remove("data", true).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "remove data: volume is in use - [c1, c2]"
    );
    for owner in ["c1", "c2"] {
        assert_eq!(volumes.release(owner).await, [""; 0]);
    }
    volumes.remove("data", false).await.unwrap();
    assert!(matches!(
        volumes.remove("data", false).await,
        Err(Error::NotFound(_))
    ));
}

#[tokio::test]
async fn debris_is_swept_and_what_cannot_be_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("half/_data")).unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    assert!(!root.path().join("half").exists());
    for name in ["", "a", "../x", "a/b", ".hidden", "é1"] {
        assert!(matches!(
            volumes.create(&volume(name)).await,
            Err(Error::Name(_))
        ));
    }
    let odd = with_options("data", &[("colour", "red")]);
    let refused = volumes.create(&odd).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "create data: invalid option: \"colour\""
    );
    let other = Volume {
        driver: "nothing".to_owned(),
        ..volume("data")
    };
    let refused = volumes.create(&other).await.unwrap_err().to_string();
    assert!(
        refused.contains("plugin \"nothing\" not found"),
        "{refused}"
    );
    volumes.create(&volume("data")).await.unwrap();
    assert!(matches!(
        volumes.create(&other).await,
        Err(Error::Conflict { .. })
    ));
}

#[test]
fn records_of_older_versions_are_local_ones() {
    let text = r#"{"name":"data","labels":{},"created_at_ns":0,"is_anonymous":false}"#;
    assert_eq!(
        serde_json::from_str::<Volume>(text).unwrap(),
        volume("data")
    );
}

/// Mounts are the kernel's: root is needed, and they are made in the test's own mount namespace.
#[test]
#[expect(clippy::print_stderr, reason = "a skipped test is reported")]
fn options_are_mounted_while_somebody_has_the_volume() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: mounting needs root");
        return;
    }
    let run = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread();
        runtime_of(runtime).block_on(mounts_come_and_go());
    };
    std::thread::spawn(run).join().unwrap();
}

fn runtime_of(mut builder: tokio::runtime::Builder) -> tokio::runtime::Runtime {
    builder.enable_all().build().unwrap()
}

async fn mounts_come_and_go() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("theirs"), "kept").unwrap();
    let device = elsewhere.path().display().to_string();
    let volumes = Volumes::open(root.path()).unwrap();
    let bound = with_options(
        "bound",
        &[("type", "none"), ("o", "bind,ro"), ("device", &device)],
    );
    volumes.create(&bound).await.unwrap();
    let memory = with_options(
        "mem",
        &[
            ("type", "tmpfs"),
            ("device", "tmpfs"),
            ("o", "size=1m,mode=0750"),
        ],
    );
    volumes.create(&memory).await.unwrap();

    let path = volumes
        .hold("bound", "c1", filler("not empty"))
        .await
        .unwrap();
    assert_eq!(fs::read(path.join("theirs")).unwrap(), b"kept");
    assert!(fs::write(path.join("x"), "y").is_err());
    assert_eq!(volumes.hold("bound", "c2", None).await.unwrap(), path);
    assert_eq!(mounting::mounted_below(&path).len(), 1);
    let path = volumes.hold("mem", "c1", filler("1")).await.unwrap();
    let found = rustix::fs::statfs(&path).unwrap();
    assert_eq!(
        (found.f_type, found.f_blocks * 4096),
        (0x0102_1994, 1 << 20)
    );

    // The next daemon knows who has what.
    drop(volumes);
    let volumes = Volumes::open(root.path()).unwrap();
    assert_eq!(
        volumes.holders(),
        BTreeSet::from(["c1".to_owned(), "c2".to_owned()])
    );
    assert!(matches!(
        volumes.remove("bound", true).await,
        Err(Error::InUse(..))
    ));
    assert_eq!(volumes.release("c1").await, [""; 0]);
    assert!(!mounting::is_mounted(&volumes.path("mem")));
    assert!(mounting::is_mounted(&volumes.path("bound")));
    assert_eq!(volumes.release("c2").await, [""; 0]);
    assert!(!mounting::is_mounted(&volumes.path("bound")));

    // Whatever is still mounted when a volume goes is not emptied with it.
    let left = volumes.hold("bound", "c3", None).await.unwrap();
    volumes.held().clear();
    assert!(mounting::is_mounted(&left));
    volumes.remove("bound", false).await.unwrap();
    assert_eq!(fs::read(elsewhere.path().join("theirs")).unwrap(), b"kept");
    what_fails_is_told(&volumes).await;
}

async fn what_fails_is_told(volumes: &Volumes) {
    let gone = with_options(
        "gone",
        &[("type", "none"), ("o", "bind"), ("device", "/nowhere/x")],
    );
    volumes.create(&gone).await.unwrap();
    let failed = volumes
        .hold("gone", "c1", None)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        failed.starts_with(
            "error while mounting volume gone: failed to mount local volume: mount /nowhere/x:"
        ) && failed.ends_with("no such file or directory"),
        "{failed}"
    );
    let odd = with_options("odd", &[("type", "nosuchfs"), ("device", "x")]);
    volumes.create(&odd).await.unwrap();
    let failed = volumes
        .hold("odd", "c1", None)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        failed.contains("this node's kernel has no file system `nosuchfs`"),
        "{failed}"
    );
    volumes.remove("odd", false).await.unwrap();
}

/// Answers each call with what `answer` says; `None` ends the connection.
fn serve(path: &Path, answer: impl Fn(&str, &str) -> Option<String> + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut text = String::new();
            let mut buffer = [0; 4096];
            loop {
                let length = stream.read(&mut buffer).unwrap_or(0);
                text.push_str(&String::from_utf8_lossy(&buffer[..length]));
                let head = text.split_once("\r\n\r\n");
                let wanted = text
                    .to_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .map(|rest| {
                        rest.split("\r\n")
                            .next()
                            .unwrap_or_default()
                            .parse::<usize>()
                            .unwrap()
                    });
                let is_whole = head.is_some_and(|(_, body)| body.len() >= wanted.unwrap_or(0));
                if is_whole || length == 0 {
                    break;
                }
            }
            let method = text.split([' ', '/']).nth(2).unwrap_or_default().to_owned();
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            if let Some(answer) = answer(&method, body) {
                let length = answer.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}"
                );
            }
        }
    });
}

fn of(driver: &str, name: &str) -> Volume {
    Volume {
        driver: driver.to_owned(),
        ..volume(name)
    }
}

async fn refusals_name_the_plugin(volumes: &Volumes) {
    let refusal = async |driver: &str, name: &str| {
        volumes
            .create(&of(driver, name))
            .await
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refusal("good", "refused").await,
        "create refused: VolumeDriver.Create: no room"
    );
    assert!(
        refusal("other", "v1")
            .await
            .contains("does not implement the requested driver")
    );
    assert!(
        refusal("dead", "v1")
            .await
            .contains("volume plugin dead cannot be reached")
    );
    assert!(
        refusal("none", "v1")
            .await
            .contains("plugin \"none\" not found")
    );
}

#[tokio::test]
async fn a_plugin_that_fails_hangs_or_dies_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (root, sockets, specs) = (
        dir.path().join("v"),
        dir.path().join("s"),
        dir.path().join("e"),
    );
    fs::create_dir_all(&sockets).unwrap();
    fs::create_dir_all(&specs).unwrap();
    let activate = || Some(r#"{"Implements":["VolumeDriver"]}"#.to_owned());
    let mountpoint = dir.path().join("there");
    fs::create_dir(&mountpoint).unwrap();
    let shown = mountpoint.display().to_string();
    serve(
        &sockets.join("good.sock"),
        move |method, body| match method {
            "Plugin.Activate" => activate(),
            "VolumeDriver.Mount" => Some(format!(r#"{{"Mountpoint":"{shown}"}}"#)),
            "VolumeDriver.List" => Some(r#"{"Volumes":[{"Name":"theirs"}]}"#.to_owned()),
            "VolumeDriver.Get" if body.contains("theirs") => {
                Some(r#"{"Volume":{"Name":"theirs","Status":{"a":1}}}"#.to_owned())
            }
            "VolumeDriver.Create" if body.contains("refused") => {
                Some(r#"{"Err":"no room"}"#.to_owned())
            }
            "VolumeDriver.Unmount" => None,
            _ => Some("{}".to_owned()),
        },
    );
    let listening = dir.path().join("other.sock");
    fs::write(
        specs.join("other.spec"),
        format!("unix://{}", listening.display()),
    )
    .unwrap();
    serve(&listening, |_, _| {
        Some(r#"{"Implements":["NetworkDriver"]}"#.to_owned())
    });
    fs::write(
        specs.join("dead.json"),
        r#"{"Name":"dead","Addr":"unix:///nowhere.sock"}"#,
    )
    .unwrap();
    let mut volumes = Volumes::open(&root).unwrap();
    volumes.plugins = Plugins::found_in(&sockets, vec![specs]);
    volumes.plugins.scan().await;
    assert_eq!(
        *volumes.plugins.names().borrow(),
        BTreeSet::from(["good".to_owned()])
    );

    refusals_name_the_plugin(&volumes).await;
    volumes.create(&of("good", "v1")).await.unwrap();
    assert_eq!(volumes.hold("v1", "c1", None).await.unwrap(), mountpoint);
    let problems = volumes.release("c1").await;
    assert!(
        problems[0].contains("error while unmounting volume v1: VolumeDriver.Unmount"),
        "{problems:?}"
    );
    assert!(volumes.holders().is_empty());
    // Those that were made elsewhere are there, too.
    assert_eq!(volumes.driver_of("theirs").await, "good");
    assert!(volumes.view("theirs").await.unwrap().status.is_some());
    let (listed, _) = volumes.list().await.unwrap();
    let names: Vec<&str> = listed
        .iter()
        .map(|view| view.volume.name.as_str())
        .collect();
    assert_eq!(names, ["theirs", "v1"]);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_has_a_deadline() {
    let dir = tempfile::tempdir().unwrap();
    // Accepted by the kernel, answered by nobody.
    let _silent = UnixListener::bind(dir.path().join("silent.sock")).unwrap();
    let mut volumes = Volumes::open(&dir.path().join("v")).unwrap();
    volumes.plugins = Plugins::found_in(dir.path(), Vec::new());
    let silent = Volume {
        driver: "silent".to_owned(),
        ..volume("data")
    };
    let refused = volumes.create(&silent).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "create data: volume plugin silent did not answer Plugin.Activate within 10 s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_hangs_delays_others_once_and_little() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = dir.path().join("s");
    fs::create_dir_all(&sockets).unwrap();
    let _hanging = UnixListener::bind(sockets.join("hanging.sock")).unwrap();
    let mut volumes = Volumes::open(&dir.path().join("v")).unwrap();
    volumes.plugins = Plugins::found_in(&sockets, Vec::new());
    record::write(&volumes.root, &of("hanging", "theirs")).unwrap();
    volumes.create(&volume("data")).await.unwrap();
    let listed = async || {
        let begin = tokio::time::Instant::now();
        let (views, warnings) = volumes.list().await.unwrap();
        (views.len(), warnings, begin.elapsed().as_secs())
    };
    let text = "volume plugin hanging did not answer VolumeDriver.List within 2 s";
    assert_eq!(listed().await, (2, vec![text.to_owned()], 2));
    let text = "volume plugin hanging does not answer: last tried 0 s ago";
    assert_eq!(listed().await, (2, vec![text.to_owned()], 0));
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    assert_eq!(listed().await.2, 2);
}
