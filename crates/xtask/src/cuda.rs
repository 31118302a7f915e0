//! Compiles every kernel for CUDA on a machine without a GPU, and runs its source on the processor.
//!
//! NVIDIA's run-time compiler and CUDA's headers come from PyPI, once, into `target/nvrtc`; the kernels' sources are left
//! in `target/cuda-sources`. What a kernel needs in registers, spills and shared memory is printed. Then the conformance
//! cases run on the sources, compiled by the system's C++ compiler into `target/cuda-run`.

use std::{path::Path, process::Command};

use fs_err as fs;

/// The oldest CUDA 13, which is also the version of the bindings in `.cargo/config.toml`: what it takes, later ones take.
const PACKAGES: [&str; 4] = [
    "nvidia-cuda-nvrtc==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-cccl==13.0.85",
];

const STEP: &str = "cuda";

/// Runs `clippy` over what only this step builds, then compiles every kernel.
pub(crate) fn check() -> Result<(), String> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(target, Into::into);
    fs::create_dir_all(&target).map_err(|error| error.to_string())?;
    let target = fs::canonicalize(target).map_err(|error| error.to_string())?;
    let packages = target.join("nvrtc");
    install(&packages)?;
    // Of the whole workspace, so that dependencies have the features, hence the builds, that they have in other steps.
    let sources = ["--workspace", "--features", "recmill-kernels/cuda-sources"];
    let sources = [&sources[..], &["--example", "cuda_sources", "--example", "cuda_run"]].concat();
    let cargo = |command: &str| {
        let mut cargo = Command::new("cargo");
        cargo.arg(command).args(&sources);
        cargo
    };
    super::succeed(STEP, cargo("clippy").args(["--", "-D", "warnings"]))?;
    super::succeed(STEP, &mut cargo("build"))?;
    // Not for cargo: a changed CUDA_PATH makes it build the bindings anew.
    let mut compile = Command::new(target.join("debug/examples/cuda_sources"));
    compile.arg(target.join("cuda-sources")).env("CUDA_PATH", packages.join("nvidia/cu13"));
    super::succeed(STEP, &mut compile)?;
    let mut run = Command::new(target.join("debug/examples/cuda_run"));
    super::succeed(STEP, run.env("RECMILL_RUN_CUDA", target.join("cuda-run")))
}

/// Installs the packages into `folder`, unless they are there.
fn install(folder: &Path) -> Result<(), String> {
    let list = PACKAGES.join("\n");
    let marker = folder.join("installed");
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == list) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| error.to_string())?;
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--root-user-action", "ignore", "--target"]).arg(folder).args(PACKAGES);
    super::succeed(STEP, &mut pip)?;
    fs::write(&marker, list).map_err(|error| error.to_string())
}
