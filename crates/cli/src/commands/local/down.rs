//! `skep local down`

use std::io::Write;

use crate::{
    commands::local::Machine,
    local::state::{self, State},
};

pub(super) fn run(name: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let _lock = state::lock()?;
    let Some(state) = State::read(name)? else {
        writeln!(out, "There is no local cluster `{name}`.")?;
        return Ok(());
    };
    Machine::new(name, state).remove()?;
    writeln!(out, "The local cluster `{name}` is gone.")?;
    Ok(())
}
