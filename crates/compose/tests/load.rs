//! Compose files as users write them: what they mean, how they are merged, what is said of bad ones.

#[path = "load/bad.rs"]
mod bad;
#[path = "load/disk.rs"]
mod disk;
#[path = "load/golden.rs"]
mod golden;
#[path = "load/keys.rs"]
mod keys;
#[path = "load/merging.rs"]
mod merging;
#[path = "load/objects.rs"]
mod objects;
#[path = "load/references.rs"]
mod references;
#[path = "load/robust.rs"]
mod robust;
#[path = "load/variables.rs"]
mod variables;
