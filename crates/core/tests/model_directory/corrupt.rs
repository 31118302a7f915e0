//! A damaged directory is refused, with file and reason, before anything of a size that it names is allocated.

use recmill_core::{
    Error, UserIndex,
    directory::{Damage, ModelDirectory, Verify},
};
use serde_json::json;

use crate::{
    sample::Sample,
    tamper::{Tampered, read_everything, refused},
};

#[test]
fn truncate() {
    let names = Tampered::new().names();
    assert_eq!(names.len(), 10, "every file of a version is tried: {names:?}");
    for name in names {
        let whole = Tampered::new().read(&name);
        // The line end of config.sha256 says nothing, so the last byte but one is the last that matters.
        for left in [0, 1, 7, 8, whole.len() / 2, whole.len() - 2] {
            let tampered = Tampered::new();
            tampered.write(&name, &whole[..left]);
            let (file, damage) = tampered.refused(Verify::Quick);
            if ["config.json", "config.sha256"].contains(&&*name) {
                assert!(matches!(damage, Damage::Hash { .. } | Damage::Malformed { .. }), "{damage}");
            } else {
                assert_eq!(damage, Damage::Length { expected: whole.len() as u64, got: left as u64 });
                assert_eq!(file, name);
            }
        }
    }
}

#[test]
fn append() {
    for name in Tampered::new().names() {
        let tampered = Tampered::new();
        let mut bytes = tampered.read(&name);
        bytes.extend([b'\n', b'x']);
        tampered.write(&name, &bytes);
        tampered.refused(Verify::Quick);
    }
}

#[test]
fn flip() {
    for name in Tampered::new().names() {
        let tampered = Tampered::new();
        let whole = tampered.read(&name);
        for at in (0..whole.len()).step_by(1 + whole.len() / 97) {
            for bit in [0, 7] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                tampered.write(&name, &bytes);
                let (file, damage) = tampered.refused(Verify::Full);
                let in_config = ["config.json", "config.sha256"].contains(&&*name);
                if !in_config {
                    let block_bytes = whole.len() as u64;
                    assert_eq!((file, damage), (name.clone(), Damage::Hash { at: 0, block_bytes }));
                }
                // What a quick look lets pass must do no harm.
                match ModelDirectory::open(tampered.root(), Verify::Quick) {
                    Ok(opened) => {
                        assert!(!in_config, "config.json is always checked");
                        let failed: Vec<_> =
                            opened.verify().into_iter().filter(|file| file.result.is_err()).collect();
                        assert_eq!(failed.iter().map(|file| &file.name).collect::<Vec<_>>(), [&name]);
                        let _ = read_everything(&opened);
                    }
                    Err(error) => {
                        assert!(matches!(error, Error::Damaged { .. } | Error::Kernel(_)), "{error}")
                    }
                }
            }
        }
    }
}

#[test]
fn huge_header() {
    for name in ["model.safetensors", "history.safetensors"] {
        for length in [(16 << 20) + 1, 99_999_999, u64::MAX - 8, u64::MAX] {
            let tampered = Tampered::new();
            let mut bytes = tampered.read(name);
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            tampered.forge(name, &bytes);
            let (file, damage) = tampered.refused(Verify::Full);
            assert_eq!(file, name);
            assert!(matches!(damage, Damage::Limit { got, .. } if got == length), "{damage}");
        }
        let tampered = Tampered::new();
        let mut bytes = tampered.read(name);
        let past_the_end = bytes.len() as u64 - 7;
        bytes[..8].copy_from_slice(&past_the_end.to_le_bytes());
        tampered.forge(name, &bytes);
        assert!(matches!(tampered.refused(Verify::Full), (file, Damage::Malformed { .. }) if file == name));
    }
}

#[test]
fn huge_config() {
    let tampered = Tampered::new();
    tampered.write_config(&vec![b' '; (16 << 20) + 1]);
    let (file, damage) = tampered.refused(Verify::Quick);
    assert_eq!(file, "config.json");
    assert!(matches!(damage, Damage::Limit { .. }), "{damage}");
}

#[test]
fn huge_counts() {
    for name in ["users.names", "items.names"] {
        for n in [5, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX / 8, u64::MAX] {
            let tampered = Tampered::new();
            let mut bytes = tampered.read(name);
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            tampered.forge(name, &bytes);
            let (_, damage) = tampered.refused(Verify::Full);
            assert!(!matches!(damage, Damage::Hash { .. }), "{damage}");
        }
    }
    for n in [u64::MAX, u64::MAX / 4, 1 << 40] {
        let tampered = Tampered::new();
        tampered.edit_config(|config| config["tables"]["user_factors"]["rows"] = json!(n));
        assert_eq!(tampered.refused(Verify::Quick).0, "config.json");
        tampered.edit_config(|config| config["tables"]["user_factors"]["ranges"][0]["rows"] = json!(n));
        assert_eq!(tampered.refused(Verify::Quick).0, "config.json");
        let tampered = Tampered::new();
        tampered.edit_config(|config| config["arrays"]["indices"]["len"] = json!(n));
        assert_eq!(tampered.refused(Verify::Quick).0, "model.safetensors");
    }
}

#[test]
fn wrong_hash() {
    let tampered = Tampered::new();
    tampered.edit_config(|config| config["files"]["users.fst"]["sha256"][0] = json!("0".repeat(64)));
    assert!(
        matches!(tampered.refused(Verify::Full), (file, Damage::Hash { at: 0, .. }) if file == "users.fst")
    );
    let opened = ModelDirectory::open(tampered.root(), Verify::Quick).unwrap();
    let failed: Vec<_> = opened.verify().into_iter().filter(|file| file.result.is_err()).collect();
    assert_eq!((failed.len(), &*failed[0].name), (1, "users.fst"));

    let tampered = Tampered::new();
    tampered.edit_config(|config| config["files"]["users.fst"]["sha256"] = json!([]));
    assert!(matches!(tampered.refused(Verify::Quick), (_, Damage::Contradiction { .. })));

    let tampered = Tampered::new();
    tampered.write("config.sha256", format!("{}  config.json\n", "0".repeat(64)).as_bytes());
    assert!(matches!(tampered.refused(Verify::Quick), (file, Damage::Hash { .. }) if file == "config.json"));
}

#[test]
fn wrong_lengths() {
    let tampered = Tampered::new();
    let real = tampered.read("items.fst").len() as u64;
    tampered.edit_config(|config| config["files"]["items.fst"]["bytes"] = json!(real + 1));
    let damage = Damage::Length { expected: real + 1, got: real };
    assert_eq!(tampered.refused(Verify::Quick), ("items.fst".to_owned(), damage));
}

#[cfg(unix)]
#[test]
fn symlink() {
    for name in Tampered::new().names() {
        let tampered = Tampered::new();
        let moved = tampered.root().join("elsewhere");
        fs_err::rename(tampered.path(&name), &moved).unwrap();
        fs_err::os::unix::fs::symlink(&moved, tampered.path(&name)).unwrap();
        assert_eq!(tampered.refused(Verify::Quick), (name, Damage::Symlink));
    }
    for name in ["extra", ".hidden"] {
        let tampered = Tampered::new();
        fs_err::os::unix::fs::symlink("/dev/zero", tampered.path(name)).unwrap();
        assert_eq!(tampered.refused(Verify::Quick), (name.to_owned(), Damage::Symlink));
    }
}

#[test]
fn missing_file() {
    for name in Tampered::new().names() {
        let tampered = Tampered::new();
        fs_err::remove_file(tampered.path(&name)).unwrap();
        assert_eq!(tampered.refused(Verify::Quick), (name, Damage::Missing));
    }
    let tampered = Tampered::new();
    for name in tampered.names() {
        let tampered = Tampered::new();
        if !name.starts_with("config") {
            fs_err::remove_file(tampered.path(&name)).unwrap();
            tampered.edit_config(|config| {
                config["files"].as_object_mut().unwrap().remove(&name);
            });
            match &*name {
                // These two are there or not.
                "items.parquet" => assert_eq!(
                    ModelDirectory::open(tampered.root(), Verify::Full).unwrap().item_attributes().unwrap(),
                    None
                ),
                "history.jsonl" => {
                    assert_eq!(
                        ModelDirectory::open(tampered.root(), Verify::Full).unwrap().epochs().unwrap(),
                        []
                    );
                }
                _ => {
                    tampered.refused(Verify::Quick);
                }
            }
        }
    }
}

#[test]
fn extra_file() {
    let tampered = Tampered::new();
    tampered.write("model-2.safetensors", b"");
    assert_eq!(tampered.refused(Verify::Quick), ("model-2.safetensors".to_owned(), Damage::Unlisted));

    let tampered = Tampered::new();
    fs_err::create_dir(tampered.path("folder")).unwrap();
    assert_eq!(tampered.refused(Verify::Quick), ("folder".to_owned(), Damage::Unlisted));

    let tampered = Tampered::new();
    fs_err::remove_file(tampered.path("users.fst")).unwrap();
    fs_err::create_dir(tampered.path("users.fst")).unwrap();
    assert_eq!(tampered.refused(Verify::Quick), ("users.fst".to_owned(), Damage::NotAFile));

    let tampered = Tampered::new();
    tampered.write(".DS_Store", b"left by a file manager");
    Sample::new(1).assert_equal(&ModelDirectory::open(tampered.root(), Verify::Full).unwrap());
}

#[test]
fn file_names_that_lead_elsewhere() {
    for name in ["../../CURRENT", "/etc/passwd", "..", "", "a/b", "config.json", ".lock", "C:x", "a\\b"] {
        let tampered = Tampered::new();
        tampered
            .edit_config(|config| config["files"][name] = json!({"bytes": 2, "sha256": ["0".repeat(64)]}));
        let (file, damage) = tampered.refused(Verify::Quick);
        assert_eq!(file, "config.json");
        assert!(matches!(damage, Damage::Malformed { what: "file name", .. }), "{damage}");
    }
}

#[test]
fn overlapping_tensors() {
    let (bias, factors) = ("item_bias", "user_factors/0");
    for name in [bias, factors] {
        for shift in [1, 8, 4096] {
            let tampered = Tampered::new();
            tampered.forge_header("model.safetensors", |header| {
                let ends = header[name]["data_offsets"].as_array().unwrap().clone();
                let moved: Vec<_> = ends.iter().map(|end| end.as_u64().unwrap() + shift).collect();
                header[name]["data_offsets"] = json!(moved);
            });
            let (file, damage) = tampered.refused(Verify::Full);
            assert_eq!(file, "model.safetensors");
            assert!(matches!(damage, Damage::Malformed { .. }), "{damage}");
        }
    }
    let tampered = Tampered::new();
    tampered.forge_header("model.safetensors", |header| header[bias] = header[factors].clone());
    assert!(matches!(tampered.refused(Verify::Full), (_, Damage::Malformed { .. })));
}

#[test]
fn tensors_and_config_that_disagree() {
    type Edit = fn(&mut serde_json::Value);
    let edits: [Edit; 14] = [
        |config| config["tables"]["user_factors"]["dim"] = json!(3),
        |config| config["tables"]["user_factors"]["dim"] = json!(0),
        |config| config["tables"]["user_factors"]["rows"] = json!(2),
        |config| config["tables"]["user_factors"]["dtype"] = json!("F16"),
        |config| config["tables"]["user_factors"]["dtype"] = json!("F64"),
        |config| config["tables"]["user_factors"]["chunk_rows"] = json!(3),
        |config| config["tables"]["user_factors"]["chunk_rows"] = json!(1),
        |config| config["tables"]["user_factors"]["chunk_rows"] = json!(1u64 << 40),
        |config| config["tables"]["user_factors"]["ranges"][0]["first"] = json!(1),
        |config| config["tables"]["user_factors"]["ranges"] = json!([]),
        |config| config["tables"]["user_factors"]["ranges"][0]["file"] = json!("users.fst"),
        |config| config["arrays"]["item_bias"]["dtype"] = json!("U64"),
        |config| _ = config["arrays"].as_object_mut().unwrap().remove("item_bias"),
        |config| config["arrays"]["new"] = config["arrays"]["item_bias"].clone(),
    ];
    for (at, edit) in edits.into_iter().enumerate() {
        let tampered = Tampered::new();
        tampered.edit_config(edit);
        let (_, damage) = tampered.refused(Verify::Quick);
        assert!(matches!(damage, Damage::Contradiction { .. }), "edit {at}: {damage}");
    }
    for (side, file) in [("users", "users.names"), ("items", "items.names")] {
        let tampered = Tampered::new();
        tampered.edit_config(|config| config["data"][side] = json!(7));
        assert!(
            matches!(tampered.refused(Verify::Quick), (found, Damage::Contradiction { .. }) if found == file)
        );
    }
}

#[test]
fn a_newer_format() {
    let tampered = Tampered::new();
    tampered.edit_config(|config| config["format_version"] = json!(2));
    assert_eq!(
        tampered.refused(Verify::Quick),
        ("config.json".to_owned(), Damage::Newer { known: 1, got: 2 })
    );
}

#[test]
fn rows_of_history_that_make_no_sense() {
    let tampered = Tampered::new();
    let bytes = tampered.read("history.safetensors");
    let begin = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..begin]).unwrap();
    let place = |tensor: &str, entry: usize, width: usize| {
        begin + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize + entry * width
    };
    let forge = |at: usize, number: &[u8]| {
        let tampered = Tampered::new();
        let mut bytes = bytes.clone();
        bytes[at..at + number.len()].copy_from_slice(number);
        tampered.forge("history.safetensors", &bytes);
        tampered
    };
    // An item that the model does not have, rows that run past the end or backwards, an order that leads outside.
    for (at, number) in [
        (place("item", 0, 4), &4u32.to_le_bytes()[..]),
        (place("indptr", 1, 8), &9u64.to_le_bytes()[..]),
        (place("indptr", 1, 8), &u64::MAX.to_le_bytes()[..]),
        (place("sorted", 0, 4), &3u32.to_le_bytes()[..]),
        (place("sorted", 0, 4), &0u32.to_le_bytes()[..]),
    ] {
        let tampered = forge(at, number);
        let opened = ModelDirectory::open(tampered.root(), Verify::Full).unwrap();
        let (file, _) = refused(opened.history().sorted_items(UserIndex(0), &mut Vec::new()));
        assert_eq!(file, "history.safetensors");
        assert!(opened.to_dataset().is_err());
    }
    let tampered = forge(place("indptr", 3, 8), &4u64.to_le_bytes());
    assert_eq!(tampered.refused(Verify::Full).0, "history.safetensors");
}

#[test]
fn a_current_that_names_nothing() {
    let tampered = Tampered::new();
    let current = tampered.root().join("CURRENT");
    for text in ["", "seven", "-1", "../1", "1 2", &"1".repeat(101)] {
        fs_err::write(&current, text).unwrap();
        assert_eq!(tampered.refused(Verify::Quick).0, "CURRENT", "{text}");
    }
    fs_err::write(&current, "2").unwrap();
    assert_eq!(tampered.refused(Verify::Quick), ("2".to_owned(), Damage::Missing));
    fs_err::write(&current, "1").unwrap();
    ModelDirectory::open(tampered.root(), Verify::Quick).unwrap();
    fs_err::remove_file(&current).unwrap();
    let error = ModelDirectory::open(tampered.root(), Verify::Quick).unwrap_err();
    assert!(matches!(error, Error::NoModel { .. }), "{error}");
}

#[test]
fn errors_name_file_and_reason() {
    let tampered = Tampered::new();
    tampered.write("users.fst", b"short");
    let error = ModelDirectory::open(tampered.root(), Verify::Quick).unwrap_err();
    let expected = tampered.read("users.fst").len();
    assert_eq!(expected, 5);
    assert_eq!(
        error.to_string().replace(&*tampered.root().to_string_lossy(), "model"),
        format!(
            "model/versions/1/users.fst: {} bytes expected, found `5`",
            Tampered::new().read("users.fst").len()
        )
    );
}
