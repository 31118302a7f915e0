//! The kernels of deep models at named sizes: what a step does with embedding tables, and what crosses fields.
//!
//! Bytes count as in `kernels.rs`: rows that are looked up or stepped once each time, what a step remembers of them, and indices.

use recmill_kernels::{
    BagFeature, Bags, Buffer, Device, FeatureHash, Pooling, RowType, SparseOptimizer, SparseState,
    SparseStep, Table, cross_layer, embedding_bag, embedding_bag_backward, fm_second_order, hash_features,
    pairwise_dots, segment_buffer, sparse_update,
};

use super::{
    Result,
    kernels::{Ground, Kernel, Measured, random_indices},
};

/// In the order in which they are measured, after those of `kernels.rs`.
pub(super) const KERNELS: &[Kernel] = &[
    ("embedding_bag", |ground| bags(ground, RowType::F32)),
    ("embedding_bag_f16", |ground| bags(ground, RowType::F16)),
    ("embedding_bag_backward", bags_backward),
    ("segment", segment_of_rows),
    ("sparse_update_sgd", |ground| update(ground, SparseOptimizer::Sgd)),
    ("sparse_update_row_wise", |ground| {
        update(ground, SparseOptimizer::RowWiseAdagrad { initial: 0.0, epsilon: 1e-8 })
    }),
    ("sparse_update_adam", |ground| {
        update(ground, SparseOptimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 })
    }),
    ("hash", hashes),
    ("fm_second_order", second_order),
    ("pairwise_dots", dots),
    ("cross_layer", cross),
];

/// Fields of a row, as in click logs.
const FIELDS: usize = 26;
const BENCH: &str = "a bench";

/// Rows of a table, rows of a batch, and rows that a step touches.
struct Sizes {
    table: usize,
    batch: usize,
    touched: usize,
}

fn sizes(ground: &Ground<'_>) -> Sizes {
    match ground.slow {
        true => Sizes { table: 100_000, batch: 4096, touched: 1 << 17 },
        false => Sizes { table: 2_000_000, batch: 65_536, touched: 1 << 20 },
    }
}

/// One index a bag: for each field a bag of every row of the batch.
fn bags_of(table: &Table, batch: usize) -> Result<Bags> {
    let indices = random_indices(FIELDS * batch, table.rows() as usize);
    let offsets: Vec<u32> = (0..=batch as u32).collect();
    let features: Vec<BagFeature<'_>> = indices
        .chunks_exact(batch)
        .map(|indices| BagFeature {
            table: 0,
            rows: 0..table.rows(),
            indices,
            offsets: &offsets,
            pooling: Pooling::Sum,
        })
        .collect();
    Ok(Bags::new(&[table], &features)?)
}

fn bags(ground: &Ground<'_>, row_type: RowType) -> Result<Measured> {
    let (Sizes { table: rows, batch, .. }, d) = (sizes(ground), ground.factors);
    let table = match row_type {
        RowType::F32 => ground.table(rows, 1)?,
        narrow => Table::from_rows(rows as u64, d, narrow, BENCH, |row, values| {
            values.fill(row as f32 / rows as f32);
            Ok(())
        })?
        .try_copy(ground.device, BENCH)?,
    };
    let bags = bags_of(&table, batch)?;
    let seconds = ground.time(|| embedding_bag(&[&table], &bags).map(drop))?;
    let n = FIELDS * batch;
    let value = if row_type == RowType::F32 { 4 } else { 2 };
    Ok(Measured {
        shape: format!("{FIELDS} fields of {batch} rows, from {rows} x {d}"),
        seconds,
        bytes: ((value + 4) * n * d + 8 * n) as f64,
        operations: 0.0,
        done: (n as f64, "rows"),
    })
}

fn bags_backward(ground: &Ground<'_>) -> Result<Measured> {
    let (Sizes { table: rows, batch, .. }, d) = (sizes(ground), ground.factors);
    let bags = bags_of(&ground.table(rows, 1)?, batch)?;
    let n = FIELDS * batch;
    let gradient = ground.buffer(n * d)?;
    let seconds = ground.time(|| embedding_bag_backward(&bags, &gradient).map(drop))?;
    Ok(Measured {
        shape: format!("{FIELDS} fields of {batch} rows x {d}"),
        seconds,
        bytes: (8 * n * d + 8 * n) as f64,
        operations: 0.0,
        done: (n as f64, "rows"),
    })
}

/// Indices on the device, as a batch leaves them.
fn touched(ground: &Ground<'_>, n: usize, rows: usize) -> Result<Buffer<u32>> {
    Ok(Buffer::from_slice(&random_indices(n, rows), ground.device, BENCH)?)
}

fn segment_of_rows(ground: &Ground<'_>) -> Result<Measured> {
    let Sizes { table: rows, touched: n, .. } = sizes(ground);
    let indices = touched(ground, n, rows)?;
    let seconds = ground.time(|| segment_buffer(&indices, 0..n, rows as u64).map(drop))?;
    let unique = segment_buffer(&indices, 0..n, rows as u64)?.n_unique()?;
    Ok(Measured {
        shape: format!("{n} indices of {rows} rows, {unique} of them different"),
        seconds,
        bytes: (8 * n + 8 * unique) as f64,
        operations: 0.0,
        done: (n as f64, "indices"),
    })
}

/// A step on the rows of a batch, whose segment is known: sorting is measured by itself.
fn update(ground: &Ground<'_>, optimizer: SparseOptimizer) -> Result<Measured> {
    let (Sizes { table: rows, touched: n, .. }, d) = (sizes(ground), ground.factors);
    let mut table = ground.table(rows, 1)?;
    let mut state = SparseState::new(optimizer, &table)?;
    let segment = segment_buffer(&touched(ground, n, rows)?, 0..n, rows as u64)?;
    let unique = segment.n_unique()?;
    let gradients = ground.buffer(n * d)?;
    let step = SparseStep { learning_rate: 1e-3, l2: 0.0, seed: 0 };
    let seconds = ground.time(|| sparse_update(&mut table, &mut state, &segment, &gradients, &step))?;
    // Rows and what is remembered of them are read and written; gradients and the segment are read.
    let remembered: usize = state.tables().iter().map(Table::dim).sum();
    Ok(Measured {
        shape: format!("{n} gradients to {unique} of {rows} rows x {d}"),
        seconds,
        bytes: (4 * n * d + 4 * n + 8 * unique * (d + remembered + 1)) as f64,
        operations: (n * d) as f64,
        done: (n as f64, "gradients"),
    })
}

fn hashes(ground: &Ground<'_>) -> Result<Measured> {
    let n = sizes(ground).touched * 8;
    let keys: Vec<u64> = random_indices(n, 1 << 31).into_iter().map(u64::from).collect();
    let keys = Buffer::from_slice(&keys, ground.device, BENCH)?;
    let to = FeatureHash { n_buckets: 1 << 24, seed: 1 };
    let seconds = ground.time(|| hash_features(&keys, to).map(drop))?;
    Ok(Measured {
        shape: format!("{n} keys of 64 bits"),
        seconds,
        bytes: (16 * n) as f64,
        operations: 0.0,
        done: (n as f64, "keys"),
    })
}

fn second_order(ground: &Ground<'_>) -> Result<Measured> {
    let (batch, d) = (sizes(ground).batch, ground.factors);
    let x = ground.buffer(batch * FIELDS * d)?;
    let seconds = ground.time(|| fm_second_order(&x, FIELDS, d).map(drop))?;
    Ok(Measured {
        shape: format!("{batch} rows of {FIELDS} fields x {d}"),
        seconds,
        bytes: (4 * batch * (FIELDS * d + 1)) as f64,
        operations: (4 * batch * FIELDS * d) as f64,
        done: (batch as f64, "rows"),
    })
}

fn dots(ground: &Ground<'_>) -> Result<Measured> {
    let (batch, d) = (sizes(ground).batch, ground.factors);
    let pairs = FIELDS * (FIELDS - 1) / 2;
    let x = ground.buffer(batch * FIELDS * d)?;
    let seconds = ground.time(|| pairwise_dots(&x, FIELDS, d).map(drop))?;
    Ok(Measured {
        shape: format!("{batch} rows of {FIELDS} fields x {d}"),
        seconds,
        bytes: (4 * batch * (FIELDS * d + pairs)) as f64,
        operations: (2 * batch * pairs * d) as f64,
        done: (batch as f64, "rows"),
    })
}

fn cross(ground: &Ground<'_>) -> Result<Measured> {
    let (batch, width) = (sizes(ground).batch, FIELDS * ground.factors);
    let [x0, u, x] =
        [ground.buffer(batch * width)?, ground.buffer(batch * width)?, ground.buffer(batch * width)?];
    let seconds = ground.time(|| cross_layer(&x0, &u, &x).map(drop))?;
    Ok(Measured {
        shape: format!("{batch} rows of {width}, behind the product"),
        seconds,
        bytes: (16 * batch * width) as f64,
        operations: (2 * batch * width) as f64,
        done: (batch as f64, "rows"),
    })
}

impl Ground<'_> {
    /// Small values on the device.
    fn buffer(&self, n: usize) -> Result<Buffer<f32>> {
        let values: Vec<f32> = (0..n).map(|at| (at % 251) as f32 * 1e-3 - 0.125).collect();
        Ok(match self.device {
            Device::Cpu => Buffer::from_vec(values, BENCH)?,
            device => Buffer::from_slice(&values, device, BENCH)?,
        })
    }
}
