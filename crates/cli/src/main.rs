//! The command `recmill`: every message that a user reads is in this crate.

mod arguments;
mod commands;
mod device_flag;
mod explain;
mod failure;
mod feature_flags;
mod interrupt;
mod model;
mod newcomers;
mod output;
mod progress;
mod ranking;
mod read_flags;
mod reading;
mod report;
mod texts;
mod titles;
mod user_lists;

use std::process::ExitCode;

fn main() -> ExitCode {
    quiet_mesa();
    arguments::run()
}

/// Mesa's drivers print an error of their own, a line a look, on a machine without a desktop session, where this is not
/// set. They want a folder for sockets to a screen, which nothing here ever asks for.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the environment is changed before there is a second thread to read it")]
fn quiet_mesa() {
    const NAME: &str = "XDG_RUNTIME_DIR";
    if std::env::var_os(NAME).is_none() {
        // SAFETY: no other thread has been started.
        unsafe { std::env::set_var(NAME, std::env::temp_dir()) }
    }
}

#[cfg(not(target_os = "linux"))]
fn quiet_mesa() {}
