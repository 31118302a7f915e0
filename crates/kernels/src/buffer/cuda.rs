//! NVIDIA GPUs through CUDA: whether they can be used is found out here, before cubecl opens one.
//!
//! Nothing of CUDA is linked. Three things are looked for when they are first needed, and each that is missing is named:
//! the driver (`libcuda`), the run-time compiler (`libnvrtc`) and the headers that generated kernels include. `CUDA_PATH`
//! names a toolkit, or the folder `nvidia/cu13` that the PyPI packages fill.

use std::{
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use cubecl::cuda::CudaDevice;
pub(crate) use cubecl::cuda::CudaRuntime;
use cubecl::{Runtime, client::ComputeClient};
use cudarc::{driver, nvrtc};

use super::{
    Buffer, Storage,
    cube::{CubeStorage, Gpu, max_buffer_bytes, opening},
};
use crate::{Device, Error, Result, device::About, memory};

/// What to install where the compiler or the headers are missing.
const PACKAGES: &str = "install the CUDA toolkit, or `pip install nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cuda-cccl` \
    and set CUDA_PATH to site-packages/nvidia/cu13";

/// The share of a device's free memory that the budget begins with: cubecl rounds allocations up to its pages.
const BUDGET_SHARE: f64 = 0.9;

impl Gpu for CudaRuntime {
    fn client_of(device: Device) -> Result<ComputeClient<Self>> {
        client(device)
    }

    fn storage<T>(buffer: &Buffer<T>) -> Option<&CubeStorage<Self>> {
        match &buffer.storage {
            Storage::Cuda(storage) => Some(storage),
            _ => None,
        }
    }

    fn wrap<T>(storage: CubeStorage<Self>) -> Storage<T> {
        Storage::Cuda(storage)
    }
}

/// A device as the driver describes it.
struct Gpu0 {
    name: String,
    memory: u64,
    free: u64,
    capability: (i32, i32),
}

/// What a look at this machine found: the devices, or why there are none.
struct Found {
    gpus: Vec<Gpu0>,
    driver: (i32, i32),
}

/// The driver's devices; looked for once.
fn found() -> std::result::Result<&'static Found, &'static str> {
    static FOUND: LazyLock<std::result::Result<Found, String>> = LazyLock::new(|| {
        // cudarc panics at the first call of a function that an old driver lacks.
        catch_unwind(look).unwrap_or_else(|_| Err("the NVIDIA driver is too old for this build".into()))
    });
    FOUND.as_ref().map_err(String::as_str)
}

#[expect(unsafe_code, reason = "the driver's C interface")]
fn look() -> std::result::Result<Found, String> {
    // SAFETY: opens the driver's library and looks at no symbol.
    if !unsafe { driver::sys::is_culib_present() } {
        return Err("no NVIDIA driver: libcuda was not found".into());
    }
    let refused = |doing: &'static str| {
        move |error: driver::DriverError| format!("the NVIDIA driver refuses {doing}: {error}")
    };
    driver::result::init().map_err(refused("to start"))?;
    let mut version = 0;
    // SAFETY: writes one integer.
    unsafe { driver::sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(refused("to say its version"))?;
    let count = driver::result::device::get_count().map_err(refused("to count devices"))?;
    let mut gpus = Vec::new();
    for ordinal in 0..count {
        let describe = || -> std::result::Result<Gpu0, driver::DriverError> {
            use driver::{result, sys::CUdevice_attribute as Attribute};
            let device = result::device::get(ordinal)?;
            // SAFETY: `device` is what the driver gave for this ordinal; its primary context is released below.
            unsafe {
                let attribute = |attribute| result::device::get_attribute(device, attribute);
                let context = result::primary_ctx::retain(device)?;
                let free = result::ctx::set_current(context).and_then(|()| result::mem_get_info());
                result::primary_ctx::release(device)?;
                Ok(Gpu0 {
                    name: result::device::get_name(device)?,
                    memory: result::device::total_mem(device)? as u64,
                    free: free?.0 as u64,
                    capability: (
                        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
                    ),
                })
            }
        };
        gpus.push(describe().map_err(refused("to describe a device"))?);
    }
    match gpus.is_empty() {
        true => Err("the NVIDIA driver finds no device".into()),
        false => Ok(Found { gpus, driver: (version / 1000, version % 1000 / 10) }),
    }
}

/// Succeeds when kernels can be compiled here; looked for once.
fn compiler(driver: (i32, i32)) -> std::result::Result<(), &'static str> {
    static COMPILER: LazyLock<std::result::Result<(i32, i32), String>> = LazyLock::new(|| {
        catch_unwind(look_for_compiler).unwrap_or_else(|_| Err("libnvrtc is too old".into()))
    });
    static TOO_OLD: LazyLock<String> = LazyLock::new(|| {
        let (major, minor) = *COMPILER.as_ref().unwrap_or(&(0, 0));
        format!(
            "its driver is too old for libnvrtc {major}.{minor}: update the driver, or take a libnvrtc of its version"
        )
    });
    match COMPILER.as_ref() {
        Err(reason) => Err(reason),
        Ok(&version) if version > driver => Err(&TOO_OLD),
        Ok(_) => Ok(()),
    }
}

#[expect(unsafe_code, reason = "the compiler's C interface")]
fn look_for_compiler() -> std::result::Result<(i32, i32), String> {
    let root = cuda_path();
    if let Some(root) = &root {
        preload(root);
    }
    // SAFETY: opens the compiler's library and looks at no symbol.
    if !unsafe { nvrtc::sys::is_culib_present() } {
        return Err(format!("libnvrtc was not found; {PACKAGES}"));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two integers.
    unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .map_err(|error| format!("libnvrtc does not answer: {error:?}"))?;
    let header = root.as_ref().map(|root| root.join("include").join("cuda_runtime.h"));
    match header {
        Some(header) if header.exists() => Ok((major, minor)),
        Some(header) => Err(format!("CUDA's headers are missing ({}); {PACKAGES}", header.display())),
        None => Err(format!("CUDA's headers are missing; {PACKAGES}")),
    }
}

/// Where cubecl looks for headers.
fn cuda_path() -> Option<PathBuf> {
    std::env::var_os("CUDA_PATH").map(PathBuf::from).or_else(|| {
        ["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from).into_iter().find(|path| path.exists())
    })
}

/// Loads the compiler from below `root`, so that it is found by name from then on.
#[expect(unsafe_code, reason = "loading a library runs its initialisation")]
fn preload(root: &Path) {
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("libnvrtc.so") || (name.starts_with("nvrtc64") && name.ends_with(".dll"))
        })
    };
    for folder in ["lib64", "lib", "bin"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        let mut libraries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(named).collect();
        libraries.sort();
        for library in libraries.into_iter().rev() {
            // SAFETY: NVIDIA's compiler, from the folder that the user or the system names for it.
            if let Ok(library) = unsafe { libloading::Library::new(library) } {
                // Stays loaded: cudarc looks for it again and finds this one.
                std::mem::forget(library);
                return;
            }
        }
    }
}

/// Returns what each device is, in CUDA's order.
pub(crate) fn about() -> Vec<About> {
    let Ok(found) = found() else { return Vec::new() };
    let (major, minor) = found.driver;
    let about = |(index, gpu): (usize, &Gpu0)| About {
        device: Device::Cuda(index),
        about: format!(
            "{}, compute capability {}.{}, driver for CUDA {major}.{minor}",
            gpu.name, gpu.capability.0, gpu.capability.1
        ),
        software: false,
        memory: Some(gpu.memory),
    };
    found.gpus.iter().enumerate().map(about).collect()
}

/// Returns the most bytes that one buffer on `device` may have, once it answers.
pub(crate) fn open(device: Device) -> Result<u64> {
    Ok(max_buffer_bytes(&client(device)?))
}

fn client(device: Device) -> Result<ComputeClient<CudaRuntime>> {
    let unavailable = |reason: &str| Error::Unavailable { device, reason: reason.into() };
    let found = found().map_err(unavailable)?;
    let Device::Cuda(index) = device else { return Err(unavailable("not a CUDA device")) };
    let gpu = found.gpus.get(index).ok_or_else(|| {
        unavailable(&format!("the driver finds {}", crate::device::counted(found.gpus.len(), "device")))
    })?;
    compiler(found.driver).map_err(unavailable)?;
    memory::begin_budget(device, (gpu.free as f64 * BUDGET_SHARE) as u64);
    opening(|| CudaRuntime::client(&CudaDevice::new(index)))
        .ok_or_else(|| unavailable("its driver does not open it"))
}
