//! `skep exec`: a command beside a task, on whatever node it is. Design: `docs/design/remote-exec.md`.

use std::{
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
    thread,
};

use anyhow::{Context, bail};
use serde_json::json;
use skep_docker_api::{
    backend::{TaskInput, TaskOutput},
    client::ConsoleWriter,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::{args::Connection, url::escape};

mod terminal;

use self::terminal::RawTerminal;

/// Bytes of input read in one go.
const READ_BYTES: usize = 32 << 10;
/// Pieces of input that wait for the daemon.
const INPUT_QUEUE: usize = 4;
/// As shells say that a program ended with a code that is none.
const UNKNOWN: u8 = 255;

/// Which task, what, and how.
#[derive(Debug, Clone, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the flags of `docker exec`"
)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Do not wait for it
    #[arg(short, long)]
    detach: bool,
    /// Set a variable: NAME=VALUE, or NAME as it is here; may be repeated
    #[arg(short, long)]
    env: Vec<String>,
    /// User, as NAME or UID, with :GROUP if wanted
    #[arg(short, long, default_value = "", hide_default_value = true)]
    user: String,
    /// Working directory
    #[arg(short, long, default_value = "", hide_default_value = true)]
    workdir: String,
    /// Give it all privileges
    #[arg(long)]
    privileged: bool,
    /// SERVICE.SLOT, SERVICE.NODE, SERVICE for any of its tasks, or a task's id
    task: String,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command; its exit code.
pub(crate) async fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let client = args.connection.client()?;
    if args.tty && args.interactive && !args.detach && !io::stdin().is_terminal() {
        bail!("the input device is not a TTY");
    }
    let size = args.tty.then(terminal::size).flatten();
    let body = json!({
        "Cmd": args.command,
        "Env": environment(&args.env, |name| std::env::vars().find(|it| it.0 == name).map(|it| it.1)),
        "User": args.user,
        "WorkingDir": args.workdir,
        "Privileged": args.privileged,
        "Tty": args.tty,
        "AttachStdin": args.interactive,
        "AttachStdout": true,
        "AttachStderr": true,
        "ConsoleSize": size.map(|size| [size.height, size.width]),
    });
    let path = format!("/skep/v1/exec?task={}", escape(&args.task));
    if args.detach {
        client.post(&format!("{path}&detach=1"), &body).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let resized = match args.tty {
        true => Some(signal(SignalKind::window_change()).context("failed to watch the terminal")?),
        false => None,
    };
    let (mut reader, mut writer) = client.console(&path, &body).await?;
    let is_raw = args.tty && args.interactive;
    let raw = is_raw.then(RawTerminal::enter).transpose()?;
    let given = args.interactive.then(read_input);
    let output = async {
        while let Some(output) = reader.next().await? {
            match output {
                TaskOutput::Stdout(data) => out.write_all(&data).and_then(|()| out.flush())?,
                TaskOutput::Stderr(data) => io::stderr().write_all(&data)?,
                TaskOutput::Exit(code) => return Ok(code),
                TaskOutput::Failed(reason) => bail!("{reason}"),
            }
        }
        bail!("the daemon closed the connection")
    };
    let code = tokio::select! {
        code = output => code,
        broken = feed(&mut writer, given, resized) => Err(broken),
    };
    drop(raw);
    let code = code?;
    Ok(u8::try_from(code).unwrap_or(UNKNOWN).into())
}

/// Sends input and sizes of the terminal for as long as the daemon takes them.
async fn feed(
    writer: &mut ConsoleWriter,
    mut given: Option<mpsc::Receiver<Vec<u8>>>,
    mut resized: Option<Signal>,
) -> anyhow::Error {
    loop {
        let input = tokio::select! {
            data = next(&mut given) => match data {
                Some(data) => TaskInput::Data(data.into()),
                None => {
                    given = None;
                    TaskInput::End
                }
            },
            () = change(&mut resized) => match terminal::size() {
                Some(size) => TaskInput::Resize(size),
                None => continue,
            },
        };
        if writer.send(&input).await.is_err() {
            // What the daemon said before it ended is still to be read.
            return std::future::pending().await;
        }
    }
}

async fn next(given: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match given {
        Some(given) => given.recv().await,
        None => std::future::pending().await,
    }
}

async fn change(resized: &mut Option<Signal>) {
    match resized {
        Some(resized) => drop(resized.recv().await),
        None => std::future::pending().await,
    }
}

/// Reads standard input on a thread of its own, which does not keep the program from ending.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (tx, rx) = mpsc::channel(INPUT_QUEUE);
    thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut buffer) {
            if tx.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    rx
}

/// Variables as they are to be; a name alone has the value it has here, and none if it is not set.
fn environment(wanted: &[String], here: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let one = |entry: &String| match entry.contains('=') {
        true => Some(entry.clone()),
        false => here(entry).map(|value| format!("{entry}={value}")),
    };
    wanted.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Line::parse_from(line.split(' ')).args
    }

    #[test]
    fn the_commands_own_flags_are_its_own() {
        let args = args("exec -it -e A=1 -e B -u 1:2 -w /x web.1 ls -l --color");
        assert!(args.interactive && args.tty && !args.detach);
        assert_eq!(
            (&*args.task, &*args.user, &*args.workdir),
            ("web.1", "1:2", "/x")
        );
        assert_eq!(args.command, ["ls", "-l", "--color"]);
        let here = |name: &str| (name == "B").then(|| "2".to_owned());
        assert_eq!(environment(&args.env, here), ["A=1", "B=2"]);
        assert_eq!(environment(&["C".to_owned()], here), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_detached_command_is_only_asked_for() {
        let turn = (
            "POST /skep/v1/exec?task=web.1&detach=1 ",
            204,
            String::new(),
        );
        let daemon = FakeDaemon::new(vec![turn]);
        let mut args = args("exec -d web.1 touch /x");
        args.connection.host = Some(format!("unix://{}", daemon.path("s").display()));
        run(&args, &mut Vec::new()).await.unwrap();
        let requests = daemon.requests().await;
        assert!(
            requests[0].contains(r#""Cmd":["touch","/x"]"#),
            "{requests:?}"
        );
    }
}
