//! Sparse updates on a GPU: the sums of long segments' pieces, then the steps.
//!
//! A segment of more than `PIECE` places is cut from its own beginning into pieces of `PIECE`, the last one shorter. The
//! block of `PIECE` places that a piece begins in names where its sum is kept, without a list of pieces:
//!
//! ```text
//! places        | block 0       | block 1       | block 2       |
//! long segments     [ piece 0       | piece 1       ][ piece 0 ..
//! kept at           first of 0        other of 1     first of 2       block * 2 + (1 for a segment's first piece)
//! ```
//!
//! At most one first piece begins in a block, since long segments are longer than a block, and at most one other piece.

#![expect(unsafe_code, reason = "hot kernels without checked indexing")]

use cubecl::prelude::*;

use super::{OP, Rule, SparseState, SparseStep, cube_row_wise};
use crate::{
    Buffer, Error, Result, Rows, Segment, Table,
    buffer::cube::{Gpu, Queue},
    rounding::cube::{narrow, philox},
    row_words::{F16, F32, RowWords, is_finite, n_rows, widen},
    segment::{PIECE, Unread},
};

const SGD: u32 = 0;
const ADAGRAD: u32 = 1;
const ADAM: u32 = 2;
const FTRL: u32 = 3;

/// What the kernels of one update read, beside rows and state.
pub(super) struct Inputs<'a> {
    pub(super) words: RowWords,
    pub(super) n: usize,
    pub(super) segment: &'a Segment,
    pub(super) unread: &'a Unread,
    pub(super) gradients: &'a Buffer<f32>,
    pub(super) partials: &'a Buffer<f32>,
    pub(super) reported: &'a Buffer<u32>,
    pub(super) step: &'a SparseStep,
    /// The number of the step, which the rounding is addressed by.
    pub(super) t: u64,
}

pub(super) fn update<R: Gpu>(
    table: &mut Table,
    state: &mut SparseState,
    segment: &Segment,
    gradients: &Buffer<f32>,
    step: &SparseStep,
    rule: Rule,
) -> Result<()> {
    let queue = Queue::<R>::new(table.device())?;
    let words = RowWords::of(OP, table)?;
    let (n, dim) = (segment.n(), table.dim());
    let (Some(unread), Some(reported)) = (segment.unread(), &state.reported) else {
        return Err(Error::MixedDevices { op: OP });
    };
    let partials =
        queue.unwritten::<f32>(n.div_ceil(PIECE).saturating_mul(2 * dim), "sums of pieces of gradients")?;
    let t = state.steps();
    let inputs = Inputs { words, n, segment, unread, gradients, partials: &partials, reported, step, t };
    if n > PIECE {
        let units = 2 * n.div_ceil(PIECE) * words.row_vectors;
        let cube_dim = CubeDim::new_1d(256);
        // SAFETY: positions are `0 .. n`, of which `gradients` has a row each; `ends` and `offsets` are those of the
        // segment, written before on this queue; a unit past the last block does nothing.
        unsafe {
            pieces_kernel::launch_unchecked::<R>(
                &queue.client,
                cubecl::calculate_cube_count_elemwise(&queue.client, units, cube_dim),
                cube_dim,
                words.width,
                queue.vector_arg(OP, gradients, words.width)?,
                queue.arg(OP, segment.offsets())?,
                queue.arg(OP, segment.positions())?,
                queue.arg(OP, &unread.ends)?,
                queue.vector_arg(OP, &partials, words.width)?,
                n as u32,
                words.row_vectors,
            );
        }
    }
    let mut states: Vec<_> = state.tables.iter().map(Table::chunks).collect();
    for (first, rows) in table.chunks_mut().take_while(|_| n > 0) {
        let own: Vec<&Buffer<f32>> = states
            .iter_mut()
            .filter_map(|chunks| match chunks.next() {
                Some((_, Rows::F32(buffer))) => Some(buffer),
                _ => None,
            })
            .collect();
        match rule {
            Rule::RowWise { initial, epsilon } => {
                let numbers = [initial, epsilon];
                cube_row_wise::launch(&queue, &inputs, first as u32, rows, own[0], dim, numbers)?;
            }
            rule => launch(&queue, &inputs, first as u32, rows, &own, dim, rule)?,
        }
    }
    drop(states);
    state.count_step();
    Ok(())
}

fn launch<R: Gpu>(
    queue: &Queue<R>,
    inputs: &Inputs,
    first_row: u32,
    rows: &Rows,
    states: &[&Buffer<f32>],
    dim: usize,
    rule: Rule,
) -> Result<()> {
    let (kind, [a, b, c, d, e]) = match rule {
        Rule::Sgd | Rule::RowWise { .. } => (SGD, [0.0; 5]),
        Rule::Adagrad { initial, epsilon } => (ADAGRAD, [initial, epsilon, 0.0, 0.0, 0.0]),
        Rule::Adam { beta1, beta2, epsilon, scale1, scale2 } => {
            (ADAM, [beta1, beta2, epsilon, scale1, scale2])
        }
        Rule::Ftrl { beta, l1 } => (FTRL, [beta, l1, 0.0, 0.0, 0.0]),
    };
    let words = inputs.words;
    let mut state_args = SequenceArg::new();
    for state in states {
        state_args.push(queue.vector_arg(OP, state, words.width)?);
    }
    let cube_dim = CubeDim::new_1d(256);
    let (step, t) = (inputs.step, inputs.t);
    // SAFETY: a unit reads a distinct row only below the number found, and steps it only where it is one of this chunk's,
    // whose state has the same rows (`check_table`); `gradients` has a row for each of the positions `0 .. n`, and
    // `partials` one for each piece. No two units share a vector of a row, since the rows are distinct.
    unsafe {
        step_kernel::launch_unchecked::<R>(
            &queue.client,
            cubecl::calculate_cube_count_elemwise(&queue.client, inputs.n * words.row_vectors, cube_dim),
            cube_dim,
            words.width,
            words.words,
            words.arg(OP, queue, rows)?,
            state_args,
            queue.vector_arg(OP, inputs.gradients, words.width)?,
            queue.arg(OP, inputs.segment.unique())?,
            queue.arg(OP, inputs.segment.offsets())?,
            queue.arg(OP, inputs.segment.positions())?,
            queue.arg(OP, &inputs.unread.found)?,
            queue.vector_arg(OP, inputs.partials, words.width)?,
            queue.arg(OP, inputs.reported)?,
            first_row,
            n_rows(rows, dim) as u32,
            step.learning_rate,
            step.l2,
            a,
            b,
            c,
            d,
            e,
            step.seed as u32,
            (step.seed >> 32) as u32,
            t as u32,
            (t >> 32) as u32,
            kind,
            words.format,
            words.row_vectors,
            words.width,
        );
    }
    Ok(())
}

/// The sum of the unit's vector of the gradients at places `begin .. end`, one after the other; four are asked for before
/// the first is added.
#[cube]
fn sum_places<N: Size>(
    gradients: &Array<Vector<f32, N>>,
    positions: &Array<u32>,
    begin: u32,
    end: u32,
    lane: usize,
    #[comptime] row_vectors: usize,
) -> Vector<f32, N> {
    let mut sum = Vector::<f32, N>::new(0.0);
    let mut place = begin;
    while place + 4 <= end {
        let a = gradients[positions[place as usize] as usize * row_vectors + lane];
        let b = gradients[positions[place as usize + 1] as usize * row_vectors + lane];
        let c = gradients[positions[place as usize + 2] as usize * row_vectors + lane];
        let d = gradients[positions[place as usize + 3] as usize * row_vectors + lane];
        sum += a;
        sum += b;
        sum += c;
        sum += d;
        place += 4;
    }
    while place < end {
        sum += gradients[positions[place as usize] as usize * row_vectors + lane];
        place += 1;
    }
    sum
}

/// Where the sum of the piece is kept that begins at `begin`, of the segment that begins at `start`.
#[cube]
fn kept_at(begin: u32, start: u32) -> usize {
    let mut at = (begin as usize / PIECE) * 2;
    if begin == start {
        at += 1;
    }
    at
}

/// The unit's vector of the sum of the gradients of distinct row `slot`.
#[cube]
pub(super) fn gradient_of<N: Size>(
    gradients: &Array<Vector<f32, N>>,
    offsets: &Array<u32>,
    positions: &Array<u32>,
    partials: &Array<Vector<f32, N>>,
    slot: usize,
    lane: usize,
    #[comptime] row_vectors: usize,
) -> Vector<f32, N> {
    let (start, stop) = (offsets[slot], offsets[slot + 1]);
    let mut sum = Vector::<f32, N>::new(0.0);
    if stop - start <= comptime!(PIECE as u32) {
        sum = sum_places::<N>(gradients, positions, start, stop, lane, row_vectors);
    } else {
        let mut begin = start;
        while begin < stop {
            sum += partials[kept_at(begin, start) * row_vectors + lane];
            begin += comptime!(PIECE as u32);
        }
    }
    sum
}

/// One vector of one piece a unit.
#[cube(launch_unchecked)]
fn pieces_kernel<N: Size>(
    gradients: &Array<Vector<f32, N>>,
    offsets: &Array<u32>,
    positions: &Array<u32>,
    ends: &Array<u32>,
    partials: &mut Array<Vector<f32, N>>,
    n_places: u32,
    #[comptime] row_vectors: usize,
) {
    let lane = ABSOLUTE_POS % row_vectors;
    let at = ABSOLUTE_POS / row_vectors;
    let block = at / 2;
    let piece = comptime!(PIECE as u32);
    if block * PIECE < n_places as usize {
        let base = (block * PIECE) as u32;
        let mut begin = 0u32;
        let mut end = 0u32;
        if at % 2 == 1 {
            // The one that holds the block's last place, if it begins in the block.
            let slot = ends[block] as usize;
            let (start, stop) = (offsets[slot], offsets[slot + 1]);
            if start >= base && stop - start > piece {
                begin = start;
                end = start + piece;
            }
        } else if block > 0 {
            // The one that holds the last place of the block before, if it goes on.
            let slot = ends[block - 1] as usize;
            let (start, stop) = (offsets[slot], offsets[slot + 1]);
            if stop > base && stop - start > piece {
                begin = base;
                let over = (base - start) % piece;
                if over > 0 {
                    begin += piece - over;
                }
                end = min(begin + piece, stop);
            }
        }
        if end > begin {
            partials[at * row_vectors + lane] =
                sum_places::<N>(gradients, positions, begin, end, lane, row_vectors);
        }
    }
}

/// Writes the unit's vector of a row, narrow values rounded by chance; a value beyond the narrow type stands still.
#[cube]
pub(super) fn store<N: Size, W: Size>(
    rows: &mut Array<Vector<u32, W>>,
    reported: &mut Array<Atomic<u32>>,
    at: usize,
    new: Vector<f32, N>,
    row: u32,
    lane: usize,
    seed_low: u32,
    seed_high: u32,
    step_low: u32,
    step_high: u32,
    #[comptime] format: u32,
    #[comptime] row_vectors: usize,
    #[comptime] width: usize,
) {
    let mut words = Vector::<u32, W>::empty();
    if comptime!(format == F32) {
        #[unroll]
        for k in 0..W::value() {
            words[k] = u32::reinterpret(new[k]);
        }
    } else {
        let old = rows[at];
        let quads = comptime!((row_vectors * width).div_ceil(4) as u32);
        let quad = (lane * width / 4) as u32;
        let mut counter = Vector::<u32, Const<4>>::empty();
        counter[0] = row * quads + quad;
        counter[1] = row.mul_hi(quads);
        if counter[0] < quad {
            counter[1] += 1;
        }
        counter[2] = step_low;
        counter[3] = step_high;
        let random = philox(counter, seed_low, seed_high);
        let most = comptime!(if format == F16 { 0x7c00u32 } else { 0x7f80u32 });
        let mut overflows = false;
        #[unroll]
        for k in 0..W::value() {
            let mut word_low = random[2 * k];
            let mut word_high = random[2 * k + 1];
            if comptime!(width == 2) && lane % 2 == 1 {
                word_low = random[2];
                word_high = random[3];
            }
            let mut low = narrow(new[2 * k], word_low, format);
            if (low & most) == most {
                low = old[k] & 0xffff;
                overflows = true;
            }
            let mut high = narrow(new[2 * k + 1], word_high, format);
            if (high & most) == most {
                high = old[k] >> 16;
                overflows = true;
            }
            words[k] = low | (high << 16);
        }
        if overflows {
            reported[0].fetch_min(row);
        }
    }
    rows[at] = words;
}

/// One vector of one distinct row a unit.
#[cube(launch_unchecked)]
fn step_kernel<N: Size, W: Size>(
    rows: &mut Array<Vector<u32, W>>,
    states: &mut Sequence<Array<Vector<f32, N>>>,
    gradients: &Array<Vector<f32, N>>,
    unique: &Array<u32>,
    offsets: &Array<u32>,
    positions: &Array<u32>,
    found: &Array<u32>,
    partials: &Array<Vector<f32, N>>,
    reported: &mut Array<Atomic<u32>>,
    first_row: u32,
    n_rows: u32,
    rate: f32,
    l2: f32,
    a: f32,
    b: f32,
    c: f32,
    d: f32,
    e: f32,
    seed_low: u32,
    seed_high: u32,
    step_low: u32,
    step_high: u32,
    #[comptime] kind: u32,
    #[comptime] format: u32,
    #[comptime] row_vectors: usize,
    #[comptime] width: usize,
) {
    let (slot, lane) = (ABSOLUTE_POS / row_vectors, ABSOLUTE_POS % row_vectors);
    if slot < found[0] as usize {
        let row = unique[slot];
        if row >= first_row && row - first_row < n_rows {
            let at = (row - first_row) as usize * row_vectors + lane;
            let g = gradient_of::<N>(gradients, offsets, positions, partials, slot, lane, row_vectors);
            let mut w = widen::<N, W>(rows[at], format);
            let mut one = Vector::<f32, N>::empty();
            let mut two = Vector::<f32, N>::empty();
            if comptime!(kind != SGD) {
                one = states.index(0usize)[at];
            }
            if comptime!(kind == ADAM || kind == FTRL) {
                two = states.index(1usize)[at];
            }
            let mut all_finite = true;
            #[unroll]
            for k in 0..N::value() {
                let mut new_w = w[k];
                let mut new_one = f32::new(0.0);
                let mut new_two = f32::new(0.0);
                if comptime!(kind == SGD) {
                    new_w -= rate * (g[k] + l2 * w[k]);
                } else if comptime!(kind == ADAGRAD) {
                    let g = g[k] + l2 * w[k];
                    new_one = one[k] + g * g;
                    new_w -= rate * g / ((a + new_one).sqrt() + b);
                } else if comptime!(kind == ADAM) {
                    let g = g[k] + l2 * w[k];
                    new_one = a * one[k] + (1.0 - a) * g;
                    new_two = b * two[k] + (1.0 - b) * g * g;
                    new_w -= rate * (new_one * d) / ((new_two * e).sqrt() + c);
                } else {
                    let g = g[k];
                    new_two = two[k] + g * g;
                    new_one = one[k] + g - (new_two.sqrt() - two[k].sqrt()) / rate * w[k];
                    let excess = new_one.abs() - b;
                    new_w = f32::new(0.0);
                    if excess > 0.0 {
                        new_w = excess / ((a + new_two.sqrt()) / rate + l2);
                        if new_one > 0.0 {
                            new_w = -new_w;
                        }
                    }
                }
                // What is not finite shows in the state too, where there is one: NaN compares as no excess above.
                if is_finite(new_w) && is_finite(new_one) && is_finite(new_two) {
                    w[k] = new_w;
                    one[k] = new_one;
                    two[k] = new_two;
                } else {
                    all_finite = false;
                }
            }
            if !all_finite {
                reported[0].fetch_min(row);
            }
            if comptime!(kind != SGD) {
                states.index_mut(0usize)[at] = one;
            }
            if comptime!(kind == ADAM || kind == FTRL) {
                states.index_mut(1usize)[at] = two;
            }
            store::<N, W>(
                rows,
                reported,
                at,
                w,
                row,
                lane,
                seed_low,
                seed_high,
                step_low,
                step_high,
                format,
                row_vectors,
                width,
            );
        }
    }
}
