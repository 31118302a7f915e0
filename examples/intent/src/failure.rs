//! Why the example ends early.

use std::path::PathBuf;

/// What every step returns.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A reason, as it is told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The library refused data or a model.
    #[error(transparent)]
    Library(#[from] recmill::Error),
    /// Training failed.
    #[error(transparent)]
    Training(#[from] recmill::train::Error),
    /// The configuration has no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A file is no CSV.
    #[error("{}: {source}", path.display())]
    Csv { path: PathBuf, source: csv::Error },
    /// A file of replies has not the two columns it must have.
    #[error("{}, line {line}: expected an intent and a reply, found `{found}`", path.display())]
    NoReply { path: PathBuf, line: usize, found: String },
}
