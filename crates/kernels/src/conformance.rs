//! The cases that every operation is checked by against its naive reference, on any device.
//!
//! `tests/conformance.rs` runs them on every device of the machine, and `recmill doctor` on a user's.

mod als;
mod embedding_bag;
mod gather;
mod hash;
mod interaction;
mod negative;
mod operands;
mod pairwise_update;
mod pairwise_walk;
mod rating_update;
mod score_topk;
mod segment;
mod similarity;
mod sparse_update;
mod spd_inverse;

use crate::{Device, Error, Table, simd};

/// One operation on one family of inputs, against its reference.
#[derive(Clone, Copy)]
pub struct Case {
    /// `operation/what is special about the input`.
    pub name: &'static str,
    /// Runs the case on a device.
    pub run: fn(Device) -> Result<Outcome, Failure>,
}

/// How a case that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// The device agrees with the reference.
    Agrees {
        /// The largest difference found, as a share of what is tolerated.
        worst: f64,
    },
    /// The operation has no variant for this device.
    NotOnDevice,
}

/// How a case failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A value differs from the reference by more than the named tolerance.
    #[error("{what}: value {at} is {got}, expected {expected} within `{tolerance}`")]
    Differs {
        /// Which input of the case.
        what: String,
        /// The position of the value.
        at: usize,
        /// What the reference gives.
        expected: f64,
        /// What the device gives.
        got: f64,
        /// How far apart they may be.
        tolerance: f64,
    },
    /// Two results that must have the same bits do not.
    #[error("{what}: bits differ at value `{at}`")]
    Bits {
        /// Which input of the case.
        what: String,
        /// The position of the value.
        at: usize,
    },
    /// An error was returned where there should be none, or another one than expected.
    #[error("{what}: `{got}`")]
    Refused {
        /// Which input of the case.
        what: String,
        /// The error.
        got: Error,
    },
    /// Something else went wrong.
    #[error("{what}: {got}")]
    Broken {
        /// Which input of the case.
        what: String,
        /// What went wrong, in words.
        got: String,
    },
    /// No error was returned where there should be one.
    #[error("no error for `{what}`")]
    Accepted {
        /// Which input of the case.
        what: String,
    },
}

/// Returns every case of the crate.
pub fn cases() -> Vec<Case> {
    [
        als::CASES,
        embedding_bag::CASES,
        gather::CASES,
        hash::CASES,
        interaction::CASES,
        negative::CASES,
        pairwise_update::CASES,
        rating_update::CASES,
        score_topk::CASES,
        segment::CASES,
        similarity::CASES,
        sparse_update::CASES,
        spd_inverse::CASES,
    ]
    .concat()
}

/// The operations that run on the CPU alone: their cases end with [`Outcome::NotOnDevice`] on a GPU, and no others do.
pub const ON_CPU_ALONE: [&str; 3] = ["scatter_add", "rating_update", "spd_inverse"];

impl Case {
    /// Returns whether its operation is one of [`ON_CPU_ALONE`].
    pub fn is_on_cpu_alone(&self) -> bool {
        self.name.split('/').next().is_some_and(|operation| ON_CPU_ALONE.contains(&operation))
    }
}

/// Returns the devices that cases can run on here: the CPU, and the first GPU of each kind that answers.
pub fn devices() -> Vec<Device> {
    [Device::Cpu, Device::Cuda(0), Device::Wgpu(0)]
        .into_iter()
        .filter(|device| device.check().is_ok())
        .collect()
}

/// Collects the comparisons of one case.
#[derive(Default)]
pub(crate) struct Comparison {
    worst: f64,
}

impl Comparison {
    /// Compares `got` with `expected`; each value may be off by `tolerance` times the largest magnitude expected.
    pub(crate) fn close(
        &mut self,
        what: impl Fn() -> String,
        got: &[f32],
        expected: &[f64],
        tolerance: f64,
    ) -> Result<(), Failure> {
        self.close_above(what, got, expected, f64::MIN_POSITIVE, tolerance)
    }

    /// As [`Comparison::close`], with `floor` as the least magnitude that the tolerance is a share of: a row whose exact
    /// values cancel to zero still carries the rounding of the numbers that it was computed from.
    pub(crate) fn close_above(
        &mut self,
        what: impl Fn() -> String,
        got: &[f32],
        expected: &[f64],
        floor: f64,
        tolerance: f64,
    ) -> Result<(), Failure> {
        let largest = largest(expected).max(floor);
        if got.len() != expected.len() {
            let shape =
                Error::Shape { op: "conformance", what: "result", expected: expected.len(), got: got.len() };
            return Err(Failure::Refused { what: what(), got: shape });
        }
        for (at, (&got, &expected)) in got.iter().zip(expected).enumerate() {
            let off = (f64::from(got) - expected).abs() / (largest * tolerance);
            if off.is_nan() || off > 1.0 {
                let (got, tolerance) = (f64::from(got), largest * tolerance);
                return Err(Failure::Differs { what: what(), at, expected, got, tolerance });
            }
            self.worst = self.worst.max(off);
        }
        Ok(())
    }

    /// Ends the case.
    pub(crate) fn outcome(self) -> Result<Outcome, Failure> {
        Ok(Outcome::Agrees { worst: self.worst })
    }
}

/// Compares two results that must have the same bits.
pub(crate) fn same_bits(what: impl Fn() -> String, one: &[f32], other: &[f32]) -> Result<(), Failure> {
    let differs = one.len().min(other.len());
    match one.iter().zip(other).position(|(a, b)| a.to_bits() != b.to_bits()) {
        Some(at) => Err(Failure::Bits { what: what(), at }),
        None if one.len() != other.len() => Err(Failure::Bits { what: what(), at: differs }),
        None => Ok(()),
    }
}

/// Checks that `result` is the error that `expected` accepts.
pub(crate) fn refused<T>(
    what: &str,
    result: crate::Result<T>,
    expected: impl Fn(&Error) -> bool,
) -> Result<(), Failure> {
    match result {
        Ok(_) => Err(Failure::Accepted { what: what.to_owned() }),
        Err(got) if !expected(&got) => Err(Failure::Refused { what: what.to_owned(), got }),
        Err(_) => Ok(()),
    }
}

/// Numbers for cases: the same on every machine.
pub(crate) struct Numbers(u64);

impl Numbers {
    /// A stream of its own for each `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits (SplitMix64).
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A whole number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// A number in `-1 .. 1`, a multiple of 2⁻⁷ so that f16 and bf16 hold it exactly.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.below(257) as f32 - 128.0) / 128.0
    }

    /// A table of such numbers in chunks of `chunk_rows`.
    pub(crate) fn table(
        &mut self,
        rows: usize,
        dim: usize,
        chunk_rows: u32,
        device: Device,
    ) -> crate::Result<Table> {
        let values: Vec<f32> = (0..rows * dim).map(|_| self.unit()).collect();
        Table::from_f32_in_chunks(&values, dim, chunk_rows, device, "a conformance case")
    }
}

/// Runs `work` on a pool of `threads` threads of its own, at the vector level of the calling thread; in that thread where
/// no pool can be had.
pub(crate) fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    let level = simd::level();
    let work = move || simd::with_level(level, work);
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    }
}

/// Returns the largest magnitude of `values`.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()))
}
