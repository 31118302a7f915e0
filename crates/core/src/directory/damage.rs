//! What can be wrong with one file of a model directory.

/// Why a file of a model directory was refused; [`crate::Error::Damaged`] adds which file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// config.json lists it, and it is not there.
    #[error("missing")]
    Missing,
    /// It is there, and config.json does not list it.
    #[error("not listed in config.json")]
    Unlisted,
    /// A version holds plain files only: a link could point at anything, and change.
    #[error("a symbolic link, where only plain files may be")]
    Symlink,
    /// A folder, pipe or device.
    #[error("not a plain file")]
    NotAFile,
    /// The length on disk is another.
    #[error("{expected} bytes expected, found `{got}`")]
    Length {
        /// Bytes that should be there.
        expected: u64,
        /// Bytes found.
        got: u64,
    },
    /// The bytes are not those that were written.
    #[error("the sha256 of the {block_bytes} bytes at `{at}` is not the one recorded")]
    Hash {
        /// Where the differing block begins.
        at: u64,
        /// How long it is.
        block_bytes: u64,
    },
    /// A number is beyond what this library accepts.
    #[error("{what} is at most {limit}, found `{got}`")]
    Limit {
        /// The number.
        what: &'static str,
        /// The most that is accepted.
        limit: u64,
        /// What the file says.
        got: u64,
    },
    /// Written by a newer library in a format that this one does not know.
    #[error("written in format {got}, this version of recmill reads up to `{known}`")]
    Newer {
        /// The newest format this library reads.
        known: u64,
        /// The format found.
        got: u64,
    },
    /// The text or header cannot be understood.
    #[error("not a valid {what}: `{reason}`")]
    Malformed {
        /// What it should be.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// Two parts of the directory contradict each other.
    #[error("{what} does not agree with the other files: `{name}`")]
    Contradiction {
        /// What differs.
        what: &'static str,
        /// Which one.
        name: String,
    },
}

impl Damage {
    pub(crate) fn at(self, path: impl Into<std::path::PathBuf>) -> crate::Error {
        crate::Error::Damaged { path: path.into(), what: self }
    }

    pub(crate) fn contradiction(what: &'static str, name: impl Into<String>) -> Self {
        Self::Contradiction { what, name: name.into() }
    }

    pub(crate) fn malformed(what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }
}
