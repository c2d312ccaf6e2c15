//! The runtime module on real containers: busybox under crun and runc, in directories and cgroups of their own.
//!
//! Needs root, `/bin/busybox` (static), crun and runc; every test says so by failing, none is skipped.
#![expect(clippy::unwrap_used, reason = "what the rig cannot do fails the test")]

#[path = "runtime/rig.rs"]
mod rig;

#[path = "runtime/crash.rs"]
mod crash;
#[path = "runtime/exec.rs"]
mod exec;
#[path = "runtime/life.rs"]
mod life;
#[path = "runtime/logs.rs"]
mod logs;
#[path = "runtime/streams.rs"]
mod streams;
