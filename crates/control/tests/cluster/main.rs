//! Tests of the reconcilers together, on a simulated cluster: written scripts and random histories.

#![expect(clippy::unwrap_used, reason = "a broken test shall panic")]

mod chaos;
mod rebalance;
mod scripts;
mod spec;
mod world;
