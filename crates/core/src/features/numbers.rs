//! What one pass over the numbers of a column leaves: mean, deviation and a sample for quantiles.
//!
//! Mean and variance by Welford's updates in f64 (Welford 1962). Quantiles from a sample of at most [`SAMPLE`] numbers
//! (Vitter 1985, algorithm R), which is exact for no more rows than that and off by about 0.3% of the rows beyond. The
//! draw depends on the number's place alone, so that the same file gives the same sample.

use super::hash::mix64;

/// The numbers that are kept of a column.
pub(super) const SAMPLE: usize = 32_768;

/// Mean and variance of numbers as they come.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments {
    n: u64,
    mean: f64,
    /// Sum of squared distances from the mean.
    squares: f64,
}

impl Moments {
    pub(super) fn add(&mut self, x: f64) {
        self.n += 1;
        let before = x - self.mean;
        self.mean += before / self.n as f64;
        self.squares += before * (x - self.mean);
    }

    pub(super) fn mean(&self) -> f64 {
        self.mean
    }

    /// Returns the standard deviation of all numbers; 0 of none.
    pub(super) fn deviation(&self) -> f64 {
        if self.n == 0 { 0.0 } else { (self.squares / self.n as f64).sqrt() }
    }
}

/// A sample in which each number is as likely as any other.
#[derive(Clone, Debug, Default)]
pub(super) struct Reservoir {
    kept: Vec<f64>,
    n: u64,
}

impl Reservoir {
    pub(super) fn add(&mut self, x: f64) {
        if self.kept.len() < SAMPLE {
            self.kept.push(x);
        } else {
            // The high bits of a product instead of a remainder: no bias that could be seen, and no division.
            let place = (u128::from(mix64(self.n)) * u128::from(self.n + 1)) >> 64;
            if let Some(kept) = self.kept.get_mut(place as usize) {
                *kept = x;
            }
        }
        self.n += 1;
    }

    /// Returns the sample in ascending order.
    pub(super) fn sorted(mut self) -> Vec<f64> {
        self.kept.sort_unstable_by(f64::total_cmp);
        self.kept
    }
}

/// Returns the median of ascending numbers; 0 of none.
pub(super) fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n => sorted[(n - 1) / 2].midpoint(sorted[n / 2]),
    }
}

/// Returns the ascending bounds that cut ascending numbers into at most `buckets`.
///
/// Each takes its share of the numbers that are left, and all that equal its last: a number that most rows have is one
/// bucket, and the others share the rest.
pub(super) fn bounds(sorted: &[f64], buckets: u32) -> Vec<f64> {
    let mut bounds = Vec::new();
    let mut first = 0;
    for left in (2..=buckets as usize).rev() {
        let mut end = first + (sorted.len() - first).div_ceil(left);
        while end < sorted.len() && end > 0 && sorted[end] == sorted[end - 1] {
            end += 1;
        }
        if end >= sorted.len() || end == 0 {
            break;
        }
        bounds.push(sorted[end]);
        first = end;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_computed_by_hand() {
        let mut moments = Moments::default();
        [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].iter().for_each(|&x| moments.add(x));
        assert_eq!((moments.mean(), moments.deviation()), (5.0, 2.0));
        let mut far = Moments::default();
        [1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0].iter().for_each(|&x| far.add(x));
        assert_eq!((far.mean(), far.deviation()), (1e9 + 10.0, 22.5f64.sqrt()));
        assert_eq!(Moments::default().deviation(), 0.0);
    }

    #[test]
    fn bounds_cut_into_equal_parts_and_never_twice_at_one_place() {
        let eight: Vec<f64> = (1..=8).map(f64::from).collect();
        assert_eq!(bounds(&eight, 4), [3.0, 5.0, 7.0]);
        assert_eq!(bounds(&[0.0, 0.0, 0.0, 0.0, 1.0, 2.0], 3), [1.0, 2.0]);
        assert_eq!(bounds(&[7.0; 5], 4), Vec::<f64>::new());
        assert_eq!(bounds(&[], 4), Vec::<f64>::new());
        assert_eq!((median(&eight), median(&[1.0, 2.0, 9.0]), median(&[])), (4.5, 2.0, 0.0));
    }

    #[test]
    fn a_sample_of_many_has_the_quantiles_of_all() {
        let mut reservoir = Reservoir::default();
        let n = 1_000_000u32;
        // Ascending: a sample that favoured early or late numbers would show.
        (0..n).for_each(|x| reservoir.add(f64::from(x)));
        let sorted = reservoir.sorted();
        assert_eq!(sorted.len(), SAMPLE);
        for (at, bound) in bounds(&sorted, 10).iter().enumerate() {
            let expected = f64::from(n) * (at + 1) as f64 / 10.0;
            assert!((bound - expected).abs() < f64::from(n) * 0.01, "{bound} is not about {expected}");
        }
    }
}
