//! `recmill devices`: the processors that can be used, and why others cannot.

use std::mem;

use clap::Args;
use recmill_kernels::{About, Device, simd};
use recmill_train::memory::available_bytes;
use serde_json::{Value, json};

use crate::{
    failure::Result,
    output::{self, Out, bytes, counted},
};

/// Arguments of `recmill devices`.
#[derive(Args)]
pub(crate) struct Devices {
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is known of a device.
struct Found {
    device: Device,
    /// Why it cannot be used, where it cannot.
    reason: Option<String>,
    about: String,
    memory: Option<u64>,
}

impl Devices {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<()> {
        let found = find();
        let mut out = Out::new();
        if self.json {
            let object = |found: &Found| -> Value {
                json!({
                    "device": found.device.to_string(),
                    "usable": found.reason.is_none(),
                    "reason": found.reason,
                    "about": found.about,
                    "memory_bytes": found.memory,
                })
            };
            out.json(&json!({"devices": found.iter().map(object).collect::<Vec<_>>()}))?;
            return out.finish();
        }
        let rows: Vec<Vec<String>> = found
            .into_iter()
            .map(|found| match found.reason {
                None => vec![found.device.to_string(), "yes".into(), found.about],
                Some(reason) => vec![found.device.to_string(), "no".into(), reason],
            })
            .collect();
        output::columns(&mut out, &["device", "usable", "about"], &rows)?;
        out.finish()
    }
}

fn find() -> Vec<Found> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = format!(
        "{}, {}, {} of memory free",
        counted(threads as u64, "thread"),
        simd::level().name(),
        bytes(available_bytes())
    );
    let memory = Some(available_bytes());
    let mut all = vec![Found { device: Device::Cpu, reason: None, about: processor, memory }];
    let mut gpus = Device::gpus();
    // A kind without any device is listed by its first, whose reason says what is missing.
    for (at, device) in [(0, Device::Cuda(0)), (usize::MAX, Device::Wgpu(0))] {
        if !gpus.iter().any(|gpu| mem::discriminant(&gpu.device) == mem::discriminant(&device)) {
            let none = About { device, about: String::new(), software: false, memory: None };
            gpus.insert(at.min(gpus.len()), none);
        }
    }
    for About { device, about, memory, software: _ } in gpus {
        let reason = device.check().err().map(|error| match error {
            recmill_kernels::Error::Unavailable { reason, .. } => reason,
            other => other.to_string(),
        });
        let memory_text = memory.map(|memory| format!(", {} of memory", bytes(memory))).unwrap_or_default();
        all.push(Found { device, reason, about: format!("{about}{memory_text}"), memory });
    }
    all
}
