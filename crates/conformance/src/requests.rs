//! Requests to every node of a cluster that go on while something else is done.

use std::{
    collections::BTreeMap,
    io::Read,
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::{cluster::Cluster, images::built};

/// A load from the cluster's machine to one port of every node.
#[derive(Debug)]
pub struct Requests {
    process: Child,
}

// === impl Requests ===

impl Requests {
    /// Begins; `flags` are those of `skep-load`.
    ///
    /// # Panics
    /// When it cannot, as all methods panic when something fails that the test does not ask about.
    pub fn start(cluster: &Cluster, port: u16, flags: &str) -> Self {
        let numbers = cluster.numbers();
        let targets = numbers.map(|number| format!("{}:{port}", cluster.address(number)));
        let mut command = cluster.inside(&built("skep-load"));
        command.args(flags.split_whitespace()).args(targets);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Self {
            process: piped.expect("the load can be run"),
        }
    }

    /// Ends them; a tally for each target.
    pub fn finish(mut self) -> BTreeMap<String, Value> {
        drop(self.process.stdin.take());
        let mut text = String::new();
        let output = self.process.stdout.as_mut().expect("a pipe");
        output.read_to_string(&mut text).expect("a tally");
        self.process.wait().expect("the load ends");
        serde_json::from_str(&text).expect("a tally is JSON")
    }

    /// Runs kept and single connections for `path` while `work` is done; none of their requests may fail.
    #[track_caller]
    pub fn unnoticed(
        cluster: &Cluster,
        (port, path): (u16, &str),
        what: &str,
        work: impl FnOnce(),
    ) {
        let flags = format!("--path {path} --clients 2 --pause 5");
        let loads = [
            Self::start(cluster, port, &flags),
            Self::start(cluster, port, &format!("{flags} --close")),
        ];
        work();
        for load in loads {
            for (target, tally) in load.finish() {
                let answered = tally["answered"].as_u64().unwrap_or(0);
                assert!(answered > 0, "{what}: {target} answers nothing");
                assert_eq!(tally["failed"], 0, "{what}: {target}: {tally}");
            }
        }
    }
}
