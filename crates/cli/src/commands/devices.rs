//! `recmill devices`: the processors that can be used, and why others cannot.

use clap::Args;
use recmill_kernels::{Device, simd};
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
        "{}, {}, {} of memory free; every operation",
        counted(threads as u64, "thread"),
        simd::level().name(),
        bytes(available_bytes())
    );
    let mut all = vec![Found { device: Device::Cpu, reason: None, about: processor }];
    let cuda = (Device::Cuda(0), "NVIDIA GPU through CUDA".to_owned());
    let adapters = Device::wgpu_adapters().into_iter().enumerate();
    let mut wgpu: Vec<_> = adapters.map(|(index, about)| (Device::Wgpu(index), about)).collect();
    if wgpu.is_empty() {
        wgpu.push((Device::Wgpu(0), String::new()));
    }
    for (device, about) in [cuda].into_iter().chain(wgpu) {
        let reason = device.check().err().map(|error| match error {
            recmill_kernels::Error::Unavailable { reason, .. } => reason,
            other => other.to_string(),
        });
        all.push(Found { device, reason, about: format!("{about}; `recmill doctor` lists its operations") });
    }
    all
}
