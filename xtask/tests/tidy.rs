//! Structural rules: what the compiler and clippy do not see. One test for each rule; each says what to do instead.

#[path = "tidy/changelog.rs"]
mod changelog;
#[path = "tidy/edges.rs"]
mod edges;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/licences.rs"]
mod licences;
#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/metrics.rs"]
mod metrics;
#[path = "tidy/modules.rs"]
mod modules;
#[path = "tidy/words.rs"]
mod words;
#[path = "tidy/workspace.rs"]
mod workspace;
