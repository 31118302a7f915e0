//! `recmill doctor`: every operation against its naive reference, and whole trainings beside the CPU's, on a device of this
//! machine.

use std::{io::Write, time::Instant};

use clap::Args;
use recmill_kernels::{
    Device,
    conformance::{self, Outcome},
};
use serde_json::{Value, json};

use crate::{
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    output::{Out, counted, note, seconds},
    progress::Bar,
};

/// Arguments of `recmill doctor`.
#[derive(Args)]
#[command(
    after_help = "Runs the same cases as recmill's own tests: each operation beside its naive reference, and small \
    trainings whose metrics must equal the CPU's to three decimals. Worst is the largest difference as a share of what is \
    tolerated."
)]
pub(crate) struct Doctor {
    /// Device to check: cpu, cuda, cuda:N, wgpu or wgpu:N [default: every one that can be used, software adapters by name alone].
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceFlag::Auto, hide_default_value = true)]
    device: DeviceFlag,
    /// Runs only cases whose name holds this text, such as als_cg.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// How one case ended on one device.
struct Finding {
    device: Device,
    case: &'static str,
    result: std::result::Result<Outcome, conformance::Failure>,
}

impl Doctor {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<()> {
        let devices = match self.device {
            DeviceFlag::Auto => every_device(),
            only => vec![only.resolve()?],
        };
        let all = conformance::cases().into_iter().chain(recmill_train::conformance::cases());
        let (cases, others): (Vec<_>, Vec<_>) = all.partition(|case| case.name.contains(&self.only));
        if cases.is_empty() {
            let mut operations: Vec<&str> =
                others.iter().map(|case| case.name.split('/').next().unwrap_or(case.name)).collect();
            operations.dedup();
            return Err(Failure::usage(format!("no case has `{}` in its name", self.only))
                .hint(format!("there are cases of {}", operations.join(", "))));
        }
        let started = Instant::now();
        let mut findings = Vec::new();
        let mut out = Out::new();
        let bar = Bar::steps("checking", (devices.len() * cases.len()) as u64);
        for &device in &devices {
            for case in &cases {
                bar.message(format!("{device} {}", case.name));
                let finding = Finding { device, case: case.name, result: (case.run)(device) };
                if !self.json {
                    writeln!(out, "{}", line(&finding))?;
                    out.flush()?;
                }
                findings.push(finding);
                bar.at(findings.len() as u64);
            }
        }
        drop(bar);
        let failed = findings.iter().filter(|finding| finding.result.is_err()).count();
        if self.json {
            let list: Vec<Value> = findings.iter().map(object).collect();
            out.json(&json!({"ok": failed == 0, "failed": failed, "cases": list}))?;
        }
        out.finish()?;
        note!("{} in {}", counted(findings.len() as u64, "case"), seconds(started.elapsed().as_secs_f64()));
        if failed == 0 {
            return Ok(());
        }
        Err(Failure::failed(format!("{} of {} failed", counted(failed as u64, "case"), findings.len())).hint(
            "do not train or serve on this device; please report the lines above with `recmill devices`",
        ))
    }
}

/// Returns the processor and every GPU that can be used and is one.
fn every_device() -> Vec<Device> {
    let gpus = Device::gpus().into_iter().filter(|gpu| !gpu.software).map(|gpu| gpu.device);
    [Device::Cpu].into_iter().chain(gpus.filter(|device| device.check().is_ok())).collect()
}

fn line(finding: &Finding) -> String {
    let Finding { device, case, result } = finding;
    match result {
        Ok(Outcome::Agrees { worst }) => format!("{device}  ok    {case}  worst {worst:.3}"),
        Ok(Outcome::NotOnDevice) => format!("{device}  -     {case}  not on this device yet"),
        Err(failure) => format!("{device}  FAIL  {case}  {failure}"),
    }
}

fn object(finding: &Finding) -> Value {
    let (outcome, worst, reason) = match &finding.result {
        Ok(Outcome::Agrees { worst }) => ("agrees", Some(worst), None),
        Ok(Outcome::NotOnDevice) => ("not-on-device", None, None),
        Err(failure) => ("fails", None, Some(failure.to_string())),
    };
    json!({
        "device": finding.device.to_string(), "case": finding.case, "outcome": outcome, "worst": worst, "reason": reason,
    })
}
