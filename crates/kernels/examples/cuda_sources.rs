//! Compiles every kernel for CUDA where there is no GPU, and says what each uses; `cargo xtask check cuda` runs it.
//!
//! The sources are written to the folder that is the one argument. The exit status is 1 when a kernel does not compile.
#![expect(clippy::print_stdout, reason = "this is a command for developers")]

use std::{error::Error, path::PathBuf, process::ExitCode};

use fs_err as fs;
use recmill_kernels::cuda_sources::{Compiled, KernelSource, compile, compiler, cuda_sources};

/// Lines of a compiler's complaint; one mistake is repeated for every place that a loop is unrolled to.
const FAILURE_LINES: usize = 12;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: cuda_sources FOLDER")?);
    fs::create_dir_all(&folder)?;
    let ((major, minor), include) = compiler()?;
    println!("libnvrtc {major}.{minor}, headers in {}", include.display());
    let sources = cuda_sources()?;
    let width = sources.iter().map(|source| source.kernel.len()).max().unwrap_or(0).max(6);
    println!("{:width$}  arch  regs  spill  stack  shared  group       instance", "kernel");
    let mut failures = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let KernelSource { kernel, instance, arch, cube_dim: (x, y, z), shared_bytes, source: text } = source;
        if let Ok(text) = text {
            fs::write(
                folder.join(format!("{number:03}-{kernel}-sm_{arch}.cu")),
                format!("// {instance}\n{text}"),
            )?;
        }
        let group = format!("{x}x{y}x{z}");
        match compile(source) {
            Ok(Compiled { registers, spilled_bytes, stack_bytes, static_shared_bytes }) => println!(
                "{kernel:width$}  {arch:>4}  {registers:>4}  {spilled_bytes:>5}  {stack_bytes:>5}  {:>6}  {group:10}  {instance}",
                shared_bytes + static_shared_bytes as usize,
            ),
            Err(log) => {
                println!("{kernel:width$}  {arch:>4}  does not compile          {group:10}  {instance}");
                failures.push(format!("{kernel} ({instance}), sm_{arch}:\n{log}"));
            }
        }
    }
    println!("{} compile, {} do not", sources.len() - failures.len(), failures.len());
    for failure in &failures {
        println!();
        failure.lines().take(FAILURE_LINES).for_each(|line| println!("{line}"));
    }
    Ok(ExitCode::from(u8::from(!failures.is_empty())))
}
