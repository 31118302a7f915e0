//! The processors that operations run on.

use std::{fmt, str::FromStr};

use crate::{Error, Result, buffer::on_gpu};

/// Where numbers live and operations run.
///
/// All variants exist in every build, so that text, configuration and messages mean the same everywhere; whether this
/// build and this machine can use one is found out by [`Device::check`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// The processor this program runs on.
    #[default]
    Cpu,
    /// An NVIDIA GPU, in CUDA's order.
    Cuda(usize),
    /// A GPU reached through Vulkan, Metal, DX12 or WebGPU, in the order that `recmill devices` prints.
    Wgpu(usize),
}

impl Device {
    /// Succeeds when this build and this machine can use the device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason.
    pub fn check(self) -> Result<()> {
        self.max_buffer_bytes().map(|_| ())
    }

    /// Returns the most bytes that one buffer on the device may have.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason.
    pub fn max_buffer_bytes(self) -> Result<u64> {
        match self {
            Device::Cpu => Ok(u64::MAX),
            #[cfg(feature = "cuda-sources")]
            device if crate::buffer::pretend::chip_of(device).is_some() => {
                crate::buffer::pretend::open(device)
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => crate::buffer::cuda::open(self),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(_) => crate::buffer::wgpu::open(self),
            #[cfg(not(all(feature = "cuda", feature = "wgpu")))]
            device => Err(device.not_built()),
        }
    }

    /// Returns the error of a device that has been left out of this build.
    pub fn not_built(self) -> Error {
        let reason = match self {
            Device::Wgpu(_) => "built without wgpu",
            _ => "built without CUDA",
        };
        Error::Unavailable { device: self, reason: reason.into() }
    }

    /// Returns what kernels on the device may count on; `None` for the CPU, whose kernels are chosen by [`crate::simd`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason.
    pub fn features(self) -> Result<Option<Features>> {
        match self {
            Device::Cpu => Ok(None),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => crate::buffer::cuda::features_of(self).map(Some),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(_) => crate::buffer::wgpu::features_of(self).map(Some),
            #[cfg(not(all(feature = "cuda", feature = "wgpu")))]
            device => device.check().map(|()| None),
        }
    }

    /// Waits for everything that this thread has asked of the device; nothing on the CPU, which is never behind.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::Unavailable`].
    pub fn wait(self) -> Result<()> {
        match self {
            Device::Cpu => Ok(()),
            device => on_gpu!("wait", device, R => crate::buffer::cube::Queue::<R>::new(device)?.wait()),
        }
    }

    /// Returns the GPUs of this machine: those that CUDA lists, then the adapters of wgpu, hardware before software.
    /// Whether one can be used, [`Device::check`] finds out.
    pub fn gpus() -> Vec<About> {
        let found: Vec<About> = Vec::new();
        #[cfg(feature = "cuda")]
        let found = [found, crate::buffer::cuda::about()].concat();
        #[cfg(feature = "wgpu")]
        let found = [found, crate::buffer::wgpu::about()].concat();
        found
    }
}

/// What is known of a GPU before it is opened.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// The device.
    pub device: Device,
    /// Its name, kind and driver, in words.
    pub about: String,
    /// Whether it is a processor that pretends to be a GPU: right, and slow.
    pub software: bool,
    /// Bytes of memory, where the driver says.
    pub memory: Option<u64>,
}

/// What kernels on a device may count on.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// The most bytes of one buffer.
    pub max_buffer_bytes: u64,
    /// Units that run in step: the fewest and the most.
    pub plane_size: (u32, u32),
    /// Bytes of memory that the units of a group share.
    pub shared_bytes: u64,
    /// The most units of a group.
    pub max_units: u32,
    /// Whether buffers of f16 can be read and written.
    pub f16: bool,
    /// Whether buffers of bf16 can be read and written.
    pub bf16: bool,
}

/// Why the device `kind:index` is not there, where there are `n` of its kind.
#[cfg(feature = "gpu")]
pub(crate) fn none_such(kind: &str, index: usize, n: usize) -> String {
    match n {
        0 => "no adapter found".into(),
        1 => format!("there is no device {index}, only {kind}:0"),
        n => format!("there is no device {index}, only {kind}:0 to {kind}:{}", n - 1),
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            Device::Wgpu(index) => write!(f, "wgpu:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::UnknownDevice { text: text.to_owned() };
        let (name, index) = text.split_once(':').unwrap_or((text, "0"));
        let index = || index.parse::<usize>().map_err(|_| unknown());
        match name {
            "cpu" if text == "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(index()?)),
            "wgpu" => Ok(Device::Wgpu(index()?)),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_device_are_inverse() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(7), Device::Wgpu(1)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for text in ["", "gpu", "cpu:0", "cuda:", "wgpu:x", "cuda:-1"] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
    }
}
