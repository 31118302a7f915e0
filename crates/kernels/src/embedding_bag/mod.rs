//! Bags of table rows, summed: several features over several tables at once, and their gradients.
//!
//! ```text
//! out[b, f] = Σ_p w_p x_p      p = offsets_f[b] .. offsets_f[b + 1],   x_p = row indices_f[p] of the feature's table
//!             w_p = 1 (sum),  1 / |bag| (mean),  weights_f[p] (weighted)
//!
//! backward:   ∂L/∂x_p = w_p ∂L/∂out[b, f]          ∂L/∂w_p = ∂L/∂out[b, f] . x_p   (weighted)
//! ```
//!
//! # Layout
//!
//! | name       | shape           | type                                             | constraint                          |
//! |------------|-----------------|--------------------------------------------------|-------------------------------------|
//! | tables     | `[rows, dim]`   | f32, f16, bf16, int8 (CPU); f32, f16, bf16 (GPU) | any number of chunks, one device    |
//! | `indices`  | `[nnz]`         | u32                                              | below the feature's rows            |
//! | `offsets`  | `[bags + 1]`    | u32                                              | from 0 to `nnz`, not descending     |
//! | `weights`  | `[nnz]`         | f32                                              | finite                              |
//! | output     | `[bags, width]` | f32                                              | features side by side; width = Σ dim |
//!
//! An empty bag is zeros. [`Bags`] checks a batch's indices and copies them to the device once, for forward, backward and
//! [`Bags::segment`]. Features may share a table, or lie behind one another in one table (`rows`): then one segment and
//! one update serve them all, which is the fast way to train many small tables of one dimension.
//!
//! # Order of sums
//! A bag is summed in the order of its positions, whatever chunks its rows lie in: a launch a chunk would sum by chunk.
//! So a kernel binds up to 16 chunks, of one or of several tables, and finds each row's own. A table of more chunks
//! (or than the device binds) has its rows gathered first, and the bags are made of those: the same sums, more bytes.
//!
//! # Cost
//! Memory-bound. Forward reads `(row bytes + 4) nnz` and writes `4 bags width`; rows gathered first cost twice their bytes
//! more. Backward reads `4 bags width` and writes `4 nnz dim`. A unit owns 4 values (2, 1) of an output and has up to 4
//! rows in flight; consecutive units own consecutive values, and a work group stays with one feature. One launch serves all
//! features of one dimension, row type and weighting as long as their chunks fit; backward is one launch a table.
//!
//! # Determinism
//! The same bits for any number of threads, chunks and bags beside; sums are the same on the CPU and on GPUs, means and
//! weighted sums agree to rounding (a GPU may fuse the product and the sum).
//!
//! NaN and infinity in a row show in its bags: they are found where the loss is.
//!
//! # Source
//! Naumov et al. 2019, "Deep learning recommendation model"; FBGEMM's table-batched embedding for the layout.

mod batch;
mod cpu;
#[cfg(feature = "gpu")]
mod cube;
#[cfg(feature = "gpu")]
mod cube_backward;

pub use batch::{BagFeature, Bags, Pooling};

#[cfg(feature = "cuda-sources")]
use crate::cuda_sources::{Instance, table_of};
use crate::{Buffer, Device, Result, Table, buffer::on_gpu};

const OP: &str = "embedding_bag";

/// Sums the bags of every feature.
///
/// # Shapes
/// - `tables`: those that `bags` was made for; their rows may have changed, their shapes not
/// - returns: `[bags, width]` f32 on the tables' device
///
/// # Errors
/// [`crate::Error::Shape`], [`crate::Error::MixedDevices`] for other tables; on a GPU [`crate::Error::RowType`] for int8 rows and
/// [`crate::Error::Parameter`] for 16-bit rows of an odd dimension; [`crate::Error::OutOfMemory`], [`crate::Error::BufferTooLarge`].
pub fn embedding_bag(tables: &[&Table], bags: &Bags) -> Result<Buffer<f32>> {
    bags.check_tables(tables)?;
    match bags.device() {
        Device::Cpu => cpu::forward(tables, bags),
        device => on_gpu!(OP, device, R => cube::forward::<R>(tables, bags, device)),
    }
}

/// Returns the gradient of every position's row: what [`crate::sparse_update()`] takes, with [`Bags::segment`].
///
/// # Shapes
/// - `gradient`: `[bags, width]`, that of [`embedding_bag`]'s output, on the same device
/// - returns: for each table `[positions, dim]`: the positions of its features, one feature after the other
///
/// # Errors
/// [`crate::Error::Shape`], [`crate::Error::MixedDevices`] for a gradient that does not fit; [`crate::Error::OutOfMemory`],
/// [`crate::Error::BufferTooLarge`].
pub fn embedding_bag_backward(bags: &Bags, gradient: &Buffer<f32>) -> Result<Vec<Buffer<f32>>> {
    bags.check_gradient(gradient)?;
    match bags.device() {
        Device::Cpu => cpu::backward(bags, gradient),
        device => on_gpu!(OP, device, R => cube_backward::backward::<R>(bags, gradient, device)),
    }
}

/// Returns the gradient of the weights: for each weighted feature `[nnz]`, for others nothing.
///
/// # Shapes
/// - `tables`, `gradient`: as [`embedding_bag`] and [`embedding_bag_backward`]
///
/// # Errors
/// As those.
pub fn embedding_bag_weights_backward(
    tables: &[&Table],
    bags: &Bags,
    gradient: &Buffer<f32>,
) -> Result<Vec<Option<Buffer<f32>>>> {
    bags.check_tables(tables)?;
    bags.check_gradient(gradient)?;
    match bags.device() {
        Device::Cpu => cpu::weights_backward(tables, bags, gradient),
        device => on_gpu!(OP, device, R => cube_backward::weights::<R>(tables, bags, gradient, device)),
    }
}

/// The definition of [`embedding_bag`]: naive, in f64, on the CPU.
///
/// # Errors
/// [`crate::Error::NotOnDevice`] for tables on a GPU; [`crate::Error::IndexOutOfRange`].
pub fn embedding_bag_reference(tables: &[&Table], features: &[BagFeature]) -> Result<Vec<f64>> {
    let width: usize = features.iter().map(|feature| tables[feature.table].dim()).sum();
    let n_bags = features.first().map_or(0, |feature| feature.offsets.len() - 1);
    let mut out = vec![0.0; n_bags * width];
    let mut column = 0;
    for feature in features {
        let dim = tables[feature.table].dim();
        let mut row = vec![0.0; dim];
        for bag in 0..n_bags {
            for p in feature.offsets[bag]..feature.offsets[bag + 1] {
                let index = feature.rows.start + u64::from(feature.indices[p as usize]);
                tables[feature.table].read_row(index, &mut row)?;
                let to = &mut out[bag * width + column..][..dim];
                to.iter_mut()
                    .zip(&row)
                    .for_each(|(sum, &x)| *sum += feature.weight(bag, p as usize) * f64::from(x));
            }
        }
        column += dim;
    }
    Ok(out)
}

/// The definition of [`embedding_bag_backward`] and [`embedding_bag_weights_backward`]: for each table the gradients of
/// its positions, and for each feature those of its weights, weighted or not; naive, in f64, on the CPU.
///
/// # Errors
/// As [`embedding_bag_reference`].
pub fn embedding_bag_backward_reference(
    tables: &[&Table],
    features: &[BagFeature],
    gradient: &[f32],
) -> Result<[Vec<Vec<f64>>; 2]> {
    let width: usize = features.iter().map(|feature| tables[feature.table].dim()).sum();
    let mut of_rows = vec![Vec::new(); tables.len()];
    let mut of_weights = Vec::new();
    let mut column = 0;
    for feature in features {
        let dim = tables[feature.table].dim();
        let (mut row, mut weights) = (vec![0.0; dim], Vec::new());
        for bag in 0..feature.offsets.len() - 1 {
            let gradient = &gradient[bag * width + column..][..dim];
            for p in feature.offsets[bag]..feature.offsets[bag + 1] {
                let index = feature.rows.start + u64::from(feature.indices[p as usize]);
                tables[feature.table].read_row(index, &mut row)?;
                let weight = feature.weight(bag, p as usize);
                of_rows[feature.table].extend(gradient.iter().map(|&g| weight * f64::from(g)));
                weights.push(gradient.iter().zip(&row).map(|(&g, &x)| f64::from(g) * f64::from(x)).sum());
            }
        }
        of_weights.push(weights);
        column += dim;
    }
    Ok([of_rows, of_weights])
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<Instance> {
    use crate::RowType;
    let weights = [1.0; 4];
    let of = move |(row_type, dim, n_tables, weighted): (RowType, usize, usize, bool)| {
        let label =
            format!("embedding_bag, {n_tables} tables of {row_type:?}, dim {dim}, weighted {weighted}");
        Instance::new(label, move |device| {
            let tables =
                (0..n_tables).map(|_| table_of(row_type, 100, dim, device)).collect::<Result<Vec<_>>>()?;
            let tables: Vec<&Table> = tables.iter().collect();
            let (indices, offsets) = (&[0, 99, 7, 7][..], &[0, 1, 1, 4][..]);
            let pooling = if weighted { Pooling::Weighted(&weights) } else { Pooling::Mean };
            let features: Vec<BagFeature> = (0..n_tables)
                .map(|table| BagFeature { table, rows: 0..100, indices, offsets, pooling })
                .collect();
            let bags = Bags::new(&tables, &features)?;
            let gradient = embedding_bag(&tables, &bags)?;
            embedding_bag_backward(&bags, &gradient)?;
            embedding_bag_weights_backward(&tables, &bags, &gradient).map(drop)
        })
    };
    [
        (RowType::F32, 16, 1, false),
        (RowType::F32, 128, 8, false),
        (RowType::F32, 33, 1, true),
        (RowType::F16, 64, 1, false),
        (RowType::Bf16, 64, 1, true),
    ]
    .map(of)
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, RowType};

    /// Bags `{0, 2}`, `{}`, `{1}` of feature 0 over rows (1 2), (3 4), (5 6), and of feature 1 over (10), (20).
    fn example<'a>(pooling: Pooling<'a>) -> [BagFeature<'a>; 2] {
        [
            BagFeature { table: 0, rows: 0..3, indices: &[0, 2, 1], offsets: &[0, 2, 2, 3], pooling },
            BagFeature {
                table: 1,
                rows: 0..2,
                indices: &[1, 1, 0, 1],
                offsets: &[0, 1, 3, 4],
                pooling: Pooling::Sum,
            },
        ]
    }

    fn tables() -> [Table; 2] {
        [
            Table::from_f32_in_chunks(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 1, Device::Cpu, "a test").unwrap(),
            Table::from_f32(&[10.0, 20.0], 1, Device::Cpu, "a test").unwrap(),
        ]
    }

    #[test]
    fn bags_by_hand() {
        let [a, b] = &tables();
        let forward = |pooling| {
            let features = example(pooling);
            let bags = Bags::new(&[a, b], &features).unwrap();
            assert_eq!((bags.n_bags(), bags.width()), (3, 3));
            embedding_bag(&[a, b], &bags).unwrap().to_vec().unwrap()
        };
        assert_eq!(forward(Pooling::Sum), [6.0, 8.0, 20.0, 0.0, 0.0, 30.0, 3.0, 4.0, 20.0]);
        assert_eq!(forward(Pooling::Mean), [3.0, 4.0, 20.0, 0.0, 0.0, 30.0, 3.0, 4.0, 20.0]);
        let weights = [2.0, -1.0, 0.5];
        assert_eq!(forward(Pooling::Weighted(&weights)), [-3.0, -2.0, 20.0, 0.0, 0.0, 30.0, 1.5, 2.0, 20.0]);
    }

    #[test]
    fn gradients_by_hand() {
        let [a, b] = &tables();
        let weights = [2.0, -1.0, 0.5];
        let features = example(Pooling::Weighted(&weights));
        let bags = Bags::new(&[a, b], &features).unwrap();
        let gradient = Buffer::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], "a test").unwrap();
        let rows = embedding_bag_backward(&bags, &gradient).unwrap();
        assert_eq!(rows[0].to_vec().unwrap(), [2.0, 4.0, -1.0, -2.0, 3.5, 4.0]);
        assert_eq!(rows[1].to_vec().unwrap(), [3.0, 6.0, 6.0, 9.0]);
        let of_weights = embedding_bag_weights_backward(&[a, b], &bags, &gradient).unwrap();
        assert_eq!(of_weights[0].as_ref().unwrap().to_vec().unwrap(), [5.0, 17.0, 53.0]);
        assert!(of_weights[1].is_none());
        let mean = Bags::new(&[a, b], &example(Pooling::Mean)).unwrap();
        let rows = embedding_bag_backward(&mean, &gradient).unwrap();
        assert_eq!(rows[0].to_vec().unwrap(), [0.5, 1.0, 0.5, 1.0, 7.0, 8.0]);
    }

    #[test]
    fn narrow_rows_and_rows_behind_one_another() {
        let table = Table::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, Device::Cpu, "a test").unwrap();
        let features = |offset| {
            [BagFeature {
                table: 0,
                rows: offset..3,
                indices: &[1, 0, 1],
                offsets: &[0, 3],
                pooling: Pooling::Sum,
            }]
        };
        for row_type in [RowType::F32, RowType::F16, RowType::Bf16] {
            let table = table.to_row_type(row_type, "a test").unwrap();
            for (offset, expected) in [(0, [7.0, 10.0]), (1, [13.0, 16.0])] {
                let bags = Bags::new(&[&table], &features(offset)).unwrap();
                assert_eq!(embedding_bag(&[&table], &bags).unwrap().to_vec().unwrap(), expected);
            }
        }
        let scale = Buffer::from_vec(vec![0.5, 2.0], "a test").unwrap();
        let int8 = crate::Rows::Int8(Buffer::from_vec(vec![2i8, -4, 3, 1], "a test").unwrap(), scale);
        let int8 = Table::from_chunks(2, 2, RowType::Int8, Device::Cpu, vec![int8]).unwrap();
        let two = [BagFeature { rows: 0..2, ..features(0)[0].clone() }];
        let bags = Bags::new(&[&int8], &two).unwrap();
        assert_eq!(embedding_bag(&[&int8], &bags).unwrap().to_vec().unwrap(), [13.0, 2.0]);
    }

    #[test]
    fn the_backward_pass_is_the_slope_of_the_forward_pass() {
        // L = Σ c out, in f64: linear in each value, so a central difference is exact but for rounding.
        let values: Vec<f32> = (0..5 * 3).map(|at| ((at * 7 % 11) as f32 - 5.0) / 8.0).collect();
        let weights = [0.5, -1.5, 2.0, 0.25, 1.0, -0.75];
        let c: Vec<f32> = (0..3 * 3).map(|at| ((at * 5 % 7) as f32 - 3.0) / 4.0).collect();
        for kind in 0..3 {
            let loss = |values: &[f32], weights: &[f32]| {
                let table = Table::from_f32(values, 3, Device::Cpu, "a test").unwrap();
                let pooling = match kind {
                    0 => Pooling::Sum,
                    1 => Pooling::Mean,
                    _ => Pooling::Weighted(weights),
                };
                let indices = &[0, 4, 0, 2, 1, 4];
                let features =
                    [BagFeature { table: 0, rows: 0..5, indices, offsets: &[0, 3, 3, 6], pooling }];
                let out = embedding_bag_reference(&[&table], &features).unwrap();
                let bags = Bags::new(&[&table], &features).unwrap();
                let gradient = Buffer::from_slice(&c, Device::Cpu, "a test").unwrap();
                let rows = embedding_bag_backward(&bags, &gradient).unwrap()[0].to_vec().unwrap();
                let of_weights = embedding_bag_weights_backward(&[&table], &bags, &gradient).unwrap();
                let of_weights = of_weights[0].as_ref().map(|buffer| buffer.to_vec().unwrap());
                let loss: f64 = out.iter().zip(&c).map(|(out, &c)| out * f64::from(c)).sum();
                (loss, rows, of_weights, indices)
            };
            let (_, rows, of_weights, indices) = loss(&values, &weights);
            let h = 0.125;
            let close = |analytic: f64, numeric: f64| {
                assert!((analytic - numeric).abs() < 1e-5, "{analytic} beside {numeric}");
            };
            for at in 0..values.len() {
                let moved = |by: f32| {
                    let mut values = values.clone();
                    values[at] += by;
                    loss(&values, &weights).0
                };
                let analytic: f64 = (0..6)
                    .filter(|&p| indices[p] as usize == at / 3)
                    .map(|p| f64::from(rows[p * 3 + at % 3]))
                    .sum();
                close(analytic, (moved(h) - moved(-h)) / (2.0 * f64::from(h)));
            }
            for at in 0..weights.len() * usize::from(kind == 2) {
                let moved = |by: f32| {
                    let mut weights = weights;
                    weights[at] += by;
                    loss(&values, &weights).0
                };
                let analytic = f64::from(of_weights.as_ref().unwrap()[at]);
                close(analytic, (moved(h) - moved(-h)) / (2.0 * f64::from(h)));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let [a, b] = &tables();
        let ok = example(Pooling::Sum);
        let with = |change: &dyn Fn(&mut BagFeature<'static>)| {
            let mut features = example(Pooling::Sum);
            change(&mut features[0]);
            Bags::new(&[a, b], &features).unwrap_err()
        };
        assert!(matches!(with(&|f| f.table = 2), Error::Parameter { what: "table", got: 2.0, .. }));
        assert!(matches!(with(&|f| f.indices = &[0, 3, 1]), Error::IndexOutOfRange { position: 1, .. }));
        assert!(matches!(with(&|f| f.rows = 0..4), Error::IndexOutOfRange { rows: 3, .. }));
        assert!(matches!(with(&|f| f.rows = 2..3), Error::IndexOutOfRange { position: 1, rows: 1, .. }));
        assert!(matches!(with(&|f| f.offsets = &[0, 2, 3]), Error::Shape { what: "offsets", .. }));
        assert!(matches!(with(&|f| f.offsets = &[0, 2, 1, 3]), Error::Parameter { what: "offsets", .. }));
        assert!(matches!(with(&|f| f.offsets = &[0, 2, 2, 4]), Error::Parameter { what: "offsets", .. }));
        let short = |f: &mut BagFeature<'static>| f.pooling = Pooling::Weighted(&[1.0]);
        assert!(matches!(with(&short), Error::Shape { what: "weights", .. }));
        let nan = |f: &mut BagFeature<'static>| f.pooling = Pooling::Weighted(&[1.0, f32::NAN, 0.0]);
        assert!(matches!(with(&nan), Error::NotFinite { what: "weights", row: 1, .. }));
        assert!(matches!(Bags::new(&[], &[]), Err(Error::Parameter { what: "features", .. })));
        let bags = Bags::new(&[a, b], &ok).unwrap();
        assert!(matches!(embedding_bag(&[b, a], &bags), Err(Error::Shape { what: "table", .. })));
        let gradient = Buffer::from_vec(vec![0.0; 8], "a test").unwrap();
        assert!(matches!(embedding_bag_backward(&bags, &gradient), Err(Error::Shape { expected: 9, .. })));
    }
}
