//! 256-bit vectors with fused multiply-add.

use std::arch::x86_64::*;

use super::Simd;

/// Proof that this processor has the instructions of [`Level::Avx2`](super::Level::Avx2).
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor has the instructions of `Level::Avx2`.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

/// Adds neighbours of four vectors: each half holds the sums of its part, in order.
#[inline(always)]
fn sum_halves(v: [__m256; 4]) -> __m256 {
    // SAFETY: called from methods of `Avx2` only, which is the proof of the instructions.
    unsafe {
        let ab = _mm256_add_ps(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
        let cd = _mm256_add_ps(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
        let low = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
        let high = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
        _mm256_add_ps(low, high)
    }
}

// SAFETY, for every block below: a value of `Avx2` exists, so the processor has the instructions; pointers are the
// caller's to vouch for.
impl Simd for Avx2 {
    type F32 = __m256;
    type F32x8 = __m256;
    const LANES: usize = 8;
    const ACCUMULATORS: usize = 8;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const half::f16) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const half::bf16) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m256) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, v) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn dot_pairs(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let high =
                |x| _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(-65536)));
            let low = |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(x)));
            _mm256_fmadd_ps(low(a), low(b), _mm256_fmadd_ps(high(a), high(b), c))
        }
    }

    #[inline(always)]
    fn fnma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn at_least_zero(self, v: __m256) -> __m256 {
        // SAFETY: see above. Of a NaN and another number, the instruction gives its second operand.
        unsafe { _mm256_max_ps(_mm256_setzero_ps(), v) }
    }

    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn sums(self, v: [__m256; 8]) -> __m256 {
        let abcd = sum_halves([v[0], v[1], v[2], v[3]]);
        let efgh = sum_halves([v[4], v[5], v[6], v[7]]);
        // SAFETY: see above.
        unsafe {
            let low = _mm256_permute2f128_ps::<0x20>(abcd, efgh);
            let high = _mm256_permute2f128_ps::<0x31>(abcd, efgh);
            _mm256_add_ps(low, high)
        }
    }

    #[inline(always)]
    fn splat_x8(self, value: f32) -> __m256 {
        self.splat(value)
    }

    #[inline(always)]
    unsafe fn load_x8(self, from: *const f32) -> __m256 {
        // SAFETY: see above.
        unsafe { self.load(from) }
    }

    #[inline(always)]
    unsafe fn store_x8(self, to: *mut f32, v: __m256) {
        // SAFETY: see above.
        unsafe { self.store(to, v) }
    }

    #[inline(always)]
    fn mul_x8(self, a: __m256, b: __m256) -> __m256 {
        self.mul(a, b)
    }

    #[inline(always)]
    fn fma_x8(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        self.fma(a, b, c)
    }

    #[inline(always)]
    fn abs_x8(self, v: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), v) }
    }

    #[inline(always)]
    fn where_positive_x8(self, v: __m256, then: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(v, _mm256_setzero_ps()), then) }
    }

    #[inline(always)]
    fn reread<T>(self, at: &mut T) {
        // SAFETY: no instruction at all; the compiler takes it to read and write any memory that it may know of.
        unsafe {
            std::arch::asm!("/* {0} */", in(reg) std::ptr::from_mut(at), options(nostack, preserves_flags))
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn prefetch_far<T>(self, at: *const T) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}
