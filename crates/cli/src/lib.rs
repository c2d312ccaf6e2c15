//! The command line besides `skep daemon`: what `docker` does not show or where it is not installed,
//! and clusters on one machine.
//!
//! Deliberately small: services are operated with `docker`. Entry point: [`run`]. Data goes to the
//! writer given, all else is the caller's to print to stderr.

mod args;
mod cluster_spec;
mod commands;
mod duration;
#[cfg(test)]
mod fake_daemon;
mod local;
mod names;
mod table;
mod url;

pub use crate::args::{Command, Connection, run};
