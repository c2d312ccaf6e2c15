//! The monitor as a process of its own, for this crate's tests; the product's entry is `skep monitor`.

use std::process::ExitCode;

fn main() -> ExitCode {
    skep_executor::monitor::main(std::env::args_os().skip(1).collect())
}
