//! Buffers on a GPU: the one file that names cubecl's runtimes and devices.
//!
//! cubecl 0.10 hides an allocation that its device refuses, so each passes [`guard`] first: no buffer is larger than the
//! device binds at once. The byte budget of `memory` has been taken by the caller.

use std::sync::LazyLock;

use bytemuck::Pod;
pub(crate) use cubecl::wgpu::WgpuRuntime;
use cubecl::{
    prelude::*,
    server::Handle,
    wgpu::{AutoGraphicsApi, GraphicsApi, WgpuDevice},
};

use crate::{Device, Error, Result};

/// A device allocation, and the queue that orders work on it.
#[derive(Clone)]
pub(crate) struct CubeStorage<R: Runtime> {
    pub(crate) client: ComputeClient<R>,
    pub(crate) handle: Handle,
}

/// A graphics adapter: what cubecl calls it, and what people call it.
struct Adapter {
    device: WgpuDevice,
    about: String,
}

/// The adapters of this machine, hardware before software; looked for once.
fn adapters() -> &'static [Adapter] {
    static ADAPTERS: LazyLock<Vec<Adapter>> = LazyLock::new(|| {
        let backends = wgpu::Backends::from(AutoGraphicsApi::backend());
        let descriptor =
            wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
        let found = wgpu::Instance::new(descriptor).enumerate_adapters(backends);
        let found = cubecl::future::block_on(found).into_iter().map(|adapter| adapter.get_info());
        in_order(found.map(|info| (info.device_type, info.name, info.driver_info)).collect())
    });
    &ADAPTERS
}

/// Orders adapters by kind, then as they were found; cubecl counts within a kind and knows one software adapter.
fn in_order(mut found: Vec<(wgpu::DeviceType, String, String)>) -> Vec<Adapter> {
    let kind = |device_type: wgpu::DeviceType| match device_type {
        wgpu::DeviceType::DiscreteGpu => (0, "discrete GPU"),
        wgpu::DeviceType::IntegratedGpu => (1, "integrated GPU"),
        wgpu::DeviceType::VirtualGpu => (2, "virtual GPU"),
        wgpu::DeviceType::Cpu => (3, "software"),
        wgpu::DeviceType::Other => (4, "other"),
    };
    found.retain(|(device_type, ..)| kind(*device_type).0 < 4);
    found.sort_by_key(|(device_type, ..)| kind(*device_type).0);
    let mut adapters = Vec::new();
    let mut seen = [0; 4];
    for (device_type, name, driver) in found {
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
        adapters.push(Adapter { device, about: format!("{name}, {kind}{driver}") });
    }
    adapters
}

/// Returns what each adapter is, in the order of their indices.
pub(crate) fn about_adapters() -> Vec<String> {
    adapters().iter().map(|adapter| adapter.about.clone()).collect()
}

/// Succeeds when adapter `index` answers.
pub(crate) fn check_wgpu(index: usize) -> Result<()> {
    client(index).map(|_| ())
}

/// Returns the most bytes that one buffer on adapter `index` may have.
pub(crate) fn max_buffer_bytes(index: usize) -> Result<u64> {
    Ok(client(index)?.properties().memory.max_page_size)
}

fn client(index: usize) -> Result<ComputeClient<WgpuRuntime>> {
    let unavailable =
        |reason: &str| Error::Unavailable { device: Device::Wgpu(index), reason: reason.into() };
    let none = if adapters().is_empty() { "no adapter found" } else { "no such adapter" };
    let adapter = adapters().get(index).ok_or_else(|| unavailable(none))?;
    // cubecl panics where a driver lists an adapter and then refuses to open it.
    std::panic::catch_unwind(|| WgpuRuntime::client(&adapter.device))
        .map_err(|_| unavailable("its driver does not open it"))
}

fn guard<R: Runtime>(
    client: &ComputeClient<R>,
    device: Device,
    bytes: u64,
    what: &'static str,
) -> Result<()> {
    let limit = client.properties().memory.max_page_size;
    if bytes > limit {
        return Err(Error::BufferTooLarge { device, what, asked: bytes, limit });
    }
    Ok(())
}

impl CubeStorage<WgpuRuntime> {
    pub(super) fn zeros<T: Pod>(index: usize, len: usize, what: &'static str) -> Result<Self> {
        let client = client(index)?;
        guard(&client, Device::Wgpu(index), (len * size_of::<T>()) as u64, what)?;
        // The runtime has no zeroing allocation; uploading zeros is the one way that every adapter supports.
        let handle = client.create_from_slice(bytemuck::cast_slice(&vec![T::zeroed(); len]));
        Ok(Self { client, handle })
    }

    pub(super) fn upload<T: Pod>(index: usize, values: &[T], what: &'static str) -> Result<Self> {
        let client = client(index)?;
        guard(&client, Device::Wgpu(index), size_of_val(values) as u64, what)?;
        let handle = client.create_from_slice(bytemuck::cast_slice(values));
        Ok(Self { client, handle })
    }
}

impl<R: Runtime> CubeStorage<R> {
    /// Returns the handle as a kernel's argument of `len` elements.
    ///
    /// # Safety
    /// The handle holds at least `len` elements of the type that the kernel reads or writes.
    #[expect(unsafe_code, reason = "cubecl takes lengths on trust")]
    pub(crate) unsafe fn arg(&self, len: usize) -> ArrayArg<R> {
        // SAFETY: the caller vouches for `len`.
        unsafe { ArrayArg::from_raw_parts(self.handle.clone(), len) }
    }

    pub(super) fn download<T: Pod>(&self, device: Device, len: usize) -> Result<Vec<T>> {
        let lost = |_| Error::DeviceLost { device, doing: "reading a buffer back" };
        let bytes = self.client.read_one(self.handle.clone()).map_err(lost)?;
        Ok(bytemuck::cast_slice(&bytes[..len * size_of::<T>()]).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_comes_before_software_and_is_counted_within_its_kind() {
        let found = |kind, name: &str| (kind, name.to_owned(), String::new());
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
