//! Differences as text: a line for each object, and below it one for each field.

use serde_json::Value;

use super::{Action, Change, DATA, Field};

/// Characters of a value that are shown; more would hide the other lines.
const VALUE_CHARS_MAX: usize = 160;
/// Characters of a line of a text; the server cuts them at less.
const LINE_CHARS_MAX: usize = 200;

/// Writes what happens, `+` for what comes, `-` for what goes, `~` for what becomes different. What stays as it is is not told.
///
/// Nothing in it can be taken for a line of its own: values are JSON, and lines of texts are indented, so that control characters are
/// escaped.
pub fn render(changes: &[Change]) -> String {
    let mut text = String::new();
    for change in changes {
        let Some(mark) = mark(change.action) else {
            continue;
        };
        text += &format!("{mark} {} {}\n", change.kind.name(), change.name);
        for field in &change.fields {
            text += &format!("    {}\n", line(field));
            for line in &field.lines {
                text += &format!("        {}\n", safe(line));
            }
        }
    }
    text
}

fn mark(action: Action) -> Option<char> {
    match action {
        Action::Create => Some('+'),
        Action::Update => Some('~'),
        Action::Remove => Some('-'),
        Action::Unchanged => None,
    }
}

/// Without control characters: what a terminal shows is what is there.
fn safe(line: &str) -> String {
    let mut text = String::new();
    for character in line.chars().take(LINE_CHARS_MAX) {
        match character {
            '\t' => text.push(character),
            _ if character.is_control() => text.extend(character.escape_default()),
            _ => text.push(character),
        }
    }
    text
}

fn line(field: &Field) -> String {
    let path = &field.path;
    if path == DATA && field.old == field.new {
        return "~ content changes".to_owned();
    }
    match (&field.old, &field.new) {
        (None, None) => format!("~ {path}"),
        (None, Some(new)) => format!("+ {path}: {}", value(new)),
        (Some(old), None) => format!("- {path}: {}", value(old)),
        (Some(old), Some(new)) if old == new => format!("~ {path}: {}", value(new)),
        (Some(old), Some(new)) => format!("~ {path}: {} -> {}", value(old), value(new)),
    }
}

fn value(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
