//! Runs every case of the conformance suite on kernels as CUDA gets them, where there is no GPU; `cargo xtask check cuda`
//! runs it.
//!
//! The CUDA C++ of each kernel is compiled for this machine's processor, into the folder that `RECMILL_RUN_CUDA` names. The
//! exit status is 1 when a result is not the reference's. An argument keeps the cases with that text in their name; behind it
//! `80` or `90` takes one of the chips, which otherwise run at the same time, each in a process: a compiled kernel runs once at a time.
#![expect(clippy::print_stdout, reason = "this is a command for developers")]

use std::{
    error::Error,
    process::{Child, Command, ExitCode},
    time::Instant,
};

use recmill_kernels::{
    Device,
    conformance::{self, Case, Outcome},
    cuda_sources::{check_runs, chips},
};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Err(reason) = check_runs() {
        println!("kernels cannot be tested here: {reason}");
        return Ok(ExitCode::from(2));
    }
    let mut arguments = std::env::args().skip(1);
    let (only, chip) = (arguments.next().unwrap_or_default(), arguments.next());
    let Some(chip) = chip else { return every_chip(&only) };
    let place = chips().into_iter().enumerate().find(|(_, (arch, _))| arch.to_string() == chip);
    let (place, (arch, device)) = place.ok_or("there is no such chip")?;
    let mut cases: Vec<Case> =
        conformance::cases().into_iter().filter(|case| case.name.contains(&only)).collect();
    // Every second chip begins with the last case: much of what chips compile is the same, and then compiled once.
    if place % 2 == 1 {
        cases.reverse();
    }
    let agree = run(&cases, arch, device);
    Ok(ExitCode::from(u8::from(!agree)))
}

/// Runs the cases on all chips at once.
fn every_chip(only: &str) -> Result<ExitCode, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let start = |(arch, _)| Command::new(&program).args([only, &format!("{arch}")]).spawn();
    let running: Vec<Child> = chips().into_iter().map(start).collect::<Result<_, _>>()?;
    let mut agree = true;
    for mut chip in running {
        agree &= chip.wait()?.success();
    }
    Ok(ExitCode::from(u8::from(!agree)))
}

/// Runs `cases` on a chip and returns whether there were any and all agree.
fn run(cases: &[Case], arch: u32, device: Device) -> bool {
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
    println!("sm_{arch}: {agree} cases agree, {} do not", failures.len());
    failures.iter().for_each(|failure| println!("{failure}"));
    failures.is_empty() && agree > 0
}
