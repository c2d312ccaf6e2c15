//! The page: a template with `@names@`, which the cluster delivers as a config.

use crate::book::{Book, Entry};

/// What a page tells of who serves whom.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    /// Heading.
    pub(crate) title: &'a str,
    /// The replica of `web` that answers.
    pub(crate) replica: &'a str,
    /// Its node.
    pub(crate) node: &'a str,
    /// Whom it sees.
    pub(crate) client: &'a str,
}

/// Fills the template in. Unknown names stay as they are.
pub(crate) fn render(template: &str, facts: &Facts<'_>, book: &Book) -> String {
    let entry = |entry: &Entry| {
        let (from, text) = (escape(&entry.from), escape(&entry.text));
        format!("<li><q>{text}</q> {from}</li>\n")
    };
    let value = |name: &str| {
        Some(match name {
            "title" => escape(facts.title),
            "replica" => escape(facts.replica),
            "node" => escape(facts.node),
            "client" => escape(facts.client),
            "api" => escape(&book.replica),
            "api-node" => escape(&book.node),
            "visits" => book.visit_count.to_string(),
            "entries" => book.entries.iter().map(entry).collect(),
            _ => return None,
        })
    };
    let mut page = String::with_capacity(template.len());
    let mut rest = template;
    // What was filled in is never looked at again, so that guests cannot write names.
    while let Some((before, after)) = rest.split_once('@') {
        page += before;
        let named = after.split_once('@');
        rest = match named.and_then(|(name, after)| Some((value(name)?, after))) {
            Some((value, after)) => {
                page += &value;
                after
            }
            None => {
                page.push('@');
                after
            }
        };
    }
    page + rest
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_names_who_serves_whom_and_nothing_guests_write_is_markup() {
        let facts = Facts {
            title: "A & B",
            replica: "web.2",
            node: "node3",
            client: "192.0.2.7",
        };
        let book = Book {
            replica: "api.1".to_owned(),
            node: "node1".to_owned(),
            visit_count: 12,
            entries: vec![Entry {
                from: "192.0.2.8".to_owned(),
                text: "<script>@client@".to_owned(),
            }],
        };
        let template = "me@home @title@ @replica@/@node@ @client@ @api@/@api-node@ @visits@ @unknown@ @entries@";
        let expected = "me@home A &amp; B web.2/node3 192.0.2.7 api.1/node1 12 @unknown@ \
            <li><q>&lt;script&gt;@client@</q> 192.0.2.8</li>\n";
        assert_eq!(render(template, &facts, &book), expected);
    }
}
