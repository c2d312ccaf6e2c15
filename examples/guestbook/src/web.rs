//! `guestbook web`: the page, and the form on it.
//!
//! `GET /` counts a visit and shows the book, `POST /` adds an entry, `GET /whoami` answers `<replica> <client>` without asking anybody.

use std::{
    fs,
    io::{self, Write},
    net::IpAddr,
};

use anyhow::Context;

use crate::{
    book::Book,
    client, form,
    http::{Request, Response},
    page::{self, Facts},
    server::Role,
    settings::Settings,
};

/// The role.
#[derive(Debug)]
pub(crate) struct Web {
    settings: Settings,
    template: String,
}

// === impl Web ===

impl Web {
    /// Reads the template; `api` may come later.
    pub(crate) fn open(settings: &Settings) -> anyhow::Result<Self> {
        let path = &settings.template;
        let template = fs::read_to_string(path);
        let template =
            template.with_context(|| format!("failed to read the page `{}`", path.display()))?;
        Ok(Self {
            settings: settings.clone(),
            template,
        })
    }

    fn page(&self, client: &str) -> anyhow::Result<Response> {
        let book = Book::parse(&self.ask("/visits", client, Vec::new())?)?;
        let facts = Facts {
            title: &self.settings.title,
            replica: &self.settings.replica,
            node: &self.settings.node,
            client,
        };
        let page = page::render(&self.template, &facts, &book);
        Ok(Response::html(200, page))
    }

    fn add(&self, client: &str, body: &[u8]) -> anyhow::Result<Response> {
        let text = form::field(body, "text").unwrap_or_default();
        self.ask("/entries", client, text.into_bytes())?;
        Ok(Response::see_other("/"))
    }

    /// Asks `api` in the name of the client.
    fn ask(&self, path: &str, client: &str, body: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let request = Request {
            method: "POST".to_owned(),
            path: path.to_owned(),
            forwarded_for: Some(client.to_owned()),
            body,
            ..Request::default()
        };
        client::ask(&self.settings.api, &request)
    }
}

impl Role for Web {
    fn answer(&self, request: &Request, peer: IpAddr) -> Response {
        let client = peer.to_string();
        let outcome = match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/") => self.page(&client),
            ("POST", "/") => self.add(&client, &request.body),
            ("GET", "/whoami") => {
                let said = format!("{} {client}\n", self.settings.replica);
                Ok(Response::text(200, said))
            }
            ("GET", "/health") => return Response::text(200, "well\n"),
            _ => Ok(Response::text(404, "no such page\n")),
        };
        let answer = outcome
            .unwrap_or_else(|error| Response::text(503, format!("the book is away: {error:#}\n")));
        // The access log: `docker service logs`. Without a reader, pages are served all the same.
        let (method, path, status) = (&request.method, &request.path, answer.status);
        let _ = writeln!(io::stdout(), "{client} {method} {path} {status}");
        answer
    }
}
