//! The verbs: a file for each, with its arguments and what it does.

pub(crate) mod local;
pub(crate) mod system;
