//! Files for a test, in a folder that is gone after it.

use std::path::Path;

/// A folder with some files.
pub(crate) struct Files {
    folder: tempfile::TempDir,
    names: Vec<String>,
}

impl Files {
    /// One file.
    pub(crate) fn of(name: &str, text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join(name), text).unwrap();
        Self { folder, names: vec![name.to_owned()] }
    }

    /// Their paths.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.names.iter().map(|name| self.path().join(name).display().to_string()).collect()
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A message without the folder, which is another each time.
    pub(crate) fn without_folder(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.path().display()), "")
    }
}
