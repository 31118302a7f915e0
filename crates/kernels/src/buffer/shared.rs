//! The memory of a GPU's buffer as another library over cubecl sees it, such as burn: both name one allocation, and nothing is
//! copied.
//!
//! Work on one device is done in the order in which a thread asked for it, whichever library did. What the other library
//! allocates by itself is not in the budget of `memory`, and cubecl hides what its device refuses (see `cube.rs`): so whoever
//! calls it asks [`check_answers`] before a number of it is believed.

use bytemuck::Pod;
use cubecl::{client::ComputeClient, server::Handle};

use super::{
    Buffer,
    cube::{CubeStorage, Gpu, Queue},
    reserve,
};
use crate::{Device, Result};

/// A runtime whose devices this crate shares with others.
#[expect(private_bounds, reason = "it is not for others to implement")]
pub trait GpuRuntime: Gpu {
    /// Opens `device` as this crate does, and returns what cubecl calls it.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] when there is none, or it is of another runtime.
    fn runtime_device(device: Device) -> Result<Self::Device>;

    /// Returns what we call a device of cubecl's.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] when it is none of [`Device::gpus`].
    fn device_called(device: &Self::Device) -> Result<Device>;
}

/// An allocation, where it is, and the queue that orders work on it.
pub struct Shared<R: GpuRuntime> {
    /// The queue.
    pub client: ComputeClient<R>,
    /// The device as cubecl calls it.
    pub device: R::Device,
    /// The allocation.
    pub handle: Handle,
}

impl<T: Pod> Buffer<T> {
    /// Returns the memory of a buffer on `R`'s kind of device.
    ///
    /// # Errors
    /// [`crate::Error::MixedDevices`] for a buffer on any other.
    pub fn share<R: GpuRuntime>(&self) -> Result<Shared<R>> {
        let storage = R::storage(self).ok_or(crate::Error::MixedDevices { op: "share" })?;
        let (client, handle) = storage.parts();
        Ok(Shared { client, device: R::runtime_device(self.device())?, handle })
    }

    /// Makes a buffer of `len` values over memory of `device`; `what` names it in an error.
    ///
    /// The caller vouches that the allocation holds so many values, densely and in order.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] when the device's budget has not as many bytes left; [`crate::Error::Unavailable`],
    /// [`crate::Error::DeviceLost`].
    pub fn from_shared<R: GpuRuntime>(
        handle: Handle,
        len: usize,
        device: Device,
        what: &'static str,
    ) -> Result<Self> {
        let reservation = reserve::<T>(len, device, what)?;
        let storage = R::wrap(CubeStorage::new(Queue::<R>::new(device)?.client, handle));
        Ok(Self { storage, len, device, _reservation: Some(reservation) })
    }
}

/// Waits for all work on `device` that this thread asked for, and says whether it was done.
///
/// # Errors
/// [`crate::Error::DeviceLost`]; [`crate::Error::Unavailable`].
pub fn check_answers<R: GpuRuntime>(device: Device) -> Result<()> {
    Queue::<R>::new(device)?.wait()
}
