//! Exponentials and logarithms that loops over vectors can hold: no call, no branch.
//!
//! Everything is inlined into functions that are compiled once per instruction set. `FMA` says whether that set multiplies and adds in
//! one rounding.

/// `a * b + c`.
#[inline(always)]
pub(crate) fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `exp(x)` for `x <= 0`, to 2 units in the last place; 0 below -87.
#[inline(always)]
pub(crate) fn exp_of_negative<const FMA: bool>(x: f32) -> f32 {
    let x = x.max(-87.0);
    // Adding and taking away 1.5 * 2^23 rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let n = madd::<FMA>(x, std::f32::consts::LOG2_E, ROUND) - ROUND;
    // ln 2 in two parts, the first short enough that n times it is exact.
    let r = madd::<FMA>(n, 2.121_944_4e-4, madd::<FMA>(n, -0.693_359_4, x));
    let mut y = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        y = madd::<FMA>(y, r, coefficient);
    }
    let y = madd::<FMA>(y * r, r, r) + 1.0;
    y * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// A sum of `ln(1 + t)` for many `t` in `0 ..= 1`, at one logarithm for 512 of them.
#[derive(Clone, Copy)]
pub(crate) struct LogSum {
    sum: f64,
    product: f64,
    factors: u32,
}

impl LogSum {
    pub(crate) fn new() -> Self {
        Self { sum: 0.0, product: 1.0, factors: 0 }
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, t: f32) {
        // 512 factors of at most 2 stay below 2^1023.
        self.product *= 1.0 + f64::from(t);
        self.factors += 1;
        if self.factors == 512 {
            *self = Self { sum: self.total(), product: 1.0, factors: 0 };
        }
    }

    pub(crate) fn total(&self) -> f64 {
        self.sum + self.product.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_standard_library() {
        for step in 0..87_000 {
            let x = -(step as f32) / 1000.0;
            let (got, expected) = (exp_of_negative::<true>(x), x.exp());
            assert!((got - expected).abs() <= 3e-7 * expected, "exp({x}): {got} for {expected}");
            let got = exp_of_negative::<false>(x);
            assert!((got - expected).abs() <= 4e-7 * expected, "exp({x}): {got} for {expected}");
        }
        assert!(exp_of_negative::<true>(-1e30) < 1e-37);
    }
    #[test]
    fn a_sum_of_logarithms_is_one_logarithm_of_a_product() {
        let mut sum = LogSum::new();
        let terms: Vec<f32> = (0..2000).map(|i| (i % 97) as f32 / 96.0).collect();
        terms.iter().for_each(|&t| sum.add(t));
        let expected: f64 = terms.iter().map(|&t| f64::from(t).ln_1p()).sum();
        assert!((sum.total() - expected).abs() < 1e-9 * expected);
    }
}
