//! One tile against the queries that it can help: in f32, or in int8 with exact scores of what that leaves.

use super::{
    TopkQuery,
    quantized::{self, Codes, QueryScale},
    scan::{GroupAnswers, Scan, Slot},
    select::Best,
    tile::{self, CodeBlock, FloatBlock, LANES, Lanes, MAX_WIDTH, Maxima, NO_MAXIMA, Open},
};

/// Panels of the first tile that are scored once more in advance, to begin with a threshold near the last.
const SEED_PANELS: usize = 64;

/// A query on its way over the tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// Which of the group's queries it is, and where its room in the answers is.
    pub(super) query: usize,
    pub(super) begin: usize,
    pub(super) end: usize,
    /// How many rows it is answered with so far.
    pub(super) len: usize,
    /// The score below which a row cannot be in the answer, by what has been scored exactly.
    pub(super) threshold: f32,
    /// What the k-th best score reaches at least; in units of `scale` for a query with codes.
    seed: f32,
    /// The norm of its vector, with room for rounding.
    pub(super) norm: f64,
    /// How it is quantized, where it is.
    pub(super) scale: Option<QueryScale>,
    /// Rows that the first pass has left and that are not scored yet.
    pending: [u32; LANES],
    n_pending: usize,
}

impl State {
    pub(super) fn new(
        query: usize,
        (begin, end): (usize, usize),
        norm: f64,
        scale: Option<QueryScale>,
    ) -> Self {
        let nothing = f32::NEG_INFINITY;
        let (threshold, seed, pending) = (nothing, nothing, [0; LANES]);
        Self { query, begin, end, len: 0, threshold, seed, norm, scale, pending, n_pending: 0 }
    }

    fn float_threshold(&self) -> f32 {
        self.threshold.max(self.seed)
    }

    fn code_threshold(&self) -> f32 {
        quantized::threshold(self.threshold, self.scale.unwrap_or_default().inverse).max(self.seed)
    }

    fn best<'b>(&self, query: &TopkQuery<'_>, out: &'b mut GroupAnswers<'_>) -> Best<'b> {
        let range = self.begin..self.end;
        Best::resume(query.tie_key, self.len, &mut out.scores[range.clone()], &mut out.indices[range])
    }
}

/// Panels `first .. first + n` of all, which are panels `begin ..` of a span of `span`.
pub(super) struct Tile {
    pub(super) span: usize,
    pub(super) begin: usize,
    pub(super) first: usize,
    pub(super) n: usize,
    /// Whether it is the first of its part, where thresholds are still to be found.
    pub(super) is_first: bool,
}

impl Tile {
    /// Returns the open lanes of the members' queries in this tile.
    fn open<'b>(&self, open: &'b [u16], members: &[u32]) -> Open<'b> {
        std::array::from_fn(|q| {
            let member = members.get(q).copied().unwrap_or(members[0]) as usize;
            &open[member * self.span + self.begin..][..self.n]
        })
    }

    fn is_seeded(&self) -> bool {
        self.is_first && self.n >= SEED_PANELS
    }
}

impl Scan<'_> {
    pub(super) fn float_tile(
        &self,
        queries: &[TopkQuery<'_>],
        tile: &Tile,
        slot: &mut Slot,
        out: &mut GroupAnswers<'_>,
    ) {
        let dim = self.reader.dim();
        let Slot { states, active, packed_for, open, tile: panels, packed, spare, .. } = slot;
        let panels = &mut panels[..tile.n * dim];
        for (at, panel) in panels.chunks_exact_mut(dim).enumerate() {
            let begin = (tile.first + at) * LANES;
            match self.rows_of_panel(begin) {
                Some(rows) => {
                    for row in self.rows_of_panel(begin + LANES).iter().flatten() {
                        self.reader.prefetch(*row);
                    }
                    tile::pack(self.level, &self.reader.rows(&rows, spare), panel);
                }
                None => panel.fill(Lanes::default()),
            }
        }
        let widest = tile::width_for(self.level, MAX_WIDTH);
        if active != packed_for {
            packed_for.clone_from(active);
            for (members, packed) in active.chunks(widest).zip(packed.chunks_exact_mut(widest * dim)) {
                let vector = |&member: &u32| queries[states[member as usize].query].vector;
                interleave(members.iter().map(vector), tile::width_for(self.level, members.len()), packed);
            }
        }
        for (members, packed) in active.chunks(widest).zip(packed.chunks_exact(widest * dim)) {
            let width = tile::width_for(self.level, members.len());
            let mut block = FloatBlock {
                dim,
                panels,
                bias: self.bias_panels.map(|bias| &bias[tile.first..][..tile.n]),
                queries: &packed[..width * dim],
                width,
                open: tile.open(open, members),
            };
            if tile.is_seeded() {
                let mut maxima: Maxima = NO_MAXIMA;
                block.panels = &panels[..SEED_PANELS * dim];
                tile::float_maxima(self.level, &block, &mut maxima);
                block.panels = panels;
                seed(states, members, &maxima);
            }
            let mut thresholds = [f32::INFINITY; MAX_WIDTH];
            for (threshold, &member) in thresholds.iter_mut().zip(members) {
                *threshold = states[member as usize].float_threshold();
            }
            tile::float_block(self.level, &block, &mut thresholds, &mut |q, panel, mask, scores| {
                let state = &mut states[members[q] as usize];
                let mut best = state.best(&queries[state.query], out);
                for lane in lanes(mask) {
                    best.offer(scores[lane], self.row_at((tile.first + panel) * LANES + lane));
                }
                (state.len, state.threshold) = (best.len(), best.threshold());
                state.float_threshold()
            });
        }
    }

    pub(super) fn code_tile(
        &self,
        queries: &[TopkQuery<'_>],
        tile: &Tile,
        slot: &mut Slot,
        out: &mut GroupAnswers<'_>,
    ) {
        let Some((codes, _)) = self.codes else { return };
        let steps = codes.steps;
        let Slot { states, active, packed_for, open, codes: query_codes, packed_codes, spare, .. } = slot;
        let widest = tile::code_width_for(self.level, MAX_WIDTH);
        if active != packed_for {
            packed_for.clone_from(active);
            for (members, packed) in active.chunks(widest).zip(packed_codes.chunks_exact_mut(widest * steps))
            {
                let codes = |&member: &u32| &query_codes[member as usize * steps..][..steps];
                interleave(
                    members.iter().map(codes),
                    tile::code_width_for(self.level, members.len()),
                    packed,
                );
            }
        }
        for (members, packed) in active.chunks(widest).zip(packed_codes.chunks_exact(widest * steps)) {
            let width = tile::code_width_for(self.level, members.len());
            let (mut code_norm, mut residual) = (0.0f32, 0.0f32);
            let mut inverse_scale = [0.0; MAX_WIDTH];
            for (inverse, &member) in inverse_scale.iter_mut().zip(members) {
                let scale = states[member as usize].scale.unwrap_or_default();
                *inverse = scale.inverse as f32;
                code_norm = code_norm.max(scale.code_norm);
                residual = residual.max(scale.residual);
            }
            let panels = |n: usize| Codes {
                steps,
                lines: &codes.lines[tile.first * steps..][..n * steps],
                scales: &codes.scales[tile.first..][..n],
            };
            let mut block = CodeBlock {
                codes: panels(tile.n),
                bias: self.bias_panels.map(|bias| &bias[tile.first..][..tile.n]),
                queries: &packed[..width * steps],
                width,
                inverse_scale,
                code_norm,
                residual,
                slack: quantized::SLACK,
                bias_slack: quantized::bias_slack(self.reader.dim()),
                open: tile.open(open, members),
            };
            if tile.is_seeded() {
                let mut maxima: Maxima = NO_MAXIMA;
                block.codes = panels(SEED_PANELS);
                tile::code_maxima(self.level, &block, &mut maxima);
                block.codes = panels(tile.n);
                seed(states, members, &maxima);
            }
            let mut thresholds = [f32::INFINITY; MAX_WIDTH];
            for (threshold, &member) in thresholds.iter_mut().zip(members) {
                *threshold = states[member as usize].code_threshold();
            }
            tile::code_block(self.level, &block, &mut thresholds, &mut |q, panel, mask, _| {
                let state = &mut states[members[q] as usize];
                for lane in lanes(mask) {
                    let row = self.row_at((tile.first + panel) * LANES + lane);
                    self.reader.prefetch(row);
                    state.pending[state.n_pending] = row;
                    state.n_pending += 1;
                    if state.n_pending == LANES {
                        self.settle(&queries[state.query], state, spare, out);
                    }
                }
                state.code_threshold()
            });
        }
    }

    /// Scores the rows that the first pass could not rule out.
    pub(super) fn settle(
        &self,
        query: &TopkQuery<'_>,
        state: &mut State,
        spare: &mut [f32],
        out: &mut GroupAnswers<'_>,
    ) {
        let pending = state.pending;
        let pending = &pending[..state.n_pending];
        state.n_pending = 0;
        let scores = self.dots(query.vector, pending, spare);
        let mut best = state.best(query, out);
        for (&score, &row) in scores.iter().zip(pending) {
            best.offer(score, row);
        }
        (state.len, state.threshold) = (best.len(), best.threshold());
    }

    /// Returns the rows of the panel at position `begin`, the last again where there are no more; `None` past the end.
    fn rows_of_panel(&self, begin: usize) -> Option<[u32; LANES]> {
        let end = (begin + LANES).min(self.reader.n_rows());
        (begin < end).then(|| std::array::from_fn(|lane| self.row_at((begin + lane).min(end - 1))))
    }
}

/// Lays `vectors` side by side, value by value, and zeros beside them up to `width`.
fn interleave<'a, T: Copy + Default + 'a>(
    vectors: impl ExactSizeIterator<Item = &'a [T]>,
    width: usize,
    out: &mut [T],
) {
    let n = vectors.len();
    for (at, vector) in vectors.enumerate() {
        for (to, &value) in out[at..].iter_mut().step_by(width).zip(vector) {
            *to = value;
        }
    }
    for rest in out.chunks_exact_mut(width) {
        rest[n..].fill(T::default());
    }
}

/// Gives every member the k-th largest of its maxima as a start.
fn seed(states: &mut [State], members: &[u32], maxima: &Maxima) {
    for (&member, maxima) in members.iter().zip(maxima) {
        let state = &mut states[member as usize];
        let seed = tile::seed(maxima, state.end - state.begin);
        state.seed = if state.scale.is_some() { quantized::threshold(seed, 1.0) } else { seed };
    }
}

fn lanes(mask: u16) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let lane = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}
