//! `skep local ps`

use std::io::Write;

use serde_json::{Value, json};

use crate::{
    commands::local::Format,
    local::{
        layout::node_name,
        machine::Machine,
        swarm::{ANSWER_WAIT_MAX, Membership, asked},
    },
};

/// How to list.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// How the list is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    node: String,
    role: &'static str,
    address: String,
    pid: Option<u32>,
    state: String,
    socket: String,
}

pub(super) async fn run(machine: &Machine, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    if args.format == Format::Table {
        return table(machine, out).await;
    }
    for row in rows(machine).await {
        writeln!(out, "{}", row.json())?;
    }
    Ok(())
}

/// Lists for people.
pub(super) async fn table(machine: &Machine, out: &mut dyn Write) -> anyhow::Result<()> {
    let titles = ["NODE", "ROLE", "ADDRESS", "PID", "STATE", "SOCKET"].map(str::to_owned);
    let rows = rows(machine).await;
    let lines: Vec<[String; 6]> = std::iter::once(titles)
        .chain(rows.iter().map(Row::cells))
        .collect();
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].len())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let padded: String = cells
            .map(|(cell, width)| format!("{cell:width$}   "))
            .collect();
        writeln!(out, "{padded}{}", line[5])?;
    }
    Ok(())
}

async fn rows(machine: &Machine) -> Vec<Row> {
    let mut rows = Vec::new();
    for number in machine.state.numbers() {
        rows.push(row(machine, number).await);
    }
    rows
}

async fn row(machine: &Machine, number: u8) -> Row {
    let daemon = machine.state.daemon(number);
    let (role, state) = match (machine.state.holder(number), daemon) {
        (None, _) => ("-", "off".to_owned()),
        (Some(_), None) => ("-", "stopped".to_owned()),
        (Some(_), Some(_)) => asked_state(machine, number).await,
    };
    Row {
        node: node_name(number),
        role,
        address: machine.layout.address(number).to_string(),
        pid: daemon.map(|daemon| daemon.pid),
        state,
        socket: machine.layout.socket(number).display().to_string(),
    }
}

/// What the daemon says, and what is done to its network.
async fn asked_state(machine: &Machine, number: u8) -> (&'static str, String) {
    let client = machine.client(number);
    let Ok(member) = Membership::of(&client).await else {
        return ("-", "no answer".to_owned());
    };
    let role = match (member.state.as_str(), member.is_manager) {
        ("active", true) => {
            let path = format!("/nodes/{}", member.node_id);
            let node = asked(ANSWER_WAIT_MAX, client.get(&path)).await;
            let is_leader = node.is_ok_and(|node| node["ManagerStatus"]["Leader"] == true);
            if is_leader { "leader" } else { "manager" }
        }
        ("active", false) => "worker",
        _ => "-",
    };
    let state = match (machine.state.cuts.get(&number), member.state.as_str()) {
        (Some(cut), _) => cut.text().to_owned(),
        (None, "active") => "running".to_owned(),
        (None, "inactive") => "no member".to_owned(),
        (None, other) => other.to_owned(),
    };
    (role, state)
}

// === impl Row ===

impl Row {
    fn cells(&self) -> [String; 6] {
        let pid = self.pid.map_or("-".to_owned(), |pid| pid.to_string());
        let role = self.role.to_owned();
        [
            &self.node,
            &role,
            &self.address,
            &pid,
            &self.state,
            &self.socket,
        ]
        .map(String::clone)
    }

    fn json(&self) -> Value {
        json!({
            "Node": self.node,
            "Role": self.role,
            "Address": self.address,
            "Pid": self.pid,
            "State": self.state,
            "Socket": self.socket,
        })
    }
}
