//! A crash or a failure while saving never costs the version that was there.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use recmill_core::{
    Error,
    directory::{
        Call, Disk, ModelDirectory, Verify, check_destination, list_versions, replace_file, save, save_on,
    },
};

use crate::sample::Sample;

const ROOT: &str = "RECMILL_TEST_CHILD_ROOT";
const STOP_AT: &str = "RECMILL_TEST_CHILD_STOP_AT";
const REACHED: &str = "reached the call";

/// What a reader finds in `root`: the mark of the sample, or nothing yet.
fn found(root: &Path) -> Option<u8> {
    match ModelDirectory::open(root, Verify::Full) {
        Err(Error::NoModel { .. }) => None,
        Err(error) => panic!("a reader met {error}"),
        Ok(opened) => {
            let mark = opened.manifest().config.seed as u8;
            Sample::new(mark).assert_equal(&opened);
            Some(mark)
        }
    }
}

/// Checks that a writer after the failure finds nothing in its way and sweeps up.
fn assert_next_writer_succeeds(root: &Path) {
    save(root, &Sample::new(9).saved(), 1).unwrap();
    assert_eq!(found(root), Some(9));
    assert_eq!(list_versions(root).unwrap().0.len(), 1);
    let names: Vec<_> =
        fs_err::read_dir(root.join("versions")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "the version and the lock, found {names:?}");
}

/// How a save that something happened to ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// Nothing happened to it: it makes fewer calls.
    Undisturbed,
    /// It went on and reported success.
    Saved,
    /// It reported a failure or was killed.
    Lost,
}

/// Disturbs the save of one sample over another at call 1, 2, 3 and so on until it makes fewer calls.
///
/// Returns, for each call, how the save ended and what a reader found.
fn disturb_each_call(before: Option<u8>, save_until: impl Fn(&Path, u64) -> End) -> Vec<(End, Option<u8>)> {
    let mut ends = Vec::new();
    loop {
        let root = tempfile::tempdir().unwrap();
        if let Some(mark) = before {
            save(root.path(), &Sample::new(mark).saved(), 1).unwrap();
        }
        let end = save_until(root.path(), ends.len() as u64 + 1);
        let now = found(root.path());
        ends.push((end, now));
        match end {
            End::Lost => assert!(now == before || now == Some(2), "{now:?}"),
            End::Saved | End::Undisturbed => assert_eq!(now, Some(2)),
        }
        assert_next_writer_succeeds(root.path());
        if end == End::Undisturbed {
            assert!(ends.len() > 30, "a save makes more calls than {}", ends.len());
            return ends;
        }
    }
}

/// Saves over a pruned version until it is killed from outside; a run of its own, without that, just saves.
#[test]
fn a_child_that_saves() {
    let own = tempfile::tempdir().unwrap();
    let root = std::env::var_os(ROOT).map_or(own.path().to_owned(), Into::into);
    let stop_at: u64 = std::env::var(STOP_AT).map_or(u64::MAX, |text| text.parse().unwrap());
    let calls = AtomicU64::new(0);
    let disk = Disk::with_hook(move |_| {
        if calls.fetch_add(1, Ordering::Relaxed) + 1 == stop_at {
            println!("\n{REACHED}");
            io::stdout().flush()?;
            // Nobody writes to it: this waits for the kill.
            io::stdin().read_exact(&mut [0])?;
        }
        Ok(())
    });
    save_on(&disk, &root, &Sample::new(2).saved(), 1).unwrap();
    assert_eq!(found(&root), Some(2));
}

fn kill_child_at(root: &Path, call: u64) -> End {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::a_child_that_saves", "--nocapture"])
        .env(ROOT, root)
        .env(STOP_AT, call.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Kept open until the child is dead, or its wait would end.
    let _stdin = child.stdin.take();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reached = lines.any(|line| line.unwrap() == REACHED);
    if reached {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    assert_eq!(status.success(), !reached, "{status}");
    if reached { End::Lost } else { End::Undisturbed }
}

/// Up to one call the old version is there, from that call on the new one.
fn assert_one_commit(before: Option<u8>, ends: Vec<(End, Option<u8>)>) {
    let mut seen: Vec<_> = ends.into_iter().map(|(_, now)| now).collect();
    seen.dedup();
    assert_eq!(seen, [before, Some(2)]);
}

#[test]
fn kill_at_every_filesystem_call() {
    assert_one_commit(Some(1), disturb_each_call(Some(1), kill_child_at));
}

#[test]
fn kill_at_every_filesystem_call_of_the_first_version() {
    assert_one_commit(None, disturb_each_call(None, kill_child_at));
}

/// Fails call `call`, and with `for_good` all after it, as a full disk does.
fn fail_at(root: &Path, call: u64, for_good: bool) -> End {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = calls.clone();
    let disk = Disk::with_hook(move |_| match counter.fetch_add(1, Ordering::Relaxed) + 1 {
        now if now == call || for_good && now > call => Err(io::Error::other(format!("call {now} failed"))),
        _ => Ok(()),
    });
    match save_on(&disk, root, &Sample::new(2).saved(), 1) {
        Err(error) => {
            let text = error.to_string();
            let failed = text.strip_prefix("call ").and_then(|text| text.strip_suffix(" failed")).unwrap();
            let failed: u64 = failed.parse().unwrap();
            // Where everything fails from then on, a failure to sweep is passed over and the next one reported.
            assert!(
                failed == call || for_good && failed > call,
                "call {call} failed first, reported is `{text}`"
            );
            End::Lost
        }
        Ok(_) if calls.load(Ordering::Relaxed) < call => End::Undisturbed,
        Ok(_) => End::Saved,
    }
}

#[test]
fn fail_at_every_filesystem_call() {
    for (before, for_good) in [(Some(1), false), (Some(1), true), (None, false), (None, true)] {
        let ends = disturb_each_call(before, |root, call| fail_at(root, call, for_good));
        assert!(ends.contains(&(End::Lost, before)));
        // What fails once the new version is current is sweeping and pruning, which wait for the next save.
        assert!(before.is_none() || ends.contains(&(End::Saved, Some(2))));
    }
}

#[test]
fn a_second_writer_waits_its_turn() {
    let root = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for mark in 1..=4 {
            let root = root.path();
            scope.spawn(move || save(root, &Sample::new(mark).saved(), 9).unwrap());
        }
    });
    let (versions, current) = list_versions(root.path()).unwrap();
    assert_eq!((versions.clone(), current), (vec![1, 2, 3, 4], Some(4)));
    let mut marks: Vec<_> =
        versions.iter().map(|version| found(&root.path().join(format!("versions/{version}")))).collect();
    marks.sort();
    assert_eq!(marks, [1, 2, 3, 4].map(Some));
}

#[test]
fn a_second_writer_without_patience_is_told() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    let disk = Disk::with_hook(move |call| {
        if let Call::Write(..) = call {
            let second =
                save_on(&Disk::default().patience(Duration::ZERO), &path, &Sample::new(3).saved(), 1);
            assert!(matches!(second, Err(Error::Busy { .. })), "{second:?}");
        }
        Ok(())
    });
    save_on(&disk, root.path(), &Sample::new(2).saved(), 1).unwrap();
    assert_eq!(found(root.path()), Some(2));
}

#[test]
fn a_folder_that_is_not_ours_is_refused_and_untouched() {
    let full = tempfile::tempdir().unwrap();
    fs_err::write(full.path().join("thesis.tex"), "years of work").unwrap();
    let alike = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(alike.path().join("versions/1")).unwrap();
    let file = full.path().join("thesis.tex");
    for root in [full.path(), alike.path(), &file] {
        for result in [check_destination(root), save(root, &Sample::new(1).saved(), 1).map(|_| ())] {
            assert!(matches!(&result, Err(Error::NotOurs { path }) if path == root), "{result:?}");
        }
    }
    assert_eq!(fs_err::read_dir(full.path()).unwrap().count(), 1);
    assert_eq!(fs_err::read_dir(alike.path().join("versions")).unwrap().count(), 1);
    let below = file.join("model");
    assert!(check_destination(&below).is_err() && save(&below, &Sample::new(1).saved(), 1).is_err());
}

#[test]
fn a_destination_can_be_asked_about_without_a_trace() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("a/b");
    check_destination(&root).unwrap();
    assert_eq!(fs_err::read_dir(parent.path()).unwrap().count(), 0);
    save(&root, &Sample::new(1).saved(), 1).unwrap();
    check_destination(&root).unwrap();
    assert_eq!(found(&root), Some(1));
}

#[cfg(unix)]
#[test]
fn files_come_out_with_the_mode_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let version = save(&root.path().join("model"), &Sample::new(1).saved(), 1).unwrap();
    fs_err::write(root.path().join("plain"), "").unwrap();
    let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
    let plain = mode(&root.path().join("plain"));
    assert_eq!(mode(&root.path().join("model/CURRENT")), plain);
    for entry in fs_err::read_dir(version).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), plain, "{}", path.display());
    }
}

#[cfg(unix)]
#[test]
fn a_link_is_written_through_and_what_is_no_file_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs_err::write(at("data"), "old").unwrap();
    fs_err::os::unix::fs::symlink(at("data"), at("link")).unwrap();
    replace_file(&at("link"), |out| Ok(out.write_all(b"new")?)).unwrap();
    assert!(fs_err::symlink_metadata(at("link")).unwrap().is_symlink());
    assert_eq!(fs_err::read_to_string(at("data")).unwrap(), "new");

    let _pipe = std::os::unix::net::UnixListener::bind(at("pipe")).unwrap();
    let error = replace_file(&at("pipe"), |out| Ok(out.write_all(b"new")?)).unwrap_err();
    assert!(error.to_string().ends_with("it is there and no file"), "{error}");
    assert!(!fs_err::symlink_metadata(at("pipe")).unwrap().is_file());
}
