//! Which files and URLs an input stands for, in a fixed order.
//!
//! `-` is standard input. A name with `*`, `?` or `[` that is no file itself stands for all files that fit, a directory for
//! all data files below it, a URL that ends with `/` for all data files under it; each sorted by name. Hidden files,
//! and those whose names begin with `_`, are not data.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::remote::Remote;
use crate::{Error, Result};

/// The endings of data files, before `.gz` or `.zst`.
const ENDINGS: &[&str] =
    &["csv", "tsv", "tab", "json", "jsonl", "ndjson", "parquet", "pq", "arrow", "arrows", "ipc", "feather"];

/// No data lie deeper; a link that leads back to a directory above ends here.
const MAX_DEPTH: usize = 32;

/// One file.
#[derive(Clone)]
pub(super) enum Place {
    StandardInput,
    /// What standard input said, to be read more than once.
    Kept(Arc<File>),
    Local(PathBuf),
    Remote(Remote),
}

impl Place {
    /// Returns what messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Place::StandardInput | Place::Kept(_) => "<stdin>".to_owned(),
            Place::Local(path) => path.display().to_string(),
            Place::Remote(remote) => remote.name().to_owned(),
        }
    }

    /// Returns a place that can be read more than once: for standard input, a copy that is gone after its last use.
    pub(super) fn rereadable(self) -> Result<Self> {
        let Place::StandardInput = self else { return Ok(self) };
        let copied = tempfile::tempfile().and_then(|mut copy| {
            std::io::copy(&mut std::io::stdin(), &mut copy)?;
            Ok(Place::Kept(Arc::new(copy)))
        });
        copied.map_err(|error| Error::BadFile { path: self.name(), what: error.to_string() })
    }
}

/// Lists the files that `inputs` stand for, each of which may be there once: its rows would count twice.
pub(super) fn locate(inputs: &[String]) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for input in inputs {
        if input == "-" {
            places.push(Place::StandardInput);
        } else if is_url(input) {
            match input.strip_prefix("file://") {
                Some(_) => places.extend(local(&Remote::local_path(input)?)?.into_iter().map(Place::Local)),
                None => places.extend(Remote::find(input)?.into_iter().map(Place::Remote)),
            }
        } else {
            places.extend(local(Path::new(input))?.into_iter().map(Place::Local));
        }
    }
    let mut known = HashSet::new();
    for place in &places {
        let name = match place {
            Place::Local(path) => fs_err::canonicalize(path).unwrap_or_else(|_| path.clone()),
            place => place.name().into(),
        };
        if !known.insert(name) {
            return Err(Error::RepeatedFile { path: place.name() });
        }
    }
    match inputs.first() {
        None => Err(Error::NoFiles { path: String::new() }),
        Some(first) if places.is_empty() => Err(Error::NoFiles { path: first.clone() }),
        Some(_) => Ok(places),
    }
}

/// Returns whether `input` begins as a URL does; one letter is a drive of Windows.
fn is_url(input: &str) -> bool {
    input.split_once("://").is_some_and(|(scheme, _)| {
        scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

fn local(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() {
        let mut files = Vec::new();
        below(path, 0, &mut files)?;
        files.sort();
        return match files.is_empty() {
            true => Err(Error::NoFiles { path: path.display().to_string() }),
            false => Ok(files),
        };
    }
    let text = path.to_string_lossy();
    if !path.exists() && text.contains(['*', '?', '[']) {
        let refused = |what: String| Error::BadFile { path: text.to_string(), what };
        // A hidden file is named or left alone, as in a shell.
        let as_shells_do = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
        let found = glob::glob_with(&text, as_shells_do).map_err(|error| refused(error.to_string()))?;
        let mut files = Vec::new();
        for path in found {
            let path = path.map_err(|error| refused(error.to_string()))?;
            if !path.is_dir() {
                files.push(path);
            }
        }
        files.sort();
        return match files.is_empty() {
            true => Err(Error::NoFiles { path: text.to_string() }),
            false => Ok(files),
        };
    }
    Ok(vec![path.to_path_buf()])
}

fn below(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(['.', '_']) {
            continue;
        }
        if path.is_dir() {
            below(&path, depth + 1, files)?;
        } else if ending(&name).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

/// Returns the ending that tells the format of `name`, in lower case; nothing where it is none of ours.
pub(super) fn ending(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let plain = [".gz", ".gzip", ".zst", ".zstd"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let (_, ending) = plain.unwrap_or(&name).rsplit_once('.')?;
    ENDINGS.iter().copied().find(|&known| known == ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_a_glob_stand_for_their_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.csv.gz", "day=2/c.parquet", "notes.txt", "_success.csv", ".hidden.csv"] {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        let names = |input: &Path| -> Vec<String> {
            let places = locate(&[input.display().to_string()]).unwrap();
            let name = |place: &Place| {
                let name = place.name();
                Path::new(&name).file_name().unwrap().to_string_lossy().into_owned()
            };
            places.iter().map(name).collect()
        };
        assert_eq!(names(folder.path()), ["a.csv.gz", "b.csv", "c.parquet"]);
        assert_eq!(names(&folder.path().join("*.csv")), ["_success.csv", "b.csv"]);
        assert_eq!(names(&folder.path().join("missing.csv")), ["missing.csv"]);
        for nothing in ["*.tsv", "day=2/none*"] {
            let input = folder.path().join(nothing).display().to_string();
            assert!(matches!(locate(&[input]), Err(Error::NoFiles { .. })));
        }
    }

    #[test]
    fn a_drive_is_no_url() {
        for (input, expected) in
            [("s3://b/k", true), ("C://data.csv", false), ("a/b.csv", false), ("http://h", true)]
        {
            assert_eq!(is_url(input), expected, "{input}");
        }
    }
}
