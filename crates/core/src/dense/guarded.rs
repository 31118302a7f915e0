//! Work on a device that may refuse it in the middle of burn's, whose operations return no errors and panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use recmill_kernels::{Device, Error};

/// Does `work` on `device`; on a GPU a panic in it is the device's, and an error.
///
/// What `work` has changed in part is to be thrown away then.
///
/// # Errors
/// Those of `work`; [`Error::DeviceLost`] naming what was being done.
pub fn guarded<T, E: From<Error>>(
    device: Device,
    doing: &'static str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    if device == Device::Cpu {
        return work();
    }
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::DeviceLost { device, doing }.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_device_is_an_error_and_one_of_ours_is_not() {
        let device = Device::Wgpu(0);
        let lost = guarded(device, "a test", || -> Result<(), Error> { panic!("refused") });
        assert_eq!(lost, Err(Error::DeviceLost { device, doing: "a test" }));
        assert_eq!(guarded(device, "a test", || Ok::<_, Error>(3)), Ok(3));
        let ours =
            catch_unwind(|| guarded(Device::Cpu, "a test", || -> Result<(), Error> { panic!("a mistake") }));
        assert!(ours.is_err());
    }
}
