//! Compose files: from text to a typed [`Project`].
//!
//! `load` is the entry point: it reads the files a user names, and those they name in turn, and answers with a
//! [`Project`] that has no short forms, variables or relative paths left, or with all [`Problems`] at once, each with the
//! place in the file it is about. `render` writes the merged file out again. Files come through the [`Files`] trait and
//! the environment is an argument: this crate has no IO of its own. See `docs/design/compose.md`.
#![warn(clippy::wildcard_enum_match_arm)]

pub mod convert;
pub mod diff;
mod input;
mod problem;
pub mod project;
mod word;

pub use crate::{
    input::{Environment, Files, Options, Source, Unsupported},
    problem::{Place, Problem, Problems},
    project::Project,
    word::Word,
};
