//! `--device`: where to compute.

use std::{fmt, str::FromStr};

use recmill_kernels::{About, Device, Error};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// A device, or the choice left to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DeviceFlag {
    /// The best device that has every operation of the work.
    #[default]
    Auto,
    /// This one and no other.
    Only(Device),
}

impl DeviceFlag {
    /// Returns the CPU where the choice is left to us: for work that is done before a GPU is open.
    pub(crate) fn or_cpu(self) -> Self {
        match self {
            DeviceFlag::Auto => DeviceFlag::Only(Device::Cpu),
            only => only,
        }
    }

    /// Returns the device, once it is known that this build and this machine can use it.
    pub(crate) fn resolve(self) -> Result<Device> {
        match self {
            // Where nothing else has been chosen, what everything runs on.
            DeviceFlag::Auto => Ok(Device::Cpu),
            DeviceFlag::Only(device) => device.check().map(|()| device).map_err(|error| {
                Failure::failed(error.to_string())
                    .hint("`recmill devices` lists what can be used; --device cpu works everywhere")
            }),
        }
    }

    /// Returns the device to work on and a line that says why it is this one: for `auto` the first CUDA device that can be
    /// used, else the first hardware adapter of wgpu, else the processor. A software adapter is taken by name alone.
    pub(crate) fn choose(self) -> Result<(Device, String)> {
        match self {
            DeviceFlag::Auto => Ok(best(&Device::gpus(), Device::check)),
            DeviceFlag::Only(_) => {
                self.resolve().map(|device| (device, format!("device: {device} (as asked)")))
            }
        }
    }

    /// As [`DeviceFlag::choose`], for work that a GPU can do only where `on_gpu` says so.
    ///
    /// A device that was asked for by name is never exchanged for another.
    pub(crate) fn choose_for(self, work: &str, on_gpu: bool) -> Result<(Device, String)> {
        match self {
            _ if on_gpu => self.choose(),
            DeviceFlag::Auto => Ok((Device::Cpu, format!("device: cpu ({work} runs there only)"))),
            DeviceFlag::Only(_) => self.resolve_for(work).map(|device| (device, format!("device: {device}"))),
        }
    }

    /// As [`DeviceFlag::resolve`], for work that has no variant but the CPU's yet.
    pub(crate) fn resolve_for(self, work: &str) -> Result<Device> {
        match self.resolve()? {
            Device::Cpu => Ok(Device::Cpu),
            device => Err(Failure::failed(format!("{work} does not run on `{device}` yet"))
                .hint("leave --device out, or say --device cpu")),
        }
    }
}

/// Chooses among `gpus`, of which `check` says whether one can be used.
fn best(gpus: &[About], check: impl Fn(Device) -> recmill_kernels::Result<()>) -> (Device, String) {
    let reason = |device| match check(device) {
        Ok(()) => None,
        Err(Error::Unavailable { reason, .. }) => Some(reason),
        Err(error) => Some(error.to_string()),
    };
    let is_cuda = |gpu: &&About| matches!(gpu.device, Device::Cuda(_));
    let (cuda, wgpu): (Vec<&About>, Vec<&About>) = gpus.iter().partition(is_cuda);
    let mut against = Vec::new();
    for gpu in cuda.iter().chain(wgpu.iter().filter(|gpu| !gpu.software)) {
        match reason(gpu.device) {
            None => {
                let passed =
                    if against.is_empty() { String::new() } else { format!("; {}", against.join("; ")) };
                return (gpu.device, format!("device: {} ({}{passed})", gpu.device, gpu.about));
            }
            Some(reason) => against.push(format!("{}: {reason}", gpu.device)),
        }
    }
    if cuda.is_empty() {
        let reason = reason(Device::Cuda(0)).unwrap_or_else(|| "no CUDA device is listed".into());
        against.insert(0, reason);
    }
    match wgpu[..] {
        [] => against.push(reason(Device::Wgpu(0)).unwrap_or_else(|| "no wgpu adapter is listed".into())),
        [only] if only.software => against
            .push(format!("the only wgpu adapter is software, use --device {} to run on it", only.device)),
        _ => {}
    }
    (Device::Cpu, format!("device: cpu ({})", against.join("; ")))
}

impl FromStr for DeviceFlag {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "auto" => Ok(DeviceFlag::Auto),
            text => text.parse().map(DeviceFlag::Only).map_err(|_: Error| {
                format!("expected auto, cpu, cuda, cuda:N, wgpu or wgpu:N, found `{text}`")
            }),
        }
    }
}

impl fmt::Display for DeviceFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceFlag::Auto => f.write_str("auto"),
            DeviceFlag::Only(device) => device.fmt(f),
        }
    }
}

impl Serialize for DeviceFlag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceFlag {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(device: Device, software: bool) -> About {
        About { device, about: format!("the chip of {device}"), software, memory: None }
    }

    /// `check` of a machine where only `usable` can be used.
    fn usable(usable: &[Device]) -> impl Fn(Device) -> recmill_kernels::Result<()> {
        move |device| match usable.contains(&device) {
            true => Ok(()),
            false => Err(Error::Unavailable { device, reason: format!("no {device}") }),
        }
    }

    #[test]
    fn a_cuda_device_comes_before_an_adapter_and_an_adapter_before_the_processor() {
        let (cuda, wgpu) = (Device::Cuda(0), Device::Wgpu(0));
        let gpus = [gpu(cuda, false), gpu(wgpu, false), gpu(Device::Wgpu(1), true)];
        let on = |devices: &[Device]| best(&gpus, usable(devices));
        assert_eq!(on(&[cuda, wgpu]), (cuda, "device: cuda:0 (the chip of cuda:0)".into()));
        assert_eq!(on(&[wgpu]), (wgpu, "device: wgpu:0 (the chip of wgpu:0; cuda:0: no cuda:0)".into()));
        let (device, why) = on(&[Device::Wgpu(1)]);
        assert_eq!((device, &why[..]), (Device::Cpu, "device: cpu (cuda:0: no cuda:0; wgpu:0: no wgpu:0)"));
    }

    #[test]
    fn the_second_cuda_device_is_taken_where_the_first_does_not_open() {
        let gpus = [gpu(Device::Cuda(0), false), gpu(Device::Cuda(1), false)];
        let (device, why) = best(&gpus, usable(&[Device::Cuda(1)]));
        assert_eq!(device, Device::Cuda(1));
        assert_eq!(why, "device: cuda:1 (the chip of cuda:1; cuda:0: no cuda:0)");
    }

    #[test]
    fn a_software_adapter_is_taken_by_name_alone() {
        let (device, why) = best(&[gpu(Device::Wgpu(0), true)], usable(&[Device::Wgpu(0)]));
        assert_eq!(device, Device::Cpu);
        assert_eq!(
            why,
            "device: cpu (no cuda:0; the only wgpu adapter is software, use --device wgpu:0 to run on it)"
        );
    }

    #[test]
    fn a_machine_without_any_gpu_says_what_is_missing() {
        assert_eq!(best(&[], usable(&[])), (Device::Cpu, "device: cpu (no cuda:0; no wgpu:0)".into()));
        assert_eq!(
            DeviceFlag::Only(Device::Cpu).choose().ok(),
            Some((Device::Cpu, "device: cpu (as asked)".into()))
        );
    }
}
