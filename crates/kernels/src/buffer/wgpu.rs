//! The graphics adapters of this machine, through Vulkan, Metal, DX12 or WebGPU.

use std::sync::LazyLock;

pub use cubecl::wgpu::WgpuRuntime;
use cubecl::wgpu::{AutoGraphicsApi, GraphicsApi, WgpuDevice};
use cubecl::{Runtime, client::ComputeClient};

use super::{
    Buffer, Storage,
    cube::{CubeStorage, Gpu, features, max_buffer_bytes, opening},
    shared::GpuRuntime,
};
use crate::{
    Device, Error, Result,
    device::{About, Features, none_such},
    memory,
};

impl Gpu for WgpuRuntime {
    fn client_of(device: Device) -> Result<ComputeClient<Self>> {
        client(device)
    }

    fn storage<T>(buffer: &Buffer<T>) -> Option<&CubeStorage<Self>> {
        match &buffer.storage {
            Storage::Wgpu(storage) => Some(storage),
            _ => None,
        }
    }

    fn wrap<T>(storage: CubeStorage<Self>) -> Storage<T> {
        Storage::Wgpu(storage)
    }
}

impl GpuRuntime for WgpuRuntime {
    fn runtime_device(device: Device) -> Result<WgpuDevice> {
        client(device)?;
        Ok(adapter(device)?.device.clone())
    }

    fn device_called(device: &WgpuDevice) -> Result<Device> {
        let index = adapters().iter().position(|adapter| adapter.device == *device);
        let none =
            || Error::Unavailable { device: Device::Wgpu(0), reason: format!("{device:?} is not listed") };
        index.map(Device::Wgpu).ok_or_else(none)
    }
}

/// The share of an adapter's memory that the budget begins with: the screen and cubecl's pages take some.
const BUDGET_SHARE: f64 = 0.8;
/// The machine's memory where the system does not tell it.
const UNKNOWN_MEMORY: u64 = 4 << 30;

/// A graphics adapter: what cubecl calls it, and what people call it.
struct Adapter {
    device: WgpuDevice,
    software: bool,
    about: String,
    memory: Option<u64>,
}

/// An adapter as its driver describes it.
struct Found {
    kind: wgpu::DeviceType,
    name: String,
    driver: String,
    memory: Option<u64>,
}

/// The adapters of this machine, hardware before software; looked for once.
fn adapters() -> &'static [Adapter] {
    static ADAPTERS: LazyLock<Vec<Adapter>> = LazyLock::new(|| {
        let backends = wgpu::Backends::from(AutoGraphicsApi::backend());
        let descriptor =
            wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
        let found = wgpu::Instance::new(descriptor).enumerate_adapters(backends);
        let found = cubecl::future::block_on(found).into_iter().map(|adapter| {
            let info = adapter.get_info();
            Found {
                kind: info.device_type,
                name: info.name,
                driver: info.driver_info,
                memory: vulkan_memory(&adapter),
            }
        });
        in_order(found.collect())
    });
    &ADAPTERS
}

/// Orders adapters by kind, then as they were found; cubecl counts within a kind and knows one software adapter.
fn in_order(mut found: Vec<Found>) -> Vec<Adapter> {
    let kind = |device_type: wgpu::DeviceType| match device_type {
        wgpu::DeviceType::DiscreteGpu => (0, "discrete GPU"),
        wgpu::DeviceType::IntegratedGpu => (1, "integrated GPU"),
        wgpu::DeviceType::VirtualGpu => (2, "virtual GPU"),
        wgpu::DeviceType::Cpu => (3, "software"),
        wgpu::DeviceType::Other => (4, "other"),
    };
    found.retain(|found| kind(found.kind).0 < 4);
    found.sort_by_key(|found| kind(found.kind).0);
    let mut adapters = Vec::new();
    let mut seen = [0; 4];
    for Found { kind: device_type, name, driver, memory } in found {
        let (rank, kind) = kind(device_type);
        let device = match rank {
            0 => WgpuDevice::DiscreteGpu(seen[0]),
            1 => WgpuDevice::IntegratedGpu(seen[1]),
            2 => WgpuDevice::VirtualGpu(seen[2]),
            _ if seen[3] == 0 => WgpuDevice::Cpu,
            _ => continue,
        };
        seen[rank] += 1;
        let driver = if driver.is_empty() { driver } else { format!(", {driver}") };
        let about = format!("{name}, {kind}{driver}");
        adapters.push(Adapter { device, software: rank == 3, about, memory });
    }
    adapters
}

/// Returns the bytes of the largest heap that a Vulkan adapter calls its own; wgpu itself does not say.
#[cfg(any(target_os = "linux", target_os = "windows"))]
#[expect(unsafe_code, reason = "Vulkan's own interface")]
fn vulkan_memory(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the instance and the physical device live as long as the adapter, and are only read.
    let properties = unsafe {
        let adapter = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = adapter.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(adapter.raw_physical_device())
    };
    const DEVICE_LOCAL: u32 = 1;
    let heaps = &properties.memory_heaps[..properties.memory_heap_count as usize];
    heaps.iter().filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
fn vulkan_memory(_: &wgpu::Adapter) -> Option<u64> {
    None
}

/// Returns what each adapter is, in the order of their indices.
pub(crate) fn about() -> Vec<About> {
    let found = adapters().iter().enumerate();
    let about = |(index, adapter): (usize, &Adapter)| About {
        device: Device::Wgpu(index),
        about: adapter.about.clone(),
        software: adapter.software,
        memory: adapter.memory,
    };
    found.map(about).collect()
}

/// Returns the most bytes that one buffer on `device` may have, once it answers.
pub(crate) fn open(device: Device) -> Result<u64> {
    Ok(max_buffer_bytes(&client(device)?))
}

/// Returns what kernels may count on, once the device answers.
pub(crate) fn features_of(device: Device) -> Result<Features> {
    Ok(features(&client(device)?))
}

fn adapter(device: Device) -> Result<&'static Adapter> {
    let unavailable = |reason: &str| Error::Unavailable { device, reason: reason.into() };
    let Device::Wgpu(index) = device else { return Err(unavailable("not a graphics adapter")) };
    adapters().get(index).ok_or_else(|| unavailable(&none_such("wgpu", index, adapters().len())))
}

/// Returns the bytes that the budget of an adapter begins with. Where the driver does not tell its memory, as Metal's does not,
/// GPUs mostly share the machine's, and half of that is less than any of them refuses.
fn budget_of(adapter: Option<u64>, machine: impl FnOnce() -> u64) -> u64 {
    adapter.map_or_else(|| machine() / 2, |bytes| (bytes as f64 * BUDGET_SHARE) as u64)
}

/// Returns the bytes of main memory that the machine has; a few where the system does not say.
fn memory_of_machine() -> u64 {
    let total = sysinfo::System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    if total == 0 { UNKNOWN_MEMORY } else { total }
}

fn client(device: Device) -> Result<ComputeClient<WgpuRuntime>> {
    let adapter = adapter(device)?;
    memory::begin_budget(device, budget_of(adapter.memory, memory_of_machine));
    opening(|| WgpuRuntime::client(&adapter.device)).map_err(|reason| Error::Unavailable { device, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_adapter_has_a_budget() {
        assert_eq!(budget_of(Some(10 << 30), || 64 << 30), 8 << 30);
        assert_eq!(budget_of(None, || 64 << 30), 32 << 30);
        assert!((256 << 20..1 << 50).contains(&memory_of_machine()));
    }

    #[test]
    fn hardware_comes_before_software_and_is_counted_within_its_kind() {
        let found = |kind, name: &str| Found { kind, name: name.into(), driver: String::new(), memory: None };
        let adapters = in_order(vec![
            found(wgpu::DeviceType::Cpu, "llvmpipe"),
            found(wgpu::DeviceType::IntegratedGpu, "a laptop's"),
            found(wgpu::DeviceType::Other, "unknown"),
            found(wgpu::DeviceType::DiscreteGpu, "first"),
            found(wgpu::DeviceType::Cpu, "another"),
            found(wgpu::DeviceType::DiscreteGpu, "second"),
        ]);
        let devices: Vec<_> = adapters.iter().map(|adapter| adapter.device.clone()).collect();
        use WgpuDevice::{Cpu, DiscreteGpu, IntegratedGpu};
        assert_eq!(devices, [DiscreteGpu(0), DiscreteGpu(1), IntegratedGpu(0), Cpu]);
        assert_eq!(adapters[0].about, "first, discrete GPU");
    }
}
