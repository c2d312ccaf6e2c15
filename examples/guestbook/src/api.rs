//! `guestbook api`: keeps the book in the database.
//!
//! `POST /visits` counts a visit and tells the book, `GET /book` only tells it, `POST /entries` adds what the body says. `GET /health`
//! says nothing of the database: a database that is away is no reason to replace this server.

use std::{fs, net::IpAddr};

use anyhow::Context;

use crate::{
    book::{Book, Entry},
    http::{Request, Response},
    redis::{Database, Reply},
    server::Role,
    settings::Settings,
};

/// Entries that are kept.
const ENTRY_COUNT_MAX: usize = 100;
/// Entries that are told.
const TOLD_COUNT: usize = 10;
/// Longest entry, in characters.
const ENTRY_CHARS_MAX: usize = 280;

/// The role.
#[derive(Debug)]
pub(crate) struct Api {
    replica: String,
    node: String,
    database: Database,
}

// === impl Api ===

impl Api {
    /// Reads the password; the database may come later.
    pub(crate) fn open(settings: &Settings) -> anyhow::Result<Self> {
        let path = &settings.password;
        let password = fs::read_to_string(path);
        let password =
            password.with_context(|| format!("failed to read the secret `{}`", path.display()))?;
        Ok(Self {
            replica: settings.replica.clone(),
            node: settings.node.clone(),
            database: Database::new(settings.database.clone(), password.trim().to_owned()),
        })
    }

    /// The book, after a visit was counted if so wished.
    fn book(&self, is_visit: bool) -> anyhow::Result<Book> {
        let count = if is_visit { "1" } else { "0" };
        let last = (TOLD_COUNT - 1).to_string();
        let replies = self.database.transaction(&[
            &["INCRBY", "visits", count],
            &["LRANGE", "entries", "0", &last],
        ])?;
        let (visit_count, entries) = match replies.as_slice() {
            [Reply::Number(count), Reply::List(entries)] => (*count, entries),
            other => anyhow::bail!("the database answered {other:?}"),
        };
        let entries = entries.iter().filter_map(|entry| match entry {
            Reply::Text(Some(text)) => Entry::from_json(&serde_json::from_str(text).ok()?),
            _ => None,
        });
        Ok(Book {
            replica: self.replica.clone(),
            node: self.node.clone(),
            visit_count,
            entries: entries.collect(),
        })
    }

    fn add(&self, text: &str, from: String) -> anyhow::Result<()> {
        let text: String = text.trim().chars().take(ENTRY_CHARS_MAX).collect();
        if text.is_empty() {
            return Ok(());
        }
        let entry = Entry { from, text }.to_json().to_string();
        let last = (ENTRY_COUNT_MAX - 1).to_string();
        let add: &[&str] = &["LPUSH", "entries", &entry];
        self.database
            .transaction(&[add, &["LTRIM", "entries", "0", &last]])?;
        Ok(())
    }
}

impl Role for Api {
    fn answer(&self, request: &Request, peer: IpAddr) -> Response {
        let told = |book: anyhow::Result<Book>| book.map(|book| Response::json(&book.to_json()));
        let outcome = match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/health") => Ok(Response::text(200, "well\n")),
            ("GET", "/book") => told(self.book(false)),
            ("POST", "/visits") => told(self.book(true)),
            ("POST", "/entries") => {
                let from = request.forwarded_for.clone();
                let from = from.unwrap_or_else(|| peer.to_string());
                let added = self.add(&String::from_utf8_lossy(&request.body), from);
                added.map(|()| Response::text(200, "added\n"))
            }
            _ => Ok(Response::text(404, "no such page\n")),
        };
        outcome.unwrap_or_else(|error| Response::text(503, format!("{error:#}\n")))
    }
}
