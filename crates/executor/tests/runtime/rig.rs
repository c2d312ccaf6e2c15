//! A runtime in a temporary directory, a busybox root file system, and a clean-up that leaves nothing.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use skep_executor::runtime::{
    ContainerConfig, ContainerId, Handle, OciChoice, Runtime, RuntimeConfig, config::Rootfs,
};

/// Longest wait for anything in a test.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Rig {
    pub(crate) runtime: Runtime,
    pub(crate) dir: PathBuf,
    pub(crate) config: RuntimeConfig,
    number: AtomicU32,
}

impl Rig {
    pub(crate) fn new(oci: OciChoice) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "skep-rt-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = Path::new("/tmp").join(&name);
        make_rootfs(&dir.join("lower"));
        let config = RuntimeConfig {
            root: dir.join("containers"),
            run_dir: dir.join("run"),
            monitor_command: vec![monitor_program().into()],
            oci,
            cgroup_parent: format!("/{name}"),
            init: None,
        };
        let runtime = Runtime::new(config.clone()).unwrap();
        Self {
            runtime,
            dir,
            config,
            number: AtomicU32::new(0),
        }
    }

    /// A second runtime on the same directories, as after a restart of the daemon.
    pub(crate) fn restarted(&self) -> Runtime {
        Runtime::new(self.config.clone()).unwrap()
    }

    pub(crate) fn id(&self) -> ContainerId {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        format!("{number:064}").parse().unwrap()
    }

    /// `sh -c script` on an overlay of its own.
    pub(crate) fn shell(&self, script: &str) -> ContainerConfig {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let own = self.dir.join(format!("rw{number}"));
        fs::create_dir_all(own.join("upper")).unwrap();
        fs::create_dir_all(own.join("work")).unwrap();
        ContainerConfig {
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            rootfs: Rootfs::Overlay {
                lower: vec![self.dir.join("lower")],
                upper: own.join("upper"),
                work: own.join("work"),
            },
            ..ContainerConfig::default()
        }
    }

    pub(crate) async fn started(&self, script: &str) -> Handle {
        let handle = self
            .runtime
            .create(&self.id(), self.shell(script))
            .await
            .unwrap();
        handle.start().await.unwrap();
        handle
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let (runtime, root) = (self.restarted(), self.config.root.clone());
        // A thread of its own: a runtime may be running on this one.
        std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            for entry in fs::read_dir(root).into_iter().flatten().flatten() {
                let id = entry.file_name().into_string().unwrap().parse().unwrap();
                let _ = tokio.block_on(runtime.delete(&id));
            }
        })
        .join()
        .unwrap();
        let hierarchies = skep_executor::runtime::cgroup::Hierarchies::read().unwrap();
        for dir in hierarchies.dirs(&self.config.cgroup_parent) {
            wait_until("the test's cgroups are removed", || {
                let _ = fs::remove_dir(dir.join("monitor"));
                let _ = fs::remove_dir(&dir);
                !dir.exists()
            });
        }
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !is_done() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Both OCI runtimes: each test's body runs once with either.
pub(crate) const BOTH: [OciChoice; 2] = [OciChoice::Crun, OciChoice::Runc];

fn monitor_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/monitor");
    assert!(
        path.exists(),
        "build the example `monitor` first: {}",
        path.display()
    );
    path
}

fn make_rootfs(root: &Path) {
    for dir in ["bin", "proc", "dev", "sys", "etc", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "sleep", "echo", "cat", "id", "true", "yes", "head", "stty", "seq", "kill",
        "hostname", "dd",
    ] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n",
    )
    .unwrap();
}
