//! What the machine can do, measured in the same run as the kernel that is compared with it.

use std::time::Instant;

use recmill_kernels::peak;

/// Measured ceilings of this machine, with all threads of the current pool.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// f32 operations a second of fused multiply-adds in registers.
    pub flops: f64,
    /// Bytes a second read from memory.
    pub bytes: f64,
}

impl Ceilings {
    /// Measures both; takes about a second.
    pub fn measure() -> Self {
        Self { flops: peak::f32_flops(), bytes: peak::read_bytes() }
    }

    /// States what `operations` and `bytes` in `seconds` are, and their shares of the ceilings.
    pub fn share(&self, name: &str, seconds: f64, operations: f64, bytes: f64) -> String {
        let (flops, rate) = (operations / seconds, bytes / seconds);
        format!(
            "{name}: {:.1} GFLOP/s ({:.0} % of {:.0}), {:.1} GB/s of operands ({:.0} % of {:.1} from memory)",
            flops * 1e-9,
            100.0 * flops / self.flops,
            self.flops * 1e-9,
            rate * 1e-9,
            100.0 * rate / self.bytes,
            self.bytes * 1e-9,
        )
    }
}

/// Returns the seconds of the fastest of `runs` runs: whatever else the machine does only adds to them.
pub fn fastest(runs: usize, mut work: impl FnMut()) -> f64 {
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}
