//! The built command, run as a stranger would: every test sees a whole screen or a whole way.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_columns;
mod browser;
mod help;
mod neumf;
mod rankers;
mod report;
mod resume;
mod running;
mod schema;
mod screen;
mod sequences;
#[cfg(unix)]
mod signals;
mod texts;
mod two_tower;
mod whole_path;
mod wrong_use;
