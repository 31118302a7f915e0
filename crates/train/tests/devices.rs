//! Every device of this machine learns and ranks as the CPU does.

use recmill_kernels::conformance::devices;
use recmill_train::conformance::cases;

#[test]
fn every_device_learns_what_the_cpu_learns() {
    let mut failures = Vec::new();
    for device in devices() {
        for case in cases() {
            if let Err(failure) = (case.run)(device) {
                failures.push(format!("{} on {device}: {failure}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
