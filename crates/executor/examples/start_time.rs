//! Measures what a container costs: time and CPU from `create` to running, time to delete, and a monitor's private memory.
//!
//! `start_time MONITOR crun|runc ROOTFS COUNT` as root; `ROOTFS` holds a static `/bin/busybox`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};
use skep_executor::runtime::{ContainerConfig, OciChoice, Runtime, RuntimeConfig, config::Rootfs};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [monitor, oci, rootfs, count] = &args[..] else {
        return Err("usage: start_time MONITOR crun|runc ROOTFS COUNT".into());
    };
    let oci = if oci == "runc" {
        OciChoice::Runc
    } else {
        OciChoice::Crun
    };
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio.block_on(measure(monitor, oci, Path::new(rootfs), count.parse()?))
}

async fn measure(monitor: &str, oci: OciChoice, rootfs: &Path, count: usize) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let runtime = Runtime::new(RuntimeConfig {
        root: dir.path().join("c"),
        run_dir: dir.path().join("run"),
        monitor_command: vec![monitor.into()],
        oci,
        cgroup_parent: "/skep-measure".to_owned(),
        init: None,
    })?;
    runtime.probe().await?;
    let (mut creates, mut starts, mut deletes, mut memory) = (vec![], vec![], vec![], vec![]);
    let cpu_before = cpu()?;
    for index in 0..count {
        let id = format!("m{index}").parse()?;
        let config = config(dir.path(), rootfs, index)?;
        let begin = Instant::now();
        let handle = runtime.create(&id, config).await?;
        let created = Instant::now();
        let state = handle.start().await?;
        creates.push(created - begin);
        starts.push(created.elapsed());
        memory.push(private_kib(state.monitor.pid)?);
        let begin = Instant::now();
        handle.kill().await?;
        runtime.delete(&id).await?;
        deletes.push(begin.elapsed());
    }
    let count = u32::try_from(count)?;
    let cpu = (cpu()? - cpu_before) / count;
    memory.sort_unstable();
    let memory = memory.get(memory.len() / 2).ok_or("nothing measured")?;
    let (create, start, delete) = (median(creates), median(starts), median(deletes));
    let text = format!(
        "create {create:?} start {start:?} kill+delete {delete:?} cpu/container {cpu:?} monitor {memory} KiB private\n"
    );
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(())
}

fn config(dir: &Path, rootfs: &Path, index: usize) -> Outcome<ContainerConfig> {
    let own = |name: &str| -> Outcome<PathBuf> {
        let path = dir.join(format!("rw{index}")).join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    };
    let (upper, work) = (own("upper")?, own("work")?);
    Ok(ContainerConfig {
        args: ["/bin/busybox", "sleep", "1000"]
            .map(str::to_owned)
            .to_vec(),
        rootfs: Rootfs::Overlay {
            lower: vec![rootfs.to_owned()],
            upper,
            work,
        },
        ..ContainerConfig::default()
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Of this process and of children that have ended and were waited for: the monitors with what they ran.
fn cpu() -> Outcome<Duration> {
    let mut total = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            total += Duration::from_secs(u64::try_from(time.tv_sec())?)
                + Duration::from_micros(u64::try_from(time.tv_usec())?);
        }
    }
    Ok(total)
}

fn private_kib(pid: i32) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let of = |line: &str| {
        line.split_whitespace()
            .nth(1)
            .and_then(|n| n.parse::<u64>().ok())
    };
    Ok(text
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(of)
        .sum())
}
