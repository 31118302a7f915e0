//! `--device`: where to compute.

use std::{fmt, str::FromStr};

use recmill_kernels::Device;
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
    /// Returns the device, once it is known that this build and this machine can use it.
    pub(crate) fn resolve(self) -> Result<Device> {
        match self {
            // No model learns or scores on a GPU yet, so the processor is the best there is.
            DeviceFlag::Auto => Ok(Device::Cpu),
            DeviceFlag::Only(device) => device.check().map(|()| device).map_err(|error| {
                Failure::failed(error.to_string())
                    .hint("`recmill devices` lists what can be used; --device cpu works everywhere")
            }),
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

impl FromStr for DeviceFlag {
    type Err = recmill_kernels::Error;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "auto" => Ok(DeviceFlag::Auto),
            text => text.parse().map(DeviceFlag::Only),
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
