//! The guestbook: the program of the example application, in its three roles.
//!
//! `guestbook web` serves the page, `guestbook api` keeps the book in the database, `guestbook check` asks the server of its own
//! container whether it is well. What it is for and how it is deployed is told in `README.md` beside the sources.

use std::{env, process::ExitCode};

use anyhow::bail;

mod api;
mod book;
mod client;
mod form;
mod http;
mod page;
mod redis;
mod server;
mod settings;
mod web;

use settings::Settings;

const USAGE: &str = "usage: guestbook web|api|check";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a command says why it failed")]
            {
                eprintln!("guestbook: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the environment is read here, and nowhere else"
    )]
    let settings = Settings::read(|name| env::var(name).ok())?;
    match env::args().nth(1).as_deref() {
        Some("web") => server::run(settings.port, web::Web::open(&settings)?),
        Some("api") => server::run(settings.port, api::Api::open(&settings)?),
        Some("check") => client::check(settings.port),
        _ => bail!(USAGE),
    }
}
