//! What a device can do at most, measured: the yardstick beside which a kernel's speed is stated.
//!
//! | function               | counts                                          | does                                       |
//! |------------------------|-------------------------------------------------|--------------------------------------------|
//! | [`f32_flops`]          | two operations a fused multiply-add             | 24 chains in registers, no memory          |
//! | [`int8_ops`]           | two operations a product of bytes               | as above, with AVX-512 VNNI                |
//! | [`read_bytes`]         | bytes                                           | sums an array larger than the caches       |
//! | [`Ceilings::measure`]  | both, on any device                             | on a GPU: a copy, counted read and written |
//!
//! On the CPU each is the best of many runs of a fraction of a millisecond on all threads of the current pool, since anything
//! else that runs can only make it slower; on a GPU see `peak/cube.rs`.

#[cfg(feature = "gpu")]
pub(crate) mod cube;

use std::{hint::black_box, time::Instant};

use rayon::prelude::*;

use crate::{
    Device, Result,
    buffer::on_gpu,
    simd::{Level, level},
};

const RUNS: usize = 300;
const CHAINS: usize = 24;

/// What a device can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Bytes a second from memory: read, on the CPU; read and written by a copy, on a GPU.
    pub bytes: f64,
    /// f32 operations a second, two a fused multiply-add.
    pub flops: f64,
}

impl Ceilings {
    /// Measures both; takes about a second.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`], [`crate::Error::OutOfMemory`], [`crate::Error::DeviceLost`].
    pub fn measure(device: Device) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Self { bytes: read_bytes(), flops: f32_flops() }),
            device => on_gpu!("peak", device, R => cube::measure::<R>(device)),
        }
    }
}

/// Returns the f32 operations a second of all threads, at the SIMD level of the caller.
pub fn f32_flops() -> f64 {
    let level = level();
    let rounds = if level == Level::Portable { 1 << 12 } else { 1 << 15 };
    let per_round = match level {
        Level::Avx512 => 16 * CHAINS,
        _ => 8 * CHAINS,
    };
    rate(2 * rounds * per_round, || match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => x86::f32_avx512(rounds),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => x86::f32_avx2(rounds),
        _ => portable(rounds),
    })
}

/// Returns the operations a second of all threads on pairs of bytes; `None` without instructions for them.
pub fn int8_ops() -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 && is_x86_feature_detected!("avx512vnni") {
        let rounds = 1 << 15;
        return Some(rate(2 * rounds * 64 * CHAINS, || x86::int8_avx512(rounds)));
    }
    None
}

/// Returns the bytes a second that all threads read from memory.
pub fn read_bytes() -> f64 {
    let values = vec![1u64; 64 << 20];
    let best = (0..5).map(|_| {
        let started = Instant::now();
        black_box(values.par_chunks(1 << 16).map(|chunk| chunk.iter().sum::<u64>()).sum::<u64>());
        started.elapsed().as_secs_f64()
    });
    size_of_val(&values[..]) as f64 / best.fold(f64::INFINITY, f64::min)
}

/// Returns operations a second when every thread does `operations` of them in `work`.
fn rate(operations: usize, work: impl Fn() -> f32 + Sync) -> f64 {
    let best = (0..RUNS).map(|_| {
        let started = Instant::now();
        rayon::broadcast(|_| black_box(work()));
        started.elapsed().as_secs_f64()
    });
    (operations * rayon::current_num_threads()) as f64 / best.fold(f64::INFINITY, f64::min)
}

fn portable(rounds: usize) -> f32 {
    let mut sums = [[0.0f32; 8]; CHAINS];
    let factor = black_box(0.5f32);
    for _ in 0..rounds {
        for sum in sums.as_flattened_mut() {
            *sum = factor.mul_add(factor, *sum);
        }
    }
    sums.as_flattened().iter().sum()
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions that the caller has checked for")]
mod x86 {
    use std::{arch::x86_64::*, hint::black_box};

    use super::CHAINS;

    pub(super) fn f32_avx512(rounds: usize) -> f32 {
        #[target_feature(enable = "avx512f")]
        fn run(rounds: usize) -> f32 {
            let factor = _mm512_set1_ps(black_box(0.5));
            let mut sums = [factor; CHAINS];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = _mm512_fmadd_ps(factor, *sum, factor);
                }
            }
            sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
        }
        // SAFETY: `Level::Avx512` is only chosen where the processor has avx512f.
        unsafe { run(rounds) }
    }

    pub(super) fn f32_avx2(rounds: usize) -> f32 {
        #[target_feature(enable = "avx2,fma")]
        fn run(rounds: usize) -> f32 {
            let factor = _mm256_set1_ps(black_box(0.5));
            // 12 chains twice: 24 do not fit the 16 registers.
            let mut sums = [factor; CHAINS / 2];
            for _ in 0..2 * rounds {
                for sum in &mut sums {
                    *sum = _mm256_fmadd_ps(factor, *sum, factor);
                }
            }
            sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
        }
        // SAFETY: `Level::Avx2` is only chosen where the processor has avx2 and fma.
        unsafe { run(rounds) }
    }

    pub(super) fn int8_avx512(rounds: usize) -> f32 {
        #[target_feature(enable = "avx512f,avx512vnni")]
        fn run(rounds: usize) -> f32 {
            let codes = _mm512_set1_epi32(black_box(0x0101_0101));
            let mut sums = [codes; CHAINS];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = _mm512_dpbusd_epi32(*sum, codes, codes);
                }
            }
            sums.into_iter().map(|sum| _mm512_reduce_add_epi32(sum) as f32).sum()
        }
        // SAFETY: the caller has asked the processor for avx512vnni.
        unsafe { run(rounds) }
    }
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<crate::cuda_sources::Instance> {
    let run = |device| on_gpu!("peak", device, R => cube::launch_once::<R>(device));
    vec![crate::cuda_sources::Instance::new("peak", run)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{levels, with_level};

    #[test]
    fn every_level_has_a_rate() {
        for level in levels() {
            with_level(level, || {
                assert!(f32_flops().is_finite());
                assert!(int8_ops().is_none_or(f64::is_finite));
            });
        }
    }
}
