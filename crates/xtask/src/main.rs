//! `cargo xtask check`: everything that CI checks, in plain Rust.
//!
//! ```text
//! cargo xtask check           all of it, in the order below
//! cargo xtask check heads     one step: heads, format, lint, without-gpu, docs, test, cuda, python
//! ```

mod cuda;
mod heads;
mod python;

use std::process::{Command, ExitCode};

/// A step's name and what it runs; every command must succeed.
const STEPS: &[(&str, &[&str])] = &[
    ("format", &["cargo fmt --all --check"]),
    ("lint", &["cargo clippy --workspace --all-targets -- -D warnings"]),
    // In a folder of its own: other features would have everything built again.
    (
        "without-gpu",
        &[
            "cargo clippy -p recmill-cli --no-default-features --target-dir target/without-gpu -- -D warnings",
            "cargo clippy -p recmill-cli --no-default-features --features wgpu --target-dir target/without-gpu -- -D warnings",
        ],
    ),
    ("docs", &["cargo doc --workspace --no-deps"]),
    ("test", &["cargo nextest run --workspace", "cargo test --workspace --doc"]),
];

/// A broken link is an error; a module's head may name what is private to it.
const RUSTDOC_FLAGS: &str = "-D warnings -A rustdoc::private-intra-doc-links";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => heads::check()
            .and_then(|()| STEPS.iter().try_for_each(run))
            .and_then(|()| cuda::check())
            .and_then(|()| python::check()),
        ["check", "heads"] => heads::check(),
        ["check", "cuda"] => cuda::check(),
        ["check", "python"] => python::check(),
        ["check", name] => match STEPS.iter().find(|step| step.0 == name) {
            Some(step) => run(step),
            None => Err(format!(
                "no such step: `{name}`; there are heads, format, lint, without-gpu, docs, test, cuda, python"
            )),
        },
        _ => Err("usage: cargo xtask check [heads|format|lint|without-gpu|docs|test|cuda|python]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            say(&reason);
            ExitCode::FAILURE
        }
    }
}

fn run((name, commands): &(&str, &[&str])) -> Result<(), String> {
    for line in *commands {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        succeed(name, command.args(words))?;
    }
    Ok(())
}

/// Runs `command`, having said so; anything but success is an error.
fn succeed(step: &str, command: &mut Command) -> Result<(), String> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    say(&format!("{step}: {line}"));
    match command.env("RUSTDOCFLAGS", RUSTDOC_FLAGS).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{step} failed: `{line}` ended with {status}")),
        Err(error) => Err(format!("{step} failed: `{line}`: {error}")),
    }
}

#[expect(clippy::print_stderr, reason = "this is a command for developers")]
fn say(text: &str) {
    eprintln!("{text}");
}
