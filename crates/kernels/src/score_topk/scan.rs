//! One group of queries against all rows or its share of them, on one thread.
//!
//! Positions are cut into spans (for which each query's open lanes are written down as bits) and spans into tiles that
//! stay in the second-level cache while every query of the group passes over them. Queries that no norm in a tile can
//! help are left out of it, and the others are packed densely into the kernels' blocks.

use super::{
    OP, TopkQuery, check_query,
    pass::{State, Tile},
    prepared::TopkPrepared,
    quantized::{self, Codes},
    rows::RowReader,
    select::Best,
    tile::{self, LANES, Lanes, MAX_WIDTH},
};
use crate::{Error, Result, simd::Level};

/// The most queries of a group; a multiple of the widest block.
pub(super) const MAX_GROUP: usize = 18 * MAX_WIDTH;

/// Panels of a span: 64 Ki rows, so that the open bits of a group are at most 2 MiB.
const SPAN_PANELS: usize = 4096;

/// Bytes of a tile: half of a usual second-level cache, or less.
const TILE_BYTES: usize = 256 << 10;
const MAX_TILE_PANELS: usize = 128;

/// Beyond this many rows for each row of the answer, the first pass in int8 is worth its second look.
const ROWS_PER_ANSWER: usize = 64;

/// Everything that is the same for all groups of a call.
pub(super) struct Scan<'a> {
    pub(super) reader: RowReader<'a>,
    pub(super) level: Level,
    n_panels: usize,
    order: Option<&'a [u32]>,
    place: Option<&'a [u32]>,
    norms: Option<&'a [f32]>,
    pub(super) codes: Option<(Codes<'a>, f64)>,
    max_norm: f64,
    bias: Option<&'a [f32]>,
    pub(super) bias_panels: Option<&'a [Lanes]>,
    max_bias: f64,
}

/// The share of the tiles that a group scans: those whose number is `part` modulo `parts`.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) part: usize,
    pub(super) parts: usize,
}

/// Where a group's answers go.
pub(super) struct GroupAnswers<'a> {
    /// Where each query's room ends, less `offset`.
    pub(super) ends: &'a [usize],
    pub(super) offset: usize,
    /// How many rows each query is answered with.
    pub(super) counts: &'a mut [u32],
    pub(super) indices: &'a mut [u32],
    pub(super) scores: &'a mut [f32],
}

/// Memory of one thread, used again from group to group.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) states: Vec<State>,
    /// The states that the tile at hand can help, and those that `packed` or `packed_codes` was laid out for.
    pub(super) active: Vec<u32>,
    pub(super) packed_for: Vec<u32>,
    pub(super) packed: Vec<f32>,
    pub(super) packed_codes: Vec<u32>,
    /// `[states, span]`: which lanes of a span each query may be answered with.
    pub(super) open: Vec<u16>,
    allowed: Vec<u16>,
    /// `[tile, dim]`: panels of f32.
    pub(super) tile: Vec<Lanes>,
    /// `[states, steps]`.
    pub(super) codes: Vec<u32>,
    /// `[LANES, dim]`: rows that are stored otherwise than in f32.
    pub(super) spare: Vec<f32>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        reader: RowReader<'a>,
        prepared: &'a TopkPrepared,
        bias: Option<&'a [f32]>,
        bias_panels: &'a [Lanes],
        level: Level,
    ) -> Self {
        Self {
            reader,
            level,
            n_panels: prepared.n_panels(),
            order: prepared.order(),
            place: prepared.place(),
            norms: prepared.norms(),
            codes: prepared.codes(),
            max_norm: prepared.max_norm,
            bias,
            bias_panels: bias.map(|_| bias_panels),
            max_bias: bias.map_or(0.0, |bias| f64::from(bias.iter().fold(0.0f32, |m, b| m.max(b.abs())))),
        }
    }

    /// Grows `slot` to what a group of `group` queries needs, so that no group allocates.
    pub(super) fn reserve(&self, slot: &mut Slot, group: usize) {
        fn grow<T: Clone + Default>(values: &mut Vec<T>, len: usize) {
            if values.len() < len {
                values.resize(len, T::default());
            }
        }
        let (dim, steps) = (self.reader.dim(), self.steps());
        let span = self.n_panels.min(SPAN_PANELS);
        slot.states.reserve(group.saturating_sub(slot.states.len()));
        slot.active.reserve(group.saturating_sub(slot.active.len()));
        slot.packed_for.reserve(group.saturating_sub(slot.packed_for.len()));
        grow(&mut slot.open, group * span);
        grow(&mut slot.allowed, span);
        grow(&mut slot.tile, self.tile_panels(4).min(self.n_panels) * dim);
        grow(&mut slot.codes, group * steps);
        let packed = group.next_multiple_of(tile::width_for(self.level, MAX_WIDTH));
        grow(&mut slot.packed, packed * dim);
        grow(&mut slot.packed_codes, packed * steps);
        grow(&mut slot.spare, LANES * dim);
    }

    /// Answers `queries`, the first of which is row `first_row` of the call, with the rows of `part`.
    pub(super) fn group(
        &self,
        queries: &[TopkQuery<'_>],
        first_row: usize,
        part: Part,
        slot: &mut Slot,
        out: &mut GroupAnswers<'_>,
    ) -> Result<()> {
        slot.states.clear();
        out.counts.fill(0);
        let few = queries.len() <= tile::most_in_int8(self.level);
        for (at, query) in queries.iter().enumerate() {
            let row = (first_row + at) as u64;
            check_query(self.reader.n_rows(), self.reader.dim(), query, row)?;
            let begin = if at == 0 { 0 } else { out.ends[at - 1] - out.offset };
            let end = out.ends[at] - out.offset;
            if begin == end {
                continue;
            }
            let squares = query.vector.iter().map(|&v| f64::from(v) * f64::from(v));
            let norm = squares.sum::<f64>().sqrt();
            let slack = quantized::norm_slack(self.reader.dim());
            let safe = (norm * self.max_norm + self.max_bias) * slack < f64::from(f32::MAX);
            if query.candidates.is_some() || !safe {
                if part.part == 0 {
                    let room = (&mut out.indices[begin..end], &mut out.scores[begin..end]);
                    out.counts[at] = self.gather(query, row, &mut slot.spare, room)? as u32;
                }
                continue;
            }
            let codes = &mut slot.codes[slot.states.len() * self.steps()..][..self.steps()];
            let scale = self.codes.and_then(|(_, max_code_norm)| {
                let short = (end - begin).saturating_mul(ROWS_PER_ANSWER) <= self.reader.n_rows();
                let small = self.max_bias <= 1e12;
                (few && short && small)
                    .then(|| quantized::quantize_query(query.vector, norm, max_code_norm, codes))?
            });
            slot.states.push(State::new(at, (begin, end), norm * slack, scale));
        }
        for first in (0..self.n_panels).step_by(SPAN_PANELS) {
            let n = SPAN_PANELS.min(self.n_panels - first);
            self.open_lanes(queries, first, n, slot);
            self.span(queries, (first, n), part, false, slot, out);
            self.span(queries, (first, n), part, true, slot, out);
        }
        let Slot { states, spare, .. } = slot;
        for state in states {
            self.settle(&queries[state.query], state, spare, out);
            out.counts[state.query] = state.len as u32;
        }
        for (at, query) in queries.iter().enumerate() {
            let begin = if at == 0 { 0 } else { out.ends[at - 1] - out.offset };
            let (len, end) = (out.counts[at] as usize, out.ends[at] - out.offset);
            let (scores, indices) = (&mut out.scores[begin..end], &mut out.indices[begin..end]);
            Best::resume(query.tie_key, len, scores, indices).sort();
        }
        Ok(())
    }

    /// Scores the rows that the filters of `query` leave one by one, checking each.
    fn gather(
        &self,
        query: &TopkQuery<'_>,
        row: u64,
        spare: &mut [f32],
        (indices, scores): (&mut [u32], &mut [f32]),
    ) -> Result<usize> {
        let mut best = Best::resume(query.tie_key, 0, scores, indices);
        let mut few = [0; LANES];
        let mut n = 0;
        let mut score = |few: &[u32]| {
            for (&score, &index) in self.dots(query.vector, few, spare).iter().zip(few) {
                if !score.is_finite() {
                    return Err(Error::NotFinite { op: OP, what: "score", row });
                }
                best.offer(score, index);
            }
            Ok(())
        };
        query.each_allowed(self.reader.n_rows(), |index| {
            few[n] = index;
            n += 1;
            if n == LANES {
                n = 0;
                score(&few)?;
            }
            Ok(())
        })?;
        score(&few[..n])?;
        Ok(best.len())
    }

    /// Writes down which lanes of a span each query may be answered with.
    fn open_lanes(&self, queries: &[TopkQuery<'_>], first: usize, n: usize, slot: &mut Slot) {
        let (begin, end) = (first * LANES, ((first + n) * LANES).min(self.reader.n_rows()));
        let mut known: Option<&[u64]> = None;
        for (state, open) in slot.states.iter().zip(slot.open.chunks_exact_mut(n)) {
            let query = &queries[state.query];
            match query.allow {
                None => {
                    let full = (end - begin) / LANES;
                    open[..full].fill(!0);
                    open[full..].fill(0);
                    if !(end - begin).is_multiple_of(LANES) {
                        open[full] = (1 << ((end - begin) % LANES)) - 1;
                    }
                }
                Some(words) => {
                    // Queries of one request share their bitmap, so it is laid out by position once.
                    if !known.is_some_and(|known| std::ptr::eq(known, words)) {
                        known = Some(words);
                        let allowed = &mut slot.allowed[..n];
                        allowed.fill(0);
                        for position in begin..end {
                            let row = self.row_at(position) as usize;
                            let bit = words[row / 64] >> (row % 64) & 1;
                            allowed[(position - begin) / LANES] |= (bit as u16) << (position % LANES);
                        }
                    }
                    open.copy_from_slice(&slot.allowed[..n]);
                }
            }
            for &row in query.exclude {
                let position = match self.place {
                    Some(place) => place.get(row as usize).map_or(usize::MAX, |&position| position as usize),
                    None => row as usize,
                };
                if (begin..end).contains(&position) {
                    open[(position - begin) / LANES] &= !(1 << (position % LANES));
                }
            }
        }
    }

    /// Scans the tiles of a span for the queries that have codes, or for those that have none.
    fn span(
        &self,
        queries: &[TopkQuery<'_>],
        (first, n): (usize, usize),
        part: Part,
        coded: bool,
        slot: &mut Slot,
        out: &mut GroupAnswers<'_>,
    ) {
        if !slot.states.iter().any(|state| state.scale.is_some() == coded) {
            return;
        }
        slot.packed_for.clear();
        let step = self.tile_panels(if coded { 1 } else { 4 });
        for (number, begin) in (0..n).step_by(step).enumerate() {
            let tile = Tile {
                span: n,
                begin,
                first: first + begin,
                n: step.min(n - begin),
                is_first: first == 0 && number == part.part,
            };
            if (first / step + number) % part.parts != part.part {
                continue;
            }
            let reach = self.reach(&tile);
            let Slot { states, active, .. } = &mut *slot;
            active.clear();
            active.extend((0u32..).zip(&*states).filter_map(|(at, state)| {
                let hopeful = f64::from(state.threshold) <= state.norm * reach.0 + reach.1;
                (hopeful && state.scale.is_some() == coded).then_some(at)
            }));
            if active.is_empty() {
                continue;
            }
            if coded {
                self.code_tile(queries, &tile, slot, out);
            } else {
                self.float_tile(queries, &tile, slot, out);
            }
        }
    }

    /// Returns the scores of `vector` with up to [`LANES`] rows.
    pub(super) fn dots(&self, vector: &[f32], rows: &[u32], spare: &mut [f32]) -> [f32; LANES] {
        if rows.is_empty() {
            return [0.0; LANES];
        }
        let mut start = [0.0; LANES];
        if let Some(bias) = self.bias {
            for (start, &row) in start.iter_mut().zip(rows) {
                *start = bias[row as usize];
            }
        }
        tile::dots(self.level, &self.reader.rows(rows, spare), vector, start)
    }

    /// Returns the largest norm in a tile and the largest bias, with room for rounding.
    fn reach(&self, tile: &Tile) -> (f64, f64) {
        let Some(norms) = self.norms else { return (0.0, f64::INFINITY) };
        let norm = norms.get(tile.first * LANES).copied().unwrap_or(0.0);
        let bias = self.bias_panels.map_or(0.0, |panels| {
            let lanes = panels[tile.first..][..tile.n].iter().flat_map(|panel| panel.0);
            f64::from(lanes.fold(f32::NEG_INFINITY, f32::max))
        });
        let slack = quantized::norm_slack(self.reader.dim()) - 1.0;
        // The smallest positive f32 for each dimension is what underflow may add.
        let underflow = self.reader.dim() as f64 * f64::from(f32::from_bits(1));
        (f64::from(norm), bias + bias.abs() * slack + underflow)
    }

    #[inline]
    pub(super) fn row_at(&self, position: usize) -> u32 {
        self.order.map_or(position as u32, |order| order[position])
    }

    fn steps(&self) -> usize {
        self.codes.map_or(0, |(codes, _)| codes.steps)
    }

    /// Returns the panels of a tile whose numbers have `bytes` bytes; a multiple of four.
    fn tile_panels(&self, bytes: usize) -> usize {
        let fit = TILE_BYTES / (self.reader.dim() * bytes * LANES);
        (fit / 4 * 4).clamp(4, MAX_TILE_PANELS)
    }
}
