//! The processors that operations run on.

use std::{fmt, str::FromStr};

use crate::{Error, Result};

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
        match self {
            Device::Cpu => Ok(()),
            Device::Cuda(_) => Err(Error::Unavailable { device: self, reason: "built without CUDA".into() }),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(index) => crate::buffer::cube::check_wgpu(index),
            #[cfg(not(feature = "wgpu"))]
            Device::Wgpu(_) => Err(Error::Unavailable { device: self, reason: "built without wgpu".into() }),
        }
    }

    /// Returns the most bytes that one buffer on the device may have.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason.
    pub fn max_buffer_bytes(self) -> Result<u64> {
        match self {
            Device::Cpu => Ok(u64::MAX),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(index) => crate::buffer::cube::max_buffer_bytes(index),
            _ => self.check().map(|()| u64::MAX),
        }
    }

    /// Returns the adapters that wgpu reaches, `wgpu:0` first: name, kind, driver. Hardware comes before software.
    pub fn wgpu_adapters() -> Vec<String> {
        #[cfg(feature = "wgpu")]
        return crate::buffer::cube::about_adapters();
        #[cfg(not(feature = "wgpu"))]
        Vec::new()
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
