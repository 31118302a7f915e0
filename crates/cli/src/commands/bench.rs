//! `recmill bench`: how fast a device is at recmill's operations, beside what it could do at most.
//!
//! First the device's ceilings, then every kernel of `bench/kernels.rs` and `bench/deep_kernels.rs`, then whole trainings and lists of `bench/whole.rs`,
//! epochs of `bench/retrievers.rs`, and the rankers of `bench/rankers.rs`.
//! What a device cannot do yet, or has no memory for, is listed with the reason.

mod deep_kernels;
mod kernels;
mod made_up;
mod rankers;
mod retrievers;
mod timing;
mod whole;

use std::{error, io::Write, path::PathBuf};

use clap::Args;
use recmill_kernels::{Device, peak::Ceilings, simd};
use serde::Serialize;
use serde_json::json;

use crate::{
    device_flag::DeviceFlag,
    failure::{self, Failure},
    output::{self, Out, count, note},
    progress::Bar,
};
use kernels::{Ground, Kernel, Measured};

/// Arguments of `recmill bench`.
#[derive(Args)]
#[command(
    after_help = "Interactions are made up in the shape of MovieLens-20M: 138,493 users, 26,744 items, 18 million values; for models that learn against candidates a tenth of the users, a two-hundredth on the processor; rows for \
    rankers in that of click logs: 26 categories, 13 numbers, batches of 16,384 and 65,536 (4,096 on the processor). Each \
    figure is the median of several runs after two that are not counted; other programs make it smaller. Of ceiling is the \
    larger of the two shares: bytes beside what a large copy moves, operations beside multiply-adds in registers. For \
    comparisons with other projects see benches/ in the repository."
)]
pub(crate) struct Bench {
    /// Device to measure: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceFlag::Auto)]
    device: DeviceFlag,
    /// Lengths of vectors to measure.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "64,128",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    factors: Vec<u32>,
    /// Measures only operations whose name holds this text, such as als_cg.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
    /// Makes up this many times as many users; items and values follow, and below 1 the batches of rankers.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = scale)]
    scale: f64,
    /// Measures training and lists at ten times as many users and items, too.
    #[arg(long)]
    large: bool,
    /// Writes the measurements to this file as well, a row each, for benches/record.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 100.0 => Ok(scale),
        _ => Err("expected a number above 0, at most 100".into()),
    }
}

/// Every kernel.
fn all_kernels() -> impl Iterator<Item = &'static Kernel> {
    kernels::KERNELS.iter().chain(deep_kernels::KERNELS)
}

/// Why something was not measured.
#[derive(Debug)]
struct Problem {
    /// The operation has no variant for the device yet: no failure, only work to be done.
    not_on_device: bool,
    text: String,
}

/// What measuring returns.
type Result<T, E = Problem> = std::result::Result<T, E>;

impl<E: error::Error + 'static> From<E> for Problem {
    fn from(error: E) -> Self {
        let mut cause: Option<&(dyn error::Error + 'static)> = Some(&error);
        let mut not_on_device = false;
        while let Some(error) = cause {
            // A transparent error hides the one that it is made of.
            let core = match error.downcast_ref() {
                Some(recmill_train::Error::Core(core)) => Some(core),
                _ => error.downcast_ref(),
            };
            let kernel = match (error.downcast_ref(), core) {
                (Some(recmill_train::Error::Kernel(kernel)), _)
                | (_, Some(recmill_core::Error::Kernel(kernel))) => Some(kernel),
                _ => error.downcast_ref(),
            };
            not_on_device |= matches!(kernel, Some(recmill_kernels::Error::NotOnDevice { .. }));
            cause = error.source();
        }
        Self { not_on_device, text: error.to_string() }
    }
}

/// One line of the result.
#[derive(Serialize)]
struct Line {
    operation: &'static str,
    shape: String,
    seconds: Option<f64>,
    gb_per_second: Option<f64>,
    gflops: Option<f64>,
    /// The larger of the shares of the two ceilings, and which that is.
    share_percent: Option<f64>,
    bound: Option<&'static str>,
    /// What is done each second, and its unit.
    rate: Option<f64>,
    unit: Option<&'static str>,
    /// Why it was not measured.
    reason: Option<String>,
}

impl Line {
    fn new(operation: &'static str, ceilings: &Ceilings, outcome: &Result<Measured>) -> Self {
        let nothing = Line {
            operation,
            shape: String::new(),
            seconds: None,
            gb_per_second: None,
            gflops: None,
            share_percent: None,
            bound: None,
            rate: None,
            unit: None,
            reason: None,
        };
        match outcome {
            Err(problem) if problem.not_on_device => {
                Line { reason: Some("not on this device yet".into()), ..nothing }
            }
            Err(problem) => Line { reason: Some(problem.text.clone()), ..nothing },
            Ok(Measured { shape, seconds, bytes, operations, done: (n, unit) }) => {
                let (bytes, flops) = (bytes / seconds, operations / seconds);
                let shares = [(bytes / ceilings.bytes, "bytes"), (flops / ceilings.flops, "operations")];
                let (share, bound) = if shares[0].0 >= shares[1].0 { shares[0] } else { shares[1] };
                Line {
                    shape: shape.clone(),
                    seconds: Some(*seconds),
                    gb_per_second: Some(bytes / 1e9),
                    gflops: Some(flops / 1e9),
                    share_percent: Some(100.0 * share),
                    bound: Some(bound),
                    rate: Some(n / seconds),
                    unit: Some(unit),
                    ..nothing
                }
            }
        }
    }
}

impl Bench {
    /// Runs the command.
    pub(crate) fn run(self) -> failure::Result<()> {
        let wanted = |name: &str| name.contains(&self.only);
        let kernels = all_kernels().map(|kernel| kernel.0);
        let names: Vec<&str> =
            kernels.chain(whole::NAMES).chain(retrievers::NAMES).chain(rankers::NAMES).collect();
        if !names.iter().any(|name| wanted(name)) {
            return Err(Failure::usage(format!("no operation has `{}` in its name", self.only))
                .hint(format!("there are {}", names.join(", "))));
        }
        let (device, why) = self.device.choose()?;
        note!("{why}");
        let about = about(device);
        let bar = Bar::spinner("measuring the ceilings");
        let ceilings = Ceilings::measure(device)?;
        bar.message("making up");
        let told = |problem: Problem| Failure::failed(problem.text);
        // Rankers learn from rows of their own.
        let of_data = kernels::KERNELS.iter().map(|kernel| kernel.0).chain(whole::NAMES).any(wanted);
        let scale = if of_data { self.scale } else { 0.0 };
        let data = made_up::dataset(scale, scale.min(1.0)).map_err(told)?;
        let (mut lines, mut failed) = (Vec::new(), 0);
        let mut add = |operation, outcome: Result<Measured>| {
            failed += usize::from(outcome.as_ref().is_err_and(|problem| !problem.not_on_device));
            lines.push(Line::new(operation, &ceilings, &outcome));
        };
        let slow = is_slow(device);
        for &factors in &self.factors {
            let ground = Ground { device, data: &data, factors: factors as usize, slow };
            for &(name, measure) in all_kernels().filter(|kernel| wanted(kernel.0)) {
                bar.message(format!("{name}, {factors} factors"));
                add(name, measure(&ground));
            }
        }
        let mut wholes = |data: &_, what: &str| {
            for &factors in &self.factors {
                let say = |name: &str| bar.message(format!("{name}{what}, {factors} factors"));
                let outcomes = whole::measure(device, data, factors as usize, wanted, say);
                outcomes.into_iter().for_each(|(name, outcome)| add(name, outcome));
            }
        };
        wholes(&data, "");
        if self.large && whole::NAMES.iter().any(|name| wanted(name)) {
            drop(data);
            bar.message("making up ten times as many");
            let data = made_up::dataset(10.0 * self.scale, 10.0 * self.scale.min(1.0)).map_err(told)?;
            wholes(&data, " at ten times the size");
        }
        if retrievers::NAMES.into_iter().any(wanted) {
            let data = retrievers::dataset(self.scale, slow).map_err(told)?;
            for &factors in &self.factors {
                let say = |name: &str| bar.message(format!("{name}, {factors} factors"));
                let outcomes = retrievers::measure(device, &data, factors as usize, wanted, say);
                outcomes.into_iter().for_each(|(name, outcome)| add(name, outcome));
            }
        }
        let say = |name: &str| bar.message(name.to_owned());
        let outcomes = rankers::measure(device, self.scale.min(1.0), slow, wanted, say);
        outcomes.into_iter().for_each(|(name, outcome)| add(name, outcome));
        drop(bar);
        if let Some(path) = &self.csv {
            self.write_csv(path, device, &about, &ceilings, &lines)?;
        }
        self.print(device, &about, &ceilings, &lines)?;
        match failed {
            0 => Ok(()),
            n => Err(Failure::failed(format!("{n} of {} could not be measured", lines.len()))),
        }
    }

    fn print(&self, device: Device, about: &str, ceilings: &Ceilings, lines: &[Line]) -> failure::Result<()> {
        let mut out = Out::new();
        if self.json {
            out.json(&json!({
                "device": device.to_string(),
                "about": about,
                "ceilings": {"gb_per_second": ceilings.bytes / 1e9, "gflops": ceilings.flops / 1e9},
                "operations": lines,
            }))?;
            return out.finish();
        }
        writeln!(out, "{device}: {about}")?;
        writeln!(
            out,
            "ceilings: {:.1} GB/s, {:.0} GFLOP/s in f32\n",
            ceilings.bytes / 1e9,
            ceilings.flops / 1e9
        )?;
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        let rows: Vec<Vec<String>> = lines
            .iter()
            .map(|line| {
                let share =
                    line.share_percent.zip(line.bound).map(|(share, bound)| format!("{share:.0}% {bound}"));
                let rate = line.rate.zip(line.unit).map(|(rate, unit)| match rate {
                    rate if rate < 100.0 => format!("{rate:.2} {unit}/s"),
                    rate => format!("{} {unit}/s", count(rate as u64)),
                });
                vec![
                    line.operation.to_owned(),
                    number(line.seconds.map(|seconds| 1e3 * seconds), 3),
                    number(line.gb_per_second, 1),
                    number(line.gflops, 1),
                    share.unwrap_or_else(|| "-".into()),
                    rate.unwrap_or_else(|| "-".into()),
                    line.reason.clone().unwrap_or_else(|| line.shape.clone()),
                ]
            })
            .collect();
        let head = ["operation", "ms", "GB/s", "GFLOP/s", "of ceiling", "rate", "shape"];
        output::columns(&mut out, &head, &rows)?;
        out.finish()
    }

    /// Writes what was measured as rows that each say on what, with what and how.
    fn write_csv(
        &self,
        path: &PathBuf,
        device: Device,
        about: &str,
        ceilings: &Ceilings,
        lines: &[Line],
    ) -> failure::Result<()> {
        let wrong = |error: csv::Error| Failure::failed(format!("{}: {error}", path.display()));
        let mut file = csv::Writer::from_path(path).map_err(wrong)?;
        file.write_record([
            "operation",
            "shape",
            "seconds",
            "gb_per_second",
            "gflops",
            "share_percent",
            "bound",
            "rate",
            "unit",
            "reason",
            "ceiling_gb_per_second",
            "ceiling_gflops",
            "device",
            "processor",
            "version",
            "command",
        ])
        .map_err(wrong)?;
        let command = std::env::args().skip(1).fold("recmill".to_owned(), |line, word| line + " " + &word);
        let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.6e}"));
        for line in lines {
            file.write_record([
                line.operation.to_owned(),
                line.shape.clone(),
                number(line.seconds),
                number(line.gb_per_second),
                number(line.gflops),
                number(line.share_percent),
                line.bound.unwrap_or_default().to_owned(),
                number(line.rate),
                line.unit.unwrap_or_default().to_owned(),
                line.reason.clone().unwrap_or_default(),
                number(Some(ceilings.bytes / 1e9)),
                number(Some(ceilings.flops / 1e9)),
                device.to_string(),
                about.to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
                command.clone(),
            ])
            .map_err(wrong)?;
        }
        file.flush().map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
    }
}

/// What the device is, in words.
fn about(device: Device) -> String {
    match device {
        Device::Cpu => format!("{}, {} threads", simd::level().name(), rayon::current_num_threads()),
        device => Device::gpus()
            .into_iter()
            .find(|gpu| gpu.device == device)
            .map_or_else(String::new, |gpu| gpu.about),
    }
}

/// Whether work of a size that fills a GPU would take minutes there.
fn is_slow(device: Device) -> bool {
    device == Device::Cpu || Device::gpus().iter().any(|gpu| gpu.device == device && gpu.software)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILINGS: Ceilings = Ceilings { bytes: 100e9, flops: 1000e9 };

    #[test]
    fn the_larger_share_is_the_one_that_is_told() {
        let measured =
            Measured { shape: "s".into(), seconds: 0.5, bytes: 25e9, operations: 100e9, done: (3.0, "rows") };
        let line = Line::new("gather", &CEILINGS, &Ok(measured));
        assert_eq!((line.gb_per_second, line.gflops), (Some(50.0), Some(200.0)));
        assert_eq!((line.share_percent, line.bound), (Some(50.0), Some("bytes")));
        assert_eq!((line.rate, line.unit, line.reason), (Some(6.0), Some("rows"), None));
    }

    #[test]
    fn what_is_not_on_a_device_is_told_from_what_fails() {
        let device = Device::Wgpu(0);
        let missing: Problem = recmill_kernels::Error::NotOnDevice { op: "gather", device }.into();
        let line = Line::new("gather", &CEILINGS, &Err(missing));
        assert_eq!(line.reason.as_deref(), Some("not on this device yet"));
        let deep = recmill_core::Error::from(recmill_kernels::Error::NotOnDevice { op: "gather", device });
        assert!(Problem::from(deep).not_on_device);
        let lost: Problem = recmill_kernels::Error::DeviceLost { device, doing: "a test" }.into();
        assert!(!lost.not_on_device);
        assert!(scale("0").is_err() && scale("x").is_err() && scale("0.01") == Ok(0.01));
    }
}
