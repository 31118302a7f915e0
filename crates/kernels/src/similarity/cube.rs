//! Similarities on a GPU: a block of columns at a time, each with an accumulator over all columns in device memory.
//!
//! ```text
//! add_rows    a cube a column i: for every row r of i, in order: dots[j] += w_r x_ri x_rj  for all j of r at once
//! select      a cube a column i: s(i, j) over the dots, then the k best by (s, lower j)
//! ```
//!
//! Within one row all columns are distinct, so no two units add to one place; a barrier is between two rows. So there are no
//! float atomics, and a pair's sum runs over the rows in ascending order.
//!
//! A similarity above 0 is ordered as its bits are. The k-th best is found by its bits, eight at a time from the top:
//! a histogram of those that agree so far (whole numbers: any order of counting is right), and where more columns have
//! exactly the bits of the k-th than belong to the list, then by their indices in the same way. What is kept is then exactly
//! k columns, whatever the order in which they were met; each finds its place by counting those before it.
//!
//! | buffer   | bytes                            | bound                                              |
//! |----------|----------------------------------|----------------------------------------------------|
//! | matrix by rows | 4 or 8 a value             | in parts that a device binds; all of them resident |
//! | dots     | `4 n_columns` a column           | 256 MiB and an eighth of what is left, or one column |
//! | lists    | `8 k` a column                   |                                                    |
//!
//! Lists of more than [`MOST`] columns are selected on the host from the similarities of the block.
//!
//! # Cost
//! `Σ_r d_r²` additions of 8 bytes, random within `4 n_columns` bytes, and 12 bytes of operands each; five to nine passes of
//! `4 n_columns` bytes a column. In flight: a cube of 256 units a column of the block. A column of many rows is one cube's
//! work, about a microsecond a row: the longest column of a block may outlast the others.

use cubecl::prelude::*;

use super::{Neighbours, OP, SimilarityOptions, cpu::Best, weights::Weights};
use crate::{
    Buffer, Device, Result, SparseRows,
    buffer::cube::{Gpu, Queue},
    memory,
};

/// Units of a cube.
const UNITS: u32 = 256;
/// Columns of a list that is selected on the device.
const MOST: usize = 1024;
/// Bytes of the accumulators of a block, on a large device.
const DOTS_BYTES: u64 = 256 << 20;
/// Columns of a block: a cube each.
const BLOCK: usize = 1 << 15;

/// Some rows of the matrix, on the device.
struct Part {
    /// The first row, and the one behind the last.
    first: usize,
    end: usize,
    indptr: Buffer<u32>,
    indices: Buffer<u32>,
    values: Option<Buffer<f32>>,
}

/// What a block's launches leave behind.
struct Found {
    counts: Buffer<u32>,
    /// Every column's list, `[n, k]`; empty where the host selects.
    columns: Buffer<u32>,
    values: Buffer<f32>,
    /// All similarities, where the host selects.
    all: Option<Buffer<f32>>,
}

pub(super) fn lists<R: Gpu>(
    by_column: SparseRows,
    by_row: SparseRows,
    weights: &Weights,
    options: &SimilarityOptions,
    device: Device,
    most_bytes: u64,
) -> Result<Neighbours> {
    let n_columns = by_column.n_rows();
    let mut out = Neighbours { indptr: vec![0], ..Neighbours::default() };
    if n_columns == 0 {
        return Ok(out);
    }
    let queue = Queue::<R>::new(device)?;
    let bytes = DOTS_BYTES.min(device.max_buffer_bytes()?).min(memory::available(device) / 8);
    let bytes = bytes.min(most_bytes) as usize;
    let (own, others, shrink) = weights.sides(options);
    let k = options.k.min(n_columns);
    let block = (bytes / (4 * n_columns)).clamp(1, BLOCK);
    let run = Run {
        queue: &queue,
        parts: parts(&queue, by_row, weights, bytes / 4)?,
        by_column,
        weights,
        own: queue.upload(own, "denominators of columns")?,
        others: queue.upload(others, "denominators of columns")?,
        shrink,
        k,
    };
    let mut before = None;
    for first in (0..n_columns).step_by(block) {
        let n = block.min(n_columns - first);
        // The next block is under way while this one's lists come back.
        if let Some(found) = before.replace((first, run.block(first, n)?)) {
            collect(found, n_columns, k, &mut out)?;
        }
    }
    if let Some(found) = before {
        collect(found, n_columns, k, &mut out)?;
    }
    Ok(out)
}

/// Uploads the matrix in parts of at most `most` values, or of one row.
fn parts<R: Gpu>(queue: &Queue<R>, by_row: SparseRows, weights: &Weights, most: usize) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut first = 0;
    while first < by_row.n_rows() {
        let begin = by_row.indptr[first];
        let within = by_row.indptr[first + 1..].partition_point(|&end| end - begin <= most as u64);
        let end = first + within.clamp(1, 1 << 24);
        let range = begin as usize..by_row.indptr[end] as usize;
        let indptr: Vec<u32> = by_row.indptr[first..=end].iter().map(|&at| (at - begin) as u32).collect();
        let values = weights.values.as_ref();
        parts.push(Part {
            first,
            end,
            indptr: queue.upload(&indptr, "a sparse matrix")?,
            indices: queue.upload(&by_row.indices[range.clone()], "a sparse matrix")?,
            values: values.map(|values| queue.upload(&values[range], "a sparse matrix")).transpose()?,
        });
        first = end;
    }
    Ok(parts)
}

/// What every block uses.
struct Run<'a, R: Gpu> {
    queue: &'a Queue<R>,
    parts: Vec<Part>,
    by_column: SparseRows<'a>,
    weights: &'a Weights,
    own: Buffer<f32>,
    others: Buffer<f32>,
    shrink: f32,
    k: usize,
}

impl<R: Gpu> Run<'_, R> {
    /// Launches columns `first .. first + n`.
    fn block(&self, first: usize, n: usize) -> Result<Found> {
        let queue = self.queue;
        let n_columns = self.by_column.n_rows();
        let most = queue.client.properties().hardware.max_units_per_cube;
        let cube_dim = CubeDim::new_1d(UNITS.min(most));
        let count = || CubeCount::Static(n as u32, 1, 1);
        let dots = queue.zeros::<f32>(n * n_columns, "products of columns")?;
        for part in &self.parts {
            self.add(part, first, n, &dots)?;
        }
        let inside = self.k <= MOST;
        let room = if inside { self.k } else { 0 };
        let counts = queue.unwritten::<u32>(n, "lengths of lists")?;
        let columns = queue.unwritten::<u32>(n * room, "lists of columns")?;
        let values = queue.unwritten::<f32>(n * room, "lists of columns")?;
        select_best::launch::<R>(
            &queue.client,
            count(),
            cube_dim,
            queue.arg(OP, &dots)?,
            queue.arg(OP, &self.own)?,
            queue.arg(OP, &self.others)?,
            queue.arg(OP, &counts)?,
            queue.arg(OP, &columns)?,
            queue.arg(OP, &values)?,
            first as u32,
            n_columns as u32,
            self.shrink,
            room as u32,
            room.next_power_of_two().max(32),
        );
        Ok(Found { counts, columns, values, all: (!inside).then_some(dots) })
    }

    /// Adds a part's rows to the dots of columns `first .. first + n`.
    fn add(&self, part: &Part, first: usize, n: usize, dots: &Buffer<f32>) -> Result<()> {
        let queue = self.queue;
        let (mut ends, mut rows, mut scales) = (vec![0u32], Vec::new(), Vec::new());
        for column in first..first + n {
            let (all, values) = self.by_column.row(column);
            let begin = all.partition_point(|&row| (row as usize) < part.first);
            let end = all.partition_point(|&row| (row as usize) < part.end);
            for (&row, &v) in all[begin..end].iter().zip(&values[begin..end]) {
                rows.push(row - part.first as u32);
                scales.push(self.weights.rows[row as usize] * self.weights.transform.x(column, v));
            }
            ends.push(rows.len() as u32);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let (ends, rows) = (queue.upload(&ends, "a block's rows")?, queue.upload(&rows, "a block's rows")?);
        let scales = queue.upload(&scales, "a block's weights")?;
        let most = queue.client.properties().hardware.max_units_per_cube;
        add_rows::launch::<R>(
            &queue.client,
            CubeCount::Static(n as u32, 1, 1),
            CubeDim::new_1d(UNITS.min(most)),
            queue.arg(OP, &ends)?,
            queue.arg(OP, &rows)?,
            queue.arg(OP, &scales)?,
            queue.arg(OP, &part.indptr)?,
            queue.arg(OP, &part.indices)?,
            // A matrix of ones has no values; what stands in is not read.
            queue.arg(OP, part.values.as_ref().unwrap_or(&scales))?,
            queue.arg(OP, dots)?,
            self.by_column.n_rows() as u32,
            part.values.is_some(),
        );
        Ok(())
    }
}

/// Adds a block's lists to `out`.
fn collect((first, found): (usize, Found), n_columns: usize, k: usize, out: &mut Neighbours) -> Result<()> {
    if let Some(all) = found.all {
        for (at, row) in all.to_vec()?.chunks(n_columns).enumerate() {
            let mut best = Best { k, floor: 0.0, found: Vec::new() };
            for (other, &value) in row.iter().enumerate().filter(|&(other, _)| other != first + at) {
                best.offer(value, other as u32);
            }
            out.push(best.sorted());
        }
        return Ok(());
    }
    let (counts, columns, values) = (found.counts.to_vec()?, found.columns.to_vec()?, found.values.to_vec()?);
    for (at, &count) in counts.iter().enumerate() {
        let list = at * k..at * k + count as usize;
        out.indices.extend_from_slice(&columns[list.clone()]);
        out.values.extend_from_slice(&values[list]);
        out.indptr.push(out.indices.len() as u64);
    }
    Ok(())
}

/// One part's rows added to the dots of a cube's column, a row after the other.
#[cube(launch)]
fn add_rows(
    ends: &Array<u32>,
    rows: &Array<u32>,
    scales: &Array<f32>,
    indptr: &Array<u32>,
    indices: &Array<u32>,
    values: &Array<f32>,
    dots: &mut Array<f32>,
    n_columns: u32,
    #[comptime] weighted: bool,
) {
    let to = CUBE_POS * n_columns as usize;
    for entry in ends[CUBE_POS]..ends[CUBE_POS + 1] {
        let row = rows[entry as usize] as usize;
        let scale = scales[entry as usize];
        let mut at = indptr[row] + UNIT_POS;
        while at < indptr[row + 1] {
            let place = to + indices[at as usize] as usize;
            if comptime!(weighted) {
                dots[place] += scale * values[at as usize];
            } else {
                dots[place] += scale;
            }
            at += CUBE_DIM;
        }
        sync_cube();
        sync_storage();
    }
}

/// Replaces a column's dots by its similarities (0 where there is none), and writes its `k` best.
#[cube(launch)]
fn select_best(
    dots: &mut Array<f32>,
    own: &Array<f32>,
    others: &Array<f32>,
    counts: &mut Array<u32>,
    columns: &mut Array<u32>,
    values: &mut Array<f32>,
    first: u32,
    n_columns: u32,
    shrink: f32,
    k: u32,
    #[comptime] room: usize,
) {
    let n = n_columns as usize;
    let base = CUBE_POS * n;
    let column = first + CUBE_POS as u32;
    let mut bins = SharedMemory::<Atomic<u32>>::new(256usize);
    let mut sums = SharedMemory::<u32>::new(288usize);
    let found = SharedMemory::<Atomic<u32>>::new(2usize);
    let mut keys = SharedMemory::<u32>::new(room);
    let mut listed = SharedMemory::<u32>::new(room);
    // One store: of two alike, cubecl 0.10 keeps one, whatever they are to.
    if UNIT_POS < 2 {
        found[UNIT_POS as usize].store(0);
    }
    sync_cube();

    let mut positive = 0u32;
    let mut at = UNIT_POS;
    while at < n_columns {
        let dot = dots[base + at as usize];
        let mut similarity = 0.0;
        if dot != 0.0 && at != column {
            similarity = dot / (own[column as usize] * others[at as usize] + shrink);
        }
        let bits = u32::reinterpret(similarity);
        if (bits & 0x7fff_ffffu32) > 0x7f80_0000u32 {
            // A NaN of any sign comes out on top, to be reported.
            similarity = f32::reinterpret(bits & 0x7fff_ffffu32);
        } else if bits >= 0x8000_0000u32 {
            similarity = 0.0;
        }
        positive += select(u32::reinterpret(similarity) > 0, 1, 0);
        dots[base + at as usize] = similarity;
        at += CUBE_DIM;
    }
    found[0].fetch_add(positive);
    sync_cube();
    sync_storage();
    let positive = found[0].load();
    let wanted = u32::min(k, positive);

    // Atomics stand in loops of as many turns for every unit: in others, Mesa's software device loses the rest of the kernel.
    let turns = n_columns.div_ceil(CUBE_DIM);
    // The bits of the last that belongs to the list, and how many of those with these bits do.
    let mut bits = 0u32;
    let mut need = wanted;
    for pass in 0..select(wanted > 0, 4u32, 0u32) {
        let shift = 24 - 8 * pass;
        clear(&mut bins);
        for turn in 0..turns {
            let at = turn * CUBE_DIM + UNIT_POS;
            if at < n_columns {
                let key = u32::reinterpret(dots[base + at as usize]);
                if key > 0 && (key ^ bits) >> shift < 256 {
                    bins[((key >> shift) & 255) as usize].fetch_add(1);
                }
            }
        }
        let digit = nth_digit(&bins, &mut sums, need);
        need -= sums[17];
        bits |= digit << shift;
        sync_cube();
    }
    // Where more have these bits than are needed, the last index that belongs to the list: digits of n - 1 - index.
    let tied = sums[18];
    let mut place = 0u32;
    for pass in 0..select(wanted > 0 && tied > need, 4u32, 0u32) {
        let shift = 24 - 8 * pass;
        clear(&mut bins);
        for turn in 0..turns {
            let at = turn * CUBE_DIM + UNIT_POS;
            if at < n_columns {
                let key = n_columns - 1 - at;
                if u32::reinterpret(dots[base + at as usize]) == bits && (key ^ place) >> shift < 256 {
                    bins[((key >> shift) & 255) as usize].fetch_add(1);
                }
            }
        }
        let digit = nth_digit(&bins, &mut sums, need);
        need -= sums[17];
        place |= digit << shift;
        sync_cube();
    }

    for turn in 0..turns {
        let at = turn * CUBE_DIM + UNIT_POS;
        if at < n_columns {
            let key = u32::reinterpret(dots[base + at as usize]);
            if wanted > 0 && (key > bits || (key == bits && n_columns - 1 - at >= place)) {
                let to = found[1].fetch_add(1) as usize;
                if to < room {
                    keys[to] = key;
                    listed[to] = at;
                }
            }
        }
    }
    sync_cube();
    let mut at = UNIT_POS;
    while at < wanted {
        let (key, other) = (keys[at as usize], listed[at as usize]);
        let mut rank = 0u32;
        for before in 0..wanted as usize {
            let better = keys[before] > key || (keys[before] == key && listed[before] < other);
            rank += select(better, 1u32, 0u32);
        }
        columns[(CUBE_POS as u32 * k + rank) as usize] = other;
        values[(CUBE_POS as u32 * k + rank) as usize] = f32::reinterpret(key);
        at += CUBE_DIM;
    }
    if UNIT_POS == 0 {
        counts[CUBE_POS] = wanted;
    }
}

/// Empties the bins. A barrier is behind it.
#[cube]
fn clear(bins: &mut SharedMemory<Atomic<u32>>) {
    for turn in 0..255 / CUBE_DIM + 1 {
        let at = turn * CUBE_DIM + UNIT_POS;
        if at < 256 {
            bins[at as usize].store(0);
        }
    }
    sync_cube();
}

/// The bin that the `need`th value from the top is in; `sums[17]` is how many are in higher bins, `sums[18]` how many in it.
/// A barrier is before the result, and none behind it.
#[cube]
fn nth_digit(bins: &SharedMemory<Atomic<u32>>, sums: &mut SharedMemory<u32>, need: u32) -> u32 {
    sync_cube();
    for turn in 0..255 / CUBE_DIM + 1 {
        let at = turn * CUBE_DIM + UNIT_POS;
        if at < 256 {
            sums[32 + at as usize] = bins[at as usize].load();
        }
    }
    sync_cube();
    let mut group = UNIT_POS as usize;
    while group < 16 {
        let mut sum = 0u32;
        for bin in 0..16usize {
            sum += sums[32 + 16 * group + bin];
        }
        sums[group] = sum;
        group += CUBE_DIM as usize;
    }
    sync_cube();
    if UNIT_POS == 0 {
        let mut above = 0u32;
        let mut group = 15usize;
        while group > 0 && above + sums[group] < need {
            above += sums[group];
            group -= 1;
        }
        let mut bin = 16 * group + 15;
        while bin > 16 * group && above + sums[32 + bin] < need {
            above += sums[32 + bin];
            bin -= 1;
        }
        sums[16] = bin as u32;
        sums[17] = above;
        sums[18] = sums[32 + bin];
    }
    sync_cube();
    sums[16]
}
