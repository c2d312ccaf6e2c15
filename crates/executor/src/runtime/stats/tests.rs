//! Readings from fixture directories of both cgroup versions.

use super::*;

fn write_all(dir: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(dir).unwrap();
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap();
    }
}

#[test]
fn a_v2_directory_is_read() {
    let root = tempfile::tempdir().unwrap();
    write_all(
        &root.path().join("skep/c1"),
        &[
            (
                "cpu.stat",
                "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 1\nthrottled_usec 9\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "67108864\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\n"),
            ("memory.stat", "anon 1000\ninactive_file 96\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            (
                "io.stat",
                "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n",
            ),
        ],
    );
    let hierarchies = Hierarchies {
        v1: Vec::new(),
        v2: Some(root.path().to_owned()),
    };
    let stats = read_cgroups(&hierarchies, "/skep/c1");
    let cpu = &stats.cpu;
    assert_eq!(
        (cpu.total_nanos, cpu.user_nanos, cpu.throttled_nanos),
        (5000, 3000, 9000)
    );
    assert_eq!(
        (stats.memory.usage_bytes, stats.memory.limit_bytes),
        (4096, 64 << 20)
    );
    assert_eq!(stats.memory.stat["inactive_file"], 96);
    assert_eq!(
        stats.pids,
        PidsStats {
            current: 2,
            limit: None
        }
    );
    let moved: Vec<_> = stats
        .block_io
        .iter()
        .map(|io| (&*io.operation, io.bytes))
        .collect();
    assert_eq!(moved, [("read", 10), ("write", 20)]);
    assert!(crate::runtime::cgroup::was_oom_killed(
        &hierarchies.dirs("/skep/c1")
    ));
}

#[test]
fn v1_directories_are_read() {
    let root = tempfile::tempdir().unwrap();
    let at = |controller: &str| root.path().join(controller);
    write_all(
        &at("cpuacct").join("skep/c1"),
        &[
            ("cpuacct.usage", "300\n"),
            ("cpuacct.usage_percpu", "100 200 \n"),
            ("cpuacct.stat", "user 1\nsystem 2\n"),
        ],
    );
    write_all(
        &at("memory").join("skep/c1"),
        &[
            ("memory.usage_in_bytes", "8192\n"),
            ("memory.max_usage_in_bytes", "9000\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.failcnt", "4\n"),
            ("memory.stat", "cache 1\ntotal_inactive_file 2\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
            ),
        ],
    );
    write_all(
        &at("pids").join("skep/c1"),
        &[("pids.current", "1\n"), ("pids.max", "10\n")],
    );
    write_all(
        &at("blkio").join("skep/c1"),
        &[(
            "blkio.throttle.io_service_bytes_recursive",
            "8:0 Read 5\n8:0 Write 6\n8:0 Total 11\nTotal 11\n",
        )],
    );
    let v1 = ["cpuacct", "memory", "pids", "blkio"].map(|name| (vec![name.to_owned()], at(name)));
    let hierarchies = Hierarchies {
        v1: v1.to_vec(),
        v2: None,
    };
    let stats = read_cgroups(&hierarchies, "/skep/c1");
    assert_eq!(stats.cpu.per_cpu_nanos, [100, 200]);
    assert_eq!(
        (stats.cpu.user_nanos, stats.cpu.kernel_nanos),
        (10_000_000, 20_000_000)
    );
    assert_eq!(
        (stats.memory.max_usage_bytes, stats.memory.failure_count),
        (Some(9000), 4)
    );
    assert!(stats.memory.limit_bytes >= UNLIMITED_BYTES_MIN);
    assert_eq!(stats.pids.limit, Some(10));
    assert_eq!(stats.block_io.len(), 2);
    assert!(!crate::runtime::cgroup::was_oom_killed(
        &hierarchies.dirs("/skep/c1")
    ));
}

#[test]
fn proc_files_are_read() {
    let stat = "cpu  10 0 20 30 0 0 0 0 99 99\ncpu0 5 0 0 0\ncpu1 5 0 0 0\nintr 7\n";
    assert_eq!(parse_proc_stat(stat), (600_000_000, 2));
    assert_eq!(
        parse_mem_total("MemTotal:       2 kB\nMemFree: 1 kB\n"),
        2048
    );
    let dev = "Inter-| Receive\n face |bytes\n lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n\
               eth0: 10 2 3 4 0 0 0 0 20 5 6 7 0 0 0 0\n";
    let networks = parse_net_dev(dev);
    assert_eq!(networks.len(), 1);
    assert_eq!(
        (networks["eth0"].rx_dropped, networks["eth0"].tx_bytes),
        (4, 20)
    );
}
