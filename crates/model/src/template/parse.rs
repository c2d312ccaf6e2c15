//! From items to statements, with the refusals of Go's `text/template/parse`. One grammar, each rule of
//! which calls others, so one file.

use super::{
    builtin,
    lex::{Item, Items, Keyword, Kind, lex},
    node::{Block, Branch, Command, Inclusion, Operand, OperandKind, Pipe, Statement, Tree},
    number,
    print::quoted,
};

/// Statements and parentheses within one another; parser and evaluation recurse with them.
const NESTING_MAX: usize = 50;

/// Parses `text`, in which the functions `more` are known besides Go's.
///
/// # Errors
/// The line and what is wrong in it.
pub(super) fn parse(text: &[u8], more: &[&str]) -> Result<Tree, (usize, String)> {
    let Items { items, problem } = lex(text);
    let mut parser = Parser {
        items: &items,
        at: 0,
        problem,
        more,
        variables: vec!["$".to_owned()],
        range_depth: 0,
        nesting: 0,
        action_line: 0,
        tree: Tree::default(),
    };
    match parser.root() {
        Ok(()) => Ok(parser.tree),
        Err(message) => Err((parser.line(), message)),
    }
}

struct Parser<'a> {
    /// Ends with `Eof` or `Invalid`, which is never passed.
    items: &'a [Item<'a>],
    at: usize,
    problem: String,
    more: &'a [&'a str],
    /// Variables in scope.
    variables: Vec<String>,
    range_depth: usize,
    nesting: usize,
    /// Line the action began in; 0 outside.
    action_line: usize,
    tree: Tree,
}

/// What ends a list of statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    End,
    /// `{{else}}`, or before the keyword of `{{else if` and `{{else with`.
    Else,
}

enum Parsed {
    Statement(Statement),
    Nothing,
    Ending(Ending),
}

type Outcome<T> = Result<T, String>;

// === impl Parser ===

impl<'a> Parser<'a> {
    fn root(&mut self) -> Outcome<()> {
        while self.peek().kind != Kind::Eof {
            match self.statement(true)? {
                Parsed::Statement(statement) => self.tree.root.push(statement),
                Parsed::Nothing => {}
                Parsed::Ending(ending) => return Err(format!("unexpected {}", ending.name())),
            }
        }
        Ok(())
    }

    fn block(&mut self) -> Outcome<(Block, Ending)> {
        let mut block = Block::new();
        while self.peek_word().kind != Kind::Eof {
            match self.statement(false)? {
                Parsed::Statement(statement) => block.push(statement),
                Parsed::Nothing => {}
                Parsed::Ending(ending) => return Ok((block, ending)),
            }
        }
        Err("unexpected EOF".to_owned())
    }

    fn statement(&mut self, is_top: bool) -> Outcome<Parsed> {
        let item = self.next_word();
        match item.kind {
            Kind::Text => Ok(Parsed::Statement(Statement::Text(item.text.to_owned()))),
            Kind::LeftDelim => {
                self.action_line = item.line;
                let action = self.nested(|parser| parser.action(is_top))?;
                self.action_line = 0;
                Ok(action)
            }
            _ => Err(self.unexpected(item, "input")),
        }
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.nesting == NESTING_MAX {
            return Err(format!("more than {NESTING_MAX} levels of nesting"));
        }
        self.nesting += 1;
        let found = inner(self);
        self.nesting -= 1;
        found
    }

    fn action(&mut self, is_top: bool) -> Outcome<Parsed> {
        let item = self.next_word();
        let Kind::Keyword(keyword) = item.kind else {
            self.back();
            let pipe = self.pipeline("command", Kind::RightDelim)?;
            return Ok(Parsed::Statement(Statement::Action(pipe)));
        };
        let statement = match keyword {
            Keyword::If => Statement::If(self.control("if")?),
            Keyword::With => Statement::With(self.control("with")?),
            Keyword::Range => Statement::Range(self.control("range")?),
            Keyword::Break => self.jump("{{break}}", Statement::Break)?,
            Keyword::Continue => self.jump("{{continue}}", Statement::Continue)?,
            Keyword::Template => self.template()?,
            Keyword::Block => self.defined_here()?,
            Keyword::Define if is_top => {
                self.define()?;
                return Ok(Parsed::Nothing);
            }
            Keyword::Define => return Err(self.unexpected(item, "command")),
            Keyword::End => {
                self.expect(Kind::RightDelim, "end")?;
                return Ok(Parsed::Ending(Ending::End));
            }
            Keyword::Else => {
                let next = self.peek_word().kind;
                if next != Kind::Keyword(Keyword::If) && next != Kind::Keyword(Keyword::With) {
                    self.expect(Kind::RightDelim, "else")?;
                }
                return Ok(Parsed::Ending(Ending::Else));
            }
        };
        Ok(Parsed::Statement(statement))
    }

    fn control(&mut self, context: &'static str) -> Outcome<Branch> {
        let scope = self.variables.len();
        let pipe = self.pipeline(context, Kind::RightDelim)?;
        let in_range = usize::from(context == "range");
        self.range_depth += in_range;
        let block = self.block();
        self.range_depth -= in_range;
        let (then, ending) = block?;
        let otherwise = match ending {
            Ending::End => Block::new(),
            Ending::Else => self.otherwise(context)?,
        };
        self.variables.truncate(scope);
        Ok(Branch {
            pipe,
            then,
            otherwise,
        })
    }

    fn otherwise(&mut self, context: &'static str) -> Outcome<Block> {
        let next = self.peek_word();
        let chained = match (context, next.kind) {
            ("if", Kind::Keyword(Keyword::If)) => Some(Statement::If as fn(Branch) -> Statement),
            ("with", Kind::Keyword(Keyword::With)) => Some(Statement::With as fn(_) -> _),
            _ => None,
        };
        if let Some(chained) = chained {
            self.next_word();
            let branch = self.nested(|parser| parser.control(context))?;
            return Ok(vec![chained(branch)]);
        }
        let (block, ending) = self.block()?;
        match ending {
            Ending::End => Ok(block),
            Ending::Else => Err(format!("expected end; found {}", ending.name())),
        }
    }

    fn jump(&mut self, name: &str, statement: Statement) -> Outcome<Statement> {
        self.expect(Kind::RightDelim, name)?;
        if self.range_depth == 0 {
            return Err(format!("{name} outside {{{{range}}}}"));
        }
        Ok(statement)
    }

    fn define(&mut self) -> Outcome<()> {
        const CONTEXT: &str = "define clause";
        let name = self.name(CONTEXT)?;
        self.expect(Kind::RightDelim, CONTEXT)?;
        self.definition(name, CONTEXT)
    }

    /// `{{block "name" pipeline}}`: defined and used at once.
    fn defined_here(&mut self) -> Outcome<Statement> {
        const CONTEXT: &str = "block clause";
        let position = self.peek_word().position;
        let name = self.name(CONTEXT)?;
        let pipe = self.pipeline(CONTEXT, Kind::RightDelim)?;
        self.definition(name.clone(), CONTEXT)?;
        Ok(Statement::Template(Inclusion {
            position,
            name,
            pipe: Some(pipe),
        }))
    }

    /// A body with variables and loops of its own.
    fn definition(&mut self, name: String, context: &str) -> Outcome<()> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let range_depth = std::mem::take(&mut self.range_depth);
        let (block, ending) = self.block()?;
        if ending != Ending::End {
            return Err(format!("unexpected {} in {context}", ending.name()));
        }
        (self.variables, self.range_depth) = (variables, range_depth);
        let is_empty = |block: &Block| {
            let is_space = |statement: &Statement| matches!(statement, Statement::Text(text) if text.trim_ascii().is_empty());
            block.iter().all(is_space)
        };
        match self.tree.defined.get(&name) {
            Some(existing) if !is_empty(existing) && !is_empty(&block) => Err(format!(
                "template: multiple definition of template {}",
                quoted(name.as_bytes())
            )),
            Some(_) if is_empty(&block) => Ok(()),
            _ => {
                self.tree.defined.insert(name, block);
                Ok(())
            }
        }
    }

    fn template(&mut self) -> Outcome<Statement> {
        const CONTEXT: &str = "template clause";
        let position = self.peek_word().position;
        let name = self.name(CONTEXT)?;
        let pipe = if self.next_word().kind == Kind::RightDelim {
            None
        } else {
            self.back();
            Some(self.pipeline(CONTEXT, Kind::RightDelim)?)
        };
        Ok(Statement::Template(Inclusion {
            position,
            name,
            pipe,
        }))
    }

    fn name(&mut self, context: &str) -> Outcome<String> {
        let item = self.next_word();
        if !matches!(item.kind, Kind::Quoted | Kind::Raw) {
            return Err(self.unexpected(item, context));
        }
        let name = number::unquote(item.text).ok_or("invalid syntax")?;
        Ok(String::from_utf8_lossy(&name).into_owned())
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Outcome<Pipe> {
        let mut pipe = Pipe {
            position: self.peek_word().position,
            variables: Vec::new(),
            is_assignment: false,
            commands: Vec::new(),
        };
        self.declarations(&mut pipe, context)?;
        loop {
            let item = self.next_word();
            if item.kind == end {
                break;
            }
            match item.kind {
                Kind::Bool
                | Kind::Character
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::Raw
                | Kind::Quoted
                | Kind::Variable
                | Kind::LeftParen => {
                    self.back();
                    pipe.commands.push(self.command()?);
                }
                _ => return Err(self.unexpected(item, context)),
            }
        }
        check_pipeline(&pipe, context)?;
        Ok(pipe)
    }

    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Outcome<()> {
        loop {
            let variable = self.peek_word();
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            let before = self.at;
            self.next_word();
            let next = self.peek_word();
            let declares = matches!(next.kind, Kind::Assign | Kind::Declare);
            if !declares && next.kind != Kind::Comma {
                self.at = before;
                return Ok(());
            }
            self.next_word();
            let name = String::from_utf8_lossy(variable.text).into_owned();
            pipe.variables.push(name.clone());
            self.variables.push(name);
            if declares {
                pipe.is_assignment = next.kind == Kind::Assign;
                return Ok(());
            }
            if context != "range" || pipe.variables.len() > 1 {
                return Err(format!("too many declarations in {context}"));
            }
            match self.peek_word().kind {
                Kind::Variable | Kind::RightDelim | Kind::RightParen => {}
                _ => return Err("range can only initialize variables".to_owned()),
            }
        }
    }

    fn command(&mut self) -> Outcome<Command> {
        let mut command = Command {
            position: self.peek_word().position,
            operands: Vec::new(),
        };
        loop {
            self.peek_word();
            if let Some(operand) = self.operand()? {
                command.operands.push(operand);
            }
            let item = self.next();
            match item.kind {
                Kind::Space => {}
                Kind::RightDelim | Kind::RightParen => {
                    self.back();
                    break;
                }
                Kind::Pipe => break,
                _ => return Err(self.unexpected(item, "operand")),
            }
        }
        if command.operands.is_empty() {
            return Err("empty command".to_owned());
        }
        Ok(command)
    }

    /// A term with the fields that follow it.
    fn operand(&mut self) -> Outcome<Option<Operand>> {
        let Some(term) = self.term()? else {
            return Ok(None);
        };
        if self.peek().kind != Kind::Field {
            return Ok(Some(term));
        }
        let position = self.peek().position;
        let mut fields = Vec::new();
        while self.peek().kind == Kind::Field {
            fields.push(field_name(self.next().text));
        }
        let kind = match term.kind {
            OperandKind::Field(mut names) => {
                names.extend(fields);
                OperandKind::Field(names)
            }
            OperandKind::Variable(name, mut names) => {
                names.extend(fields);
                OperandKind::Variable(name, names)
            }
            OperandKind::Bool(_)
            | OperandKind::Text(..)
            | OperandKind::Int(..)
            | OperandKind::Float(..)
            | OperandKind::Nil
            | OperandKind::Dot => {
                let shown = term.to_string();
                return Err(format!(
                    "unexpected . after term {}",
                    quoted(shown.as_bytes())
                ));
            }
            OperandKind::Function(_) | OperandKind::Pipe(_) | OperandKind::Chain(..) => {
                OperandKind::Chain(Box::new(term), fields)
            }
        };
        Ok(Some(Operand { position, kind }))
    }

    fn term(&mut self) -> Outcome<Option<Operand>> {
        let item = self.next_word();
        let text = || String::from_utf8_lossy(item.text).into_owned();
        let kind = match item.kind {
            Kind::Identifier => {
                let name = text();
                if !builtin::is_known(&name) && !self.more.contains(&name.as_str()) {
                    return Err(format!("function {} not defined", quoted(name.as_bytes())));
                }
                OperandKind::Function(name)
            }
            Kind::Dot => OperandKind::Dot,
            Kind::Nil => OperandKind::Nil,
            Kind::Variable => {
                let name = text();
                if !self.variables.contains(&name) {
                    return Err(format!("undefined variable {}", quoted(name.as_bytes())));
                }
                OperandKind::Variable(name, Vec::new())
            }
            Kind::Field => OperandKind::Field(vec![field_name(item.text)]),
            Kind::Bool => OperandKind::Bool(item.text == b"true"),
            Kind::Character | Kind::Number => number::literal(&text())?,
            Kind::Quoted | Kind::Raw => {
                let value = number::unquote(item.text).ok_or("invalid syntax")?;
                OperandKind::Text(value, text())
            }
            Kind::LeftParen => {
                let inner =
                    |parser: &mut Self| parser.pipeline("parenthesized pipeline", Kind::RightParen);
                OperandKind::Pipe(Box::new(self.nested(inner)?))
            }
            _ => {
                self.back();
                return Ok(None);
            }
        };
        Ok(Some(Operand {
            position: item.position,
            kind,
        }))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Outcome<()> {
        let item = self.next_word();
        if item.kind == kind {
            Ok(())
        } else {
            Err(self.unexpected(item, context))
        }
    }

    fn unexpected(&self, item: Item<'_>, context: &str) -> String {
        if item.kind != Kind::Invalid {
            return format!("unexpected {} in {context}", shown(item));
        }
        let problem = &self.problem;
        if self.action_line == 0 || self.action_line == item.line {
            return problem.clone();
        }
        let noun = if problem.ends_with(" action") {
            ""
        } else {
            " in action"
        };
        format!(
            "{problem}{noun} started at {}:{}",
            super::NAME,
            self.action_line
        )
    }

    /// Line of the item that was read last.
    fn line(&self) -> usize {
        let last = self.items.len() - 1;
        self.items[self.at.saturating_sub(1).min(last)].line
    }

    fn peek(&self) -> Item<'a> {
        self.items[self.at.min(self.items.len() - 1)]
    }

    fn next(&mut self) -> Item<'a> {
        let item = self.peek();
        self.at += 1;
        item
    }

    fn back(&mut self) {
        self.at -= 1;
    }

    fn peek_word(&mut self) -> Item<'a> {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
        self.peek()
    }

    fn next_word(&mut self) -> Item<'a> {
        self.peek_word();
        self.next()
    }
}

// === impl Ending ===

impl Ending {
    fn name(self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

fn field_name(text: &[u8]) -> String {
    String::from_utf8_lossy(text.strip_prefix(b".").unwrap_or(text)).into_owned()
}

fn check_pipeline(pipe: &Pipe, context: &str) -> Outcome<()> {
    if pipe.commands.is_empty() {
        return Err(format!("missing value for {context}"));
    }
    for (index, command) in pipe.commands.iter().enumerate().skip(1) {
        match command.operands[0].kind {
            OperandKind::Bool(_)
            | OperandKind::Dot
            | OperandKind::Nil
            | OperandKind::Int(..)
            | OperandKind::Float(..)
            | OperandKind::Text(..) => {
                let stage = index + 1;
                return Err(format!("non executable command in pipeline stage {stage}"));
            }
            OperandKind::Field(_)
            | OperandKind::Variable(..)
            | OperandKind::Function(_)
            | OperandKind::Pipe(_)
            | OperandKind::Chain(..) => {}
        }
    }
    Ok(())
}

/// An item as Go's messages show it.
fn shown(item: Item<'_>) -> String {
    const SHOWN_CHARS: usize = 10;
    match item.kind {
        Kind::Eof => "EOF".to_owned(),
        Kind::Keyword(_) | Kind::Dot | Kind::Nil => {
            format!("<{}>", String::from_utf8_lossy(item.text))
        }
        _ if item.text.len() > SHOWN_CHARS => {
            let text = String::from_utf8_lossy(item.text);
            let start: String = text.chars().take(SHOWN_CHARS).collect();
            format!("{}...", quoted(start.as_bytes()))
        }
        _ => quoted(item.text),
    }
}
