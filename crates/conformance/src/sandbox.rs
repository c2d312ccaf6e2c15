//! Namespaces of network, mounts and processes for one node: what happens inside collides with nothing and cannot be left over.
//!
//! The first process inside reads its standard input, a pipe. When the test ends in whatever way, the pipe closes, that process
//! ends, and the kernel kills all others inside, unmounts and drops the network.

use std::{
    fs,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use crate::{docker::Output, poll::until};

/// Prepares the namespaces. Mounts are shared inside, as on a machine that systemd started. Name servers are cut off, so that looking up a registry fails at once instead of timing out.
const INIT: &str = "mount --make-rshared / && ip link set lo up && echo nameserver 127.0.0.1 > \"$1/resolv.conf\" && \
    mount --bind \"$1/resolv.conf\" /etc/resolv.conf && touch \"$1/inside\" && read -r _";

/// The namespaces; gone when dropped.
#[derive(Debug)]
pub(crate) struct Sandbox {
    outer: Child,
    pipe: Option<ChildStdin>,
    init: String,
}

// === impl Sandbox ===

impl Sandbox {
    /// Makes the namespaces; `dir` is for small files.
    pub(crate) fn new(dir: &Path) -> Self {
        let mut command = Command::new("unshare");
        command
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["--propagation", "slave", "bash", "-c", INIT, "init"])
            .arg(dir)
            .stdin(Stdio::piped());
        let mut outer = command.spawn().expect("unshare can be run; it needs root");
        let pipe = outer.stdin.take();
        let id = outer.id();
        let init = until("namespaces are ready", Duration::from_secs(20), || {
            if !dir.join("inside").exists() {
                return Err("the first process is not done".to_owned());
            }
            child_of(id).ok_or_else(|| "no first process".to_owned())
        });
        Self { outer, pipe, init }
    }

    /// A command that will run inside.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.init, "-n", "-m", "-p", "--"])
            .arg(program);
        command
    }

    /// Runs a shell script inside.
    pub(crate) fn run(&self, script: &str) -> Output {
        let mut command = self.command(Path::new("bash"));
        command.args(["-c", script]).stdin(Stdio::null());
        command.output().expect("bash can be run").into()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.outer.kill();
        let _ = self.outer.wait();
    }
}

/// The first child of a process.
fn child_of(id: u32) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}
