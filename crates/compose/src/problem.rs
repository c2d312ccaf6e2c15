//! What is wrong with a compose file, and where: all of it, so that one run shows all there is to mend.

use std::{fmt, path::Path, sync::Arc};

/// Where in a file something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as it was named: relative names stay relative.
    pub file: Arc<Path>,
    /// From 1; 0 where the place is the file as a whole.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where; `None` when it is about no file, such as an option of the command.
    pub place: Option<Place>,
    /// What, without full stop.
    pub text: String,
}

/// All that is wrong, in the order of files and lines; never empty when it is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

// === impl Place ===

impl Place {
    /// A file as a whole.
    pub fn file(file: &Path) -> Self {
        Self {
            file: file.into(),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.text)
    }
}

// === impl Problems ===

/// Problems kept; who has made more has seen enough, and the output of a generated file stays readable.
pub(crate) const PROBLEM_COUNT_MAX: usize = 100;

impl Problems {
    /// Adds one. Beyond a hundred it is dropped, as is what has been told already.
    pub fn push(&mut self, place: Option<Place>, text: impl Into<String>) {
        if self.0.len() < PROBLEM_COUNT_MAX {
            let problem = Problem {
                place,
                text: text.into(),
            };
            if !self.0.contains(&problem) {
                self.0.push(problem);
            }
        }
    }

    /// Adds those of `other`.
    pub fn append(&mut self, other: Self) {
        for problem in other.0 {
            self.push(problem.place, problem.text);
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, as they were found; those of an error are sorted by place.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// The value, or all that is wrong, sorted by place.
    ///
    /// # Errors
    /// When anything is wrong.
    pub fn into_result<T>(mut self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort();
        Err(self)
    }

    /// All, sorted by place.
    pub fn into_vec(mut self) -> Vec<Problem> {
        self.0.sort();
        self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
