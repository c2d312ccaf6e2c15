//! Why bytes or a message could not be taken as an object.

use std::fmt;

use skep_model::id::InvalidId;

/// Bytes or a message that Skep refuses.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The bytes are not the protobuf message they should be.
    #[error("malformed message")]
    Malformed(#[source] prost::DecodeError),
    /// The bytes end inside a field.
    #[error("message ends inside a field")]
    Truncated,
    /// A field starts with something that is no number and type of a field.
    #[error("`{0}` does not start a field")]
    InvalidKey(usize),
    /// One field of a message cannot be taken.
    #[error("field `{path}` {problem}")]
    Field {
        /// Which field.
        path: FieldPath,
        /// Why.
        problem: Problem,
    },
}

/// Why a field is refused. Its text follows the name of the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The field must be there.
    #[error("is missing")]
    Missing,
    /// An enum's number has no meaning here.
    #[error("has the unknown value `{0}`")]
    UnknownValue(i32),
    /// An id does not have an id's form.
    #[error("holds `{}`, which is not a valid identifier", .0.0)]
    InvalidId(InvalidId),
    /// A number or a duration is outside of what the field may hold.
    #[error("holds `{0}`, which is out of range")]
    OutOfRange(i64),
    /// A text is not a number.
    #[error("holds a text that is not a number")]
    NotANumber,
    /// A text is not a network in CIDR form.
    #[error("holds `{0}`, which is not a network in CIDR form")]
    InvalidNetwork(String),
    /// Skep does not know the field and would lose what it holds.
    #[error("is not supported")]
    Unsupported,
}

/// The way from a message to one of its fields, e.g. `spec.task.container.mounts`.
#[derive(Clone, PartialEq, Eq)]
pub struct FieldPath {
    /// Names from the innermost field outwards; never empty.
    inside_out: Vec<&'static str>,
}

// === impl Error ===

impl Error {
    /// A refusal of `field` itself.
    pub(crate) fn field(field: &'static str, problem: Problem) -> Self {
        Self::Field {
            path: FieldPath {
                inside_out: vec![field],
            },
            problem,
        }
    }

    /// The same refusal seen from the message that holds the failed one in `field`.
    pub(crate) fn within(mut self, field: &'static str) -> Self {
        if let Self::Field { path, .. } = &mut self {
            path.inside_out.push(field);
        }
        self
    }
}

impl From<prost::DecodeError> for Error {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error)
    }
}

// === impl Problem ===

impl Problem {
    /// A refused network; only the start of a long text is kept.
    pub(crate) fn invalid_network(text: &str) -> Self {
        Self::InvalidNetwork(text.chars().take(64).collect())
    }
}

// === impl FieldPath ===

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.inside_out.iter().rev().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_reads_from_the_outside() {
        let error = Error::field("type", Problem::UnknownValue(9))
            .within("mounts")
            .within("spec");
        assert_eq!(
            error.to_string(),
            "field `spec.mounts.type` has the unknown value `9`"
        );
    }
}
