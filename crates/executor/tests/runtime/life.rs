//! Create, start, signal, stop, delete, errors, limits.

use std::{net::TcpListener, time::Duration};

use skep_executor::{
    monitor::Phase,
    runtime::{
        Error, OciChoice,
        cgroup::Hierarchies,
        config::{Mount, MountKind, PortReservation, Propagation, Protocol},
    },
};

use crate::rig::{BOTH, Rig, wait_until};

#[tokio::test]
async fn a_container_lives_from_create_to_exit_code() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let id = rig.id();
        let handle = rig.runtime.create(&id, rig.shell("exit 7")).await.unwrap();
        assert_eq!(handle.state().unwrap().phase, Phase::Created);
        handle.start().await.unwrap();
        let exit = handle.wait().await.unwrap();
        assert_eq!((exit.code, exit.is_oom_killed), (7, false), "{oci:?}");
        assert_eq!(handle.wait().await.unwrap(), exit, "the record stays");
        let state = handle.state().unwrap();
        assert_eq!(state.phase, Phase::Exited);
        assert!(state.started_at.unwrap() >= state.created_at);
        let cgroup = format!("{}/{id}", rig.config.cgroup_parent);
        let hierarchies = Hierarchies::read().unwrap();
        // Also in the hierarchy that crun does not see.
        wait_until("its cgroups are gone", || {
            hierarchies.dirs(&cgroup).iter().all(|dir| !dir.exists())
        });
        rig.runtime.delete(&id).await.unwrap();
        rig.runtime.delete(&id).await.unwrap();
        assert!(matches!(
            rig.runtime.open(&id).await,
            Err(Error::NotFound(_))
        ));
    }
}

#[tokio::test]
async fn stop_sends_its_signal_and_kills_after_the_grace() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let polite = rig
            .started("trap 'exit 3' TERM; while :; do sleep 0.01; done")
            .await;
        crate::streams::wait_for_trap(&polite).await;
        let exit = polite
            .stop(None, Some(Duration::from_secs(20)))
            .await
            .unwrap();
        assert_eq!(exit.code, 3, "{oci:?}");
        let deaf = rig
            .started("trap '' TERM; while :; do sleep 0.01; done")
            .await;
        let exit = deaf
            .stop(None, Some(Duration::from_millis(50)))
            .await
            .unwrap();
        assert_eq!(exit.code, 137, "{oci:?}");
        assert_eq!(
            deaf.stop(None, None).await.unwrap(),
            exit,
            "stopping twice is harmless"
        );
    }
}

#[tokio::test]
async fn a_created_container_is_deleted_without_ever_running() {
    let rig = Rig::new(OciChoice::Auto);
    let id = rig.id();
    let handle = rig
        .runtime
        .create(&id, rig.shell("sleep 100"))
        .await
        .unwrap();
    let pid = handle.pid().unwrap();
    assert!(matches!(
        rig.runtime.create(&id, rig.shell("true")).await,
        Err(Error::Exists(_))
    ));
    rig.runtime.delete(&id).await.unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn programs_that_cannot_run_are_reported_in_dockers_words() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let cases = [
            (
                "foo",
                127,
                "exec: \"foo\": executable file not found in $PATH: unknown",
            ),
            (
                "/nope",
                127,
                "exec: \"/nope\": stat /nope: no such file or directory: unknown",
            ),
            (
                "/etc/passwd",
                126,
                "exec: \"/etc/passwd\": permission denied: unknown",
            ),
        ];
        for (program, expected, ending) in cases {
            let mut config = rig.shell("");
            config.args = vec![program.to_owned()];
            let id = rig.id();
            match rig.runtime.create(&id, config).await {
                Err(Error::NotRun { code, message }) => {
                    assert_eq!(code, expected, "{oci:?} {message}");
                    assert!(message.ends_with(ending), "{oci:?} {message}");
                    assert!(message.starts_with("failed to create task for container: "));
                }
                other => panic!("{oci:?} {program}: {other:?}"),
            }
            assert!(matches!(
                rig.runtime.open(&id).await,
                Err(Error::NotFound(_))
            ));
        }
    }
}

#[tokio::test]
async fn bad_input_leaves_nothing_behind() {
    let rig = Rig::new(OciChoice::Auto);
    let mut config = rig.shell("true");
    let kind = MountKind::Bind {
        source: "/no/such/place".into(),
        propagation: Propagation::Rprivate,
        is_recursive: true,
        is_readonly_below: false,
        subpath: String::new(),
    };
    config.mounts = vec![Mount {
        destination: "/x".to_owned(),
        is_readonly: false,
        kind,
    }];
    let error = rig.runtime.create(&rig.id(), config).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("bind source path does not exist: /no/such/place")
    );
    let mut config = rig.shell("true");
    config.user = "ghost".to_owned();
    assert!(matches!(
        rig.runtime.create(&rig.id(), config).await,
        Err(Error::User(_))
    ));
    assert_eq!(
        std::fs::read_dir(rig.dir.join("containers"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn reserved_ports_are_held_for_the_containers_life() {
    let rig = Rig::new(OciChoice::Auto);
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let port = PortReservation {
        protocol: Protocol::Tcp,
        addr: free.ip(),
        port: free.port(),
    };
    let mut config = rig.shell("sleep 100");
    config.reserved_ports = vec![port.clone()];
    let handle = rig.runtime.create(&rig.id(), config.clone()).await.unwrap();
    assert!(TcpListener::bind(free).is_err());
    let error = rig.runtime.create(&rig.id(), config).await.unwrap_err();
    let expected = format!("Bind for {free} failed: port is already allocated");
    assert_eq!(error.to_string(), expected);
    handle.release_port(port).await.unwrap();
    assert!(TcpListener::bind(free).is_ok());
}

#[tokio::test]
async fn the_kernels_kill_for_want_of_memory_is_recorded() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let mut config = rig.shell("dd if=/dev/zero of=/dev/null bs=64M count=1");
        config.resources.memory_bytes = 16 << 20;
        let handle = rig.runtime.create(&rig.id(), config).await.unwrap();
        handle.start().await.unwrap();
        let exit = handle.wait().await.unwrap();
        assert_eq!((exit.code, exit.is_oom_killed), (137, true), "{oci:?}");
    }
}

#[tokio::test]
async fn limits_user_mounts_and_names_arrive_inside() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let script = "id -u; id -g; hostname; cat /data/hello; ulimit -n; echo $HOME $X; pwd; \
                      cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes";
        let mut config = rig.shell(script);
        std::fs::create_dir(rig.dir.join("data")).unwrap();
        std::fs::write(rig.dir.join("data/hello"), "hi\n").unwrap();
        let kind = MountKind::Bind {
            source: rig.dir.join("data"),
            propagation: Propagation::Rprivate,
            is_recursive: true,
            is_readonly_below: false,
            subpath: String::new(),
        };
        config.mounts = vec![Mount {
            destination: "/data".to_owned(),
            is_readonly: true,
            kind,
        }];
        config.user = "web".to_owned();
        config.hostname = "box".to_owned();
        config.cwd = "/made/here".to_owned();
        config.env = vec!["X=y".to_owned()];
        config.is_rootfs_readonly = false;
        config.resources.pids_max = 50;
        config.resources.memory_bytes = 64 << 20;
        let nofile = skep_executor::runtime::config::Rlimit {
            name: "nofile".to_owned(),
            soft: 99,
            hard: 100,
        };
        config.rlimits = vec![nofile];
        let (code, output) = crate::streams::run(&rig, config).await;
        assert_eq!(
            output, "33\n34\nbox\nhi\n99\n/srv y\n/made/here\n50\n67108864\n",
            "{oci:?}"
        );
        assert_eq!(code, 0);
    }
}

#[tokio::test]
async fn fifty_containers_start_at_once() {
    let rig = Rig::new(OciChoice::Auto);
    let starts = (0..50).map(|_| rig.started("sleep 100"));
    let handles = futures_util::future::join_all(starts).await;
    let before = std::time::Instant::now();
    let found = rig.restarted().adopt_all().await.unwrap();
    let took = before.elapsed();
    assert_eq!(found.len(), 50);
    assert!(took < Duration::from_millis(200), "adoption took {took:?}");
    let stops = handles.iter().map(|handle| handle.kill());
    for exit in futures_util::future::join_all(stops).await {
        assert_eq!(exit.unwrap().code, 137);
    }
}
