//! Builds the Python wheel, installs it into an environment of its own, and runs what is tested there.
//!
//! The wheel is one of the dev profile, with the dependencies that the other steps have built: maturin asks cargo for the one
//! package, whose dependencies would get other features, hence other builds, than in the whole workspace. So maturin is
//! given another `cargo`, which builds the package along with those that `default-members` names.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use fs_err as fs;

const STEP: &str = "python";

/// What the tests need beside what the package itself brings.
const PACKAGES: [&str; 11] = [
    "maturin>=1.9,<2",
    "numpy",
    "scipy",
    "pandas",
    "polars",
    "pyarrow",
    "scikit-learn",
    "tqdm",
    "matplotlib",
    "pytest",
    "mypy",
];

/// A `cargo` that builds the workspace's own set of packages where maturin asks for one.
const CARGO: &str = "#!/bin/sh
# Written by cargo xtask check python.
set -e
if [ \"$1\" = rustc ]; then
  exec \"$RECMILL_CARGO\" build -p recmill-python -p recmill-cli -p recmill-benches --message-format json-render-diagnostics
fi
exec \"$RECMILL_CARGO\" \"$@\"
";

/// Builds, installs, tests.
pub(crate) fn check() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = fs::canonicalize(root).map_err(|error| error.to_string())?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = target.join("python");
    let python = environment(&folder)?;
    let wheel = wheel(&root, &folder)?;

    let pip = |arguments: &[&str]| {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(arguments);
        pip
    };
    super::succeed(STEP, pip(&["--force-reinstall", "--no-deps"]).arg(&wheel))?;
    // From elsewhere, so that what is imported is what was installed, and not the folder beside the tests.
    let elsewhere = tempfile::tempdir().map_err(|error| error.to_string())?;
    let module = |arguments: &[&str]| {
        let mut module = Command::new(&python);
        module.current_dir(&elsewhere).arg("-m").args(arguments);
        module
    };
    let tests = root.join("python/tests");
    super::succeed(STEP, module(&["pytest", "-q", "-p", "no:cacheprovider"]).arg(&tests))?;
    let docs = ["pytest", "-q", "-p", "no:cacheprovider", "--doctest-modules", "--pyargs", "recmill"];
    super::succeed(STEP, &mut module(&docs))?;
    let mut guides = module(&["pytest", "-q", "-p", "no:cacheprovider", "--doctest-glob=*.md"]);
    super::succeed(STEP, guides.arg(root.join("docs/python")))?;
    // The notebooks, as the scripts that they are kept as: each leaves pictures.
    let notebooks = root.join("docs/python/notebooks");
    for script in files(&notebooks, "py")? {
        let mut run = Command::new(&python);
        run.args(["-W", "error"]).arg(&script).arg(elsewhere.path()).env("MPLBACKEND", "Agg");
        super::succeed(STEP, &mut run)?;
    }
    if files(elsewhere.path(), "png")?.is_empty() {
        return Err("python failed: the notebooks left no pictures".into());
    }
    super::succeed(STEP, module(&["mypy", "--strict", "--ignore-missing-imports"]).arg(&notebooks))?;
    let typed = ["mypy", "--strict", "--ignore-missing-imports", "-p", "recmill"];
    super::succeed(STEP, &mut module(&typed))
}

/// Makes the environment, unless it is there, and returns its Python.
fn environment(folder: &Path) -> Result<PathBuf, String> {
    let environment = folder.join("environment");
    let python = environment.join("bin/python");
    let (marker, list) = (folder.join("installed"), PACKAGES.join("\n"));
    if !fs::read_to_string(&marker).is_ok_and(|installed| installed == list) {
        let mut venv = Command::new("python3");
        super::succeed(STEP, venv.args(["-m", "venv", "--clear"]).arg(&environment))?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
        super::succeed(STEP, &mut pip)?;
        fs::write(&marker, list).map_err(|error| error.to_string())?;
    }
    Ok(python)
}

/// Builds the wheel and returns its path.
fn wheel(root: &Path, folder: &Path) -> Result<PathBuf, String> {
    let (bin, wheels) = (folder.join("cargo"), folder.join("wheels"));
    for (made, empty) in [(&bin, false), (&wheels, true)] {
        if empty && made.exists() {
            fs::remove_dir_all(made).map_err(|error| error.to_string())?;
        }
        fs::create_dir_all(made).map_err(|error| error.to_string())?;
    }
    let cargo = bin.join("cargo");
    fs::write(&cargo, CARGO).map_err(|error| error.to_string())?;
    let mut executable = Command::new("chmod");
    super::succeed(STEP, executable.arg("+x").arg(&cargo))?;
    let mut maturin = Command::new(folder.join("environment/bin/maturin"));
    maturin.args(["build", "--profile", "dev", "--interpreter"]).arg(folder.join("environment/bin/python"));
    maturin.arg("--manifest-path").arg(root.join("python/Cargo.toml")).arg("--out").arg(&wheels);
    maturin.env("RECMILL_CARGO", env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).env("CARGO", &cargo);
    super::succeed(STEP, &mut maturin)?;
    files(&wheels, "whl")?.pop().ok_or_else(|| format!("no wheel in {}", wheels.display()))
}

/// Returns the files of a folder whose names end so, in order.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut paths = paths.map_err(|error| error.to_string())?;
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    Ok(paths)
}
