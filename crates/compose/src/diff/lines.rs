//! What becomes different in a config, line by line.

use serde_json::json;

use super::{DATA, Field};

/// Lines shown of one config, of up to a megabyte; more are counted.
const LINES_MAX: usize = 40;
/// Characters of a line.
const CHARS_MAX: usize = 160;
/// Unchanged lines before and after those that change.
const CONTEXT: usize = 1;
/// Pairs of lines that are compared; beyond, all between the first and the last change counts as changed. A quarter of a megabyte.
const PAIRS_MAX: usize = 1 << 18;

/// A line, and what happens to it: `-`, `+` or a blank.
type Step<'a> = (char, &'a str);

/// The difference of two contents; `None` when they are one. Sizes, and lines if both are texts.
pub fn content(old: &[u8], new: &[u8]) -> Option<Field> {
    if old == new {
        return None;
    }
    let lines = match (text(old), text(new)) {
        (Some(old), Some(new)) => lines(old, new),
        _ => Vec::new(),
    };
    let size = |bytes: &[u8]| Some(json!(format!("{} bytes", bytes.len())));
    Some(Field {
        path: DATA.to_owned(),
        old: size(old),
        new: size(new),
        lines,
    })
}

fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_odd = |character: char| character.is_control() && !"\t\r\n".contains(character);
    (!text.contains(is_odd)).then_some(text)
}

fn lines(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if old == new {
        return vec!["(the ends of lines)".to_owned()];
    }
    let mut shown = Vec::new();
    let steps = steps(&old, &new);
    let is_near = |index: usize| {
        let near = &steps[index.saturating_sub(CONTEXT)..steps.len().min(index + CONTEXT + 1)];
        near.iter().any(|(mark, _)| *mark != ' ')
    };
    let mut is_gap = false;
    let mut hidden = 0_usize;
    for (index, (mark, line)) in steps.iter().enumerate() {
        if !is_near(index) {
            is_gap = true;
            continue;
        }
        if shown.len() >= LINES_MAX {
            hidden += usize::from(*mark != ' ');
            continue;
        }
        if std::mem::take(&mut is_gap) && !shown.is_empty() {
            shown.push("…".to_owned());
        }
        shown.push(cut(*mark, line));
    }
    if hidden > 0 {
        shown.push(format!("… {hidden} more lines change"));
    }
    shown
}

fn cut(mark: char, line: &str) -> String {
    match line.char_indices().nth(CHARS_MAX) {
        None => format!("{mark} {line}"),
        Some((end, _)) => format!("{mark} {}…", &line[..end]),
    }
}

/// From one to the other with few changes, by the longest common subsequence of what lies between equal beginnings and ends.
fn steps<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Step<'a>> {
    let both = || old.iter().zip(new);
    let start = both().take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let ends = old_rest.iter().rev().zip(new_rest.iter().rev());
    let end = ends.take_while(|(a, b)| a == b).count();
    let old_middle = &old_rest[..old_rest.len() - end];
    let new_middle = &new_rest[..new_rest.len() - end];
    let kept =
        |lines: &[&'a str]| -> Vec<Step<'a>> { lines.iter().map(|line| (' ', *line)).collect() };
    let mut steps = kept(&old[..start]);
    steps.extend(between(old_middle, new_middle));
    steps.extend(kept(&old[old.len() - end..]));
    steps
}

fn between<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Step<'a>> {
    let gone = |lines: &[&'a str]| lines.iter().map(|line| ('-', *line)).collect::<Vec<_>>();
    let come = |lines: &[&'a str]| lines.iter().map(|line| ('+', *line)).collect::<Vec<_>>();
    if old.len().saturating_mul(new.len()) > PAIRS_MAX {
        return [gone(old), come(new)].concat();
    }
    // Length of the longest common subsequence of the rests from each pair of places.
    let width = new.len() + 1;
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i * width + j] = if old[i] == new[j] {
                lengths[(i + 1) * width + j + 1] + 1
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut steps = Vec::new();
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            steps.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            steps.push(('-', old[i]));
            i += 1;
        } else {
            steps.push(('+', new[j]));
            j += 1;
        }
    }
    steps.extend(gone(&old[i..]));
    steps.extend(come(&new[j..]));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> Vec<String> {
        content(old.as_bytes(), new.as_bytes()).unwrap().lines
    }

    #[test]
    fn changed_lines_are_shown_with_those_beside_them() {
        let old = "a\nb\nc\nd\ne\nf\ng\n";
        assert_eq!(content(old.as_bytes(), old.as_bytes()), None);
        let found = shown(old, "a\nB\nc\nd\ne\nf\ng\nh\n");
        assert_eq!(found, ["  a", "- b", "+ B", "  c", "…", "  g", "+ h"]);
        assert_eq!(shown("", "a\n"), ["+ a"]);
        assert_eq!(shown("a\n", "a"), ["(the ends of lines)"]);
    }

    #[test]
    fn what_is_no_text_is_told_by_its_size() {
        let field = content(b"\xff\x00", b"abc").unwrap();
        let sizes = (field.old, field.new);
        assert_eq!(sizes, (Some(json!("2 bytes")), Some(json!("3 bytes"))));
        assert_eq!(field.lines, [""; 0]);
        assert_eq!(content(b"a\x1b[2J", b"abc").unwrap().lines, [""; 0]);
    }

    #[test]
    fn large_texts_are_shown_in_part() {
        let old: String = (0..3000).map(|number| format!("old {number}\n")).collect();
        let new = format!("{}\n", "y".repeat(500)).repeat(3000);
        let found = shown(&old, &new);
        assert_eq!(found.len(), LINES_MAX + 1);
        assert_eq!(found[0], "- old 0");
        assert_eq!(found[LINES_MAX], "… 5960 more lines change");
        let found = shown(&"x".repeat(500), &"y".repeat(500));
        assert_eq!(found[1].chars().count(), CHARS_MAX + 3);
    }
}
