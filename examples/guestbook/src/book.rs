//! The book: how often the page was fetched, and the last entries. What `api` tells `web`, as JSON.

use anyhow::Context;
use serde_json::{Value, json};

/// The book, and who keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Book {
    /// The replica of `api` that answered.
    pub(crate) replica: String,
    /// Its node.
    pub(crate) node: String,
    /// How often the page was fetched.
    pub(crate) visit_count: i64,
    /// The last entries, newest first.
    pub(crate) entries: Vec<Entry>,
}

/// What a guest wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The guest's address.
    pub(crate) from: String,
    /// The words.
    pub(crate) text: String,
}

// === impl Book ===

impl Book {
    /// For `web`.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "replica": self.replica,
            "node": self.node,
            "visits": self.visit_count,
            "entries": self.entries.iter().map(Entry::to_json).collect::<Vec<_>>(),
        })
    }

    /// What `api` said.
    pub(crate) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_slice(bytes).context("the book is no JSON")?;
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let book = || {
            let entries = value["entries"].as_array()?.iter();
            Some(Self {
                replica: text("replica")?,
                node: text("node")?,
                visit_count: value["visits"].as_i64()?,
                entries: entries.map(Entry::from_json).collect::<Option<_>>()?,
            })
        };
        book().context("the book lacks pages")
    }
}

// === impl Entry ===

impl Entry {
    /// As it is stored and told.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "from": self.from, "text": self.text })
    }

    /// As it was stored or told.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            from: value["from"].as_str()?.to_owned(),
            text: value["text"].as_str()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn book_is_read_as_it_was_told() {
        let book = Book {
            replica: "api.1".to_owned(),
            node: "node2".to_owned(),
            visit_count: 7,
            entries: vec![Entry {
                from: "192.0.2.7".to_owned(),
                text: "\"hello\"\n<b>".to_owned(),
            }],
        };
        let told = book.to_json().to_string();
        assert_eq!(Book::parse(told.as_bytes()).unwrap(), book);
        assert!(Book::parse(b"{}").is_err());
        assert!(Book::parse(b"<html>").is_err());
    }
}
