//! How the command fails: a message, where there is one a hint, and the exit status.
//!
//! | status | meaning                                                        |
//! |--------|----------------------------------------------------------------|
//! | 0      | done; also when the reader of standard output has left         |
//! | 1      | the work failed: data, files, memory, device                   |
//! | 2      | used wrongly: flags, values, names; nothing has been touched   |

use std::{io, process::ExitCode};

/// What every step of a command returns.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why the command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever read standard output has what it wanted (`recmill ... | head`).
    ReaderLeft,
    /// To be told to the user.
    Told(Told),
}

/// A message with its hint and its exit status.
#[derive(Debug)]
pub(crate) struct Told {
    message: String,
    hint: Option<String>,
    status: u8,
}

impl Failure {
    /// The work failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Failure::Told(Told { message: message.into(), hint: None, status: 1 })
    }

    /// The command was used wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::Told(Told { message: message.into(), hint: None, status: 2 })
    }

    /// Adds what the user might do, unless there is a hint already.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Failure::Told(Told { hint: slot @ None, .. }) = &mut self {
            *slot = Some(hint.into());
        }
        self
    }

    /// Tells the user, and returns the exit status.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Failure::ReaderLeft => ExitCode::SUCCESS,
            Failure::Told(Told { message, hint, status }) => {
                crate::output::say(format_args!("error: {message}"));
                if let Some(hint) = hint {
                    crate::output::say(format_args!("\nhint: {hint}"));
                }
                ExitCode::from(status)
            }
        }
    }
}

/// Adds a hint to a failure on its way up.
pub(crate) trait Hint {
    /// Adds `hint` where this is a failure without one.
    fn hint(self, hint: impl Into<String>) -> Self;
}

impl<T> Hint for Result<T> {
    fn hint(self, hint: impl Into<String>) -> Self {
        self.map_err(|failure| failure.hint(hint))
    }
}

/// Errors of writing to standard output; files are named by their own errors.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderLeft,
            _ => Failure::failed(error.to_string()),
        }
    }
}
