//! `recmill devices`: the processors that can be used, and why others cannot.

use std::mem;

use clap::Args;
use recmill_kernels::{About, Device, Features, simd};
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
    /// What kernels may count on; unknown for one that cannot be used, and for the processor.
    features: Option<Features>,
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
                    "features": found.features.as_ref().map(|features| json!({
                        "max_buffer_bytes": features.max_buffer_bytes,
                        "plane_size": [features.plane_size.0, features.plane_size.1],
                        "shared_bytes": features.shared_bytes,
                        "max_units": features.max_units,
                        "f16": features.f16,
                        "bf16": features.bf16,
                    })),
                })
            };
            out.json(&json!({"devices": found.iter().map(object).collect::<Vec<_>>()}))?;
            return out.finish();
        }
        let rows: Vec<Vec<String>> = found
            .into_iter()
            .map(|Found { device, reason, about, features, .. }| match reason {
                None => {
                    let features = features.as_ref().map(in_words).unwrap_or_default();
                    vec![device.to_string(), "yes".into(), format!("{about}{features}")]
                }
                Some(reason) if about.is_empty() => vec![device.to_string(), "no".into(), reason],
                Some(reason) => vec![device.to_string(), "no".into(), format!("{about}: {reason}")],
            })
            .collect();
        output::columns(&mut out, &["device", "usable", "about"], &rows)?;
        out.finish()
    }
}

/// What kernels may count on, as the end of a line.
fn in_words(features: &Features) -> String {
    let Features { max_buffer_bytes, plane_size: (fewest, most), shared_bytes, f16, bf16, .. } = *features;
    let planes = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
    let halves = match (f16, bf16) {
        (true, true) => ", f16 and bf16",
        (true, false) => ", f16",
        (false, true) => ", bf16",
        (false, false) => "",
    };
    format!(
        ", buffers up to {}, planes of {planes}, {} shared by a group{halves}",
        bytes(max_buffer_bytes),
        bytes(shared_bytes)
    )
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
    let mut all = vec![Found { device: Device::Cpu, reason: None, about: processor, memory, features: None }];
    let mut gpus = Device::gpus();
    // A kind without any device is listed by its first, whose reason says what is missing.
    for (at, device) in [(0, Device::Cuda(0)), (usize::MAX, Device::Wgpu(0))] {
        if !gpus.iter().any(|gpu| mem::discriminant(&gpu.device) == mem::discriminant(&device)) {
            let none = About { device, about: String::new(), software: false, memory: None };
            gpus.insert(at.min(gpus.len()), none);
        }
    }
    for About { device, about, memory, software: _ } in gpus {
        let (features, reason) = match device.features() {
            Ok(features) => (features, None),
            Err(recmill_kernels::Error::Unavailable { reason, .. }) => (None, Some(reason)),
            Err(other) => (None, Some(other.to_string())),
        };
        let memory_text = memory.map(|memory| format!(", {} of memory", bytes(memory))).unwrap_or_default();
        all.push(Found { device, reason, about: format!("{about}{memory_text}"), memory, features });
    }
    all
}
