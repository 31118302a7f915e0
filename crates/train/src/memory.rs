//! The memory that training will take, known from sizes alone, and what the machine has left.
//!
//! A prediction lists the parts that grow with the data: factors, copies of them for validation, the data by item,
//! scratch of each thread. The data by user are there already when training begins and are not counted again.

use std::fmt;

use recmill_kernels::Device;

use crate::{Error, Result};

/// Bytes that training will allocate, part by part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    parts: Vec<(&'static str, u64)>,
}

impl Prediction {
    /// Adds a part; parts of no size are left out.
    pub fn add(mut self, what: &'static str, bytes: u64) -> Self {
        if bytes > 0 {
            self.parts.push((what, bytes));
        }
        self
    }

    /// Leaves out parts, such as those that a device has no share of.
    pub(crate) fn without(mut self, left_out: &[&str]) -> Self {
        self.parts.retain(|(what, _)| !left_out.contains(what));
        self
    }

    /// Returns the parts and their bytes.
    pub fn parts(&self) -> &[(&'static str, u64)] {
        &self.parts
    }

    /// Returns the sum of all parts.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0u64, |sum, &(_, bytes)| sum.saturating_add(bytes))
    }

    /// Succeeds when `available` bytes are enough to train `model`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] with both figures.
    pub fn check(&self, model: &'static str, available: u64) -> Result<()> {
        if self.bytes() > available {
            return Err(Error::TooLarge { model, predicted: self.clone(), available });
        }
        Ok(())
    }
}

/// What training will take, beside what there is.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryPlan {
    /// The model, such as `als`.
    pub model: &'static str,
    /// Main memory that training will take.
    pub host: Prediction,
    /// Bytes of main memory that are left.
    pub host_free: u64,
    /// Where the parameters are trained.
    pub device: Device,
    /// Memory that training will take on the device, where that is a GPU.
    pub on_device: Option<Prediction>,
    /// Bytes of memory that the device has left; more than there can be where it does not say.
    pub device_free: u64,
}

impl MemoryPlan {
    /// Puts predictions beside what is left now.
    pub(crate) fn new(
        model: &'static str,
        host: Prediction,
        device: Device,
        on_device: Option<Prediction>,
    ) -> Self {
        let device_free = recmill_kernels::memory::available(device);
        Self { model, host, host_free: available_bytes(), device, on_device, device_free }
    }

    /// Returns the bytes of a part of what training takes on the device.
    pub(crate) fn part_on_device(&self, what: &str) -> u64 {
        let parts = self.on_device.iter().flat_map(Prediction::parts);
        parts.filter(|part| part.0 == what).map(|part| part.1).sum()
    }

    /// Succeeds when the machine, and the device, have as much memory as training takes.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::TooLargeForDevice`] with both figures.
    pub fn check(&self) -> Result<()> {
        self.host.check(self.model, self.host_free)?;
        match &self.on_device {
            Some(predicted) if predicted.bytes() > self.device_free => Err(Error::TooLargeForDevice {
                model: self.model,
                device: self.device,
                predicted: predicted.clone(),
                available: self.device_free,
            }),
            _ => Ok(()),
        }
    }
}

/// Writes `1.5 GiB (user factors 1.0 GiB, item factors 0.5 GiB)`.
impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Bytes(self.bytes()))?;
        for (at, &(what, bytes)) in self.parts.iter().enumerate() {
            write!(f, "{}{what} {}", if at == 0 { " (" } else { ", " }, Bytes(bytes))?;
        }
        if self.parts.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

/// Returns the bytes that this process may still allocate: what the system has available, or what its control group
/// leaves where that is less, and no more than the budget of the kernels.
pub fn available_bytes() -> u64 {
    let (machine, group) = sysinfo::System::new().map_or((u64::MAX, u64::MAX), |mut system| {
        system.refresh_memory();
        // Page cache counts as used in a control group although it is given back on demand, so its resident memory is
        // taken off the limit rather than all that it is charged for.
        let group = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
        (system.available_memory(), group.unwrap_or(u64::MAX))
    });
    let machine = if machine == 0 { u64::MAX } else { machine }; // a system that does not say
    machine.min(group).min(recmill_kernels::memory::available(recmill_kernels::Device::Cpu))
}

/// Returns the most bytes of main memory that this process has held at once; nothing where the system does not say.
pub fn peak_bytes() -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kibibytes)
}

/// A number of bytes in words: `512 B`, `3.4 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_is_refused_with_the_numbers() {
        let predicted =
            Prediction::default().add("gram matrix", 3 << 30).add("weights", 1 << 29).add("none", 0);
        predicted.check("ease", 7 << 29).unwrap();
        let error = predicted.check("ease", (7 << 29) - 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ease needs 3.5 GiB (gram matrix 3.0 GiB, weights 512.0 MiB), and this machine has 3.5 GiB left"
        );
    }

    #[test]
    fn the_machine_has_some_memory_and_not_all_of_it() {
        let available = available_bytes();
        assert!(available > 1 << 20, "{available}");
        assert!(available < 1 << 50, "{available}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_most_that_was_held_stays_when_it_is_given_back() {
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        // The system counts pages of each thread a little late.
        let most = held.len() as u64 - (4 << 20);
        assert!(peak_bytes().unwrap() >= most);
        drop(held);
        assert!(peak_bytes().unwrap() >= most);
    }

    #[test]
    fn bytes_change_units_where_they_read_best() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), ((1 << 30) - 1, "1.0 GiB")] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        assert_eq!(Bytes(u64::MAX).to_string(), "16384.0 PiB");
    }
}
