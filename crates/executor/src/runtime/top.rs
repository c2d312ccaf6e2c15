//! `docker top`: the host's `ps`, filtered by the container's processes.

use std::time::Duration;

use tokio::{process::Command, time::timeout};

use super::{error::Error, handle::Handle, probe::find_program};

/// `ps` reads `/proc` once.
const PS_WAIT_MAX: Duration = Duration::from_secs(10);

/// Docker's default.
const DEFAULT_ARGS: &str = "-ef";

/// A table of processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processes {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

impl Handle {
    /// Lists the container's processes; `ps_args` empty means `-ef`.
    pub async fn top(&self, ps_args: &str) -> Result<Processes, Error> {
        let args = if ps_args.trim().is_empty() {
            DEFAULT_ARGS
        } else {
            ps_args
        };
        check_args(args)?;
        let pids = self.pids()?;
        if pids.is_empty() {
            return Err(Error::NotRunning(self.id().clone()));
        }
        let ps = find_program("ps").ok_or_else(|| Error::Top("no `ps` on this node".to_owned()))?;
        let output = Command::new(ps)
            .args(args.split_whitespace())
            .kill_on_drop(true)
            .output();
        let output = timeout(PS_WAIT_MAX, output)
            .await
            .map_err(|_| Error::Top("ps did not end in time".to_owned()))?
            .map_err(|error| Error::Top(format!("error running ps: {error}")))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Top(format!("ps: {}", words.trim())));
        }
        select(&String::from_utf8_lossy(&output.stdout), &pids)
    }
}

/// A renamed pid column could not be found again.
fn check_args(args: &str) -> Result<(), Error> {
    match args.split([' ', ',']).any(|word| word.starts_with("pid=")) {
        true => Err(Error::Top(format!("specifying \"{args}\" is not allowed"))),
        false => Ok(()),
    }
}

/// The rows of `text` (the output of `ps`) that belong to `pids`. Pure.
fn select(text: &str, pids: &[i32]) -> Result<Processes, Error> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::Top("couldn't find PID field in ps output".to_owned()))?;
    let row = |line: &str| {
        // The last column is the command with its blanks.
        let mut fields = Vec::with_capacity(titles.len());
        let mut rest = line.trim();
        while fields.len() + 1 < titles.len() {
            let (field, tail) = rest.split_once(char::is_whitespace)?;
            fields.push(field.to_owned());
            rest = tail.trim_start();
        }
        fields.push(rest.to_owned());
        let pid: i32 = fields.get(column)?.trim().parse().ok()?;
        pids.contains(&pid).then_some(fields)
    };
    let processes = lines.filter_map(row).collect();
    Ok(Processes { titles, processes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_container_keep_the_command_in_one_piece() {
        let text = "UID    PID  CMD\nroot     1  init --long  x\nroot    22  sh -c  a b\n";
        let table = select(text, &[22, 99]).unwrap();
        assert_eq!(table.titles, ["UID", "PID", "CMD"]);
        assert_eq!(table.processes, [["root", "22", "sh -c  a b"]]);
    }

    #[test]
    fn output_without_a_pid_column_is_refused() {
        assert!(select("CMD\ninit\n", &[1]).is_err());
        assert!(check_args("-o pid=x").is_err());
    }
}
