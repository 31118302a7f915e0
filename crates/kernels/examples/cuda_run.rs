//! Runs every case of the conformance suite on kernels as CUDA gets them, where there is no GPU; `cargo xtask check cuda`
//! runs it.
//!
//! The CUDA C++ of each kernel is compiled for this machine's processor, into the folder that `RECMILL_RUN_CUDA` names. The
//! exit status is 1 when a result is not the reference's. An argument keeps the cases with that text in their name.
#![expect(clippy::print_stdout, reason = "this is a command for developers")]

use std::{process::ExitCode, thread, time::Instant};

use recmill_kernels::{
    Device,
    conformance::{self, Case, Outcome},
    cuda_sources::{check_runs, chips},
};

fn main() -> ExitCode {
    if let Err(reason) = check_runs() {
        println!("kernels cannot be tested here: {reason}");
        return ExitCode::from(2);
    }
    let only = std::env::args().nth(1).unwrap_or_default();
    let mut cases: Vec<Case> =
        conformance::cases().into_iter().filter(|case| case.name.contains(&only)).collect();
    let results: Vec<_> = thread::scope(|scope| {
        let mut running = Vec::new();
        for (arch, device) in chips() {
            let cases_of_chip = cases.clone();
            running.push(scope.spawn(move || run(&cases_of_chip, arch, device)));
            // The next chip begins with the last case: much of what the chips compile is the same, and compiled once.
            cases.reverse();
        }
        running.into_iter().map(|chip| chip.join().expect("cases do not panic")).collect()
    });
    let agree: usize = results.iter().map(|(agree, _)| agree).sum();
    let failures: Vec<&String> = results.iter().flat_map(|(_, failures)| failures).collect();
    println!("{agree} cases agree, {} do not", failures.len());
    failures.iter().for_each(|failure| println!("{failure}"));
    ExitCode::from(u8::from(!failures.is_empty() || agree == 0))
}

/// Runs `cases` on a chip; returns how many agree, and what is wrong with the others.
fn run(cases: &[Case], arch: u32, device: Device) -> (usize, Vec<String>) {
    let (mut agree, mut failures) = (0, Vec::new());
    for case in cases {
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
    (agree, failures)
}
