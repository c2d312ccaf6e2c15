//! The specification against Docker's known defaults and against bad input.

use super::*;
use crate::runtime::config::{Mount, MountKind, Propagation, Resources, Rlimit, Security};

fn host() -> Host {
    let user = User {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        home: "/root".to_owned(),
    };
    Host {
        cgroup_path: "/skep/c1".to_owned(),
        cgroup_mode: Mode::V2,
        has_swap_limit: true,
        init: None,
        user,
        capabilities: Held {
            last: 40,
            set: u64::MAX,
        },
        devices: Vec::new(),
        all_devices: Vec::new(),
        held_dir: "/held".into(),
        kernel: (6, 1),
    }
}

fn config() -> ContainerConfig {
    ContainerConfig {
        args: vec!["sh".to_owned()],
        ..ContainerConfig::default()
    }
}

fn build(config: &ContainerConfig) -> Value {
    let id = "0123456789abcdef".parse().unwrap();
    serde_json::to_value(oci_spec(&id, config, &host()).unwrap()).unwrap()
}

#[track_caller]
fn refused(config: &ContainerConfig) -> String {
    oci_spec(&"c".parse().unwrap(), config, &host())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_plain_container_has_dockers_defaults() {
    let spec = build(&config());
    assert_eq!(spec["hostname"], "0123456789ab");
    assert_eq!(
        spec["process"]["capabilities"]["bounding"]
            .as_array()
            .unwrap()
            .len(),
        14
    );
    assert_eq!(spec["linux"]["maskedPaths"].as_array().unwrap().len(), 11);
    assert_eq!(spec["linux"]["cgroupsPath"], "/skep/c1");
    assert_eq!(spec["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    let mounts = spec["mounts"].as_array().unwrap();
    let shm = mounts
        .iter()
        .find(|mount| mount["destination"] == "/dev/shm")
        .unwrap();
    assert!(
        shm["options"]
            .as_array()
            .unwrap()
            .contains(&json!("size=67108864"))
    );
}

#[test]
fn a_privileged_container_is_confined_by_nothing() {
    let mut config = config();
    config.security = Security {
        is_privileged: true,
        ..Security::default()
    };
    let spec = build(&config);
    assert_eq!(
        spec["process"]["capabilities"]["effective"]
            .as_array()
            .unwrap()
            .len(),
        41
    );
    assert!(spec["linux"].get("seccomp").is_none());
    assert!(
        spec["linux"]["maskedPaths"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
}

#[test]
fn limits_become_what_docker_writes() {
    let mut config = config();
    let (nano_cpus, memory_bytes) = (1_500_000_000, 64 << 20);
    config.resources = Resources {
        nano_cpus,
        memory_bytes,
        pids_max: 10,
        ..Resources::default()
    };
    let resources = &build(&config)["linux"]["resources"];
    assert_eq!(
        resources["cpu"],
        json!({ "quota": 150_000, "period": 100_000 })
    );
    assert_eq!(resources["memory"]["limit"], 64 << 20);
    assert_eq!(resources["memory"]["swap"], 128 << 20);
    assert_eq!(resources["pids"]["limit"], 10);
}

#[test]
fn a_mount_at_a_defaults_place_replaces_it_and_parents_come_first() {
    let mut config = config();
    let tmpfs = |destination: &str| Mount {
        destination: destination.to_owned(),
        is_readonly: false,
        kind: MountKind::Tmpfs {
            size_bytes: 4096,
            mode: 0,
            options: vec!["exec".to_owned()],
        },
    };
    config.mounts = vec![tmpfs("/a/b"), tmpfs("/a"), tmpfs("/dev/shm")];
    let spec = build(&config);
    let mounts = spec["mounts"].as_array().unwrap();
    let at = |path: &str| {
        mounts
            .iter()
            .position(|mount| mount["destination"] == path)
            .unwrap()
    };
    assert!(at("/a") < at("/a/b"));
    let shm: Vec<_> = mounts
        .iter()
        .filter(|m| m["destination"] == "/dev/shm")
        .collect();
    assert_eq!(shm.len(), 1);
    assert_eq!(
        shm[0]["options"],
        json!(["nosuid", "nodev", "rw", "size=4096", "exec"])
    );
}

#[test]
fn the_environment_is_merged_as_in_docker() {
    let mut config = config();
    config.hostname = "h".to_owned();
    config.env = ["PATH=/x", "A=1", "A=2", "HOSTNAME"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(
        build(&config)["process"]["env"],
        json!(["PATH=/x", "A=2", "HOME=/root"])
    );
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    assert_eq!(refused(&ContainerConfig::default()), "no command specified");
    let mut bad = config();
    bad.rlimits = vec![Rlimit {
        name: "nofiles".to_owned(),
        soft: 1,
        hard: 1,
    }];
    assert_eq!(refused(&bad), "invalid ulimit type `nofiles`");
    let mut bad = config();
    bad.has_init = true;
    assert!(refused(&bad).contains("tini"));
    let mut bad = config();
    bad.security.seccomp = Seccomp::Custom(json!([]));
    assert!(refused(&bad).starts_with("decoding seccomp profile failed"));
}

#[test]
fn bind_mounts_say_what_is_shared_and_how_deep_read_only_goes() {
    let bind = |destination: &str, propagation, is_readonly_below, subpath: &str| Mount {
        destination: destination.to_owned(),
        is_readonly: true,
        kind: MountKind::Bind {
            source: "/y".into(),
            propagation,
            is_recursive: true,
            is_readonly_below,
            subpath: subpath.to_owned(),
        },
    };
    let mut config = config();
    config.mounts = vec![
        bind("/a", Propagation::Rprivate, true, ""),
        bind("/b", Propagation::Rslave, false, ""),
        bind("/c", Propagation::Rprivate, false, "sub"),
    ];
    let spec = build(&config);
    let mounts = spec["mounts"].as_array().unwrap();
    let at = |path: &str| mounts.iter().find(|m| m["destination"] == path).unwrap();
    assert_eq!(at("/a")["source"], "/y");
    assert_eq!(
        at("/a")["options"],
        json!(["rbind", "ro", "rprivate", "rro"])
    );
    assert_eq!(at("/b")["options"], json!(["rbind", "ro", "rslave"]));
    assert_eq!(at("/c")["source"], "/held/2");
    assert_eq!(spec["linux"]["rootfsPropagation"], "rslave");
    config.mounts[0] = bind("/a", Propagation::Rshared, false, "");
    let spec = build(&config);
    assert_eq!(spec["linux"]["rootfsPropagation"], "shared");
}
