//! The vector part of a conjugate gradient step.

#![expect(unsafe_code, reason = "whole-vector loads and stores")]

use crate::simd::{Kernel, Simd};

/// `residual = -(product + ridge * x)`: what the first pass adds the right-hand side to.
pub(super) struct Negate<'a> {
    pub(super) product: &'a [f32],
    pub(super) x: &'a [f32],
    pub(super) ridge: f32,
    pub(super) residual: &'a mut [f32],
}

impl Kernel for Negate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for ((r, &q), &x) in self.residual.iter_mut().zip(self.product).zip(self.x) {
            *r = -(q + self.ridge * x);
        }
    }
}

/// `aᵀb` of whole vectors.
pub(super) struct Dot<'a>(pub(super) &'a [f32], pub(super) &'a [f32]);

impl Kernel for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let n = self.0.len();
        assert!(self.1.len() == n && n.is_multiple_of(S::LANES));
        let mut sums = [simd.splat(0.0); 2];
        for (k, at) in (0..n).step_by(S::LANES).enumerate() {
            // SAFETY: both have a whole vector at `at`.
            unsafe {
                let (a, b) = (simd.load(self.0.as_ptr().add(at)), simd.load(self.1.as_ptr().add(at)));
                sums[k % 2] = simd.fma(a, b, sums[k % 2]);
            }
        }
        simd.sum(simd.add(sums[0], sums[1]))
    }
}

/// One step along the direction `p`, `q` being its product with the matrix of entries and `gram`.
pub(super) struct Step<'a> {
    pub(super) x: &'a mut [f32],
    pub(super) r: &'a mut [f32],
    pub(super) p: &'a mut [f32],
    pub(super) q: &'a mut [f32],
    pub(super) ridge: f32,
    /// `rᵀr`.
    pub(super) rho: f32,
    /// Whether this is the last step: the residual is not needed after it.
    pub(super) last: bool,
}

/// What a step found.
pub(super) enum Stepped {
    /// The new `rᵀr`.
    Residual(f32),
    /// `pᵀAp` is not positive.
    NotPositive,
}

impl Kernel for Step<'_> {
    type Output = Stepped;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Stepped {
        let n = self.p.len();
        let Step { x, r, p, q, ridge, rho, last } = self;
        for (q, &p) in q.iter_mut().zip(&*p) {
            *q += ridge * p;
        }
        let curvature = Dot(p, q).run(simd);
        if curvature <= 0.0 {
            return Stepped::NotPositive;
        }
        let alpha = rho / curvature;
        for (x, &p) in x[..n].iter_mut().zip(&*p) {
            *x += alpha * p;
        }
        if last {
            return Stepped::Residual(rho);
        }
        for (r, &q) in r[..n].iter_mut().zip(&*q) {
            *r -= alpha * q;
        }
        let next = Dot(r, r).run(simd);
        let beta = next / rho;
        for (p, &r) in p.iter_mut().zip(&*r) {
            *p = r + beta * *p;
        }
        Stepped::Residual(next)
    }
}
