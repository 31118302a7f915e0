//! The memory of a GPU's buffer as another library over cubecl sees it, such as burn: both name one allocation, and nothing is
//! copied.
//!
//! Work on one device is done in the order in which a thread asked for it, whichever library did. What the other library
//! allocates by itself is not in the budget of `memory`, and cubecl hides what its device refuses (see `cube.rs`): so whoever
//! calls it asks [`check_answers`] before a number of it is believed.

use std::cell::RefCell;

use bytemuck::Pod;
use cubecl::{client::ComputeClient, server::Handle};

use super::{
    Buffer,
    cube::{CubeStorage, Gpu, Queue},
    reserve,
};
use crate::{Device, Error, Result};

/// A runtime whose devices this crate shares with others.
#[expect(private_bounds, reason = "it is not for others to implement")]
pub trait GpuRuntime: Gpu {
    /// Opens `device` as this crate does, and returns what cubecl calls it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none, or it is of another runtime.
    fn runtime_device(device: Device) -> Result<Self::Device>;

    /// Returns what we call a device of cubecl's.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is none of [`Device::gpus`].
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
    /// [`Error::MixedDevices`] for a buffer on any other.
    pub fn share<R: GpuRuntime>(&self) -> Result<Shared<R>> {
        let storage = R::storage(self).ok_or(Error::MixedDevices { op: "share" })?;
        let (client, handle) = storage.parts();
        Ok(Shared { client, device: R::runtime_device(self.device())?, handle })
    }

    /// Makes a buffer of `len` values over memory of `device`; `what` names it in an error.
    ///
    /// The caller vouches that the allocation holds so many values, densely and in order.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the device's budget has not as many bytes left; [`Error::Unavailable`],
    /// [`Error::DeviceLost`].
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

thread_local! {
    /// What a device refused this thread in the middle of another library's work, which has no errors.
    static REFUSED: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// Keeps an error for this thread's next [`check_answers`]; the first one stays.
pub fn refuse_answers(error: Error) {
    REFUSED.with_borrow_mut(|refused| {
        refused.get_or_insert(error);
    });
}

/// Waits for all work on `device` that this thread asked for, and says whether it was done.
///
/// # Errors
/// What [`refuse_answers`] was told since the last call; [`Error::DeviceLost`]; [`Error::Unavailable`].
pub fn check_answers<R: GpuRuntime>(device: Device) -> Result<()> {
    let done = Queue::<R>::new(device)?.wait();
    match REFUSED.take() {
        Some(refused) => Err(refused),
        None => done,
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::WgpuRuntime;

    #[test]
    fn a_refusal_is_told_once() {
        let device = Device::Wgpu(0);
        if let Err(error) = device.check() {
            assert!(std::env::var_os("RECMILL_REQUIRE_WGPU").is_none(), "{error}");
            return;
        }
        let error = Error::Parameter { op: "a test", what: "first", expected: "1", got: 2.0 };
        refuse_answers(error.clone());
        refuse_answers(Error::Parameter { op: "a test", what: "second", expected: "1", got: 2.0 });
        assert_eq!(check_answers::<WgpuRuntime>(device), Err(error));
        assert_eq!(check_answers::<WgpuRuntime>(device), Ok(()));
    }
}
