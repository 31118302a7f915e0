//! No bytes make the loader panic, not even where every sum fits.

use std::sync::LazyLock;

use proptest::{prelude::*, sample::Index};
use recmill_core::directory::{ModelDirectory, Verify};

use crate::tamper::{Tampered, read_everything};

/// Opens what was forged and reads all of it.
fn open_and_read(tampered: &Tampered) {
    if let Ok(opened) = ModelDirectory::open(tampered.root(), Verify::Full) {
        let _ = read_everything(&opened);
    }
}

/// Every file but config.json and its sum, as saved.
static FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let tampered = Tampered::new();
    let names = tampered.names().into_iter().filter(|name| !name.starts_with("config"));
    names.map(|name| (name.clone(), tampered.read(&name))).collect()
});

static CONFIG: LazyLock<Vec<u8>> = LazyLock::new(|| Tampered::new().read("config.json"));

/// Some bytes overwritten, as numbers of several widths, and perhaps the end cut off.
fn damaged(whole: &[u8], edits: &[(Index, u64, usize)], left: Option<Index>) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for (at, number, width) in edits {
        let at = at.index(bytes.len().max(1));
        let end = (at + width).min(bytes.len());
        bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
    }
    if let Some(left) = left {
        bytes.truncate(left.index(bytes.len() + 1));
    }
    bytes
}

fn edits() -> impl Strategy<Value = Vec<(Index, u64, usize)>> {
    let number = prop_oneof![any::<u64>(), 0u64..300, Just(u64::MAX), Just(1 << 31), Just(1 << 62)];
    prop::collection::vec((any::<Index>(), number, 1usize..9), 0..6)
}

proptest! {
    #[test]
    fn damaged_files_with_fitting_sums(
        file in any::<Index>(),
        edits in edits(),
        left in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let (name, whole) = &FILES[file.index(FILES.len())];
        let tampered = Tampered::new();
        tampered.forge(name, &damaged(whole, &edits, left));
        open_and_read(&tampered);
    }

    #[test]
    fn any_bytes_as_a_file(file in any::<Index>(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let tampered = Tampered::new();
        tampered.forge(&FILES[file.index(FILES.len())].0, &bytes);
        open_and_read(&tampered);
    }

    #[test]
    fn any_text_as_a_header(header in "[\\[\\]{}\",:a-z0-9 \\\\-]{0,200}", in_history: bool, values in 0usize..64) {
        let tampered = Tampered::new();
        let header = header.as_bytes();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &vec![0; values]].concat();
        tampered.forge(if in_history { "history.safetensors" } else { "model.safetensors" }, &bytes);
        open_and_read(&tampered);
    }

    #[test]
    fn damaged_config(edits in edits(), left in prop::option::weighted(0.2, any::<Index>())) {
        let tampered = Tampered::new();
        tampered.write_config(&damaged(&CONFIG, &edits, left));
        open_and_read(&tampered);
    }

    /// One number or word of config.json replaced, so that it stays JSON and says something else.
    #[test]
    fn config_that_lies(word in any::<Index>(), lie in prop_oneof![
        Just("0".to_owned()), Just("1".to_owned()), Just("-1".to_owned()), Just("4294967296".to_owned()),
        Just("18446744073709551615".to_owned()), Just("1e300".to_owned()), Just("null".to_owned()),
        Just("[]".to_owned()), Just("{}".to_owned()), Just("\"F16\"".to_owned()), Just("\"users.fst\"".to_owned()),
    ]) {
        let text = String::from_utf8(CONFIG.clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let at = word.index(lines.len());
        let lied = match lines[at].split_once(": ") {
            Some((key, old)) if !old.ends_with(['{', '[']) => {
                format!("{key}: {lie}{}", if old.ends_with(',') { "," } else { "" })
            }
            _ => lines[at].to_owned(),
        };
        let text = lines.iter().enumerate().map(|(line, old)| if line == at { &*lied } else { *old });
        let tampered = Tampered::new();
        tampered.write_config(text.collect::<Vec<_>>().join("\n").as_bytes());
        open_and_read(&tampered);
    }

    #[test]
    fn any_bytes_as_config(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let tampered = Tampered::new();
        tampered.write_config(&bytes);
        prop_assert!(ModelDirectory::open(tampered.root(), Verify::Quick).is_err());
    }

    #[test]
    fn any_bytes_as_current(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let tampered = Tampered::new();
        fs_err::write(tampered.root().join("CURRENT"), &bytes).unwrap();
        open_and_read(&tampered);
    }
}

#[test]
fn json_of_any_depth() {
    for nested in
        ["[".repeat(200_000), "{\"a\":".repeat(200_000), format!("{{\"model\":{}", "[".repeat(100_000))]
    {
        let tampered = Tampered::new();
        tampered.write_config(nested.as_bytes());
        assert!(ModelDirectory::open(tampered.root(), Verify::Quick).is_err());
        let bytes = [&(nested.len() as u64).to_le_bytes()[..], nested.as_bytes()].concat();
        let tampered = Tampered::new();
        tampered.forge("model.safetensors", &bytes);
        assert!(ModelDirectory::open(tampered.root(), Verify::Quick).is_err());
    }
}
