//! Factors like those of a model before training, the same on every machine.

use recmill_kernels::{Device, Result, Table};

/// Returns `n` numbers between -0.1 and 0.1, bell-shaped, a stream of their own for each `seed`.
pub fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    // SplitMix64; four bytes of a word add up to something close to a normal distribution.
    let mut number = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let sum: u64 = (0..4).map(|byte| ((z ^ (z >> 31)) >> (16 * byte)) & 0xff).sum();
        (sum as f32 - 510.0) / 5100.0
    };
    (0..n).map(|_| number()).collect()
}

/// Returns a table of such numbers on the CPU.
///
/// All rows are about equally long, so that nothing is gained from the order of their norms.
///
/// # Errors
/// Those of [`Table::from_f32`].
pub fn table(rows: usize, dim: usize, seed: u64) -> Result<Table> {
    Table::from_f32(&numbers(rows * dim, seed), dim, Device::Cpu, "a bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_small_centred_and_differ_by_seed() {
        let some = numbers(10_000, 1);
        assert!(some.iter().all(|number| number.abs() <= 0.1));
        assert!(some.iter().sum::<f32>().abs() < 20.0);
        assert_ne!(some[..8], numbers(8, 2));
        assert_eq!(table(3, 5, 1).unwrap().to_f32().unwrap(), some[..15]);
    }
}
