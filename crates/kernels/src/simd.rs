//! Which vector instructions this run uses.
//!
//! Kernels are written once, against the trait `Simd`, and compiled once a level; `dispatch` enters the copy for the level
//! that [`level`] names. `RECMILL_SIMD=portable|avx2|avx512` forces a lower level for the whole process, and
//! [`with_level`] for one call.
//!
//! | level    | lanes | needs                                           |
//! |----------|-------|-------------------------------------------------|
//! | portable | 8     | nothing: arrays that the compiler vectorizes    |
//! | avx2     | 8     | avx2, fma, f16c                                 |
//! | avx512   | 16    | avx512f, avx512bw, avx512dq, avx512vl and avx2's |

#![expect(unsafe_code, reason = "vector instructions, and the promise that the processor has them")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::{cell::Cell, sync::OnceLock};

use half::{bf16, f16};

/// A set of vector instructions, from the least to the most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust.
    Portable,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors.
    Avx512,
}

impl Level {
    /// Returns the level's name as `RECMILL_SIMD` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// Returns `Simd::LANES` of the level.
    pub(crate) fn lanes(self) -> usize {
        if self == Level::Avx512 { 16 } else { 8 }
    }

    /// Returns `Simd::ACCUMULATORS` of the level.
    pub(crate) fn accumulators(self) -> usize {
        if self == Level::Avx512 { 16 } else { 8 }
    }
}

thread_local! {
    static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
}

/// Returns the most capable level of this processor.
pub fn detected() -> Level {
    static DETECTED: OnceLock<Level> = OnceLock::new();
    *DETECTED.get_or_init(detect)
}

/// Returns the levels that this processor has, the least capable first.
pub fn levels() -> impl Iterator<Item = Level> {
    [Level::Portable, Level::Avx2, Level::Avx512].into_iter().filter(|&level| level <= detected())
}

/// Returns the level that operations called from this thread use.
///
/// An operation asks once, on entry, and hands the answer to its worker threads.
pub fn level() -> Level {
    static CHOSEN: OnceLock<Level> = OnceLock::new();
    FORCED.get().unwrap_or_else(|| {
        *CHOSEN.get_or_init(|| {
            let asked = std::env::var("RECMILL_SIMD").ok();
            levels().find(|level| asked.as_deref() == Some(level.name())).unwrap_or(detected())
        })
    })
}

/// Runs `work` with operations called from this thread at `level`, or at the processor's own if that is lower.
pub fn with_level<R>(level: Level, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Level>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    let _restore = Restore(FORCED.replace(Some(level.min(detected()))));
    work()
}

/// The vector operations that kernels are written against; a value is proof that the processor has them.
///
/// Rows of numbers are handled in `F32`, as wide as the level has it; what belongs to a block of eight rows, one number
/// each, in `F32x8`. Methods that take pointers are unsafe: the caller vouches for `LANES` (or eight) values there, at
/// any alignment.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// `LANES` numbers.
    type F32: Copy;
    /// Eight numbers.
    type F32x8: Copy;
    /// Numbers in an `F32`.
    const LANES: usize;
    /// How many `F32` a loop may accumulate into beside its operands without leaving the registers.
    const ACCUMULATORS: usize;

    fn splat(self, value: f32) -> Self::F32;
    unsafe fn load(self, from: *const f32) -> Self::F32;
    unsafe fn load_f16(self, from: *const f16) -> Self::F32;
    unsafe fn load_bf16(self, from: *const bf16) -> Self::F32;
    unsafe fn store(self, to: *mut f32, v: Self::F32);
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `c` and the products of the two bf16 numbers in each lane of `a` and of `b`; see `dispatch_pairs`.
    fn dot_pairs(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `c - a * b`.
    fn fnma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `v`, but zero where it is below; NaN stays.
    fn at_least_zero(self, v: Self::F32) -> Self::F32;
    /// The sum of all lanes.
    fn sum(self, v: Self::F32) -> f32;
    /// The sum of all lanes of each of eight vectors, in order.
    fn sums(self, v: [Self::F32; 8]) -> Self::F32x8;

    fn splat_x8(self, value: f32) -> Self::F32x8;
    unsafe fn load_x8(self, from: *const f32) -> Self::F32x8;
    unsafe fn store_x8(self, to: *mut f32, v: Self::F32x8);
    fn mul_x8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn fma_x8(self, a: Self::F32x8, b: Self::F32x8, c: Self::F32x8) -> Self::F32x8;
    fn abs_x8(self, v: Self::F32x8) -> Self::F32x8;
    /// `then` in the lanes where `v` is above zero, zero elsewhere (so where `v` is NaN).
    fn where_positive_x8(self, v: Self::F32x8, then: Self::F32x8) -> Self::F32x8;

    /// Makes the compiler read all memory again, `at` too, instead of keeping what it knows of it in registers that a loop
    /// has better use for, or taking a stored vector apart for what a load does for nothing.
    fn reread<T>(self, at: &mut T);

    /// Asks for the cache line at `at`, which need not be readable.
    fn prefetch<T>(self, at: *const T);
    /// As `prefetch`, into the second-level cache alone.
    fn prefetch_far<T>(self, at: *const T);
}

/// Work that is compiled once a level. `run` must be `#[inline(always)]`, and so must all that it calls with `simd`: code
/// left outside is compiled without the level's instructions.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `kernel` with the instructions of `level`.
pub(crate) fn dispatch<K: Kernel>(level: Level, kernel: K) -> K::Output {
    match level {
        // SAFETY: `level` never passes what the processor has: see `level` and `with_level`.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { run_avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { run_avx2(kernel) },
        _ => kernel.run(portable::Portable),
    }
}

/// Returns whether this processor multiplies pairs of bf16 numbers; elsewhere `dot_pairs` takes longer than two products of f32.
pub fn has_bf16_products() -> bool {
    detected_bf16_products() && level() == Level::Avx512
}

fn detected_bf16_products() -> bool {
    static DETECTED: OnceLock<bool> = OnceLock::new();
    *DETECTED.get_or_init(detect_bf16_products)
}

/// Returns the level at which pairs are multiplied where everything else is done at `level`: operands are to be packed for it.
pub(crate) fn level_of_pairs(level: Level) -> Level {
    // Not every processor with 512-bit vectors has the instruction for pairs in them.
    if detected_bf16_products() { level } else { level.min(Level::Avx2) }
}

/// As `dispatch`, for a kernel that calls `dot_pairs`, at a level that `level_of_pairs` gave.
pub(crate) fn dispatch_pairs<K: Kernel>(level: Level, kernel: K) -> K::Output {
    match level_of_pairs(level) {
        // SAFETY: the processor has the level's instructions and those of pairs.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { run_avx512_bf16(kernel) },
        level => dispatch(level, kernel),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn run_avx512_bf16<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the processor.
    kernel.run(unsafe { avx512::Avx512::new() })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the processor.
    kernel.run(unsafe { avx512::Avx512::new() })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the processor.
    kernel.run(unsafe { avx2::Avx2::new() })
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Portable,
    }
}

#[cfg(target_arch = "x86_64")]
fn detect_bf16_products() -> bool {
    is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn detect_bf16_products() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Portable
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Everything;

    impl Kernel for Everything {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let numbers: Vec<f32> = (0..8 * S::LANES).map(|i| (i % 11) as f32 - 5.0).collect();
            // SAFETY: every pointer below is into `numbers`, `half` or `out`, with a whole vector behind it.
            unsafe {
                let v: [S::F32; 8] = std::array::from_fn(|i| simd.load(numbers[i * S::LANES..].as_ptr()));
                let expected: Vec<f32> = numbers.chunks(S::LANES).map(|v| v.iter().sum()).collect();
                let mut out = [0.0; 16];
                simd.store_x8(out.as_mut_ptr(), simd.sums(v));
                assert_eq!(out[..8], expected[..]);
                assert_eq!(simd.sum(v[3]), expected[3]);
                simd.store(out.as_mut_ptr(), simd.fnma(v[0], v[1], simd.fma(v[2], v[3], simd.splat(1.0))));
                for i in 0..S::LANES {
                    let at = |row: usize| numbers[row * S::LANES + i];
                    assert_eq!(out[i], at(2) * at(3) + 1.0 - at(0) * at(1));
                }
                let f16s: Vec<f16> = numbers.iter().map(|&n| f16::from_f32(n)).collect();
                simd.store(out.as_mut_ptr(), simd.load_f16(f16s.as_ptr()));
                assert_eq!(out[..S::LANES], numbers[..S::LANES]);
                let bf16s: Vec<bf16> = numbers.iter().map(|&n| bf16::from_f32(n)).collect();
                simd.store(out.as_mut_ptr(), simd.load_bf16(bf16s.as_ptr()));
                assert_eq!(out[..S::LANES], numbers[..S::LANES]);
                let v = simd.load_x8([f32::NAN, -3.0, -0.0, 0.0, 1.0, 2.0, f32::INFINITY, 5.0].as_ptr());
                simd.store_x8(out.as_mut_ptr(), simd.where_positive_x8(v, simd.splat_x8(7.0)));
                assert_eq!(out[..8], [0.0, 0.0, 0.0, 0.0, 7.0, 7.0, 7.0, 7.0]);
                simd.store_x8(out.as_mut_ptr(), simd.abs_x8(v));
                assert_eq!(out[1], 3.0);
                let mut mixed = [1.0; 16];
                mixed[..4].copy_from_slice(&[f32::NAN, -3.0, f32::INFINITY, f32::NEG_INFINITY]);
                simd.store(out.as_mut_ptr(), simd.at_least_zero(simd.load(mixed.as_ptr())));
                assert!(out[0].is_nan());
                assert_eq!(out[1..5], [0.0, f32::INFINITY, 0.0, 1.0]);
            }
        }
    }

    #[test]
    fn every_level_computes_the_same() {
        for level in levels() {
            dispatch(level, Everything);
        }
    }

    #[test]
    fn a_forced_level_ends_with_its_call_and_never_passes_the_processor() {
        let before = level();
        with_level(Level::Portable, || assert_eq!(level(), Level::Portable));
        with_level(Level::Avx512, || assert_eq!(level(), detected()));
        assert_eq!(level(), before);
        assert_eq!(levels().last(), Some(detected()));
    }
}
