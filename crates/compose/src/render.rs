//! The merged file as YAML again: canonical, so that two renderings are equal when the files say the same.
//!
//! Keys are sorted, but `name` comes first. Dollar signs of values are doubled when variables have been replaced, so that
//! the rendering can be loaded like any other file and says the same.

use crate::{
    document::Document,
    node::{Mapping, Node, Value},
    scalar,
};

/// The sections of a file, in the order they are written.
const SECTIONS: [&str; 6] = [
    "name", "services", "networks", "volumes", "secrets", "configs",
];

/// The YAML of a merged file.
pub fn render(document: &Document) -> String {
    let mut writer = Writer {
        out: String::new(),
        is_interpolated: document.is_interpolated,
    };
    let Some(map) = document.root.as_map() else {
        return String::new();
    };
    let known = SECTIONS.iter().filter_map(|key| map.get_key_value(*key));
    let others = map
        .iter()
        .filter(|(key, _)| !SECTIONS.contains(&key.as_str()));
    for (key, entry) in known.chain(others) {
        writer.entry(key, &entry.node, 0);
    }
    writer.out
}

struct Writer {
    out: String,
    is_interpolated: bool,
}

// === impl Writer ===

impl Writer {
    fn map(&mut self, map: &Mapping, indent: usize) {
        for (key, entry) in map {
            self.entry(key, &entry.node, indent);
        }
    }

    fn entry(&mut self, key: &str, node: &Node, indent: usize) {
        self.pad(indent);
        self.out.push_str(&quote(key));
        self.out.push(':');
        self.value(node, indent);
    }

    /// What follows a key.
    fn value(&mut self, node: &Node, indent: usize) {
        match &node.value {
            Value::Map(map) if !map.is_empty() => {
                self.out.push('\n');
                self.map(map, indent + 2);
            }
            Value::List(list) if !list.is_empty() => {
                self.out.push('\n');
                self.list(list, indent + 2);
            }
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Map(_) => {
                self.out.push(' ');
                self.scalar(node, indent + 2);
            }
        }
    }

    fn list(&mut self, list: &[Node], indent: usize) {
        for item in list {
            self.pad(indent);
            self.out.push('-');
            match &item.value {
                Value::Map(map) if !map.is_empty() => {
                    // The first key stands beside the dash.
                    let start = self.out.len();
                    self.map(map, indent + 2);
                    self.out.replace_range(start..start + indent + 2, " ");
                }
                Value::Null
                | Value::Bool(_)
                | Value::Int(_)
                | Value::Float(_)
                | Value::Text(_)
                | Value::List(_)
                | Value::Map(_) => {
                    self.value(item, indent);
                }
            }
        }
    }

    fn scalar(&mut self, node: &Node, indent: usize) {
        match &node.value {
            Value::Null => self.out.push_str("null"),
            Value::List(_) => self.out.push_str("[]"),
            Value::Map(_) => self.out.push_str("{}"),
            Value::Text(text) => {
                let text = if self.is_interpolated {
                    text.replace('$', "$$")
                } else {
                    text.clone()
                };
                self.text(&text, indent);
                return;
            }
            Value::Float(number) if number.is_nan() => self.out.push_str(".nan"),
            Value::Float(number) if number.is_infinite() => {
                self.out
                    .push_str(if *number > 0.0 { ".inf" } else { "-.inf" });
            }
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                self.out
                    .push_str(&scalar::print(&node.value).unwrap_or_default());
            }
        }
        self.out.push('\n');
    }

    fn text(&mut self, text: &str, indent: usize) {
        if !is_block(text) {
            self.out.push_str(&quote(text));
            self.out.push('\n');
            return;
        }
        let (body, mark) = match text.strip_suffix('\n') {
            Some(body) => (body, "|\n"),
            None => (text, "|-\n"),
        };
        self.out.push_str(mark);
        for line in body.split('\n') {
            if !line.is_empty() {
                self.pad(indent);
                self.out.push_str(line);
            }
            self.out.push('\n');
        }
    }

    fn pad(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }
}

/// Whether a text can stand as a block of lines: several, with nothing a block would lose.
fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let is_plain = |line: &str| !line.ends_with([' ', '\t']) && line.chars().all(is_printable);
    body.contains('\n')
        && !body.starts_with([' ', '\t', '\n'])
        && !body.ends_with('\n')
        && body.split('\n').all(is_plain)
}

/// A text on one line: as it stands when that means the same, in quotes otherwise.
fn quote(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    if text.chars().all(is_printable) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    // JSON's escapes are YAML's, too, but for what JSON does not escape.
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            char if is_printable(char) => out.push(char),
            char => out.push_str(&format!("\\U{:08x}", u32::from(char))),
        }
    }
    out.push('"');
    out
}

fn is_printable(char: char) -> bool {
    !char.is_control()
        && !matches!(
            char,
            '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}' | '\u{fffe}' | '\u{ffff}'
        )
}

/// Whether an unquoted text is a text, to any reader of YAML.
fn is_plain(text: &str) -> bool {
    const OTHERS: [&str; 10] = [
        "y", "n", "yes", "no", "on", "off", "<<", "=", "true", "false",
    ];
    let is_safe =
        |char: char| char.is_alphanumeric() || "_./-@%+,=:$ (){}[]*~^\\!?&;|<>\"'".contains(char);
    let is_first = |char: char| char.is_alphanumeric() || "_./$(\\^".contains(char);
    let starts_number =
        text.starts_with(|char: char| char.is_ascii_digit() || "+-.".contains(char));
    // `1:30` and `2020-01-01` are numbers and dates to older readers.
    let is_digits = starts_number
        && text
            .chars()
            .all(|char| char.is_ascii_digit() || "+-.:_eExXoO".contains(char));
    text.starts_with(is_first)
        && text.chars().all(|char| is_safe(char) && char.is_ascii())
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !is_digits
        && scalar::resolve(text) == Value::Text(text.to_owned())
        && !OTHERS.contains(&text.to_ascii_lowercase().as_str())
}
