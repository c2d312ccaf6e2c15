//! A load of HTTP requests from wherever it is run; prints one JSON object, a tally for each target, when its standard input ends.
//!
//! `skep-load [--close] [--path PATH] [--clients N] [--pause MILLISECONDS] [--patience MILLISECONDS] ADDRESS:PORT...`

use std::{
    collections::BTreeMap,
    env, io,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use skep_conformance::Load;

const USAGE: &str = "usage: skep-load [--close] [--path PATH] [--clients N] [--pause MS] [--patience MS] ADDRESS:PORT...";

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints"
)]
fn main() -> ExitCode {
    let Some(load) = parse(env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let is_over = AtomicBool::new(false);
    let tallies = thread::scope(|scope| {
        let tallies = scope.spawn(|| load.run(&is_over));
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        is_over.store(true, Ordering::Relaxed);
        tallies.join().expect("a load does not panic")
    });
    let tallies: BTreeMap<String, serde_json::Value> = tallies
        .iter()
        .map(|(target, tally)| (target.to_string(), tally.json()))
        .collect();
    println!("{}", serde_json::json!(tallies));
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Load> {
    let mut load = Load {
        targets: Vec::new(),
        path: "/".to_owned(),
        client_count: 2,
        is_kept_alive: true,
        pause: Duration::from_millis(2),
        patience: Duration::from_secs(5),
    };
    while let Some(word) = words.next() {
        if word == "--path" {
            load.path = words.next()?;
            continue;
        }
        let mut number = || words.next()?.parse::<u64>().ok();
        match word.as_str() {
            "--close" => load.is_kept_alive = false,
            "--clients" => load.client_count = usize::try_from(number()?).ok()?,
            "--pause" => load.pause = Duration::from_millis(number()?),
            "--patience" => load.patience = Duration::from_millis(number()?),
            address => load.targets.push(address.parse().ok()?),
        }
    }
    (!load.targets.is_empty()).then_some(load)
}
