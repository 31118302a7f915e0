//! The CUDA C++ of every kernel, compiled where there is no GPU.
//!
//! Every operation names a few calls of itself in `instances()`, beside its kernels. Each is run here on the pretended
//! chips of `buffer/pretend.rs`; what its launches leave behind is the source that cubecl would hand to NVIDIA's compiler,
//! with the constants that the operation chooses for that chip. [`compile`] gives it to NVRTC as cubecl does, except that it
//! asks for machine code, whose registers and spills can be counted. `cargo xtask check cuda` does both.

use std::fmt;

use crate::{
    Device, Error, Result, RowType, Table,
    buffer::{
        nvrtc,
        pretend::{self, CHIPS, Written},
    },
};

/// A call whose kernels are to be compiled.
pub(crate) struct Instance {
    label: String,
    run: Box<dyn Fn(Device) -> Result<()>>,
}

impl Instance {
    /// Names the call `label`, such as `gather, dim 64`; `run` makes it on the device that it is given, where no kernel runs
    /// and what one would have written is zero.
    pub(crate) fn new(label: impl fmt::Display, run: impl Fn(Device) -> Result<()> + 'static) -> Self {
        Self { label: label.to_string(), run: Box::new(run) }
    }
}

/// Returns a table of zeros on `device`, for an instance.
pub(crate) fn table_of(row_type: RowType, rows: u64, dim: usize, device: Device) -> Result<Table> {
    let what = "an instance";
    let table = Table::zeros(rows, dim, Device::Cpu, what)?;
    if row_type == RowType::F32 { table } else { table.to_row_type(row_type, what)? }.try_copy(device, what)
}

/// Every operation's instances.
fn instances() -> Vec<Instance> {
    let operations: [fn() -> Vec<Instance>; 16] = [
        crate::als::instances,
        crate::als_block::instances,
        crate::als_cg::instances,
        crate::als_cholesky::instances,
        crate::embedding_bag::instances,
        crate::gather::instances,
        crate::gram::instances,
        crate::hash::instances,
        crate::interaction::instances,
        crate::negative::instances,
        crate::pairwise_update::instances,
        crate::peak::instances,
        crate::score_topk::instances,
        crate::segment::instances,
        crate::similarity::instances,
        crate::sparse_update::instances,
    ];
    operations.into_iter().flat_map(|instances| instances()).collect()
}

/// One kernel as one chip gets it.
#[derive(Clone, Debug)]
pub struct KernelSource {
    /// The name of the function.
    pub kernel: String,
    /// The call that launched it first.
    pub instance: String,
    /// The chip's compute capability: 80 for 8.0.
    pub arch: u32,
    /// Units of a group along x, y and z.
    pub cube_dim: (u32, u32, u32),
    /// Bytes of shared memory that a group asks for at launch.
    pub shared_bytes: usize,
    /// The source, or why cubecl gives none.
    pub source: std::result::Result<String, String>,
}

/// Returns the pretended chips: compute capability, 80 for 8.0, and the device that operations take it by. Where
/// `RECMILL_RUN_CUDA` names a folder, kernels launched there run, on this machine's processor.
pub fn chips() -> Vec<(u32, Device)> {
    CHIPS.iter().enumerate().map(|(index, chip)| (chip.arch, pretend::device_of(index))).collect()
}

/// Succeeds where kernels run here and such as are wrong are found out.
///
/// # Errors
/// What is missing, or which mistake passes.
pub fn check_runs() -> std::result::Result<(), String> {
    pretend::run::check()
}

/// Returns the source of every kernel for every chip.
///
/// # Errors
/// Those of the operations: an instance that is refused is a mistake in the list.
pub fn cuda_sources() -> Result<Vec<KernelSource>> {
    let mut sources = Vec::new();
    for (index, chip) in CHIPS.iter().enumerate() {
        let device = pretend::device_of(index);
        for Instance { label, run } in instances() {
            match run(device) {
                // What was to be written by kernels is zero, which an operation may find wrong when it reads it back.
                Ok(()) | Err(Error::NotFinite { .. } | Error::NotPositiveDefinite { .. }) => {}
                Err(error) => return Err(error),
            }
            let named = |Written { kernel, source, cube_dim, shared_bytes }| KernelSource {
                kernel,
                instance: label.clone(),
                arch: chip.arch,
                cube_dim,
                shared_bytes,
                source,
            };
            sources.extend(pretend::take(device)?.into_iter().map(named));
        }
    }
    Ok(sources)
}

/// What NVIDIA's compiler made of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Registers of a unit.
    pub registers: u32,
    /// Bytes that a unit spills to memory: stores and loads.
    pub spilled_bytes: u32,
    /// Bytes of stack of a unit.
    pub stack_bytes: u32,
    /// Bytes of shared memory that are part of the code, beside those asked for at launch.
    pub static_shared_bytes: u32,
}

/// Returns the version of the compiler that would be used on this machine, and the folder of CUDA's headers.
///
/// # Errors
/// What is missing, in words.
pub fn compiler() -> std::result::Result<((i32, i32), std::path::PathBuf), String> {
    nvrtc::found()
}

/// Compiles a kernel for its chip.
///
/// # Errors
/// The compiler's log, or why there is no compiler or no source.
pub fn compile(kernel: &KernelSource) -> std::result::Result<Compiled, String> {
    let source = kernel.source.as_ref().map_err(String::clone)?;
    let log = nvrtc::compile(source, kernel.arch)?;
    usage(&log).ok_or_else(|| format!("the compiler does not say what the kernel uses:\n{log}"))
}

/// Reads what the assembler says of the one kernel.
///
/// ```text
/// ptxas info    : Compiling entry function 'k' for 'sm_90a'
/// ptxas info    : Function properties for k
///     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 24 registers, used 1 barriers, 1024 bytes smem, 400 bytes cmem[0]
/// ```
fn usage(log: &str) -> Option<Compiled> {
    let log = &log[log.find("Compiling entry function")?..];
    let before = |what: &str| -> Option<u32> {
        let text = &log[..log.find(what)?];
        let digits = text.len() - text.bytes().rev().take_while(u8::is_ascii_digit).count();
        text[digits..].parse().ok()
    };
    Some(Compiled {
        registers: before(" registers")?,
        spilled_bytes: before(" bytes spill stores")? + before(" bytes spill loads")?,
        stack_bytes: before(" bytes stack frame")?,
        static_shared_bytes: before(" bytes smem").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_uses_is_read_from_the_log() {
        let log = "ptxas info    : 7 bytes gmem\nptxas info    : Compiling entry function 'k' for 'sm_90a'\n\
            ptxas info    : Function properties for k\n    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 24 registers, used 1 barriers, 1024 bytes smem, 400 bytes cmem[0]\n";
        let used = Compiled { registers: 24, spilled_bytes: 16, stack_bytes: 8, static_shared_bytes: 1024 };
        assert_eq!(usage(log), Some(used));
        assert_eq!(usage(""), None);
    }

    #[test]
    fn every_kernel_has_a_source_for_every_chip() {
        let sources = cuda_sources().unwrap();
        for chip in &CHIPS {
            let names: Vec<&str> = sources
                .iter()
                .filter(|source| source.arch == chip.arch)
                .map(|source| source.kernel.as_str())
                .collect();
            assert!(names.contains(&"zero_kernel"), "{names:?}");
        }
        for KernelSource { kernel, source, .. } in &sources {
            let source = source.as_ref().unwrap();
            assert!(source.contains("__global__") && source.contains(kernel), "{source}");
        }
    }
}
