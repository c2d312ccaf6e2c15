//! Evaluation of a parsed template, with the errors of Go's `text/template`.
//!
//! Whatever a template says, evaluation ends: steps, depth and output have limits. Statements and operands
//! evaluate one another over one state, so they are one file.

use super::{
    Error, NAME, Payload, builtin,
    context::{Context, NoField, Object},
    lex::newlines,
    node::{
        Block, Branch, Command, Inclusion, Located, Operand, OperandKind, Pipe, Statement, Tree,
    },
    print::{push_value, quoted},
    value::{Labels, Value},
};

/// Text that a function may read and write for the price of one step.
const BYTES_PER_STEP: usize = 64;
/// Statements, parentheses and templates within one another. Each takes a few frames of the stack.
const DEPTH_MAX: usize = 100;

/// What is evaluated, and with what.
pub(super) struct Given<'a> {
    pub(super) source: &'a [u8],
    pub(super) tree: &'a Tree,
    pub(super) context: &'a Context,
    pub(super) payload: Option<&'a dyn Payload>,
    pub(super) bytes_max: usize,
    /// Statements and operands evaluated, and text that functions handle.
    pub(super) steps_max: usize,
}

/// Evaluates the whole template.
pub(super) fn run(given: Given<'_>) -> Result<Vec<u8>, Error> {
    let is_payload = given.payload.is_some();
    let dot = Value::Object(Object::Root { is_payload });
    let mut run = Run {
        name: NAME,
        variables: vec![("$", dot.clone())],
        out: Vec::new(),
        steps: 0,
        depth: 0,
        at: None,
        given,
    };
    run.block(&dot, &run.given.tree.root)?;
    Ok(run.out)
}

fn text_bytes(value: &Value<'_>) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::None
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Map(_)
        | Value::Object(_) => 0,
    }
}

struct Run<'a> {
    given: Given<'a>,
    /// Template within the template.
    name: &'a str,
    variables: Vec<(&'a str, Value<'a>)>,
    out: Vec<u8>,
    steps: usize,
    depth: usize,
    /// What errors point at.
    at: Option<&'a dyn Located>,
}

/// How a list of statements ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

type Outcome<'a> = Result<Value<'a>, Error>;

// === impl Run ===

impl<'a> Run<'a> {
    fn block(&mut self, dot: &Value<'a>, block: &'a Block) -> Result<Flow, Error> {
        for statement in block {
            self.step()?;
            let flow = self.nested(|run| run.statement(dot, statement))?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(format!("more than {DEPTH_MAX} levels deep")));
        }
        self.depth += 1;
        let found = inner(self)?;
        self.depth -= 1;
        Ok(found)
    }

    fn statement(&mut self, dot: &Value<'a>, statement: &'a Statement) -> Result<Flow, Error> {
        match statement {
            Statement::Text(text) => self.push(text)?,
            Statement::Action(pipe) => {
                let value = self.pipe(dot, pipe)?;
                if pipe.variables.is_empty() {
                    let mut shown = Vec::new();
                    match value {
                        Value::None => shown.extend(b"<no value>"),
                        value => push_value(&value, self.given.context, &mut shown),
                    }
                    self.push(&shown)?;
                }
            }
            Statement::If(branch) => return self.choice(dot, branch, false),
            Statement::With(branch) => return self.choice(dot, branch, true),
            Statement::Range(branch) => return self.range(dot, branch),
            Statement::Template(inclusion) => self.template(dot, inclusion)?,
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn choice(
        &mut self,
        dot: &Value<'a>,
        branch: &'a Branch,
        is_with: bool,
    ) -> Result<Flow, Error> {
        let scope = self.variables.len();
        let value = self.pipe(dot, &branch.pipe)?;
        let flow = match (value.is_true(), is_with) {
            (true, true) => self.block(&value, &branch.then),
            (true, false) => self.block(dot, &branch.then),
            (false, _) => self.block(dot, &branch.otherwise),
        };
        self.variables.truncate(scope);
        flow
    }

    fn range(&mut self, dot: &Value<'a>, branch: &'a Branch) -> Result<Flow, Error> {
        self.at = Some(&branch.pipe);
        let scope = self.variables.len();
        let value = self.pipe(dot, &branch.pipe)?;
        let flow = match value {
            Value::Map(Labels { entries, .. }) if !entries.is_empty() => {
                let entries = entries.iter();
                let pairs = entries.map(|(key, value)| (Value::text(key), Value::text(value)));
                self.iterate(branch, pairs)
            }
            Value::Int(count) if branch.pipe.variables.len() > 1 => Err(self.error(format!(
                "can't use {count} to iterate over more than one variable"
            ))),
            Value::Int(count) if count > 0 => {
                let pairs = (0..count).map(|number| (Value::Int(number), Value::Int(number)));
                self.iterate(branch, pairs)
            }
            Value::None | Value::Map(_) | Value::Int(_) => self.block(dot, &branch.otherwise),
            value @ (Value::Bool(_) | Value::Float(_) | Value::Text(_) | Value::Object(_)) => {
                // Messages are shown to everybody: nothing of a secret may be in them.
                let shown = if self.given.payload.is_some() {
                    value.type_name().to_owned()
                } else {
                    let mut shown = Vec::new();
                    push_value(&value, self.given.context, &mut shown);
                    String::from_utf8_lossy(&shown).into_owned()
                };
                Err(self.error(format!("range can't iterate over {shown}")))
            }
        };
        self.variables.truncate(scope);
        flow
    }

    fn iterate(
        &mut self,
        branch: &'a Branch,
        pairs: impl Iterator<Item = (Value<'a>, Value<'a>)>,
    ) -> Result<Flow, Error> {
        let scope = self.variables.len();
        let declared = &branch.pipe.variables;
        for (key, value) in pairs {
            self.step()?;
            let new = match declared.len() {
                0 => vec![],
                1 => vec![value.clone()],
                _ => vec![key, value.clone()],
            };
            for (index, (name, new)) in declared.iter().zip(new).enumerate() {
                if branch.pipe.is_assignment {
                    self.assign(name, new)?;
                } else {
                    // The pipeline has just declared them.
                    let place = scope - declared.len() + index;
                    self.variables[place].1 = new;
                }
            }
            let flow = self.block(&value, &branch.then)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn template(&mut self, dot: &Value<'a>, inclusion: &'a Inclusion) -> Result<(), Error> {
        self.at = Some(inclusion);
        let name = inclusion.name.as_str();
        let Some(block) = self.given.tree.defined.get(name) else {
            let shown = quoted(name.as_bytes());
            return Err(self.error(format!("template {shown} not defined")));
        };
        let dot = match &inclusion.pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::None,
        };
        let outer = std::mem::replace(&mut self.variables, vec![("$", dot.clone())]);
        let outer_name = std::mem::replace(&mut self.name, name);
        self.block(&dot, block)?;
        (self.variables, self.name) = (outer, outer_name);
        Ok(())
    }

    fn pipe(&mut self, dot: &Value<'a>, pipe: &'a Pipe) -> Outcome<'a> {
        self.at = Some(pipe);
        let mut value = None;
        for command in &pipe.commands {
            let last = value.take();
            value = Some(self.nested(|run| run.command(dot, command, last))?);
        }
        let value = value.unwrap_or(Value::None);
        for name in &pipe.variables {
            if pipe.is_assignment {
                self.assign(name, value.clone())?;
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    fn assign(&mut self, name: &'a str, value: Value<'a>) -> Result<(), Error> {
        let mut variables = self.variables.iter_mut().rev();
        match variables.find(|(known, _)| *known == name) {
            Some(variable) => {
                variable.1 = value;
                Ok(())
            }
            None => Err(self.error(format!("undefined variable: {name}"))),
        }
    }

    /// A command with what the one before it gave.
    fn command(
        &mut self,
        dot: &Value<'a>,
        command: &'a Command,
        last: Option<Value<'a>>,
    ) -> Outcome<'a> {
        self.step()?;
        let first = &command.operands[0];
        let arguments = &command.operands[1..];
        let is_called = !arguments.is_empty() || last.is_some();
        if let OperandKind::Function(name) = &first.kind {
            self.at = Some(first);
            return self.call(dot, name, command, (arguments, last));
        }
        let value = match &first.kind {
            OperandKind::Field(names) => {
                self.at = Some(first);
                return self.fields(dot.clone(), names, is_called);
            }
            OperandKind::Variable(name, names) => {
                self.at = Some(first);
                let value = self.variable(name)?;
                if !names.is_empty() {
                    return self.fields(value, names, is_called);
                }
                Ok(value)
            }
            OperandKind::Chain(inner, names) => {
                let value = self.chained(dot, first, inner)?;
                return self.fields(value, names, is_called);
            }
            OperandKind::Nil => {
                self.at = Some(first);
                Err(self.error("nil is not a command".to_owned()))
            }
            OperandKind::Pipe(_)
            | OperandKind::Dot
            | OperandKind::Bool(_)
            | OperandKind::Int(..)
            | OperandKind::Float(..)
            | OperandKind::Text(..)
            | OperandKind::Function(_) => {
                if !matches!(first.kind, OperandKind::Pipe(_)) {
                    self.at = Some(first);
                }
                if is_called {
                    return Err(self.not_a_function(first));
                }
                return self.operand(dot, first);
            }
        };
        if is_called && value.is_ok() {
            return Err(self.not_a_function(first));
        }
        value
    }

    fn not_a_function(&self, operand: &Operand) -> Error {
        self.error(format!("can't give argument to non-function {operand}"))
    }

    fn chained(&mut self, dot: &Value<'a>, chain: &'a Operand, inner: &'a Operand) -> Outcome<'a> {
        self.at = Some(chain);
        if matches!(inner.kind, OperandKind::Nil) {
            return Err(self.error(format!("indirection through explicit nil in {chain}")));
        }
        self.operand(dot, inner)
    }

    /// An operand as an argument.
    fn operand(&mut self, dot: &Value<'a>, operand: &'a Operand) -> Outcome<'a> {
        self.step()?;
        self.at = Some(operand);
        match &operand.kind {
            OperandKind::Dot => Ok(dot.clone()),
            OperandKind::Nil => Ok(Value::None),
            OperandKind::Bool(value) => Ok(Value::Bool(*value)),
            OperandKind::Int(value, _) => Ok(Value::Int(*value)),
            OperandKind::Float(value, _) => Ok(Value::Float(*value)),
            OperandKind::Text(value, _) => Ok(Value::text(value)),
            OperandKind::Field(names) => self.fields(dot.clone(), names, false),
            OperandKind::Variable(name, names) => {
                let value = self.variable(name)?;
                self.fields(value, names, false)
            }
            OperandKind::Function(name) => self.call(dot, name, operand, (&[], None)),
            OperandKind::Pipe(pipe) => self.nested(|run| run.pipe(dot, pipe)),
            OperandKind::Chain(inner, names) => {
                let value = self.chained(dot, operand, inner)?;
                self.fields(value, names, false)
            }
        }
    }

    fn variable(&self, name: &str) -> Outcome<'a> {
        let mut variables = self.variables.iter().rev();
        let found = variables.find(|(known, _)| *known == name);
        let found = found.map(|(_, value)| value.clone());
        found.ok_or_else(|| self.error(format!("undefined variable: {name}")))
    }

    /// Fields of fields. None of them takes arguments.
    fn fields(&self, value: Value<'a>, names: &[String], is_called: bool) -> Outcome<'a> {
        let last = names.len().saturating_sub(1);
        let mut value = value;
        for (index, name) in names.iter().enumerate() {
            value = self.field(value, name, is_called && index == last)?;
        }
        Ok(value)
    }

    fn field(&self, value: Value<'a>, name: &str, is_called: bool) -> Outcome<'a> {
        let type_name = value.type_name();
        match value {
            Value::Object(object) => match object.field(name, self.given.context) {
                Ok(_) if is_called => Err(self.error(format!(
                    "{name} has arguments but cannot be invoked as function"
                ))),
                Ok(value) => Ok(value),
                Err(NoField::Untold) => Err(Error::NodeLabelsUntold),
                Err(NoField::Unknown) => {
                    Err(self.error(format!("can't evaluate field {name} in type {type_name}")))
                }
            },
            Value::Map(_) if is_called => {
                Err(self.error(format!("{name} is not a method but has arguments")))
            }
            Value::Map(labels) => labels.get(name.as_bytes()).ok_or_else(|| {
                let key = quoted(name.as_bytes());
                self.error(format!("map has no entry for key {key}"))
            }),
            Value::None => {
                let key = quoted(name.as_bytes());
                Err(self.error(format!("nil data; no entry for key {key}")))
            }
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {
                Err(self.error(format!("can't evaluate field {name} in type {type_name}")))
            }
        }
    }

    /// Calls a function; `whole` is what errors within it point at.
    fn call(
        &mut self,
        dot: &Value<'a>,
        name: &'a str,
        whole: &'a dyn Located,
        (operands, last): (&'a [Operand], Option<Value<'a>>),
    ) -> Outcome<'a> {
        let signature = builtin::signature(name);
        let count = operands.len() + usize::from(last.is_some());
        if count < signature.least && signature.is_open {
            return Err(self.error(format!(
                "wrong number of args for {name}: want at least {} got {}",
                signature.least,
                operands.len()
            )));
        }
        if count != signature.least && !signature.is_open {
            return Err(self.error(format!(
                "wrong number of args for {name}: want {} got {count}",
                signature.least
            )));
        }
        if matches!(name, "and" | "or") {
            return self.first_that_decides(dot, name == "or", operands, last);
        }
        let mut arguments = Vec::with_capacity(count);
        for (index, operand) in operands.iter().enumerate() {
            let value = self.operand(dot, operand)?;
            if index < signature.texts {
                self.check_text(&value, Some(operand))?;
            }
            arguments.push(value);
        }
        if let Some(last) = last {
            if arguments.len() < signature.texts {
                self.check_text(&last, None)?;
            }
            arguments.push(last);
        }
        let found = self.function(name, &arguments).map_err(|message| {
            self.at = Some(whole);
            self.error(format!("error calling {name}: {message}"))
        })?;
        let handled: usize = arguments.iter().chain([&found]).map(text_bytes).sum();
        self.charge(handled / BYTES_PER_STEP)?;
        Ok(found)
    }

    fn first_that_decides(
        &mut self,
        dot: &Value<'a>,
        decides: bool,
        operands: &'a [Operand],
        last: Option<Value<'a>>,
    ) -> Outcome<'a> {
        let mut value = Value::None;
        for operand in operands {
            value = self.operand(dot, operand)?;
            if value.is_true() == decides {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    /// Refuses what is no string; `operand`: where it was written.
    fn check_text(&self, value: &Value<'a>, operand: Option<&Operand>) -> Result<(), Error> {
        if matches!(value, Value::Text(_)) {
            return Ok(());
        }
        Err(
            self.error(match operand.map(|operand| (&operand.kind, operand)) {
                Some((OperandKind::Nil, _)) => "cannot assign nil to string".to_owned(),
                Some((
                    OperandKind::Bool(_) | OperandKind::Int(..) | OperandKind::Float(..),
                    operand,
                )) => format!("expected string; found {operand}"),
                _ => match value {
                    Value::None => "invalid value; expected string".to_owned(),
                    value => format!(
                        "wrong type for value; expected string; got {}",
                        value.type_name()
                    ),
                },
            }),
        )
    }

    fn function(&self, name: &str, arguments: &[Value<'a>]) -> Result<Value<'a>, String> {
        if builtin::is_known(name) {
            return builtin::call(name, arguments, self.given.context, self.given.bytes_max);
        }
        let Some(payload) = self.given.payload else {
            return Err(format!("{name} is not known here"));
        };
        let argument = match arguments {
            [Value::Text(text)] => String::from_utf8_lossy(text),
            _ => return Err("needs one string".to_owned()),
        };
        let found = match name {
            "secret" => payload.secret(&argument)?,
            "config" => payload.config(&argument)?,
            _ => payload.env(&argument)?,
        };
        Ok(Value::text(found))
    }

    fn step(&mut self) -> Result<(), Error> {
        self.charge(1)
    }

    fn charge(&mut self, steps: usize) -> Result<(), Error> {
        self.steps += steps;
        let most = self.given.steps_max;
        if self.steps > most {
            return Err(self.error(format!("takes more than {most} steps")));
        }
        Ok(())
    }

    fn push(&mut self, text: &[u8]) -> Result<(), Error> {
        self.out.extend(text);
        let most = self.given.bytes_max;
        if self.out.len() > most {
            return Err(self.error(format!("result has more than {most} bytes")));
        }
        Ok(())
    }

    fn error(&self, message: String) -> Error {
        let Some(at) = self.at else {
            return Error::Parse { line: 1, message };
        };
        let before = &self.given.source[..at.position().min(self.given.source.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n');
        Error::Run {
            line: 1 + newlines(before),
            column: before.len() - line_start.map_or(0, |start| start + 1),
            name: self.name.to_owned(),
            at: at.to_string(),
            message,
        }
    }
}
