//! The gradients of bags on a GPU: of each place's row, and of each place's weight.

#![expect(unsafe_code, reason = "hot kernels without checked indexing")]

use cubecl::prelude::*;

use super::{
    OP,
    batch::Bags,
    cube::{WORDS, column_width},
};
use crate::{
    Buffer, Device, Result, Table,
    buffer::cube::{Gpu, Queue, vector_width},
    row_words::{RowWords, n_rows, widen},
};

pub(super) fn backward<R: Gpu>(
    bags: &Bags,
    gradient: &Buffer<f32>,
    device: Device,
) -> Result<Vec<Buffer<f32>>> {
    let queue = Queue::<R>::new(device)?;
    let mut all = Vec::with_capacity(bags.tables.len());
    for (table, shape) in bags.tables.iter().enumerate() {
        // Every place is in one bag of one feature.
        let out =
            queue.unwritten::<f32>(shape.places.len().saturating_mul(shape.dim), "gradients of rows")?;
        // The words that the forward pass has; what a chunk is does not matter here.
        let (mut meta, mut members, mut weighted) = (Vec::new(), Vec::new(), false);
        for (at, feature) in bags.features.iter().enumerate().filter(|(_, feature)| feature.table == table) {
            let first_offset = (at * (bags.n_bags() + 1)) as u32;
            meta.extend([0, 0, feature.column as u32, first_offset, u32::from(feature.mean), 0]);
            weighted |= feature.weighted;
            members.push(feature);
        }
        if !out.is_empty() {
            let width = vector_width(shape.dim);
            let columns = column_width(bags, width, members.iter().copied());
            let meta = queue.upload(&meta, "features of bags")?;
            let row_vectors = shape.dim / width;
            let units = members.len() * bags.n_bags() * row_vectors;
            let cube_dim = CubeDim::new_1d(256);
            // SAFETY: `Bags::new` has checked that offsets are places of their feature, whose table's places `out` was
            // allocated for, and `check_gradient` that the gradient has all columns of all bags. Weights are one a
            // place where any feature is weighted, and are not read otherwise. Units past the last do nothing.
            unsafe {
                backward_kernel::launch_unchecked::<R>(
                    &queue.client,
                    cubecl::calculate_cube_count_elemwise(&queue.client, units, cube_dim),
                    cube_dim,
                    width,
                    columns,
                    queue.vector_arg(OP, gradient, columns)?,
                    queue.arg(OP, &bags.offsets)?,
                    queue.arg(OP, &bags.weights)?,
                    queue.arg(OP, &meta)?,
                    queue.vector_arg(OP, &out, width)?,
                    members.len() as u32,
                    bags.n_bags() as u32,
                    bags.width() as u32,
                    shape.places.start as u32,
                    row_vectors,
                    width / columns,
                    weighted,
                );
            }
        }
        all.push(out);
    }
    Ok(all)
}

pub(super) fn weights<R: Gpu>(
    tables: &[&Table],
    bags: &Bags,
    gradient: &Buffer<f32>,
    device: Device,
) -> Result<Vec<Option<Buffer<f32>>>> {
    let queue = Queue::<R>::new(device)?;
    let mut all = Vec::with_capacity(bags.features.len());
    for (at, feature) in bags.features.iter().enumerate() {
        if !feature.weighted {
            all.push(None);
            continue;
        }
        let table = tables[feature.table];
        let words = RowWords::of(OP, table)?;
        // Every place's row lies in one chunk.
        let out = queue.unwritten::<f32>(feature.places.len(), "gradients of weights")?;
        let cube_dim = CubeDim::new_1d(256);
        for (first, chunk) in table.chunks().filter(|_| !out.is_empty()) {
            weights_kernel::launch::<R>(
                &queue.client,
                cubecl::calculate_cube_count_elemwise(&queue.client, out.len(), cube_dim),
                cube_dim,
                words.width,
                words.words,
                words.arg(OP, &queue, chunk)?,
                queue.arg(OP, &bags.indices)?,
                queue.arg(OP, &bags.offsets)?,
                queue.arg(OP, gradient)?,
                queue.arg(OP, &out)?,
                (at * (bags.n_bags() + 1)) as u32,
                bags.n_bags() as u32,
                bags.width() as u32,
                feature.column as u32,
                feature.places.start as u32,
                first as u32,
                n_rows(chunk, table.dim()) as u32,
                words.row_vectors,
                words.format,
            );
        }
        all.push(Some(out));
    }
    Ok(all)
}

/// One vector of one bag of one feature a unit: read once, written to each of the bag's places.
#[cube(launch_unchecked)]
fn backward_kernel<N: Size, M: Size>(
    gradient: &Array<Vector<f32, M>>,
    offsets: &Array<u32>,
    weights: &Array<f32>,
    features: &Array<u32>,
    out: &mut Array<Vector<f32, N>>,
    n_features: u32,
    n_bags: u32,
    width: u32,
    first_place: u32,
    #[comptime] row_vectors: usize,
    #[comptime] parts: usize,
    #[comptime] weighted: bool,
) {
    let lane = ABSOLUTE_POS % row_vectors;
    let (bag, member) =
        (ABSOLUTE_POS / row_vectors % n_bags as usize, ABSOLUTE_POS / row_vectors / n_bags as usize);
    if member < n_features as usize {
        let column = features[member * WORDS + 2] as usize;
        let first_offset = features[member * WORDS + 3] as usize;
        let begin = offsets[first_offset + bag];
        let end = offsets[first_offset + bag + 1];
        if end > begin {
            let from = (bag * width as usize + column + lane * N::value()) / M::value();
            let mut own = Vector::<f32, N>::empty();
            #[unroll]
            for k in 0..parts {
                let part = gradient[from + k];
                #[unroll]
                for j in 0..M::value() {
                    own[k * M::value() + j] = part[j];
                }
            }
            if features[member * WORDS + 4] == 1 {
                own /= Vector::<f32, N>::new(f32::cast_from(end - begin));
            }
            for place in begin..end {
                let to = (place - first_place) as usize * row_vectors + lane;
                if comptime!(weighted) {
                    // Features of the table that are not weighted have weights of 1.
                    out[to] = own * Vector::<f32, N>::new(weights[place as usize]);
                } else {
                    out[to] = own;
                }
            }
        }
    }
}

/// One place a unit; its bag is found by halves.
#[cube(launch)]
fn weights_kernel<N: Size, W: Size>(
    chunk: &Array<Vector<u32, W>>,
    indices: &Array<u32>,
    offsets: &Array<u32>,
    gradient: &Array<f32>,
    out: &mut Array<f32>,
    first_offset: u32,
    n_bags: u32,
    width: u32,
    column: u32,
    first_place: u32,
    first_row: u32,
    n_rows: u32,
    #[comptime] row_vectors: usize,
    #[comptime] format: u32,
) {
    if ABSOLUTE_POS < out.len() {
        let place = first_place + ABSOLUTE_POS as u32;
        let row = indices[place as usize];
        if row >= first_row && row - first_row < n_rows {
            // The last bag that begins at or before the place: the empty ones at the same offset come before it.
            let mut low = 0u32;
            let mut high = n_bags;
            while high - low > 1 {
                let middle = (low + high) / 2;
                if offsets[(first_offset + middle) as usize] <= place {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            let from = (row - first_row) as usize * row_vectors;
            let to = (low * width + column) as usize;
            let mut sum = Vector::<f32, N>::new(0.0);
            for lane in 0..row_vectors {
                let values = widen::<N, W>(chunk[from + lane], format);
                let mut part = Vector::<f32, N>::empty();
                #[unroll]
                for k in 0..N::value() {
                    part[k] = gradient[to + lane * N::value() + k];
                }
                sum += part * values;
            }
            let mut total = f32::new(0.0);
            #[unroll]
            for k in 0..N::value() {
                total += sum[k];
            }
            out[ABSOLUTE_POS] = total;
        }
    }
}
