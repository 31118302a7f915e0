//! Models written by older libraries open for ever; `tests/data/v*` are never written again.

use std::path::Path;

use recmill_core::directory::{ModelDirectory, Verify};

use crate::sample::Sample;

/// Written by 0.1.0 from `Sample::new(2)`.
#[test]
fn v1() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1");
    let opened = ModelDirectory::open(root, Verify::Full).unwrap();
    assert_eq!((opened.manifest().format_version, &*opened.manifest().library_version), (1, "0.1.0"));
    Sample::new(2).assert_equal(&opened);
}

/// Written with the fixture's test, so that a change of what is written today does not go unnoticed.
#[test]
fn todays_files_are_those_of_v1() {
    let root = tempfile::tempdir().unwrap();
    let today = recmill_core::directory::save(root.path(), &Sample::new(2).saved(), 1).unwrap();
    let v1 = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1/versions/1");
    for name in
        ["model.safetensors", "history.safetensors", "users.fst", "users.names", "items.fst", "items.names"]
    {
        let read = |folder: &Path| fs_err::read(folder.join(name)).unwrap();
        assert_eq!(read(&today), read(&v1), "{name}");
    }
}
