//! Every Rust file opens with `//!`, none is longer than 800 lines, and none is called after nothing.

use std::path::{Path, PathBuf};

use fs_err as fs;

const MOST_LINES: usize = 800;
const NAMELESS: [&str; 5] = ["base.rs", "utils.rs", "common.rs", "helpers.rs", "misc.rs"];

/// Checks all Rust files of the workspace.
pub(crate) fn check() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["crates", "benches", "examples", "python/src"] {
        collect(&root.join(folder), &mut files).map_err(|error| error.to_string())?;
    }
    let mut wrong = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        wrong.extend(complaints(name, &text).into_iter().map(|what| format!("{}: {what}", file.display())));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn complaints(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if !text.starts_with("//!") {
        wrong.push("does not open with //!".to_owned());
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        wrong.push(format!("has {lines} lines; split it by what it holds ({MOST_LINES} at most)"));
    }
    if NAMELESS.contains(&name) {
        wrong.push("is named for nothing; name it for what it holds".to_owned());
    }
    wrong
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_style_forbids_is_found() {
        assert!(complaints("csr.rs", "//! A matrix.\n").is_empty());
        assert_eq!(complaints("csr.rs", "use a;\n").len(), 1);
        assert_eq!(complaints("utils.rs", &format!("//!\n{}", "\n".repeat(800))).len(), 2);
    }
}
