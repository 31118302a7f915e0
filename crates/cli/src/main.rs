//! The command `recmill`: every message that a user reads is in this crate.

mod arguments;
mod commands;
mod device_flag;
mod explain;
mod failure;
mod interrupt;
mod model;
mod output;
mod progress;
mod read_flags;
mod reading;
mod titles;
mod user_lists;

use std::process::ExitCode;

fn main() -> ExitCode {
    arguments::run()
}
