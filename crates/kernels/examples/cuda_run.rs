//! Runs every case of the conformance suite on kernels as CUDA gets them, where there is no GPU; `cargo xtask check cuda`
//! runs it.
//!
//! The CUDA C++ of each kernel is compiled for this machine's processor, into the folder that `RECMILL_RUN_CUDA` names. The
//! exit status is 1 when a result is not the reference's. An argument keeps the cases with that text in their name.
#![expect(clippy::print_stdout, reason = "this is a command for developers")]

use std::{process::ExitCode, time::Instant};

use recmill_kernels::{
    conformance::{self, Outcome},
    cuda_sources::{check_runs, chips},
};

fn main() -> ExitCode {
    if let Err(reason) = check_runs() {
        println!("kernels cannot be tested here: {reason}");
        return ExitCode::from(2);
    }
    let only = std::env::args().nth(1).unwrap_or_default();
    let (mut agree, mut failures) = (0, Vec::new());
    for (arch, device) in chips() {
        for case in conformance::cases().iter().filter(|case| case.name.contains(&only)) {
            let started = Instant::now();
            let result = (case.run)(device);
            let seconds = started.elapsed().as_secs_f64();
            match result {
                Ok(Outcome::NotOnDevice) if case.is_on_cpu_alone() => {}
                Ok(Outcome::NotOnDevice) => failures.push(format!("{} is not on sm_{arch}", case.name)),
                Ok(Outcome::Agrees { worst }) => {
                    agree += 1;
                    println!("sm_{arch}  {seconds:6.1} s  worst {worst:.3}  {}", case.name);
                }
                Err(failure) => {
                    println!("sm_{arch}  {seconds:6.1} s  FAIL         {}  {failure}", case.name);
                    failures.push(format!("{} on sm_{arch}: {failure}", case.name));
                }
            }
        }
    }
    println!("{agree} cases agree, {} do not", failures.len());
    failures.iter().for_each(|failure| println!("{failure}"));
    ExitCode::from(u8::from(!failures.is_empty() || agree == 0))
}
