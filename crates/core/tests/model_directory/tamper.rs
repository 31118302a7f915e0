//! A saved sample to be damaged: as a bad disk does it, or as somebody who makes all sums fit again.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use recmill_core::{
    Error, UserIndex,
    directory::{Damage, ModelDirectory, Verify, save},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::sample::Sample;

/// The files of a version, saved once.
static SAVED: LazyLock<Vec<(OsString, Vec<u8>)>> = LazyLock::new(|| {
    let root = tempfile::tempdir().unwrap();
    let version = save(root.path(), &Sample::new(1).saved(), 1).unwrap();
    let files = fs_err::read_dir(version).unwrap().map(|entry| entry.unwrap());
    files.map(|entry| (entry.file_name(), fs_err::read(entry.path()).unwrap())).collect()
});

/// A model directory of its own.
pub(crate) struct Tampered {
    root: tempfile::TempDir,
}

impl Tampered {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let version = root.path().join("versions/1");
        fs_err::create_dir_all(&version).unwrap();
        for (name, bytes) in &*SAVED {
            fs_err::write(version.join(name), bytes).unwrap();
        }
        fs_err::write(root.path().join("CURRENT"), "1\n").unwrap();
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Returns the path of file `name` of the version.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("versions/1").join(name)
    }

    /// Returns the names of all files of the version.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs_err::read_dir(self.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs_err::read(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs_err::write(self.path(name), bytes).unwrap();
    }

    /// Changes config.json and signs it.
    pub(crate) fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        let mut config = serde_json::from_slice(&self.read("config.json")).unwrap();
        edit(&mut config);
        self.write_config(&serde_json::to_vec(&config).unwrap());
    }

    /// Puts any bytes for config.json and signs them.
    pub(crate) fn write_config(&self, bytes: &[u8]) {
        self.write("config.json", bytes);
        self.write("config.sha256", format!("{}  config.json\n", hex(bytes)).as_bytes());
    }

    /// Puts any bytes for file `name` and makes length and sums fit.
    pub(crate) fn forge(&self, name: &str, bytes: &[u8]) {
        self.write(name, bytes);
        self.edit_config(|config| {
            let sums: Vec<String> = bytes.chunks(64 << 20).map(hex).collect();
            config["files"][name] = json!({"bytes": bytes.len(), "sha256": sums});
        });
    }

    /// Replaces the header of a safetensors file, and makes everything fit.
    pub(crate) fn forge_header(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let bytes = self.read(name);
        let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&bytes[8..end]).unwrap();
        edit(&mut header);
        let header = serde_json::to_vec(&header).unwrap();
        self.forge(name, &[&(header.len() as u64).to_le_bytes()[..], &header, &bytes[end..]].concat());
    }

    /// Returns the file and the damage that opening reports.
    pub(crate) fn refused(&self, verify: Verify) -> (String, Damage) {
        refused(ModelDirectory::open(self.root(), verify))
    }
}

/// Returns the file and the damage that `result` reports.
pub(crate) fn refused<T>(result: recmill_core::Result<T>) -> (String, Damage) {
    match result {
        Err(Error::Damaged { path, what }) => {
            (path.file_name().unwrap().to_string_lossy().into_owned(), what)
        }
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("nothing was refused"),
    }
}

/// Reads everything that can be read; damage may turn up, a panic may not.
pub(crate) fn read_everything(opened: &ModelDirectory) -> recmill_core::Result<()> {
    opened.verify();
    for (ids, known) in [(opened.users(), "u0"), (opened.items(), "ünder")] {
        let names: Vec<&str> = ids.iter().collect();
        for name in names.into_iter().chain([known, "", "something else"]) {
            ids.index(name);
        }
        assert_eq!(ids.name(u32::MAX), None);
    }
    let mut results = Vec::new();
    let mut sorted = Vec::new();
    for user in (0..5).chain([u32::MAX]).map(UserIndex) {
        results.push(opened.history().row(user).map(|_| ()));
        results.push(opened.history().sorted_items(user, &mut sorted));
    }
    results.push(opened.to_dataset().map(|_| ()));
    results.push(opened.epochs().map(|_| ()));
    results.push(opened.item_attributes().map(|_| ()));
    results.push(opened.parameters().map(|_| ()));
    results.into_iter().collect()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
