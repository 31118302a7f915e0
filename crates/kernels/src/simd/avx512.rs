//! 512-bit vectors.

use std::arch::x86_64::*;

use super::Simd;

/// Proof that this processor has the instructions of [`Level::Avx512`](super::Level::Avx512).
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The processor has the instructions of `Level::Avx512`.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

/// Adds neighbours of two vectors until each quarter holds the sums of its part of four vectors, in order.
#[inline(always)]
fn sum_quarters(v: [__m512; 4]) -> __m512 {
    // SAFETY: called from methods of `Avx512` only, which is the proof of the instructions.
    unsafe {
        let ab = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
        let cd = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
        // Each quarter: a0 b0 a1 b1 and c0 d0 c1 d1.
        let low = _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd);
        let high = _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd);
        _mm512_add_ps(low, high)
    }
}

// SAFETY, for every block below: a value of `Avx512` exists, so the processor has the instructions; pointers are the
// caller's to vouch for.
impl Simd for Avx512 {
    type F32 = __m512;
    type F32x8 = __m256;
    const LANES: usize = 16;
    const ACCUMULATORS: usize = 16;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const half::f16) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const half::bf16) -> __m512 {
        // SAFETY: see above.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m512) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn dot_pairs(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see above; and `dispatch_pairs` enters here only where the processor has this instruction, too.
        unsafe {
            let pairs = |x: __m512| std::mem::transmute::<__m512, __m512bh>(x);
            _mm512_dpbf16_ps(c, pairs(a), pairs(b))
        }
    }

    #[inline(always)]
    fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn at_least_zero(self, v: __m512) -> __m512 {
        // SAFETY: see above. Of a NaN and another number, the instruction gives its second operand.
        unsafe { _mm512_max_ps(_mm512_setzero_ps(), v) }
    }

    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_add_ps(v) }
    }

    #[inline(always)]
    fn sums(self, v: [__m512; 8]) -> __m256 {
        let abcd = sum_quarters([v[0], v[1], v[2], v[3]]);
        let efgh = sum_quarters([v[4], v[5], v[6], v[7]]);
        // SAFETY: see above.
        unsafe {
            let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(abcd, efgh);
            let high = _mm512_shuffle_f32x4::<0b11_10_11_10>(abcd, efgh);
            let pairs = _mm512_add_ps(low, high);
            let even = _mm512_shuffle_f32x4::<0b00_00_10_00>(pairs, pairs);
            let odd = _mm512_shuffle_f32x4::<0b00_00_11_01>(pairs, pairs);
            _mm512_castps512_ps256(_mm512_add_ps(even, odd))
        }
    }

    #[inline(always)]
    fn splat_x8(self, value: f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load_x8(self, from: *const f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_x8(self, to: *mut f32, v: __m256) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, v) }
    }

    #[inline(always)]
    fn mul_x8(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma_x8(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
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
