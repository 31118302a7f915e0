//! Kernels of a pretended chip, run: their CUDA C++ is compiled for this machine's processor and called.
//!
//! The system's C++ compiler gets the source as NVRTC would, with `host.hpp` in the place of CUDA's headers. So what is
//! special to CUDA, shuffles among the units of a warp and 32 of them, is computed with where there is no GPU, and compared
//! with the references. It says nothing about speed, nor about what several groups do to each other at once.

use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_void},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use cubecl_runtime::id::KernelId;
use fs_err as fs;
use libloading::Library;

use super::Written;

/// Names the folder that compiled kernels are kept in; kernels run where it is set.
const FOLDER: &str = "RECMILL_RUN_CUDA";
/// Bytes of stack for each of the 1,024 units that a group has at most.
const STACK_BYTES: usize = 256 << 10;
const UNITS: usize = 1024;
/// What a source has where its units wait for each other, or show each other values.
const WAITS: [&str; 4] = ["__sync", "_sync(", "__activemask", "wmma::"];

/// `launch` of `host.hpp`, with the kernel inside.
type Launch = unsafe extern "C" fn(
    arguments: *const *mut c_void,
    sizes: *const u32,
    shared_bytes: usize,
    stacks: *mut u8,
    stack_bytes: usize,
    backward: bool,
) -> *const c_char;

/// The kernels that have been compiled for this process.
#[derive(Debug)]
pub(super) struct Runner {
    folder: PathBuf,
    /// Whether groups, and the units of a group, take their turns from the last to the first.
    backward: bool,
    compiled: HashMap<KernelId, (Library, usize)>,
    stacks: Vec<u8>,
}

impl Runner {
    /// Returns a runner where [`FOLDER`] is set.
    pub(super) fn new(backward: bool) -> Option<Self> {
        let folder = PathBuf::from(std::env::var_os(FOLDER)?);
        Some(Self { folder, backward, compiled: HashMap::new(), stacks: vec![0; UNITS * STACK_BYTES] })
    }

    /// Compiles a kernel.
    pub(super) fn compile(&mut self, id: KernelId, written: &Written) -> Result<(), String> {
        let source = written.source.as_ref().map_err(String::clone)?;
        let library = build(&self.folder, &written.kernel, source)?;
        self.compiled.insert(id, (library, written.shared_bytes));
        Ok(())
    }

    /// Runs a kernel that has been compiled over `buffers`, as cubecl's server for CUDA launches it.
    pub(super) fn run(
        &mut self,
        id: &KernelId,
        cube_count: (u32, u32, u32),
        buffers: &[*mut u8],
        info: &[u64],
        dynamic_at: usize,
    ) -> Result<(), String> {
        let Some((library, shared_bytes)) = self.compiled.get(id) else {
            return Err("it was not compiled".into());
        };
        // The kernel's own structure may be longer than what is there, by its padding.
        let mut constants = info.to_vec();
        constants.resize(info.len() + 512, 0);
        let pointers: Vec<*mut u8> = buffers
            .iter()
            .copied()
            .chain((dynamic_at < info.len()).then(|| constants[dynamic_at..].as_mut_ptr().cast()))
            .collect();
        let constants = constants.as_ptr().cast_mut().cast();
        let arguments: Vec<*mut c_void> = pointers
            .iter()
            .map(|pointer| std::ptr::from_ref(pointer).cast_mut().cast())
            .chain([constants])
            .collect();
        let shape = (cube_count, id.cube_dim.into(), *shared_bytes);
        launch(library, shape, &arguments, &mut self.stacks, self.backward)
    }
}

/// Compiles `source` and opens what comes of it; what is in the folder already is only opened.
fn build(folder: &Path, kernel: &str, source: &str) -> Result<Library, String> {
    let text = on_host(source, kernel);
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let name = format!("{kernel}-{:016x}", hasher.finish());
    let library = folder.join(format!("{name}.so"));
    if !library.exists() {
        fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let path = folder.join(format!("{name}.cc"));
        fs::write(&path, text).map_err(|error| error.to_string())?;
        // Under another name until it is whole, as another process may be looking.
        let unfinished = folder.join(format!("{name}-{}.so", std::process::id()));
        let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()));
        compiler.args(["-std=c++17", "-O1", "-march=native", "-w", "-shared", "-fPIC"]);
        // Multiplies and adds in one rounding where NVIDIA's compiler may, and gives units nothing to begin with.
        compiler.args(["-ffp-contract=fast", "-fno-strict-aliasing", "-fcf-protection=none"]);
        compiler.args(["-ftrivial-auto-var-init=pattern", "-U_FORTIFY_SOURCE", "-fvisibility=hidden"]);
        let output = compiler.arg("-o").arg(&unfinished).arg(&path).output();
        let output = output.map_err(|error| format!("the C++ compiler: {error}"))?;
        if !output.status.success() {
            return Err(format!("{}:\n{}", path.display(), String::from_utf8_lossy(&output.stderr)));
        }
        fs::rename(&unfinished, &library).map_err(|error| error.to_string())?;
    }
    // SAFETY: the library was made above, and has nothing that runs when it is loaded.
    #[expect(unsafe_code, reason = "what is loaded is trusted")]
    unsafe { Library::new(&library) }.map_err(|error| error.to_string())
}

/// Groups, units of a group, and the bytes that a group shares.
type Shape = ((u32, u32, u32), (u32, u32, u32), usize);

/// Runs a kernel with a pointer to each of its arguments.
fn launch(
    library: &Library,
    (count, dim, shared_bytes): Shape,
    arguments: &[*mut c_void],
    stacks: &mut [u8],
    backward: bool,
) -> Result<(), String> {
    assert_eq!(stacks.len(), UNITS * STACK_BYTES);
    let sizes = [count.0, count.1, count.2, dim.0, dim.1, dim.2];
    // SAFETY: the wrapper that `on_host` writes has this signature, and the kernel as many arguments; its reads and writes are
    // within the buffers, which is what is being tested.
    #[expect(unsafe_code, reason = "a function of another language")]
    let failure = unsafe {
        let launch = library.get::<Launch>(b"launch\0").map_err(|error| error.to_string())?;
        let stacks = stacks.as_mut_ptr();
        let failure = launch(arguments.as_ptr(), sizes.as_ptr(), shared_bytes, stacks, STACK_BYTES, backward);
        (!failure.is_null()).then(|| CStr::from_ptr(failure).to_string_lossy().into_owned())
    };
    failure.map_or(Ok(()), Err)
}

/// Succeeds where kernels that are wrong are found out here, and one that shuffles is not: what the cases rest on.
///
/// # Errors
/// Which kernel it was, and what came of it.
pub(crate) fn check() -> Result<(), String> {
    const UNITS_OF_CHECK: u32 = 48;
    let Some(mut runner) = Runner::new(false) else { return Err(format!("{FOLDER} is not set")) };
    let mut run = |kernel: &str, body: &str| {
        let declared = "extern __shared__ __align__(16) unsigned char dynamic_shared_mem[];";
        let source = format!(
            "extern \"C\" __global__ void {kernel}(unsigned* out) {{\n{declared}\nunsigned u = threadIdx.x;\n{body}\n}}"
        );
        let mut out = vec![0u32; UNITS_OF_CHECK as usize];
        let pointer = out.as_mut_ptr();
        let arguments = [std::ptr::from_ref(&pointer).cast_mut().cast()];
        let library = build(&runner.folder, kernel, &source)?;
        let shape = ((1, 1, 1), (UNITS_OF_CHECK, 1, 1), 1024);
        launch(&library, shape, &arguments, &mut runner.stacks, false).map(|()| out)
    };
    let neighbours: Vec<u32> = (0..UNITS_OF_CHECK).map(|unit| unit ^ 1).collect();
    let nothing = Ok(vec![u32::MAX; UNITS_OF_CHECK as usize]);
    let different = Err("units wait at different barriers".to_owned());
    let never = Err("a barrier that some units never reach".to_owned());
    for (kernel, body, expected) in [
        ("shuffles", "out[u] = __shfl_xor_sync(-1, u, 1);", Ok(neighbours)),
        ("unwritten_shared", "out[u] = ((unsigned*)dynamic_shared_mem)[u];", nothing),
        ("two_barriers", "if (u < 20)\n__syncthreads();\nelse\n__syncthreads();", different),
        ("group_and_warp", "if (u < 8)\n__syncthreads();\nelse\n__syncwarp();\n__syncthreads();", never),
    ] {
        let found = run(kernel, body);
        if found != expected {
            return Err(format!("{kernel}: {found:?}, expected {expected:?}"));
        }
    }
    Ok(())
}

/// Returns the source of a library that runs `kernel` on this machine's processor.
fn on_host(source: &str, kernel: &str) -> String {
    let waits = WAITS.iter().any(|text| source.contains(text));
    let without_headers: String = source
        .lines()
        .map(|line| if line.starts_with("#include") { "" } else { line })
        .flat_map(|line| [line, "\n"])
        .collect();
    format!(
        r#"{host}
{without_headers}
template <class... A> static void unpack(void (*kernel)(A...), void* const* arguments) {{
    host::call(kernel, arguments, std::index_sequence_for<A...>());
}}
extern "C" __attribute__((visibility("default"))) const char* launch(
    void* const* arguments, const unsigned* sizes, size_t shared_bytes, unsigned char* stacks, size_t stack_bytes, bool backward) {{
    auto body = [](void* const* arguments) {{ unpack({kernel}, arguments); }};
    return host::launch(body, {waits}, arguments, sizes, shared_bytes, stacks, stack_bytes, backward);
}}
"#,
        host = include_str!("host.hpp"),
    )
}
