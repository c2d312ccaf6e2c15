//! A parsed template: statements, pipelines, operands; each shows itself as errors quote it.

use std::{collections::BTreeMap, fmt};

use super::print::quoted;

/// Something errors point at.
pub(super) trait Located: fmt::Display {
    /// Offset in the template.
    fn position(&self) -> usize;
}

/// Statements in order.
pub(super) type Block = Vec<Statement>;

/// One statement.
#[derive(Debug)]
pub(super) enum Statement {
    Text(Vec<u8>),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template(Inclusion),
    Break,
    Continue,
}

/// A statement with a body.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) then: Block,
    pub(super) otherwise: Block,
}

/// `{{template "name" pipeline}}`.
#[derive(Debug)]
pub(super) struct Inclusion {
    pub(super) position: usize,
    pub(super) name: String,
    pub(super) pipe: Option<Pipe>,
}

/// Commands, each of which gets the value of the one before.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) position: usize,
    /// Variables that get the value: declared, or with `is_assignment` changed.
    pub(super) variables: Vec<String>,
    pub(super) is_assignment: bool,
    /// Never empty.
    pub(super) commands: Vec<Command>,
}

/// A value or function with its arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) position: usize,
    /// Never empty.
    pub(super) operands: Vec<Operand>,
}

/// One operand.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) position: usize,
    pub(super) kind: OperandKind,
}

/// What an operand is.
#[derive(Debug)]
pub(super) enum OperandKind {
    Dot,
    Nil,
    Bool(bool),
    Int(i64, String),
    Float(f64, String),
    /// Value, and as written.
    Text(Vec<u8>, String),
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A`: the name, then fields.
    Variable(String, Vec<String>),
    Function(String),
    Pipe(Box<Pipe>),
    /// `(…).A`
    Chain(Box<Operand>, Vec<String>),
}

/// A template and those it defines.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) root: Block,
    pub(super) defined: BTreeMap<String, Block>,
}

// === impl Located ===

impl Located for Inclusion {
    fn position(&self) -> usize {
        self.position
    }
}

impl Located for Pipe {
    fn position(&self) -> usize {
        self.position
    }
}

impl Located for Command {
    fn position(&self) -> usize {
        self.position
    }
}

impl Located for Operand {
    fn position(&self) -> usize {
        self.position
    }
}

// === impl Display ===

impl fmt::Display for Inclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{template {}", quoted(self.name.as_bytes()))?;
        if let Some(pipe) = &self.pipe {
            write!(f, " {pipe}")?;
        }
        f.write_str("}}")
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            let sign = if self.is_assignment { "=" } else { ":=" };
            write!(f, "{} {sign} ", self.variables.join(", "))?;
        }
        for (index, command) in self.commands.iter().enumerate() {
            let between = if index > 0 { " | " } else { "" };
            write!(f, "{between}{command}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, operand) in self.operands.iter().enumerate() {
            let between = if index > 0 { " " } else { "" };
            write!(f, "{between}{operand}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            OperandKind::Dot => f.write_str("."),
            OperandKind::Nil => f.write_str("nil"),
            OperandKind::Bool(value) => write!(f, "{value}"),
            OperandKind::Int(_, text)
            | OperandKind::Float(_, text)
            | OperandKind::Text(_, text)
            | OperandKind::Function(text) => f.write_str(text),
            OperandKind::Field(names) => write_fields(f, names),
            OperandKind::Variable(name, names) => {
                f.write_str(name)?;
                write_fields(f, names)
            }
            OperandKind::Pipe(pipe) => write!(f, "({pipe})"),
            OperandKind::Chain(inner, names) => {
                write!(f, "{inner}")?;
                write_fields(f, names)
            }
        }
    }
}

fn write_fields(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    names.iter().try_for_each(|name| write!(f, ".{name}"))
}
