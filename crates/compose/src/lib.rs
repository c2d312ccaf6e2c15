//! Compose files: from text to a typed [`Project`].
//!
//! [`load()`] is the entry point: it reads the files a user names, and those they name in turn, and answers with a
//! [`Project`] that has no short forms, variables or relative paths left, or with all [`Problems`] at once, each with the
//! place in the file it is about. [`render()`] writes the merged file out again. Files come through the [`Files`] trait and
//! the environment is an argument: this crate has no IO of its own. See `docs/design/compose.md`.
#![warn(clippy::wildcard_enum_match_arm)]

mod canonical;
mod check;
pub mod convert;
mod decode;
pub mod diff;
mod document;
mod dotenv;
mod env_file;
mod input;
mod interpolate;
mod load;
mod merge;
mod model;
mod node;
mod paths;
mod problem;
pub mod project;
mod quantity;
mod render;
mod scalar;
mod word;
mod yaml;

pub use crate::{
    document::Document,
    input::{Environment, Files, Options, Source, Unsupported},
    load::{Loaded, load, merge},
    problem::{Place, Problem, Problems},
    project::Project,
    render::render,
    word::Word,
};
