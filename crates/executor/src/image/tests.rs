//! Tests of the whole store. They run as root: overlayfs attributes, devices, a full tmpfs.

mod archives;
mod crash;
mod fake_registry;
mod fixture;
mod hostile;
mod pulls;
mod real_registry;
mod removal;
