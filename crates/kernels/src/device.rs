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
        self.max_buffer_bytes().map(|_| ())
    }

    /// Returns the most bytes that one buffer on the device may have.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason.
    pub fn max_buffer_bytes(self) -> Result<u64> {
        match self {
            Device::Cpu => Ok(u64::MAX),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => crate::buffer::cuda::open(self),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(_) => crate::buffer::wgpu::open(self),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(_) => Err(Error::Unavailable { device: self, reason: "built without CUDA".into() }),
            #[cfg(not(feature = "wgpu"))]
            Device::Wgpu(_) => Err(Error::Unavailable { device: self, reason: "built without wgpu".into() }),
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

/// `n` of something, in words.
#[cfg(feature = "cuda")]
pub(crate) fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
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
