//! NVIDIA's run-time compiler and the headers that generated kernels include: where they are, and what is missing.
//!
//! The library is looked up by name, as cudarc does, after `CUDA_PATH` (a toolkit, or the folder `nvidia/cu13` that PyPI's
//! packages fill) or a toolkit's usual place has been searched. The headers are looked for where cubecl looks, which is
//! that folder alone; so all that a kernel includes is checked here, before cubecl meets it with a panic.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use cubecl::cuda::install;
use cudarc::nvrtc;
use fs_err as fs;

use super::{cube::caught, cuda::driver_version};

/// A version, as major and minor.
pub(super) type Version = (i32, i32);

/// The oldest major version of CUDA whose libnvrtc is looked for.
const OLDEST: i32 = 12;
/// PyPI's packages that hold all of it; the last is of any version.
const PACKAGES: [&str; 4] =
    ["nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-cuda-crt", "nvidia-cuda-cccl"];

/// A file of each package that has headers, below the folder `include`: one of the names.
const HEADERS: [(&str, &[&str]); 4] = [
    ("nvidia-cuda-runtime", &["cuda_runtime.h"]),
    ("nvidia-cuda-runtime", &["cuda_fp16.h"]),
    ("nvidia-cuda-crt", &["crt/mma.h"]),
    ("nvidia-cuda-cccl", &["nv/target", "cccl/nv/target"]),
];

/// The compiler of this machine.
pub(super) struct Compiler {
    version: Version,
    /// Compute capabilities that it compiles for, as 90 for 9.0; empty when it does not say.
    archs: Vec<i32>,
    /// Where the headers are.
    #[cfg_attr(not(feature = "cuda-sources"), expect(dead_code, reason = "cubecl finds them itself"))]
    include: PathBuf,
}

impl Compiler {
    /// Returns the compiler, or what is missing, in words; looked for once.
    pub(super) fn find() -> Result<&'static Self, &'static str> {
        static FOUND: LazyLock<Result<Compiler, String>> = LazyLock::new(|| {
            // cudarc panics at the first call of a function that an old library lacks.
            caught(look)
                .unwrap_or_else(|| Err(format!("libnvrtc is too old; {}", install_hint(driver_version()))))
        });
        FOUND.as_ref().map_err(String::as_str)
    }

    /// Succeeds when a driver for CUDA `driver` runs what this compiler makes for a chip of capability `(major, minor)`.
    pub(super) fn fits(&self, driver: Version, (major, minor): Version) -> Result<(), String> {
        let (own_major, own_minor) = self.version;
        // The driver translates the compiler's output, and refuses a newer one than it knows.
        if self.version > driver {
            let (major, minor) = driver;
            let or = if major < OLDEST { "" } else { "update the driver, or " };
            return Err(format!(
                "its driver is for CUDA {major}.{minor}, libnvrtc of {own_major}.{own_minor}: {or}{}",
                install_hint(Some(driver))
            ));
        }
        if !self.archs.is_empty() && !self.archs.contains(&(10 * major + minor)) {
            return Err(format!(
                "libnvrtc {own_major}.{own_minor} does not compile for compute capability {major}.{minor}: take {} one",
                if self.archs.iter().all(|&arch| arch > 10 * major + minor) { "an older" } else { "a newer" },
            ));
        }
        Ok(())
    }
}

/// How to get the compiler and the headers that the driver runs the work of; of any version where no driver is known.
fn install_hint(driver: Option<Version>) -> String {
    let (own, packages) = match driver {
        Some((major, minor)) if major < OLDEST => {
            return format!(
                "update the driver, which is for CUDA {major}.{minor}, to one for CUDA {OLDEST} or newer"
            );
        }
        // Before CUDA 13 PyPI's packages have a number in their names and a folder each.
        Some((major, minor)) if major < 13 => return format!("install the CUDA {major}.{minor} toolkit"),
        Some((major, minor)) => {
            (format!(" {major}.{minor}"), PACKAGES.map(|package| format!("\"{package}=={major}.{minor}.*\"")))
        }
        None => (String::new(), PACKAGES.map(str::to_owned)),
    };
    let found = packages_folder().map_or_else(
        || "the folder nvidia/cu13 of its site-packages".to_owned(),
        |folder| folder.display().to_string(),
    );
    format!(
        "install the CUDA{own} toolkit, or `pip install {} {}` and set CUDA_PATH to {found}",
        packages[..3].join(" "),
        PACKAGES[3]
    )
}

/// Returns the folder that PyPI's packages have filled in the Python environment that is active, if one.
fn packages_folder() -> Option<PathBuf> {
    ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().find_map(|name| {
        let root = PathBuf::from(std::env::var_os(name)?);
        let libraries = fs::read_dir(root.join("lib")).ok()?.flatten();
        let mut folders = libraries.map(|entry| entry.path().join("site-packages/nvidia/cu13"));
        folders.find(|folder| folder.is_dir())
    })
}

#[expect(unsafe_code, reason = "the compiler's C interface")]
fn look() -> Result<Compiler, String> {
    let root = install::cuda_path();
    if let Some(root) = &root {
        preload(root);
    }
    // SAFETY: opens the compiler's library and looks at no symbol.
    if !unsafe { nvrtc::sys::is_culib_present() } {
        return Err(format!("libnvrtc of CUDA 13 or 12 was not found; {}", install_hint(driver_version())));
    }
    let refused = |error: nvrtc::sys::nvrtcResult| format!("libnvrtc does not answer: {error:?}");
    let ok = |result: nvrtc::sys::nvrtcResult| match result {
        nvrtc::sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        failed => Err(refused(failed)),
    };
    let (mut major, mut minor, mut count) = (0, 0, 0);
    // SAFETY: writes two integers.
    ok(unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) })?;
    // SAFETY: writes one integer.
    ok(unsafe { nvrtc::sys::nvrtcGetNumSupportedArchs(&raw mut count) })?;
    let mut archs = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: writes as many integers as it has said.
    ok(unsafe { nvrtc::sys::nvrtcGetSupportedArchs(archs.as_mut_ptr()) })?;
    let Some(root) = root else {
        return Err(format!("CUDA's headers are missing; {}", install_hint(driver_version())));
    };
    let include = root.join("include");
    check_headers(&include, major)?;
    Ok(Compiler { version: (major, minor), archs, include })
}

/// Succeeds when `include` holds what kernels include, of the compiler's major version.
fn check_headers(include: &Path, compiler_major: i32) -> Result<(), String> {
    for (package, names) in HEADERS {
        if !names.iter().any(|name| include.join(name).exists()) {
            return Err(format!(
                "CUDA's headers are incomplete: {} of {package} is missing; {}",
                include.join(names[0]).display(),
                install_hint(driver_version())
            ));
        }
    }
    let text = fs::read_to_string(include.join("cuda_runtime_api.h")).unwrap_or_default();
    match headers_version(&text) {
        Some(version) if version / 1000 != compiler_major => Err(format!(
            "CUDA's headers in {} are of CUDA {}, libnvrtc is of CUDA {compiler_major}; both must be of one",
            include.display(),
            version / 1000
        )),
        _ => Ok(()),
    }
}

/// Reads the version out of `cuda_runtime_api.h`, as 13020 for 13.2.
fn headers_version(text: &str) -> Option<i32> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("#define CUDART_VERSION"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Loads the compiler from below `root`, so that it is found by name from then on; and before it the library of built-in
/// functions, which PyPI's CUDA 13.0 does not find beside itself.
#[expect(unsafe_code, reason = "loading a library runs its initialisation")]
fn preload(root: &Path) {
    for folder in ["lib64", "lib", "bin/x86_64", "bin/x64", "bin"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        names.sort();
        let load = |unix: &str, windows: &str| {
            let named = |path: &&PathBuf| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(unix)
                    || (name.starts_with(windows) && name.ends_with(".dll") && !name.contains(".alt"))
            };
            names.iter().rev().filter(named).any(|path| {
                // SAFETY: NVIDIA's compiler, from the folder that the user or the system names for it.
                let library = unsafe { libloading::Library::new(path) };
                // Stays loaded: it is looked for again by name, and this one is found.
                library.map(std::mem::forget).is_ok()
            })
        };
        load("libnvrtc-builtins.so", "nvrtc-builtins64");
        if load("libnvrtc.so", "nvrtc64") {
            return;
        }
    }
}

/// Returns the compiler's version and the folder of the headers, or what is missing.
#[cfg(feature = "cuda-sources")]
pub(crate) fn found() -> Result<(Version, PathBuf), String> {
    Compiler::find().map(|found| (found.version, found.include.clone())).map_err(str::to_owned)
}

/// Compiles `source` to machine code with the options that cubecl gives, and returns what the assembler says of it.
#[cfg(feature = "cuda-sources")]
#[expect(unsafe_code, reason = "the compiler's C interface")]
pub(crate) fn compile(source: &str, arch: u32) -> Result<String, String> {
    use std::ffi::CString;

    let compiler = Compiler::find()?;
    let include = |folder: PathBuf| format!("--include-path={}", folder.display());
    let mut options = vec![
        format!("--gpu-architecture=sm_{arch}{}", if arch >= 90 { "a" } else { "" }),
        include(compiler.include.clone()),
        "-lineinfo".into(),
        "--ptxas-options=-v".into(),
    ];
    let cccl = compiler.include.join("cccl");
    if cccl.exists() {
        options.push(include(cccl));
    }
    let source = CString::new(source).map_err(|_| "a zero in the source".to_owned())?;
    let program = nvrtc::result::create_program(&source, None).map_err(|error| format!("{error:?}"))?;
    // SAFETY: the program was made above and is destroyed below, once; nobody else has it.
    unsafe {
        let compiled = nvrtc::result::compile_program(program, &options);
        let log = nvrtc::result::get_program_log(program).map_err(|error| format!("{error:?}"));
        let _ = nvrtc::result::destroy_program(program);
        let log: Vec<u8> = log?.into_iter().map(|byte| byte as u8).take_while(|&byte| byte != 0).collect();
        let log = String::from_utf8_lossy(&log).into_owned();
        match compiled {
            Ok(()) => Ok(log),
            Err(_) => Err(log),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(version: Version) -> Compiler {
        Compiler { version, archs: vec![75, 80, 90], include: PathBuf::new() }
    }

    #[test]
    fn a_compiler_fits_older_chips_and_no_older_driver() {
        assert_eq!(compiler((13, 0)).fits((13, 0), (9, 0)), Ok(()));
        assert_eq!(compiler((12, 8)).fits((13, 0), (8, 0)), Ok(()));
        let too_old = compiler((13, 2)).fits((13, 0), (9, 0)).unwrap_err();
        assert!(too_old.contains("\"nvidia-cuda-nvrtc==13.0.*\""), "{too_old}");
        let too_old = compiler((13, 2)).fits((12, 4), (9, 0)).unwrap_err();
        assert!(too_old.ends_with("install the CUDA 12.4 toolkit"), "{too_old}");
        let too_old = compiler((13, 2)).fits((11, 4), (7, 0)).unwrap_err();
        assert!(
            too_old.ends_with("13.2: update the driver, which is for CUDA 11.4, to one for CUDA 12 or newer"),
            "{too_old}"
        );
        assert!(compiler((13, 0)).fits((13, 0), (7, 0)).unwrap_err().ends_with("take an older one"));
        assert!(compiler((13, 0)).fits((13, 0), (12, 0)).unwrap_err().ends_with("take a newer one"));
    }

    #[test]
    fn what_is_missing_is_asked_for_in_the_version_of_the_driver() {
        let hint = install_hint(Some((13, 0)));
        assert!(
            hint.starts_with("install the CUDA 13.0 toolkit, or `pip install \"nvidia-cuda-nvrtc==13.0.*\""),
            "{hint}"
        );
        assert!(hint.contains(" nvidia-cuda-cccl` and set CUDA_PATH to "), "{hint}");
        assert!(
            install_hint(None).starts_with("install the CUDA toolkit, or `pip install nvidia-cuda-nvrtc ")
        );
    }

    #[test]
    fn the_headers_say_their_version() {
        assert_eq!(headers_version("/* */\n#define CUDART_VERSION  13020\n"), Some(13020));
        assert_eq!(headers_version("#define CUDART_VERSION_ x"), None);
        assert_eq!(headers_version(""), None);
    }

    #[test]
    fn a_missing_header_is_named_with_its_package() {
        let reason = check_headers(Path::new("/no/such/include"), 13).unwrap_err();
        assert!(reason.contains("cuda_runtime.h of nvidia-cuda-runtime"), "{reason}");
    }
}
