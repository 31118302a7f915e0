//! NVIDIA GPUs through CUDA: whether they can be used is found out here, before cubecl opens one.
//!
//! Nothing of CUDA is linked. The driver (`libcuda`) is looked for when it is first needed; `nvrtc.rs` looks for the compiler
//! and the headers that kernels need besides.

use std::sync::{LazyLock, OnceLock};

use cubecl::cuda::CudaDevice;
pub use cubecl::cuda::CudaRuntime;
use cubecl::{Runtime, client::ComputeClient};
use cudarc::driver;

use super::{
    Buffer, Storage,
    cube::{CubeStorage, Gpu, caught, features, max_buffer_bytes, opening},
    nvrtc::{Compiler, Version},
    shared::GpuRuntime,
};
use crate::{
    Device, Error, Result,
    device::{About, Features, none_such},
    memory,
};

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

impl GpuRuntime for CudaRuntime {
    fn runtime_device(device: Device) -> Result<CudaDevice> {
        match device {
            Device::Cuda(index) => Self::client_of(device).map(|_| CudaDevice::new(index)),
            device => Err(Error::Unavailable { device, reason: "not a CUDA device".into() }),
        }
    }

    fn device_called(device: &CudaDevice) -> Result<Device> {
        Ok(Device::Cuda(device.index))
    }
}

/// A device as the driver describes it.
struct Card {
    name: String,
    memory: u64,
    capability: Version,
    /// Bytes that were free when it was first opened, or why it does not open.
    free: OnceLock<std::result::Result<u64, String>>,
}

/// What a look at this machine found.
struct Found {
    cards: Vec<Card>,
    driver: Version,
}

/// The driver's devices, or why there are none; looked for once.
fn found() -> std::result::Result<&'static Found, &'static str> {
    static FOUND: LazyLock<std::result::Result<Found, String>> = LazyLock::new(|| {
        // cudarc panics at the first call of a function that an old driver lacks.
        caught(look).unwrap_or_else(|| Err("the NVIDIA driver is too old for this build: update it".into()))
    });
    FOUND.as_ref().map_err(String::as_str)
}

/// Returns the newest version of CUDA that the driver runs, where there is one with devices.
pub(super) fn driver_version() -> Option<Version> {
    found().ok().map(|found| found.driver)
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
    let describe = |ordinal| -> std::result::Result<Card, driver::DriverError> {
        use driver::{result::device, sys::CUdevice_attribute as Attribute};
        let id = device::get(ordinal)?;
        // SAFETY: `id` is what the driver gave for this ordinal.
        unsafe {
            let attribute = |attribute| device::get_attribute(id, attribute);
            Ok(Card {
                name: device::get_name(id)?,
                memory: device::total_mem(id)? as u64,
                capability: (
                    attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                    attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
                ),
                free: OnceLock::new(),
            })
        }
    };
    let cards = (0..count).map(describe).collect::<std::result::Result<Vec<_>, _>>();
    let cards = cards.map_err(refused("to describe a device"))?;
    match cards.is_empty() {
        true => Err("the NVIDIA driver finds no device (CUDA_VISIBLE_DEVICES may hide it)".into()),
        false => Ok(Found { cards, driver: (version / 1000, version % 1000 / 10) }),
    }
}

/// Returns the bytes of a device that nobody uses; fails where the device does not open.
#[expect(unsafe_code, reason = "the driver's C interface")]
fn free_memory(index: usize) -> std::result::Result<u64, String> {
    use driver::result;
    let look = || -> std::result::Result<usize, driver::DriverError> {
        let id = result::device::get(index as i32)?;
        // SAFETY: `id` is what the driver gave for this ordinal; its primary context is released once.
        unsafe {
            let context = result::primary_ctx::retain(id)?;
            let free = result::ctx::set_current(context).and_then(|()| result::mem_get_info());
            result::primary_ctx::release(id)?;
            Ok(free?.0)
        }
    };
    look().map(|free| free as u64).map_err(|error| format!("the NVIDIA driver does not open it: {error}"))
}

/// Returns what each device is, in CUDA's order.
pub(crate) fn about() -> Vec<About> {
    let Ok(found) = found() else { return Vec::new() };
    let (major, minor) = found.driver;
    let about = |(index, card): (usize, &Card)| About {
        device: Device::Cuda(index),
        about: format!(
            "{}, compute capability {}.{}, driver for CUDA {major}.{minor}",
            card.name, card.capability.0, card.capability.1
        ),
        software: false,
        memory: Some(card.memory),
    };
    found.cards.iter().enumerate().map(about).collect()
}

/// Returns the most bytes that one buffer on `device` may have, once it answers.
pub(crate) fn open(device: Device) -> Result<u64> {
    Ok(max_buffer_bytes(&client(device)?))
}

/// Returns what kernels may count on, once the device answers.
pub(crate) fn features_of(device: Device) -> Result<Features> {
    Ok(features(&client(device)?))
}

fn client(device: Device) -> Result<ComputeClient<CudaRuntime>> {
    let unavailable = |reason: &str| Error::Unavailable { device, reason: reason.into() };
    let found = found().map_err(unavailable)?;
    let Device::Cuda(index) = device else { return Err(unavailable("not a CUDA device")) };
    let card =
        found.cards.get(index).ok_or_else(|| unavailable(&none_such("cuda", index, found.cards.len())))?;
    Compiler::find()
        .map_err(unavailable)?
        .fits(found.driver, card.capability)
        .map_err(|reason| unavailable(&reason))?;
    let free = card.free.get_or_init(|| free_memory(index)).as_ref().map_err(|reason| unavailable(reason))?;
    memory::begin_budget(device, (*free as f64 * BUDGET_SHARE) as u64);
    opening(|| CudaRuntime::client(&CudaDevice::new(index))).map_err(|reason| unavailable(&reason))
}
