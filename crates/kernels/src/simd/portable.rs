//! Arrays of eight numbers that the compiler vectorizes as it can.

use super::Simd;

/// Needs no instructions beyond the build's own.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// `a * b + c`, fused only where the build's instructions have it: elsewhere it would be a slow library call.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; 8] {
    [f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)]
}

impl Simd for Portable {
    type F32 = [f32; 8];
    type F32x8 = [f32; 8];
    const LANES: usize = 8;
    const ACCUMULATORS: usize = 8;

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; 8] {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [f32; 8] {
        // SAFETY: the caller vouches for eight values.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const half::f16) -> [f32; 8] {
        // SAFETY: the caller vouches for eight values.
        unsafe { from.cast::<[half::f16; 8]>().read_unaligned() }.map(half::f16::to_f32)
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const half::bf16) -> [f32; 8] {
        // SAFETY: the caller vouches for eight values.
        unsafe { from.cast::<[half::bf16; 8]>().read_unaligned() }.map(half::bf16::to_f32)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: [f32; 8]) {
        // SAFETY: the caller vouches for eight values.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(v) }
    }

    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        each(|i| multiply_add(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn dot_pairs(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        let high = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        let low = |x: f32| f32::from_bits(x.to_bits() << 16);
        each(|i| low(a[i]) * low(b[i]) + (high(a[i]) * high(b[i]) + c[i]))
    }

    #[inline(always)]
    fn fnma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        each(|i| multiply_add(-a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn at_least_zero(self, v: [f32; 8]) -> [f32; 8] {
        each(|i| if v[i] < 0.0 { 0.0 } else { v[i] })
    }

    #[inline(always)]
    fn sum(self, v: [f32; 8]) -> f32 {
        let four = [v[0] + v[4], v[1] + v[5], v[2] + v[6], v[3] + v[7]];
        (four[0] + four[2]) + (four[1] + four[3])
    }

    #[inline(always)]
    fn sums(self, v: [[f32; 8]; 8]) -> [f32; 8] {
        v.map(|v| self.sum(v))
    }

    #[inline(always)]
    fn splat_x8(self, value: f32) -> [f32; 8] {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn load_x8(self, from: *const f32) -> [f32; 8] {
        // SAFETY: the caller vouches for eight values.
        unsafe { self.load(from) }
    }

    #[inline(always)]
    unsafe fn store_x8(self, to: *mut f32, v: [f32; 8]) {
        // SAFETY: the caller vouches for eight values.
        unsafe { self.store(to, v) }
    }

    #[inline(always)]
    fn mul_x8(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        self.mul(a, b)
    }

    #[inline(always)]
    fn fma_x8(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        self.fma(a, b, c)
    }

    #[inline(always)]
    fn abs_x8(self, v: [f32; 8]) -> [f32; 8] {
        v.map(f32::abs)
    }

    #[inline(always)]
    fn where_positive_x8(self, v: [f32; 8], then: [f32; 8]) -> [f32; 8] {
        each(|i| if v[i] > 0.0 { then[i] } else { 0.0 })
    }

    #[inline(always)]
    fn reread<T>(self, _at: &mut T) {}

    #[inline(always)]
    fn prefetch<T>(self, _at: *const T) {}

    #[inline(always)]
    fn prefetch_far<T>(self, _at: *const T) {}
}
