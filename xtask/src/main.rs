//! Placeholder until the gate lands.
fn main() {}
