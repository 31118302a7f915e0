//! A power cut, as far as it can be had without one: from a record of every call, what a disk may hold after each.
//!
//! A disk may lose any bytes that were not synced and any name whose folder was not. So after every call a directory is
//! built that has lost all of them, and others that have lost only bytes or nothing, and each must open as the old or
//! the new version, whole.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use recmill_core::directory::{Call, Disk, ModelDirectory, Verify, save, save_on};

use crate::sample::Sample;

/// A file or folder as it is and as it would be found after a power cut.
#[derive(Debug)]
enum Node {
    File { now: Vec<u8>, durable: Vec<u8> },
    Folder { now: BTreeMap<OsString, usize>, durable: BTreeMap<OsString, usize> },
}

/// What survives.
#[derive(Clone, Copy, Debug)]
struct Survives {
    bytes: bool,
    names: bool,
}

/// A file system of which everything unsynced is known; node 0 is the root.
#[derive(Debug)]
struct Model {
    root: PathBuf,
    nodes: Vec<Node>,
}

impl Model {
    fn new(root: &Path) -> Self {
        let mut model = Self { root: root.to_owned(), nodes: vec![folder()] };
        model.load(0, root);
        model
    }

    /// Takes over what lies on the disk already, all of it durable.
    fn load(&mut self, at: usize, path: &Path) {
        for entry in fs_err::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let child = if entry.path().is_dir() {
                let child = self.add(folder());
                self.load(child, &entry.path());
                child
            } else {
                let bytes = fs_err::read(entry.path()).unwrap();
                self.add(Node::File { now: bytes.clone(), durable: bytes })
            };
            let Node::Folder { now, durable } = &mut self.nodes[at] else { unreachable!() };
            now.insert(entry.file_name(), child);
            durable.insert(entry.file_name(), child);
        }
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn find(&self, path: &Path) -> usize {
        path.strip_prefix(&self.root).unwrap().iter().fold(0, |at, name| match &self.nodes[at] {
            Node::Folder { now, .. } => now[name],
            Node::File { .. } => panic!("{} is in a file", path.display()),
        })
    }

    fn names(&mut self, path: &Path) -> (&mut BTreeMap<OsString, usize>, OsString) {
        let at = self.find(path.parent().unwrap());
        let Node::Folder { now, .. } = &mut self.nodes[at] else { panic!("{} is in a file", path.display()) };
        (now, path.file_name().unwrap().to_owned())
    }

    fn apply(&mut self, call: &Recorded) {
        match call {
            Recorded::Create(path, node) => {
                let child =
                    self.add(if *node { folder() } else { Node::File { now: vec![], durable: vec![] } });
                let (names, name) = self.names(path);
                assert!(names.insert(name, child).is_none());
            }
            Recorded::Write(path, bytes) => {
                let at = self.find(path);
                let Node::File { now, .. } = &mut self.nodes[at] else { panic!("a folder is written to") };
                now.extend_from_slice(bytes);
            }
            Recorded::Sync(path) => {
                let at = self.find(path);
                match &mut self.nodes[at] {
                    Node::File { now, durable } => durable.clone_from(now),
                    Node::Folder { now, durable } => durable.clone_from(now),
                }
            }
            Recorded::Rename(from, to) => {
                let (names, name) = self.names(from);
                let child = names.remove(&name).unwrap();
                let (names, name) = self.names(to);
                names.insert(name, child);
            }
            Recorded::Remove(path) => {
                let (names, name) = self.names(path);
                names.remove(&name).unwrap();
            }
        }
    }

    /// Writes what `survives` to `path`.
    fn build(&self, at: usize, path: &Path, survives: Survives) {
        match &self.nodes[at] {
            Node::File { now, durable } => {
                fs_err::write(path, if survives.bytes { now } else { durable }).unwrap();
            }
            Node::Folder { now, durable } => {
                fs_err::create_dir(path).unwrap();
                for (name, &child) in if survives.names { now } else { durable } {
                    self.build(child, &path.join(name), survives);
                }
            }
        }
    }
}

fn folder() -> Node {
    Node::Folder { now: BTreeMap::new(), durable: BTreeMap::new() }
}

/// A call, kept; creating tells whether it makes a folder.
#[derive(Debug)]
enum Recorded {
    Create(PathBuf, bool),
    Write(PathBuf, Vec<u8>),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

fn record(call: Call<'_>) -> Option<Recorded> {
    Some(match call {
        Call::CreateDir(path) => Recorded::Create(path.to_owned(), true),
        Call::CreateFile(path) => Recorded::Create(path.to_owned(), false),
        Call::Write(path, bytes) => Recorded::Write(path.to_owned(), bytes.to_vec()),
        Call::SyncFile(path) | Call::SyncDir(path) => Recorded::Sync(path.to_owned()),
        Call::Rename(from, to) => Recorded::Rename(from.to_owned(), to.to_owned()),
        Call::RemoveFile(path) | Call::RemoveDir(path) => Recorded::Remove(path.to_owned()),
        _ => return None,
    })
}

/// Returns the mark of the sample found in `root`, which must be whole.
fn found(root: &Path) -> u8 {
    let opened = ModelDirectory::open(root, Verify::Full).unwrap();
    let mark = opened.manifest().config.seed as u8;
    Sample::new(mark).assert_equal(&opened);
    mark
}

#[test]
fn no_power_cut_costs_the_version_that_was_there() {
    let root = tempfile::tempdir().unwrap();
    save(root.path(), &Sample::new(1).saved(), 1).unwrap();
    let mut model = Model::new(root.path());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let recorder = calls.clone();
    let disk = Disk::with_hook(move |call| {
        recorder.lock().unwrap().extend(record(call));
        Ok(())
    });
    save_on(&disk, root.path(), &Sample::new(2).saved(), 1).unwrap();

    let calls = std::mem::take(&mut *calls.lock().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let mut strictest = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        model.apply(call);
        for (bytes, names) in [(false, false), (false, true), (true, false), (true, true)] {
            let survives = Survives { bytes, names };
            let path = scratch.path().join(format!("{at}-{bytes}-{names}"));
            model.build(0, &path, survives);
            let mark = found(&path);
            assert!([1, 2].contains(&mark), "{mark} after {call:?} where {survives:?}");
            if !bytes && !names {
                strictest.push(mark);
            }
            fs_err::remove_dir_all(path).unwrap();
        }
    }
    assert_eq!(strictest.first(), Some(&1));
    assert_eq!(strictest.last(), Some(&2), "what save reports as done is durable");
}
