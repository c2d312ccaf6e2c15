//! wrk, as hard a client as there is: it asks as fast as it is answered until it is told to stop.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

use super::faults::Count;
use crate::local_cluster::signal;

/// Connections at once. With two processors more only wait for each other.
const CONNECTION_COUNT: &str = "4";

/// Longest time at work; also when nobody is left to stop it.
const TIME_MAX: &str = "10m";

/// wrk at work.
#[derive(Debug)]
pub(super) struct Wrk {
    child: Child,
}

// === impl Wrk ===

impl Wrk {
    /// Starts asking.
    pub(super) fn start(target: SocketAddr, is_kept_alive: bool) -> anyhow::Result<Self> {
        let mut command = Command::new("wrk");
        command.args(["-t", "1", "-c", CONNECTION_COUNT, "-d", TIME_MAX]);
        command.args(["--timeout", "5s"]);
        if !is_kept_alive {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(format!("http://{target}/"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn();
        let child = child.context("failed to run wrk; `apt-get install wrk`")?;
        Ok(Self { child })
    }

    /// Stops; what was counted.
    pub(super) fn finish(mut self) -> anyhow::Result<Count> {
        signal(u64::from(self.child.id()), "INT")?;
        let mut text = String::new();
        let mut output = self.child.stdout.take().context("wrk has an output")?;
        output.read_to_string(&mut text).context("wrk's output")?;
        let status = self.child.wait().context("wrk")?;
        ensure!(status.success(), "wrk: {status}: {text}");
        parse(&text).with_context(|| format!("wrk said: {text}"))
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(text: &str) -> anyhow::Result<Count> {
    let mut count = Count::default();
    let lines = || text.lines().map(str::trim);
    let requests = lines().find_map(|line| line.split_once(" requests in "));
    let (requests, _) = requests.context("no number of requests")?;
    let bad = lines().find_map(|line| line.strip_prefix("Non-2xx or 3xx responses: "));
    let bad: u64 = bad.map_or(Ok(0), str::parse)?;
    if bad > 0 {
        count.failed.insert("status", bad);
    }
    count.answered = requests.parse::<u64>()? - bad;
    if let Some(errors) = lines().find_map(|line| line.strip_prefix("Socket errors: ")) {
        for error in errors.split(", ") {
            let (kind, number) = error.split_once(' ').context("an error without number")?;
            let kind = match kind {
                "connect" => "connect",
                "read" => "reset",
                "write" => "write",
                _ => "timeout",
            };
            let number: u64 = number.parse()?;
            if number > 0 {
                count.failed.insert(kind, number);
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_all_kinds_are_read() {
        let text = "Running 1h test @ http://127.0.0.1:1/\n  1 threads and 4 connections\n  20 requests in 1.10s, 0.99MB read\n  \
                    Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 2\nRequests/sec: 18.1\n";
        let count = parse(text).unwrap();
        assert_eq!(count.answered, 18);
        let failed: Vec<_> = count.failed.into_iter().collect();
        assert_eq!(failed, [("reset", 3), ("status", 2), ("timeout", 1)]);
        assert!(parse("unable to connect").is_err());
    }
}
