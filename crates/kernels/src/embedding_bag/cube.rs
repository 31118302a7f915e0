//! Bags on a GPU.
//!
//! Features of one dimension, row type and weighting are launched together, as long as the chunks of their tables fit into
//! one launch's bindings. What a kernel must know of each feature are `WORDS` words:
//!
//! | word | what                                                     |
//! |------|----------------------------------------------------------|
//! | 0    | which of the bound chunks is the table's first           |
//! | 1    | shift: row `r` lies in chunk `r >> shift` of its table   |
//! | 2    | first column of the output                               |
//! | 3    | where its offsets begin                                  |
//! | 4    | 1 where bags are divided by their size                   |
//! | 5    | its first place, where rows were gathered by place       |

#![expect(unsafe_code, reason = "hot kernels without checked indexing")]

use cubecl::prelude::*;

use super::{
    OP,
    batch::{Bags, Feature},
};
use crate::{
    Buffer, Device, Result, Rows, Table,
    buffer::cube::{Gpu, Queue},
    row_words::{RowWords, n_rows, widen},
};

/// The most chunks that a kernel looks rows up in.
const MAX_BOUND: usize = 16;
/// Bindings that a kernel needs beside the chunks.
const OTHER_BINDINGS: usize = 6;
/// Words about a feature.
pub(super) const WORDS: usize = 6;

/// A feature of a launch.
struct Member {
    feature: usize,
    first_bound: usize,
}

/// The features of one launch.
struct Group<'a> {
    words: RowWords,
    dim: usize,
    weighted: bool,
    /// Whether the one table has more chunks than a kernel binds.
    gathered: bool,
    members: Vec<Member>,
    /// Tables whose chunks are bound, and at which place the first.
    tables: Vec<(usize, usize)>,
    bound: Vec<&'a Rows>,
}

/// Deals the features to as few launches as their kinds and chunks allow; `most` chunks go into one.
fn groups<'a>(tables: &[&'a Table], bags: &Bags, most: usize) -> Result<Vec<Group<'a>>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (at, feature) in bags.features.iter().enumerate() {
        let table = tables[feature.table];
        let words = RowWords::of(OP, table)?;
        let (dim, weighted, n_chunks) = (feature.dim, feature.weighted, table.chunks().len());
        let gathered = n_chunks > most;
        let place = |group: &Group| {
            let same =
                (group.words, group.dim, group.weighted, group.gathered) == (words, dim, weighted, gathered);
            let known = group.tables.iter().find(|(table, _)| *table == feature.table);
            match known {
                _ if !same => None,
                Some(&(_, first)) => Some((first, true)),
                None if gathered || group.bound.len() + n_chunks > most => None,
                None => Some((group.bound.len(), false)),
            }
        };
        let found = groups.iter().enumerate().find_map(|(at, group)| Some((at, place(group)?)));
        let (group, (first_bound, known)) = found.unwrap_or((groups.len(), (0, false)));
        if group == groups.len() {
            let (members, tables, bound) = (Vec::new(), Vec::new(), Vec::new());
            groups.push(Group { words, dim, weighted, gathered, members, tables, bound });
        }
        let group = &mut groups[group];
        group.members.push(Member { feature: at, first_bound });
        if !known {
            group.tables.push((feature.table, first_bound));
            if !gathered {
                group.bound.extend(table.chunks().map(|(_, rows)| rows));
            }
        }
    }
    Ok(groups)
}

/// Returns the vectors that columns of several features are a whole number of: `width` values, or one.
pub(super) fn column_width<'a>(
    bags: &Bags,
    width: usize,
    mut features: impl Iterator<Item = &'a Feature>,
) -> usize {
    let whole = bags.width().is_multiple_of(width) && features.all(|f| f.column.is_multiple_of(width));
    if whole { width } else { 1 }
}

pub(super) fn forward<R: Gpu>(tables: &[&Table], bags: &Bags, device: Device) -> Result<Buffer<f32>> {
    let queue = Queue::<R>::new(device)?;
    // Every column belongs to one feature, and every bag to one unit of it.
    let out = queue.unwritten::<f32>(bags.n_bags().saturating_mul(bags.width()), "bags")?;
    if out.is_empty() {
        return Ok(out);
    }
    let bindings = queue.client.properties().hardware.max_bindings as usize;
    let most = bindings.saturating_sub(OTHER_BINDINGS).clamp(1, MAX_BOUND);
    // Rounded down to a power of two: kernels differ by the number of chunks, and fewer of them are compiled so.
    let most = 1 << most.ilog2();
    for group in groups(tables, bags, most)? {
        launch(&queue, tables, bags, &group, &out)?;
    }
    Ok(out)
}

fn launch<R: Gpu>(
    queue: &Queue<R>,
    tables: &[&Table],
    bags: &Bags,
    group: &Group,
    out: &Buffer<f32>,
) -> Result<()> {
    let words = group.words;
    let mut meta = Vec::with_capacity(group.members.len() * WORDS);
    for member in &group.members {
        let feature = &bags.features[member.feature];
        let table = tables[feature.table];
        meta.extend([
            member.first_bound as u32,
            table.chunk_rows().ilog2(),
            feature.column as u32,
            (member.feature * (bags.n_bags() + 1)) as u32,
            u32::from(feature.mean),
            bags.tables[feature.table].places.start as u32,
        ]);
    }
    let meta = queue.upload(&meta, "features of bags")?;
    let gathered = match (group.gathered, group.tables.first()) {
        (true, Some(&(table, _))) => Some(gather(queue, tables[table], bags, table, words)?),
        _ => None,
    };
    let mut bound = SequenceArg::new();
    let chunks = group.bound.len().max(1).next_power_of_two();
    for at in 0..chunks {
        // Places past the last chunk are never read, nor is a table without rows.
        bound.push(match (&gathered, group.bound.get(at).or(group.bound.last())) {
            (Some(rows), _) => queue.arg(OP, rows)?,
            (None, Some(rows)) => words.arg(OP, queue, rows)?,
            (None, None) => queue.arg(OP, &bags.offsets)?,
        });
    }
    let features = group.members.iter().map(|member| &bags.features[member.feature]);
    let columns = column_width(bags, words.width, features);
    let units = group.members.len() * bags.n_bags() * words.row_vectors;
    let cube_dim = CubeDim::new_1d(256);
    let cube_count = cubecl::calculate_cube_count_elemwise(&queue.client, units, cube_dim);
    // SAFETY: `Bags::new` has checked every index against its table and every offset against the indices, and
    // `check_tables` that these are those tables. A row's chunk is one of those bound from `first_bound` on, since all of
    // a table's are; gathered rows are one a place of the table. Columns and bags are those `out` was allocated for, and
    // units past the last do nothing.
    unsafe {
        bag_kernel::launch_unchecked::<R>(
            &queue.client,
            cube_count,
            cube_dim,
            words.width,
            words.words,
            columns,
            bound,
            queue.arg(OP, &bags.indices)?,
            queue.arg(OP, &bags.offsets)?,
            queue.arg(OP, &bags.weights)?,
            queue.arg(OP, &meta)?,
            queue.vector_arg(OP, out, columns)?,
            group.members.len() as u32,
            bags.n_bags() as u32,
            bags.width() as u32,
            words.row_vectors,
            words.width / columns,
            words.format,
            chunks,
            group.weighted,
            group.gathered,
        );
    }
    Ok(())
}

/// Copies the row of every place of table `table`, as words, chunk after chunk.
fn gather<R: Gpu>(
    queue: &Queue<R>,
    table: &Table,
    bags: &Bags,
    at: usize,
    words: RowWords,
) -> Result<Buffer<u32>> {
    let places = &bags.tables[at].places;
    let row_words = words.row_vectors * words.words;
    let rows = queue.unwritten::<u32>(places.len().saturating_mul(row_words), "rows of bags")?;
    let cube_dim = CubeDim::new_1d(256);
    for (first, chunk) in table.chunks().filter(|_| !places.is_empty()) {
        let units = places.len() * words.row_vectors;
        gather_words_kernel::launch::<R>(
            &queue.client,
            cubecl::calculate_cube_count_elemwise(&queue.client, units, cube_dim),
            cube_dim,
            words.words,
            words.arg(OP, queue, chunk)?,
            queue.arg(OP, &bags.indices)?,
            queue.arg(OP, &rows)?,
            places.start as u32,
            first as u32,
            n_rows(chunk, table.dim()) as u32,
            words.row_vectors,
        );
    }
    Ok(rows)
}

#[cube(launch)]
fn gather_words_kernel<W: Size>(
    chunk: &Array<Vector<u32, W>>,
    indices: &Array<u32>,
    rows: &mut Array<Vector<u32, W>>,
    first_place: u32,
    first_row: u32,
    n_rows: u32,
    #[comptime] row_vectors: usize,
) {
    if ABSOLUTE_POS < rows.len() {
        let row = indices[first_place as usize + ABSOLUTE_POS / row_vectors];
        if row >= first_row && row - first_row < n_rows {
            rows[ABSOLUTE_POS] = chunk[(row - first_row) as usize * row_vectors + ABSOLUTE_POS % row_vectors];
        }
    }
}

/// Reads vector `at` of bound chunk `which`, which is one of `low .. high`; by halves, so that a choice of 16 is 4 branches.
#[cube]
fn read<W: Size>(
    bound: &Sequence<Array<Vector<u32, W>>>,
    which: u32,
    at: usize,
    #[comptime] low: usize,
    #[comptime] high: usize,
) -> Vector<u32, W> {
    if comptime!(high - low == 1) {
        bound.index(low)[at]
    } else {
        let middle = comptime!((low + high) / 2);
        if which < middle as u32 {
            read::<W>(bound, which, at, low, middle)
        } else {
            read::<W>(bound, which, at, middle, high)
        }
    }
}

/// The unit's vector of the row at `place`, times its weight.
#[cube]
fn row_at<N: Size, W: Size>(
    bound: &Sequence<Array<Vector<u32, W>>>,
    indices: &Array<u32>,
    weights: &Array<f32>,
    place: u32,
    lane: usize,
    first_bound: u32,
    shift: u32,
    first_place: u32,
    #[comptime] row_vectors: usize,
    #[comptime] format: u32,
    #[comptime] n_bound: usize,
    #[comptime] weighted: bool,
    #[comptime] gathered: bool,
) -> Vector<f32, N> {
    let words = if comptime!(gathered) {
        let at = (place - first_place) as usize * row_vectors + lane;
        read::<W>(bound, 0u32, at, 0usize, 1usize)
    } else {
        let row = indices[place as usize];
        let which = first_bound + (row >> shift);
        let in_chunk = (row & ((1 << shift) - 1)) as usize;
        read::<W>(bound, which, in_chunk * row_vectors + lane, 0usize, n_bound)
    };
    let mut values = widen::<N, W>(words, format);
    if comptime!(weighted) {
        values *= Vector::<f32, N>::new(weights[place as usize]);
    }
    values
}

/// One vector of one bag of one feature a unit, consecutive units on consecutive vectors of a bag, features last.
#[cube(launch_unchecked)]
fn bag_kernel<N: Size, W: Size, M: Size>(
    bound: &Sequence<Array<Vector<u32, W>>>,
    indices: &Array<u32>,
    offsets: &Array<u32>,
    weights: &Array<f32>,
    features: &Array<u32>,
    out: &mut Array<Vector<f32, M>>,
    n_features: u32,
    n_bags: u32,
    width: u32,
    #[comptime] row_vectors: usize,
    #[comptime] parts: usize,
    #[comptime] format: u32,
    #[comptime] n_bound: usize,
    #[comptime] weighted: bool,
    #[comptime] gathered: bool,
) {
    let lane = ABSOLUTE_POS % row_vectors;
    let (bag, member) =
        (ABSOLUTE_POS / row_vectors % n_bags as usize, ABSOLUTE_POS / row_vectors / n_bags as usize);
    if member < n_features as usize {
        let first_bound = features[member * WORDS];
        let shift = features[member * WORDS + 1];
        let column = features[member * WORDS + 2] as usize;
        let first_offset = features[member * WORDS + 3] as usize;
        let mean = features[member * WORDS + 4];
        let first_place = features[member * WORDS + 5];
        let begin = offsets[first_offset + bag];
        let end = offsets[first_offset + bag + 1];
        let mut sum = Vector::<f32, N>::new(0.0);
        let mut place = begin;
        // Four rows are asked for before the first is added.
        while place + 4 <= end {
            let a = row_at::<N, W>(
                bound,
                indices,
                weights,
                place,
                lane,
                first_bound,
                shift,
                first_place,
                row_vectors,
                format,
                n_bound,
                weighted,
                gathered,
            );
            let b = row_at::<N, W>(
                bound,
                indices,
                weights,
                place + 1,
                lane,
                first_bound,
                shift,
                first_place,
                row_vectors,
                format,
                n_bound,
                weighted,
                gathered,
            );
            let c = row_at::<N, W>(
                bound,
                indices,
                weights,
                place + 2,
                lane,
                first_bound,
                shift,
                first_place,
                row_vectors,
                format,
                n_bound,
                weighted,
                gathered,
            );
            let d = row_at::<N, W>(
                bound,
                indices,
                weights,
                place + 3,
                lane,
                first_bound,
                shift,
                first_place,
                row_vectors,
                format,
                n_bound,
                weighted,
                gathered,
            );
            sum += a;
            sum += b;
            sum += c;
            sum += d;
            place += 4;
        }
        while place < end {
            sum += row_at::<N, W>(
                bound,
                indices,
                weights,
                place,
                lane,
                first_bound,
                shift,
                first_place,
                row_vectors,
                format,
                n_bound,
                weighted,
                gathered,
            );
            place += 1;
        }
        if mean == 1 && end > begin {
            sum /= Vector::<f32, N>::new(f32::cast_from(end - begin));
        }
        let to = (bag * width as usize + column + lane * N::value()) / M::value();
        #[unroll]
        for k in 0..parts {
            let mut part = Vector::<f32, M>::empty();
            #[unroll]
            for j in 0..M::value() {
                part[j] = sum[k * M::value() + j];
            }
            out[to + k] = part;
        }
    }
}
