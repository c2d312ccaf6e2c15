//! From a template's bytes to its items, by the rules of Go's `text/template/parse`.
//!
//! All at once: what is read does not depend on what it means. The last item is `Eof`, or `Invalid`
//! with the message beside the items. One automaton, so one file.

/// Items of one template; 1 MiB of the shortest actions has more, no file that anybody writes has.
const ITEMS_MAX: usize = 400_000;

const LEFT: &[u8] = b"{{";
const RIGHT: &[u8] = b"}}";
/// Length of `- ` and ` -`.
const TRIM_MARKER_LENGTH: usize = 2;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes outside of actions.
    Text,
    LeftDelim,
    RightDelim,
    Space,
    Bool,
    /// `'a'`.
    Character,
    Number,
    Dot,
    Nil,
    /// `.Name`.
    Field,
    Identifier,
    /// `$name` or `$`.
    Variable,
    LeftParen,
    RightParen,
    Pipe,
    Assign,
    Declare,
    Comma,
    /// A printable character that means nothing.
    Other,
    Quoted,
    Raw,
    Keyword(Keyword),
    Eof,
    Invalid,
}

/// Words that are statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Block,
    Break,
    Continue,
    Define,
    Else,
    End,
    If,
    Range,
    Template,
    With,
}

/// One item.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) kind: Kind,
    /// Offset in the template.
    pub(super) position: usize,
    /// Line it starts in, from 1.
    pub(super) line: usize,
    pub(super) text: &'a [u8],
}

/// Items, and the message of an `Invalid` last one.
#[derive(Debug, Default)]
pub(super) struct Items<'a> {
    pub(super) items: Vec<Item<'a>>,
    pub(super) problem: String,
}

/// Reads a whole template.
pub(super) fn lex(input: &[u8]) -> Items<'_> {
    let mut lexer = Lexer {
        input,
        position: 0,
        start: 0,
        line: 1,
        parens: 0,
        found: Items::default(),
    };
    if let Err(problem) = lexer.run() {
        lexer.found.problem = problem;
        lexer.emit(Kind::Invalid);
    }
    lexer.found
}

struct Lexer<'a> {
    input: &'a [u8],
    position: usize,
    start: usize,
    line: usize,
    parens: usize,
    found: Items<'a>,
}

type Step = Result<(), String>;

// === impl Lexer ===

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Step {
        loop {
            let Some(length) = find(self.rest(), LEFT) else {
                self.position = self.input.len();
                self.emit_text(self.position);
                self.emit(Kind::Eof);
                return Ok(());
            };
            self.position += length;
            let is_trimmed = starts_trimmed(&self.rest()[LEFT.len()..]);
            let end = if is_trimmed {
                self.start + trim_right(&self.input[self.start..self.position]).len()
            } else {
                self.position
            };
            self.emit_text(end);
            self.delimited(is_trimmed)?;
        }
    }

    /// An action or a comment, delimiters and all.
    fn delimited(&mut self, is_trimmed: bool) -> Step {
        let marker = if is_trimmed { TRIM_MARKER_LENGTH } else { 0 };
        if self.rest()[LEFT.len() + marker..].starts_with(b"/*") {
            self.position += LEFT.len() + marker + 2;
            return self.comment();
        }
        self.position += LEFT.len();
        self.emit(Kind::LeftDelim);
        self.position += marker;
        self.ignore();
        self.parens = 0;
        while !self.right_delim()? {
            self.inside()?;
            if self.found.items.len() > ITEMS_MAX {
                return Err(format!("template has more than {ITEMS_MAX} parts"));
            }
        }
        Ok(())
    }

    fn comment(&mut self) -> Step {
        let end = find(self.rest(), b"*/").ok_or("unclosed comment")?;
        self.position += end + 2;
        let Some(is_trimmed) = self.at_right_delim() else {
            return Err("comment ends before closing delimiter".to_owned());
        };
        self.skip_right_delim(is_trimmed);
        self.ignore();
        Ok(())
    }

    /// Whether the action ends here; if so past its end.
    fn right_delim(&mut self) -> Result<bool, String> {
        let Some(is_trimmed) = self.at_right_delim() else {
            return Ok(false);
        };
        if self.parens > 0 {
            return Err("unclosed left paren".to_owned());
        }
        self.ignore();
        self.skip_right_delim(is_trimmed);
        self.emit(Kind::RightDelim);
        if is_trimmed {
            self.skip_spaces();
            self.ignore();
        }
        Ok(true)
    }

    /// `Some(true)`: a trimming one.
    fn at_right_delim(&self) -> Option<bool> {
        if ends_trimmed(self.rest()) {
            return Some(true);
        }
        self.rest().starts_with(RIGHT).then_some(false)
    }

    fn skip_right_delim(&mut self, is_trimmed: bool) {
        self.position += RIGHT.len();
        if is_trimmed {
            self.position += TRIM_MARKER_LENGTH;
            self.skip_spaces();
        }
    }

    fn inside(&mut self) -> Step {
        let Some(next) = self.bump() else {
            return Err("unclosed action".to_owned());
        };
        let kind = match next {
            ' ' | '\t' | '\r' | '\n' => {
                while self.peek().is_some_and(is_space) && !ends_trimmed(self.rest()) {
                    self.position += 1;
                }
                Kind::Space
            }
            '=' => Kind::Assign,
            ':' => {
                if self.bump() != Some('=') {
                    return Err("expected :=".to_owned());
                }
                Kind::Declare
            }
            '|' => Kind::Pipe,
            ',' => Kind::Comma,
            '"' => self.quoted('"', "unterminated quoted string", Kind::Quoted)?,
            '\'' => self.quoted('\'', "unterminated character constant", Kind::Character)?,
            '`' => {
                let end = find(self.rest(), b"`").ok_or("unterminated raw quoted string")?;
                self.position += end + 1;
                Kind::Raw
            }
            '$' => self.name(Kind::Variable)?,
            '.' if !self.peek().is_some_and(|next| next.is_ascii_digit()) => {
                if self.is_at_end_of_word() {
                    Kind::Dot
                } else {
                    self.name(Kind::Field)?
                }
            }
            '(' => {
                self.parens += 1;
                Kind::LeftParen
            }
            ')' => {
                let outer = self.parens.checked_sub(1);
                self.parens = outer.ok_or("unexpected right paren")?;
                Kind::RightParen
            }
            '.' | '+' | '-' | '0'..='9' => self.number()?,
            letter if is_word(letter) => {
                self.name(Kind::Identifier)?;
                word_kind(&self.input[self.start..self.position])
            }
            other if other.is_ascii_graphic() => Kind::Other,
            other => {
                return Err(format!(
                    "unrecognized character in action: {}",
                    super::print::code_point(other)
                ));
            }
        };
        self.emit(kind);
        Ok(())
    }

    /// The rest of a field, variable or word.
    fn name(&mut self, kind: Kind) -> Result<Kind, String> {
        while self.peek().is_some_and(is_word) {
            self.bump();
        }
        if self.is_at_end_of_word() {
            return Ok(kind);
        }
        let next = self.peek().unwrap_or(char::REPLACEMENT_CHARACTER);
        Err(format!("bad character {}", super::print::code_point(next)))
    }

    fn is_at_end_of_word(&self) -> bool {
        match self.peek() {
            None | Some(' ' | '\t' | '\r' | '\n' | '.' | ',' | '|' | ':' | ')' | '(') => true,
            Some(_) => self.rest().starts_with(RIGHT),
        }
    }

    fn quoted(&mut self, end: char, problem: &str, kind: Kind) -> Result<Kind, String> {
        loop {
            match self.bump() {
                Some('\\') if !matches!(self.peek(), None | Some('\n')) => {
                    self.bump();
                }
                None | Some('\\' | '\n') => return Err(problem.to_owned()),
                Some(other) if other == end => return Ok(kind),
                Some(_) => {}
            }
        }
    }

    /// A number goes on while it looks like one; what it is worth is asked later.
    fn number(&mut self) -> Result<Kind, String> {
        self.position = self.start;
        self.accept_one(b"+-");
        let is_zero = self.accept_one(b"0");
        let (digits, exponent): (&[u8], &[u8]) = if is_zero && self.accept_one(b"xX") {
            (b"0123456789abcdefABCDEF_", b"pP")
        } else if is_zero && self.accept_one(b"oO") {
            (b"01234567_", b"")
        } else if is_zero && self.accept_one(b"bB") {
            (b"01_", b"")
        } else {
            (b"0123456789_", b"eE")
        };
        self.accept(digits);
        if self.accept_one(b".") {
            self.accept(digits);
        }
        if self.accept_one(exponent) {
            self.accept_one(b"+-");
            self.accept(b"0123456789_");
        }
        if self.peek().is_some_and(is_word) {
            self.bump();
            let text = String::from_utf8_lossy(&self.input[self.start..self.position]).into_owned();
            return Err(format!(
                "bad number syntax: {}",
                super::print::quoted(text.as_bytes())
            ));
        }
        Ok(Kind::Number)
    }

    fn accept_one(&mut self, valid: &[u8]) -> bool {
        let is_valid = self.rest().first().is_some_and(|byte| valid.contains(byte));
        self.position += usize::from(is_valid);
        is_valid
    }

    fn accept(&mut self, valid: &[u8]) {
        while self.accept_one(valid) {}
    }

    fn rest(&self) -> &'a [u8] {
        &self.input[self.position..]
    }

    fn peek(&self) -> Option<char> {
        first_char(self.rest()).map(|(next, _)| next)
    }

    fn bump(&mut self) -> Option<char> {
        let (next, length) = first_char(self.rest())?;
        self.position += length;
        Some(next)
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.position += 1;
        }
    }

    /// Text up to `end`; what is left of it before the position is dropped.
    fn emit_text(&mut self, end: usize) {
        let position = std::mem::replace(&mut self.position, end);
        if end > self.start {
            self.emit(Kind::Text);
        }
        self.position = position;
        self.ignore();
    }

    fn emit(&mut self, kind: Kind) {
        self.found.items.push(Item {
            kind,
            position: self.start,
            line: self.line,
            text: &self.input[self.start..self.position],
        });
        self.ignore();
    }

    fn ignore(&mut self) {
        self.line += newlines(&self.input[self.start..self.position]);
        self.start = self.position;
    }
}

/// Line breaks in `text`.
pub(super) fn newlines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// The first character and its length; a byte that is no UTF-8 counts as one.
pub(super) fn first_char(text: &[u8]) -> Option<(char, usize)> {
    let head = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(valid) => valid,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(first) => Some((first, first.len_utf8())),
        None if text.is_empty() => None,
        None => Some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

fn word_kind(word: &[u8]) -> Kind {
    Kind::Keyword(match word {
        b"true" | b"false" => return Kind::Bool,
        b"nil" => return Kind::Nil,
        b"block" => Keyword::Block,
        b"break" => Keyword::Break,
        b"continue" => Keyword::Continue,
        b"define" => Keyword::Define,
        b"else" => Keyword::Else,
        b"end" => Keyword::End,
        b"if" => Keyword::If,
        b"range" => Keyword::Range,
        b"template" => Keyword::Template,
        b"with" => Keyword::With,
        _ => return Kind::Identifier,
    })
}

fn is_space(next: char) -> bool {
    matches!(next, ' ' | '\t' | '\r' | '\n')
}

fn is_word(next: char) -> bool {
    next == '_' || next.is_alphanumeric()
}

fn starts_trimmed(text: &[u8]) -> bool {
    matches!(text, [b'-', b' ' | b'\t' | b'\r' | b'\n', ..])
}

fn ends_trimmed(text: &[u8]) -> bool {
    matches!(text, [b' ' | b'\t' | b'\r' | b'\n', b'-', b'}', b'}', ..])
}

fn trim_right(text: &[u8]) -> &[u8] {
    let is_kept = |byte: &u8| !is_space(char::from(*byte));
    let length = text.iter().rposition(is_kept).map_or(0, |last| last + 1);
    &text[..length]
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
