//! Columns that a row has no value in, drawn at random: uniformly, or by popularity to a power.
//!
//! ```text
//! out[r, n] = first of c_0, c_1, .. that row r has no value in,   P(c_t = j) = 1 / n_columns   or   ~ popularity_j^p
//! c_t       = draw t of (seed, stream, counter r * per_row + n)
//! ```
//!
//! # Layout
//!
//! | name       | shape                | type | constraint                              |
//! |------------|----------------------|------|-----------------------------------------|
//! | `rows`     | `[n_rows, n_columns]`| CSR  | columns ascend in each row              |
//! | `weights`  | `[n_columns]`        | f32  | finite, not negative, not all zero      |
//! | output     | `[n_rows, per_row]`  | u32  | repeats are possible                    |
//!
//! # Cost
//! A uniform draw is one word and one product; a weighted draw two words and one look-up ([`AliasTable`]). Each is
//! checked against its row by binary search; a row that is a share `s` of the catalogue draws `1 / (1 - s)` times.
//! On a GPU a unit draws one output; the sparse rows are copied there for the call, in as many parts as fill a buffer.
//!
//! # Determinism
//! Draws are addressed, not carried ([`crate::philox`]): the same for every thread count and device.
//!
//! # Source
//! Salmon 2011 (Philox); Walker 1977, Vose 1991 (alias method); Mikolov 2013 (popularity to the power 0.75).

#[cfg(feature = "gpu")]
pub(crate) mod cube;

use rayon::prelude::*;

use crate::{
    Buffer, Device, Error, Result, SparseRows,
    buffer::on_gpu,
    philox::{Draws, below},
};

const OP: &str = "negative";

/// Draws tried before a row counts as full; 2^20 misses in a row have a chance below `e^-1000` at 99.9% full.
const MAX_TRIES: u64 = 1 << 20;

/// How columns are drawn.
#[derive(Clone, Debug)]
pub enum Distribution {
    /// Every column of `0 .. n` alike.
    Uniform(u32),
    /// By weight.
    Weighted(AliasTable),
}

impl Distribution {
    /// Returns the column that the two random words select.
    #[inline(always)]
    pub fn pick(&self, words: [u32; 2]) -> u32 {
        match self {
            Distribution::Uniform(n) => below(words[0], *n),
            Distribution::Weighted(table) => table.pick(words),
        }
    }

    /// Returns the number of columns.
    pub fn n_columns(&self) -> u32 {
        match self {
            Distribution::Uniform(n) => *n,
            Distribution::Weighted(table) => table.keep.len() as u32,
        }
    }
}

/// Draws in constant time from any distribution: each column keeps its slot or yields it to one alias.
#[derive(Clone, Debug)]
pub struct AliasTable {
    /// Of 2^32 words, how many keep the slot.
    keep: Vec<u32>,
    alias: Vec<u32>,
}

impl AliasTable {
    /// Builds the table of `weights`, in `O(n)`.
    ///
    /// Slots are quantised to `2^-32` of `1 / n`, so a weight of 0 is never drawn and any other is off by less than that.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the index of a weight that is not finite; [`Error::Parameter`] for a negative one, for no
    /// weights or none above 0.
    pub fn new(weights: &[f32]) -> Result<Self> {
        if let Some(row) = weights.iter().position(|w| !w.is_finite()) {
            return Err(Error::NotFinite { op: OP, what: "weights", row: row as u64 });
        }
        if let Some(&negative) = weights.iter().find(|&&w| w < 0.0) {
            let got = f64::from(negative);
            return Err(Error::Parameter { op: OP, what: "weights", expected: "at least 0", got });
        }
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        if total <= 0.0 || weights.len() > u32::MAX as usize {
            let expected = "one or more, below 2^32 of them, with a sum above 0";
            return Err(Error::Parameter { op: OP, what: "weights", expected, got: total });
        }
        let scale = weights.len() as f64 / total;
        let mut share: Vec<f64> = weights.iter().map(|&w| f64::from(w) * scale).collect();
        let mut keep = vec![u32::MAX; weights.len()];
        let mut alias: Vec<u32> = (0..weights.len() as u32).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            alias.iter().partition(|&&at| share[at as usize] < 1.0);
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            keep[poor as usize] = (share[poor as usize] * 4_294_967_296.0) as u32;
            alias[poor as usize] = rich;
            share[rich as usize] -= 1.0 - share[poor as usize];
            if share[rich as usize] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        // Rounding alone can leave a poor slot without a rich one; if its weight is 0 it must still never be drawn.
        let heaviest = (0..weights.len()).max_by(|&a, &b| weights[a].total_cmp(&weights[b])).unwrap_or(0);
        for poor in small {
            if weights[poor as usize] == 0.0 {
                keep[poor as usize] = 0;
                alias[poor as usize] = heaviest as u32;
            }
        }
        Ok(Self { keep, alias })
    }

    /// Returns the index that the two random words select.
    #[inline(always)]
    pub fn pick(&self, words: [u32; 2]) -> u32 {
        let slot = below(words[0], self.keep.len() as u32);
        // `<` would lose one word in 2^32 of a slot that is wholly kept; its alias is itself, so nothing is lost.
        if words[1] < self.keep[slot as usize] { slot } else { self.alias[slot as usize] }
    }
}

/// Returns each column's number of values to the power `exponent`: the weights of popularity draws.
///
/// Columns without any value weigh 0, also where `exponent` is 0.
pub fn popularity(rows: SparseRows, n_columns: usize, exponent: f32) -> Vec<f32> {
    let mut counts = vec![0u32; n_columns];
    rows.indices.iter().for_each(|&column| counts[column as usize] += 1);
    counts.into_iter().map(|n| if n == 0 { 0.0 } else { (n as f32).powf(exponent) }).collect()
}

/// Draws `per_row` columns for every row of `rows`, none of which has a value in that row.
///
/// # Shapes
/// - `rows`: `[n_rows, distribution.n_columns()]`
/// - returns: `[n_rows, per_row]` columns; one column can come twice
///
/// # Errors
/// [`Error::Parameter`] with the row when no column is left to draw; those of [`SparseRows::check`].
pub fn negative(
    rows: SparseRows,
    distribution: &Distribution,
    per_row: usize,
    draws: Draws,
) -> Result<Vec<u32>> {
    rows.check(OP, distribution.n_columns().into())?;
    let mut out = vec![0; rows.n_rows() * per_row];
    if per_row == 0 {
        return Ok(out);
    }
    out.par_chunks_mut(per_row).enumerate().try_for_each(|(row, out)| {
        let seen = rows.row(row).0;
        for (at, out) in out.iter_mut().enumerate() {
            *out = one(seen, distribution, (row * per_row + at) as u64, draws).ok_or(full(row))?;
        }
        Ok(())
    })?;
    Ok(out)
}

/// As [`negative`], on `device`: the same columns, left there.
///
/// # Errors
/// As [`negative`], with the first such row on a GPU; [`Error::OutOfMemory`], [`Error::BufferTooLarge`],
/// [`Error::Unavailable`].
pub fn negative_on(
    device: Device,
    rows: SparseRows,
    distribution: &Distribution,
    per_row: usize,
    draws: Draws,
) -> Result<Buffer<u32>> {
    match device {
        Device::Cpu => Buffer::from_vec(negative(rows, distribution, per_row, draws)?, "negatives"),
        device => {
            rows.check(OP, distribution.n_columns().into())?;
            on_gpu!(OP, device, R => cube::on_cube::<R>(rows, distribution, per_row, draws, device))
        }
    }
}

/// The definition: naive, single-threaded, what every device is tested against.
pub fn negative_reference(
    rows: SparseRows,
    distribution: &Distribution,
    per_row: usize,
    draws: Draws,
) -> Result<Vec<u32>> {
    let mut out = Vec::new();
    for row in 0..rows.n_rows() {
        for at in 0..per_row {
            let counter = (row * per_row + at) as u64;
            let mut tries = (0..MAX_TRIES).map(|t| distribution.pick(words(draws, counter, t)));
            out.push(tries.find(|column| !rows.row(row).0.contains(column)).ok_or(full(row))?);
        }
    }
    Ok(out)
}

/// Draws the column at `counter` for a row that has values in the columns `seen`, which ascend; `None` where no column is left to draw.
pub fn one(seen: &[u32], distribution: &Distribution, counter: u64, draws: Draws) -> Option<u32> {
    if seen.len() >= distribution.n_columns() as usize {
        return None;
    }
    (0..MAX_TRIES)
        .map(|t| distribution.pick(words(draws, counter, t)))
        .find(|column| seen.binary_search(column).is_err())
}

/// Tries beyond the first come from a stream of their own, so that draw `n + 1` does not repeat draw `n`'s second try.
fn words(draws: Draws, counter: u64, t: u64) -> [u32; 2] {
    let block = draws.nth_try(t).block(counter);
    [block[0], block[1]]
}

fn full(row: usize) -> Error {
    let expected = "such that every row leaves a column to draw; full is row";
    Error::Parameter { op: OP, what: "distribution", expected, got: row as f64 }
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<crate::cuda_sources::Instance> {
    let of = |(label, distribution): (&'static str, fn() -> Result<Distribution>)| {
        crate::cuda_sources::Instance::new(format!("negative, {label}"), move |device| {
            let (indptr, indices, values) = ([0, 2, 3], [0, 4, 1], [1.0; 3]);
            let rows = SparseRows { indptr: &indptr, indices: &indices, values: &values };
            negative_on(device, rows, &distribution()?, 3, Draws::new(1, 2)).map(drop)
        })
    };
    let weighted = || Ok(Distribution::Weighted(AliasTable::new(&[1.0, 2.0, 3.0, 4.0, 5.0])?));
    [("uniform", (|| Ok(Distribution::Uniform(5))) as fn() -> _), ("by weight", weighted)].map(of).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> (Vec<u64>, Vec<u32>, Vec<f32>) {
        // Row 0 empty, row 1 all but column 4, row 2 a few; columns 0 .. 10.
        let indices = vec![0, 1, 2, 3, 5, 6, 7, 8, 9, 1, 8];
        (vec![0, 0, 9, 11], indices.clone(), vec![1.0; indices.len()])
    }

    #[test]
    fn agrees_with_the_reference_and_never_draws_what_a_row_has() {
        let (indptr, indices, values) = rows();
        let rows = SparseRows { indptr: &indptr, indices: &indices, values: &values };
        let weights = [1.0, 0.0, 5.0, 0.5, 1.0, 1.0, 1.0, 0.0, 2.0, 3.0];
        for distribution in
            [Distribution::Uniform(10), Distribution::Weighted(AliasTable::new(&weights).unwrap())]
        {
            for per_row in [0, 1, 33] {
                let got = negative(rows, &distribution, per_row, Draws::new(1, 2)).unwrap();
                assert_eq!(got, negative_reference(rows, &distribution, per_row, Draws::new(1, 2)).unwrap());
                for (row, drawn) in got.chunks(per_row.max(1)).enumerate() {
                    assert!(drawn.iter().all(|column| !rows.row(row).0.contains(column)));
                }
            }
        }
    }

    #[test]
    fn a_row_with_nothing_left_to_draw_is_an_error() {
        let rows = SparseRows { indptr: &[0, 0, 2], indices: &[0, 1], values: &[1.0; 2] };
        let error = negative(rows, &Distribution::Uniform(2), 1, Draws::new(0, 0)).unwrap_err();
        assert!(matches!(error, Error::Parameter { got: 1.0, .. }), "{error}");
        assert!(negative(rows, &Distribution::Uniform(3), 1, Draws::new(0, 0)).is_ok());
        assert!(negative(rows, &Distribution::Uniform(1), 1, Draws::new(0, 0)).is_err());
    }

    #[test]
    fn an_alias_table_draws_by_weight() {
        let weights = [0.0, 1.0, 2.0, 0.0, 7.0, 0.125];
        let table = AliasTable::new(&weights).unwrap();
        let samples = 200_000;
        let mut counts = [0u32; 6];
        for at in 0..samples {
            let block = Draws::new(11, 0).block(at);
            counts[table.pick([block[0], block[1]]) as usize] += 1;
        }
        let total: f32 = weights.iter().sum();
        for (&weight, &count) in weights.iter().zip(&counts) {
            let expected = f64::from(weight / total) * samples as f64;
            // Five standard deviations of a binomial count.
            assert!((f64::from(count) - expected).abs() <= 5.0 * expected.sqrt(), "{counts:?}");
        }
    }

    #[test]
    fn an_alias_table_of_one_of_equal_and_of_extreme_weights() {
        assert_eq!(AliasTable::new(&[3.0]).unwrap().pick([u32::MAX, u32::MAX]), 0);
        let equal = AliasTable::new(&[0.1; 7]).unwrap();
        let hit: Vec<u32> = (0..7).map(|i| equal.pick([i * (u32::MAX / 7) + 9, i])).collect();
        assert_eq!(hit, [0, 1, 2, 3, 4, 5, 6]);
        let extreme = AliasTable::new(&[1e-30, 1e30, 0.0]).unwrap();
        for at in 0..1000 {
            let block = Draws::new(0, 1).block(at);
            assert_eq!(extreme.pick([block[0], block[1]]), 1);
        }
        for weights in [&[][..], &[0.0], &[1.0, -1.0], &[f32::NAN]] {
            assert!(AliasTable::new(weights).is_err(), "{weights:?}");
        }
    }

    #[test]
    fn popularity_counts_to_a_power() {
        let (indptr, indices, values) = rows();
        let rows = SparseRows { indptr: &indptr, indices: &indices, values: &values };
        assert_eq!(popularity(rows, 11, 1.0), [1.0, 2.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 2.0, 1.0, 0.0]);
        assert_eq!(popularity(rows, 11, 0.0)[4], 0.0);
        assert_eq!(popularity(rows, 11, 0.5)[1], 2f32.sqrt());
    }
}
