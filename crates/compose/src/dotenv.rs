//! Files with variables: `.env`, `--env-file`, `env_file` and `label_file`.
//!
//! A line is `NAME=value`, `export NAME=value` or `NAME`, which takes the value from the environment. Values without
//! quotes end at ` #` or the line's end and are interpolated, those in double quotes have escapes, too, those in single
//! quotes are as they stand; quoted values may have several lines. With [`Format::Raw`] a value is the rest of its line.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use crate::{
    input::Environment,
    interpolate::Interpolator,
    problem::{Place, Problem},
};

/// Longest value: what the kernel hands to a program as one variable.
const VALUE_BYTES_MAX: usize = 128 << 10;
/// All values of a file: each line may name those before it, so they could double with each.
const TOTAL_BYTES_MAX: usize = 4 << 20;

/// How the values of a file are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Quotes, escapes, comments and variables.
    Dotenv,
    /// As they stand.
    Raw,
}

/// The variables of a file, in which `lookup` and earlier lines may be named, the former first.
///
/// `known` are those of files before this one.
pub(crate) fn parse(
    file: &Path,
    bytes: &[u8],
    format: Format,
    known: &Environment,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Environment, Problem> {
    let file: Arc<Path> = file.into();
    let at = |line: u32| Place {
        file: Arc::clone(&file),
        line,
        column: 1,
    };
    let text = std::str::from_utf8(bytes).map_err(|_| Problem {
        place: Some(Place::file(&file)),
        text: "is not UTF-8 text".to_owned(),
    })?;
    let text = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .replace("\r\n", "\n");
    let mut reader = Reader {
        rest: &text,
        line: 1,
        format,
        known,
        lookup,
        variables: BTreeMap::new(),
        byte_count: 0,
    };
    while let Some(line) = reader.next_statement() {
        reader.statement().map_err(|text| Problem {
            place: Some(at(line)),
            text,
        })?;
    }
    Ok(reader.variables)
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
    format: Format,
    known: &'a Environment,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    variables: Environment,
    byte_count: usize,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Skips empty lines and comments; the line of what follows, if anything does.
    fn next_statement(&mut self) -> Option<u32> {
        loop {
            let start = self.rest.find(|char: char| !char.is_whitespace())?;
            self.take(start);
            if !self.rest.starts_with('#') {
                return Some(self.line);
            }
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
    }

    fn statement(&mut self) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix("export")
            && rest.starts_with([' ', '\t'])
        {
            self.rest = rest.trim_start_matches([' ', '\t']);
        }
        let end = self.rest.find(['=', ':', '\n']).unwrap_or(self.rest.len());
        let name = self.rest[..end].trim_end();
        if name.is_empty() {
            return Err("a line without a name".to_owned());
        }
        let is_possible = |char: char| char.is_alphanumeric() || "_.-[]".contains(char);
        if let Some(char) = name.chars().find(|&char| !is_possible(char)) {
            let name: String = name.chars().take(40).collect();
            return Err(format!(
                "character `{}` in the name of variable `{name}`",
                char.escape_default()
            ));
        }
        let has_value = matches!(self.rest.as_bytes().get(end), Some(b'=' | b':'));
        self.take(end);
        if !has_value {
            if let Some(value) = (self.lookup)(name) {
                self.keep(name, value)?;
            }
            return Ok(());
        }
        self.take(1);
        let value = match self.format {
            Format::Dotenv => self.value()?,
            Format::Raw => self
                .take(self.rest.find('\n').unwrap_or(self.rest.len()))
                .to_owned(),
        };
        self.keep(name, value)
    }

    fn value(&mut self) -> Result<String, String> {
        let blank = self.rest.len()
            - self
                .rest
                .trim_start_matches([' ', '\t', '\r', '\u{b}', '\u{c}'])
                .len();
        self.take(blank);
        match self.rest.chars().next() {
            Some('\'') => self.quoted('\''),
            Some('"') => {
                let value = self.quoted('"')?;
                self.interpolate(&unescape(&value))
            }
            _ => {
                let line = self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
                let value = match line.strip_prefix('#') {
                    // A comment right after the sign is a value to compose, too.
                    Some(_) => line,
                    None => line.split_once(" #").map_or(line, |(value, _)| value),
                };
                self.interpolate(value.trim_end())
            }
        }
    }

    /// What is between two quotes; `\` before the quote is taken away.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut value = String::new();
        let mut is_escaped = false;
        for (at, char) in self.rest.char_indices().skip(1) {
            if char == quote && !is_escaped {
                self.take(at + 1);
                return Ok(value);
            }
            if is_escaped {
                if char != quote {
                    value.push('\\');
                }
                value.push(char);
                is_escaped = false;
            } else if char == '\\' {
                is_escaped = true;
            } else {
                value.push(char);
            }
        }
        Err("a quoted value without end".to_owned())
    }

    fn interpolate(&self, text: &str) -> Result<String, String> {
        let lookup = |name: &str| {
            (self.lookup)(name)
                .or_else(|| self.variables.get(name).cloned())
                .or_else(|| self.known.get(name).cloned())
        };
        Interpolator::new(&lookup).text(text)
    }

    fn keep(&mut self, name: &str, value: String) -> Result<(), String> {
        self.byte_count += value.len();
        if value.len() > VALUE_BYTES_MAX || self.byte_count > TOTAL_BYTES_MAX {
            return Err(format!("the value of `{name}` is too long"));
        }
        self.variables.insert(name.to_owned(), value);
        Ok(())
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        let lines = taken.bytes().filter(|&byte| byte == b'\n').count();
        self.line = self
            .line
            .saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.rest = rest;
        taken
    }
}

/// Escapes of double quotes; `\$` stays out of interpolation.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        match chars.next() {
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('v') => out.push('\u{b}'),
            Some('c') => out.push_str("\\c"),
            Some('$') => out.push_str("$$"),
            Some('"') => out.push('"'),
            Some('\\') => out.push('\\'),
            Some('0') => {
                let mut digits = String::new();
                while digits.len() < 3
                    && let Some(digit) = chars.next_if(|char| char.is_digit(8))
                {
                    digits.push(digit);
                }
                match u8::from_str_radix(&digits, 8) {
                    Ok(byte) if digits.len() == 3 => out.push(char::from(byte)),
                    _ => {
                        out.push_str("\\0");
                        out.push_str(&digits);
                    }
                }
            }
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests;
