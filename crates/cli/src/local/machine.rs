//! Applies a layout to this machine: namespaces, links, daemons. Every step is idempotent and writes
//! down what it made before that can outlive the command, so whatever ended half-way is continued or
//! removed by the next one.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::Signal;
use skep_docker_api::client::Client;

use crate::local::{
    cgroups,
    layout::{self, Cut, Layout},
    namespace::{self, Kind},
    process::{self, Process},
    state::State,
};

/// How long a daemon may take until it answers. It finds up to hundreds of containers again.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two questions.
const READY_POLL: Duration = Duration::from_millis(20);
/// A daemon gives its clients 10 s when told to stop.
const STOP_WAIT_MAX: Duration = Duration::from_secs(30);
/// What is killed has to leave the kernel.
const KILL_WAIT_MAX: Duration = Duration::from_secs(30);
/// Lines of a log that are shown when a daemon does not start.
const LOG_LINE_COUNT: usize = 10;

/// How a node's daemon is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In good order.
    Stop,
    /// At once; containers stay.
    Kill,
    /// With all containers and the network, as when the plug is pulled.
    PowerOff,
}

/// A local cluster and what is written down of it.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) state: State,
    pub(crate) layout: Layout,
}

// === impl Machine ===

impl Machine {
    /// The cluster called `name` in `state`.
    pub(crate) fn new(name: &str, state: State) -> Self {
        let layout = state.layout(name);
        Self { state, layout }
    }

    pub(crate) fn save(&self) -> anyhow::Result<()> {
        self.state.write(&self.layout.name)
    }

    /// The switch with this machine's link.
    pub(crate) fn ensure_switch(&mut self) -> anyhow::Result<Process> {
        let switch = match self.state.switch.filter(Process::is_alive) {
            Some(switch) => switch,
            None => {
                let fresh = namespace::create(Kind::Switch)?;
                let switch = fresh.process;
                self.state.switch = Some(switch);
                self.save()?;
                fresh.keep()?;
                switch
            }
        };
        let links = namespace::links(Some(&switch))?;
        let script = self.layout.switch_script(&links, std::process::id());
        // The machine's end of a switch that is no more would be in the way.
        if !script.is_empty() {
            self.delete_host_link()?;
        }
        namespace::feed(Some(&switch), batch(), &script)?;
        namespace::feed(None, batch(), &self.layout.host_script())?;
        Ok(switch)
    }

    /// A node's namespaces with their link.
    pub(crate) fn ensure_node(&mut self, number: u8) -> anyhow::Result<Process> {
        let switch = self.state.switch.filter(Process::is_alive);
        let switch = switch.context("the switch is gone")?;
        let holder = match self.state.holder(number) {
            Some(holder) => holder,
            None => self.make_node(number)?,
        };
        let links = namespace::links(Some(&holder))?;
        let ports = namespace::links(Some(&switch))?;
        let script = self.layout.port_script(number, holder.pid, &ports, &links);
        namespace::feed(Some(&switch), batch(), &script)?;
        if !script.is_empty() {
            namespace::feed(Some(&holder), batch(), &self.layout.node_script(number))?;
        }
        Ok(holder)
    }

    /// As after a reboot: nothing of a former life runs, and what `/run` said is no longer true.
    fn make_node(&mut self, number: u8) -> anyhow::Result<Process> {
        let (data, run) = (
            self.layout.node_data_dir(number),
            self.layout.node_run_dir(number),
        );
        remove_dir(&run)?;
        cgroups::remove_of(&data);
        for dir in [data, run] {
            let mut builder = fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o711).create(&dir);
            made.with_context(|| format!("failed to create `{}`", dir.display()))?;
        }
        let name = layout::node_name(number);
        let fresh = namespace::create(Kind::Node { name: &name })?;
        let holder = fresh.process;
        let node = self.state.nodes.entry(number).or_default();
        node.holder = Some(holder);
        node.daemon = None;
        self.save()?;
        fresh.keep()?;
        Ok(holder)
    }

    /// A node's daemon; does not wait until it answers.
    pub(crate) fn ensure_daemon(&mut self, number: u8) -> anyhow::Result<Process> {
        if let Some(daemon) = self.state.daemon(number) {
            return Ok(daemon);
        }
        let holder = self.state.holder(number).context("the node is gone")?;
        // One that was started by a command that ended before it could write that down.
        if let Some(daemon) = self.stray(number, &holder)? {
            return self.remember(number, daemon);
        }
        let program = namespace::executable()?;
        let more = &self.state.daemon_arguments;
        let mut command = Command::new(&program);
        command
            .args(["local", "launch"])
            .arg(self.layout.log(number));
        command.arg("--").arg(&program);
        command.args(self.layout.daemon_arguments(number, more));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = namespace::spawn_in(&holder, false, &mut command)?;
        let output = child.wait_with_output()?;
        let inner = String::from_utf8_lossy(&output.stdout);
        let Ok(inner) = inner.trim().parse() else {
            bail!(
                "failed to start the daemon of {}",
                layout::node_name(number)
            );
        };
        let pid = process::pid_of(inner, &holder)?;
        let daemon = pid.and_then(|pid| Process::of(pid).ok());
        let daemon = daemon.with_context(|| self.ended(number))?;
        self.remember(number, daemon)
    }

    fn remember(&mut self, number: u8, daemon: Process) -> anyhow::Result<Process> {
        self.state.nodes.entry(number).or_default().daemon = Some(daemon);
        self.save()?;
        Ok(daemon)
    }

    /// A running daemon by the pid it wrote into its lock, which is one of its node's namespace.
    fn stray(&self, number: u8, holder: &Process) -> anyhow::Result<Option<Process>> {
        let lock = self.layout.node_data_dir(number).join("daemon.lock");
        let Ok(text) = fs::read_to_string(lock) else {
            return Ok(None);
        };
        let Ok(inner) = text.trim().parse() else {
            return Ok(None);
        };
        let Some(pid) = process::pid_of(inner, holder)? else {
            return Ok(None);
        };
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let data = self.layout.node_data_dir(number).display().to_string();
        let is_daemon =
            line.split('\0').nth(1) == Some("daemon") && line.split('\0').any(|word| word == data);
        Ok(Process::of(pid)
            .ok()
            .filter(|process| is_daemon && process.is_alive()))
    }

    /// Waits until a node's daemon answers.
    pub(crate) async fn wait_ready(&self, number: u8) -> anyhow::Result<()> {
        let client = self.client(number);
        let start = Instant::now();
        loop {
            let asked = tokio::time::timeout(READY_WAIT_MAX, client.get("/version")).await;
            if matches!(asked, Ok(Ok(_))) {
                return Ok(());
            }
            if self.state.daemon(number).is_none() || start.elapsed() > READY_WAIT_MAX {
                bail!(self.ended(number));
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// A client of a node's daemon.
    pub(crate) fn client(&self, number: u8) -> Client {
        Client::unix(self.layout.socket(number))
    }

    fn ended(&self, number: u8) -> String {
        let path = self.layout.log(number);
        let log = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(LOG_LINE_COUNT);
        let lines = lines.get(first..).unwrap_or_default().join("\n");
        let name = layout::node_name(number);
        format!(
            "the daemon of {name} does not answer; its log `{}` ends with:\n{lines}",
            path.display()
        )
    }

    /// Ends a node's daemon. One that does not run is fine.
    pub(crate) fn end(&mut self, number: u8, how: End) -> anyhow::Result<()> {
        if how == End::PowerOff {
            if let Some(holder) = self.state.holder(number) {
                kill(&holder)?;
            }
            self.state.nodes.remove(&number);
            return self.save();
        }
        if let Some(daemon) = self.state.daemon(number) {
            if how == End::Stop {
                daemon.signal(Signal::TERM)?;
                if !daemon.wait(STOP_WAIT_MAX) {
                    bail!("the daemon still runs after {STOP_WAIT_MAX:?}; --kill does not ask it");
                }
            } else {
                kill(&daemon)?;
            }
        }
        self.state.nodes.entry(number).or_default().daemon = None;
        self.save()
    }

    /// Exactly these cuts.
    pub(crate) fn set_cuts(&mut self, cuts: BTreeMap<u8, Cut>) -> anyhow::Result<()> {
        let switch = self.state.switch.filter(Process::is_alive);
        let switch = switch.context("the cluster does not run; `skep local up` starts it")?;
        let mut command = Command::new("nft");
        command.args(["-f", "-"]);
        namespace::feed(Some(&switch), command, &layout::cut_script(&cuts))
            .context("failed to set the filter of the switch")?;
        self.state.cuts = cuts;
        self.save()
    }

    /// Removes everything. Goes on past failures and returns the first.
    pub(crate) fn remove(&mut self) -> anyhow::Result<()> {
        let nodes = self.state.nodes.values().filter_map(|node| node.holder);
        let holders: Vec<Process> = nodes.chain(self.state.switch).collect();
        let mut first = Ok(());
        let mut keep_first = |result: anyhow::Result<()>| {
            if first.is_ok() {
                first = result;
            }
        };
        for holder in &holders {
            keep_first(holder.signal(Signal::KILL).context("failed to end a node"));
        }
        for holder in &holders {
            keep_first(kill(holder));
        }
        keep_first(self.delete_host_link());
        for number in self.state.numbers() {
            cgroups::remove_of(&self.layout.node_data_dir(number));
        }
        keep_first(remove_dir(&self.layout.run_dir()));
        // The state is in this directory: while anything else is left, it is still written down.
        if first.is_ok() {
            first = remove_dir(&self.layout.data_dir());
        }
        first
    }

    fn delete_host_link(&self) -> anyhow::Result<()> {
        let link = self.layout.host_link();
        let exists = || Ok::<bool, io::Error>(namespace::links(None)?.contains(&link));
        if !exists()? {
            return Ok(());
        }
        let deleted = namespace::feed(None, batch(), &format!("link delete {link}\n"));
        // It goes with the switch's network, which the kernel takes down in its own time.
        if deleted.is_err() && !exists()? {
            return Ok(());
        }
        deleted
    }
}

/// Kills a process and waits until it is gone.
fn kill(process: &Process) -> anyhow::Result<()> {
    process.signal(Signal::KILL)?;
    if !process.wait(KILL_WAIT_MAX) {
        bail!("process {} does not end", process.pid);
    }
    Ok(())
}

fn batch() -> Command {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    command
}

fn remove_dir(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove `{}`", dir.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
