//! Transport: connections, requests, answers, streams. Knows no object of Docker's.

pub(crate) mod base64;
pub(crate) mod cache;
pub(crate) mod console;
pub(crate) mod filter;
pub(crate) mod hijack;
mod leftover;
pub(crate) mod query;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod server;
pub(crate) mod stdcopy;
pub(crate) mod timestamp;
pub(crate) mod version;
