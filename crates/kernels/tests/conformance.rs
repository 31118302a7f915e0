//! Every operation against its reference, on every device of this machine.

use recmill_kernels::{
    conformance::{self, Case, Outcome, devices},
    simd,
};

/// Every case; while working on one operation, those with the text of `RECMILL_CASES` in their name.
fn cases() -> Vec<Case> {
    let only = std::env::var("RECMILL_CASES").unwrap_or_default();
    conformance::cases().into_iter().filter(|case| case.name.contains(&only)).collect()
}

#[test]
fn every_case_on_every_device() {
    let mut failures = Vec::new();
    for device in devices() {
        for case in cases() {
            match (case.run)(device) {
                Ok(Outcome::NotOnDevice) => {
                    let expected = device != recmill_kernels::Device::Cpu && case.is_on_cpu_alone();
                    assert!(expected, "{} is no longer on {device}", case.name);
                }
                Ok(Outcome::Agrees { worst }) => assert!(worst <= 1.0, "{}", case.name),
                Err(failure) => failures.push(format!("{} on {device}: {failure}", case.name)),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_case_at_every_vector_level() {
    for level in simd::levels() {
        for case in cases() {
            let result = simd::with_level(level, || (case.run)(recmill_kernels::Device::Cpu));
            assert!(result.is_ok(), "{} at {}: {}", case.name, level.name(), result.unwrap_err());
        }
    }
}
