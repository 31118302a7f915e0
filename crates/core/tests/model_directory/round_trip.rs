//! What is saved comes back, in place, version by version.

use recmill_core::{
    ItemIndex, UserIndex,
    directory::{ModelDirectory, Verify, list_versions, save},
};

use crate::sample::Sample;

#[test]
fn what_is_saved_comes_back() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("not/there/yet");
    let sample = Sample::new(1);
    let path = save(&root, &sample.saved(), 3).unwrap();
    assert_eq!(path, root.join("versions/1"));
    for (path, verify) in [(&root, Verify::Quick), (&root, Verify::Full), (&path, Verify::Full)] {
        let opened = ModelDirectory::open(path, verify).unwrap();
        assert_eq!(opened.version(), "1");
        sample.assert_equal(&opened);
        assert!(opened.verify().iter().all(|file| file.result.is_ok()));
    }
}

#[test]
fn ids_and_history_are_found_without_loading_them() {
    let root = tempfile::tempdir().unwrap();
    save(root.path(), &Sample::new(1).saved(), 3).unwrap();
    let opened = ModelDirectory::open(root.path(), Verify::Quick).unwrap();
    let items = opened.items();
    assert_eq!(["i0", "", "ünder", "i3"].map(|id| items.index(id)), [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(["i", "i4", "under", "i33"].map(|id| items.index(id)), [None; 4]);
    assert_eq!((items.name(2), items.name(4), items.len()), (Some("ünder"), None, 4));

    let history = opened.history();
    let row = history.row(UserIndex(0)).unwrap();
    assert_eq!(row.items, [2, 3, 0].map(ItemIndex), "oldest first");
    assert_eq!(row.values, Some(&[1.0, 2.5, 1.0][..]));
    assert_eq!(row.times, Some(&[10, 20, 30][..]));
    let mut sorted = vec![ItemIndex(9)];
    history.sorted_items(UserIndex(0), &mut sorted).unwrap();
    assert_eq!(sorted, [0, 2, 3].map(ItemIndex));
    assert!(history.items(UserIndex(1)).unwrap().is_empty());
    assert!(history.items(UserIndex(99)).unwrap().is_empty(), "a user of no model has no history");
}

#[test]
fn training_again_adds_a_version_and_keeps_the_newest() {
    let root = tempfile::tempdir().unwrap();
    let mut opened = Vec::new();
    for mark in 1..=5 {
        save(root.path(), &Sample::new(mark).saved(), 2).unwrap();
        opened.push(ModelDirectory::open(root.path(), Verify::Quick).unwrap());
    }
    assert_eq!(list_versions(root.path()).unwrap(), (vec![4, 5], Some(5)));
    for (mark, opened) in (1..=5).zip(&opened).skip(3) {
        Sample::new(mark).assert_equal(opened);
    }
    assert_eq!(opened[0].history().items(UserIndex(0)).unwrap().len(), 3, "a pruned version stays open");
}
