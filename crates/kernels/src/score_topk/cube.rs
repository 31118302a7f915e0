//! Top-k on a GPU: a first pass that keeps one number for many rows, and exact scores again for the few that can matter.
//!
//! ```text
//! group g of G holds rows g, g + G, g + 2 G, ..             G = at most 8,192, and at least 4 k where there are rows
//! 1. best[q, g]  = the largest score of q in group g, among rows that `allow` leaves
//! 2.               an excluded row that is its group's best is left out and the group looked through again
//! 3. limit[q]    = the k-th largest best[q, :]              k rows at least score that much, so no lower one matters
//! 4. found[q]    = rows of groups with best >= limit whose own score is, and that the filters leave
//! ```
//!
//! Where rows are of f16 and the device has matrix units, many queries' first pass is theirs (`cube_matrix.rs`): `best` is then near the
//! largest score, and steps 2 to 4 allow for how near.
//!
//! The host sorts what was found by score, then hash, and keeps `k`. A query for which more rows are found than there is
//! room for (many equal scores), or with a score that is no number, is answered from all its scores on the host: the same
//! answer, slower. So are queries with candidates, whose candidates alone are scored.
//!
//! # Layout
//!
//! | name    | shape            | type | what                                                                        |
//! |---------|------------------|------|-----------------------------------------------------------------------------|
//! | vectors | `[queries, dim]` | f32  |                                                                             |
//! | best    | `[queries, G]`   | u32  | a score as a number of the same order; 0 where the filters leave no row     |
//! | lists   | `[queries, room]`| u32  | groups to look through                                                      |
//! | found   | `[queries, room]`| u32, f32 | rows and scores, in any order                                           |
//!
//! # Cost
//! `2 queries rows dim` operations, once, in tiles of 128 queries by 64 rows (8 x 4 sums a unit; 16 queries where there are
//! few); 4 bytes a group and query written and read back twice; then about `k rows / G` scores a query again. A score is
//! the chain of `mod`, everywhere. The rows of a tile are neighbours, each of another group, so that the best of a group
//! is kept by one unit in a register.

#![expect(
    clippy::collapsible_if,
    reason = "in a kernel, both sides of && are evaluated, reads past the end too"
)]

use cubecl::prelude::*;

use super::{
    OP, TopkAnswers, TopkQuery, cube_matrix,
    cube_matrix::Operands,
    cube_rows::{check_kernel, is_allowed, is_excluded, key, lower, score_kernel, score_of, write_best},
    select, topk_of_scores,
};
use crate::{
    Buffer, Device, Error, Result, RowType, Table,
    buffer::cube::{Gpu, Queue, cubes},
    table::bound::{Bound, RowFloat, load_row, with_row_type},
};

/// Units along the queries and along the rows of a tile.
const SIDE: usize = 16;
const UNITS: usize = SIDE * SIDE;
/// Rows a unit has in a tile.
const OWN_ROWS: usize = 4;
const TILE_ROWS: usize = SIDE * OWN_ROWS;
/// Numbers between two columns of a tile of rows: units that store a row meet in half as many banks.
const ROW_STRIDE: usize = TILE_ROWS + 4;
/// Columns of both operands in shared memory at once.
const DEPTH: usize = 16;
const MAX_GROUPS: usize = 8192;
/// Queries answered together, at most, and bytes of their groups' bests.
const MAX_QUERIES: usize = 4096;
const BEST_BYTES: usize = 64 << 20;
/// Candidates scored together, at most, but for one query's.
const MAX_CANDIDATES: usize = 4 << 20;
/// The best of each group, the groups to look through, the rows found and their scores.
const _: () = assert!((BEST_BYTES + 3 * 4 * MAX_CANDIDATES) as u64 == super::TOPK_BYTES_ON_GPU);
/// Units that look through one query's groups.
const QUERY_UNITS: usize = 128;
/// No row.
const NONE: u32 = u32::MAX;

/// Returns the largest norm of the rows of `table`, rounded up; infinite where single precision does not hold its square.
///
/// # Errors
/// [`Error::NotFinite`] naming the first row with NaN or infinity.
pub(super) fn check_rows<R: Gpu>(table: &Table, device: Device) -> Result<f64> {
    let queue = Queue::<R>::new(device)?;
    let bound = Bound::new(OP, &queue, table)?;
    let found = queue.upload(&[NONE, 0], "the first row that is not finite, and the largest norm")?;
    let rows = table.rows() as usize;
    if rows > 0 {
        with_row_type!(OP, table, F => {
            check_kernel::launch::<F, R>(
                &queue.client,
                cubes(&queue.client, rows.div_ceil(UNITS)),
                CubeDim::new_1d(UNITS as u32),
                bound.width,
                bound.args::<F, _>(OP)?,
                queue.arg(OP, &found)?,
                rows as u32,
                bound.shift,
                bound.row_vectors,
            );
            Ok(())
        })?;
    }
    let found = found.to_vec()?;
    match found[0] {
        NONE => Ok(f64::from(f32::from_bits(found[1])).sqrt() * 1.001),
        row => Err(Error::NotFinite { op: OP, what: "table", row: row.into() }),
    }
}

/// Answers every query, which has been checked, in their order.
pub(super) fn answer<R: Gpu>(
    table: &Table,
    largest_norm: f64,
    bias: Option<&[f32]>,
    queries: &[TopkQuery<'_>],
    out: &mut TopkAnswers,
    device: Device,
) -> Result<()> {
    out.clear();
    let queue = Queue::<R>::new(device)?;
    let bound = Bound::new(OP, &queue, table)?;
    with_row_type!(OP, table, F => {
        let scan = Scan::<R, F>::new(&queue, &bound, table, largest_norm, bias)?;
        scan.answer(queries, out)
    })
}

/// What all queries of a call share.
struct Scan<'a, R: Gpu, F> {
    queue: &'a Queue<R>,
    table: &'a Bound<'a, R>,
    rows: usize,
    dim: usize,
    bias: Buffer<f32>,
    has_bias: bool,
    /// The largest norm of a row and the largest bias, where matrix units take many queries' first pass.
    near: Option<(f64, f64)>,
    row_type: std::marker::PhantomData<F>,
}

/// The queries that one run of the passes answers.
struct Run<'q> {
    /// Positions among the queries of the call.
    at: Vec<usize>,
    allow: Option<&'q [u64]>,
}

impl<'a, R: Gpu, F: RowFloat> Scan<'a, R, F> {
    fn new(
        queue: &'a Queue<R>,
        bound: &'a Bound<'a, R>,
        table: &Table,
        largest_norm: f64,
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let near = cube_matrix::fits(queue, table).then(|| {
            let largest_bias = bias.unwrap_or(&[]).iter().fold(0.0f32, |most, bias| most.max(bias.abs()));
            (largest_norm, f64::from(largest_bias))
        });
        Ok(Self {
            near,
            queue,
            table: bound,
            rows: table.rows() as usize,
            dim: table.dim(),
            bias: queue.upload(bias.unwrap_or(&[0.0]), "biases of the rows")?,
            has_bias: bias.is_some(),
            row_type: std::marker::PhantomData,
        })
    }

    fn answer(&self, queries: &[TopkQuery<'_>], out: &mut TopkAnswers) -> Result<()> {
        let mut answers: Vec<Option<Vec<(f32, u32)>>> = vec![None; queries.len()];
        for run in runs(queries, self.rows) {
            self.run(queries, &run, &mut answers)?;
        }
        self.score_candidates(queries, &mut answers)?;
        for (query, answer) in queries.iter().zip(answers) {
            match answer {
                Some(mut found) => {
                    found.sort_unstable_by(|&a, &b| select::order(query.tie_key, a, b));
                    found.truncate(query.k);
                    out.indices.extend(found.iter().map(|pair| pair.1));
                    out.scores.extend(found.iter().map(|pair| pair.0));
                    out.ends.push(out.indices.len());
                }
                None => {
                    let all: Vec<u32> = (0..self.rows as u32).collect();
                    let owners = vec![0; all.len()];
                    topk_of_scores(&self.scores(query.vector, &all, &owners)?, query, out)?;
                }
            }
        }
        Ok(())
    }

    /// Answers the queries with candidates from the candidates' scores, many queries at a time.
    fn score_candidates(
        &self,
        queries: &[TopkQuery<'_>],
        answers: &mut [Option<Vec<(f32, u32)>>],
    ) -> Result<()> {
        let asked = |&at: &usize| queries[at].candidates.is_some();
        let all: Vec<usize> = (0..queries.len()).filter(asked).collect();
        let mut rest = &all[..];
        while !rest.is_empty() {
            let (mut wanted, mut owners, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
            let mut n = 0;
            while n < rest.len() && (n == 0 || wanted.len() < MAX_CANDIDATES && n < MAX_QUERIES) {
                let query = &queries[rest[n]];
                wanted.extend_from_slice(query.candidates.unwrap_or(&[]));
                owners.resize(wanted.len(), n as u32);
                vectors.extend_from_slice(query.vector);
                n += 1;
            }
            let scored = self.scores(&vectors, &wanted, &owners)?;
            let mut scored = scored.into_iter().zip(wanted);
            for &at in &rest[..n] {
                let query = &queries[at];
                let mut filter = query.filter();
                let mut found = Vec::new();
                for (score, index) in scored.by_ref().take(query.candidates.map_or(0, <[u32]>::len)) {
                    if filter.admits(index) {
                        if !score.is_finite() {
                            return Err(Error::NotFinite { op: OP, what: "score", row: at as u64 });
                        }
                        found.push((score, index));
                    }
                }
                answers[at] = Some(found);
            }
            rest = &rest[n..];
        }
        Ok(())
    }

    /// Returns the scores of `wanted` rows, each with the vector of its owner.
    fn scores(&self, vectors: &[f32], wanted: &[u32], owners: &[u32]) -> Result<Vec<f32>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let queue = self.queue;
        let vectors = queue.upload(vectors, "vectors of the queries")?;
        let wanted = queue.upload(wanted, "rows to score")?;
        let owners = queue.upload(owners, "queries of the rows to score")?;
        let out = queue.unwritten::<f32>(wanted.len(), "scores")?;
        score_kernel::launch::<F, R>(
            &queue.client,
            cubes(&queue.client, wanted.len().div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            self.table.width,
            self.table.args::<F, _>(OP)?,
            queue.arg(OP, &self.bias)?,
            queue.arg(OP, &vectors)?,
            queue.arg(OP, &wanted)?,
            queue.arg(OP, &owners)?,
            queue.arg(OP, &out)?,
            self.table.shift,
            self.has_bias,
            self.table.row_vectors,
        );
        Ok(out.to_vec()?.into_iter().map(positive_zero).collect())
    }

    /// Runs the four passes; what they cannot answer stays `None`.
    fn run(
        &self,
        queries: &[TopkQuery<'_>],
        run: &Run<'_>,
        answers: &mut [Option<Vec<(f32, u32)>>],
    ) -> Result<()> {
        let (queue, n) = (self.queue, run.at.len());
        let most_k = run.at.iter().map(|&at| queries[at].k).max().unwrap_or(0).min(self.rows);
        let n_groups = groups(self.rows, most_k);
        let room = (2 * most_k + 64).next_power_of_two();

        let vectors: Vec<f32> = run.at.iter().flat_map(|&at| queries[at].vector.iter().copied()).collect();
        let vectors = queue.upload(&vectors, "vectors of the queries")?;
        let ks: Vec<u32> = run.at.iter().map(|&at| queries[at].k.min(self.rows) as u32).collect();
        let ks = queue.upload(&ks, "answers wanted")?;
        let mut excluded = Vec::new();
        let mut ends = vec![0u32];
        let mut owners = Vec::new();
        for (q, &at) in run.at.iter().enumerate() {
            let within = queries[at].exclude.partition_point(|&row| (row as usize) < self.rows);
            excluded.extend_from_slice(&queries[at].exclude[..within]);
            owners.resize(excluded.len(), q as u32);
            ends.push(excluded.len() as u32);
        }
        let n_excluded = excluded.len();
        let excluded = queue.upload(&excluded, "excluded rows")?;
        let ends = queue.upload(&ends, "ends of the excluded rows")?;
        let owners = queue.upload(&owners, "queries of the excluded rows")?;
        let allow: Vec<u32> =
            run.allow.unwrap_or(&[]).iter().flat_map(|&word| [word as u32, (word >> 32) as u32]).collect();
        let allow = queue.upload(&allow, "allowed rows")?;
        let has_allow = run.allow.is_some();

        let best = queue.unwritten::<u32>(n * n_groups, "the best of each group")?;
        let operands = match self.near.filter(|_| n > SIDE) {
            Some(largest) => Operands::new(queue, queries, &run.at, largest)?,
            None => None,
        };
        // Exact scores have no slack, and kernels for them read none.
        let (near, slack) = operands.as_ref().map_or((false, &vectors), |operands| (true, &operands.slack));
        if let Some(operands) = &operands {
            let sizes = [self.rows, n, n_groups, self.dim];
            let (bias, allow) = ((&self.bias, self.has_bias), (&allow, has_allow));
            cube_matrix::best(queue, self.table, operands, bias, allow, &best, sizes)?;
        } else {
            self.exact_best(&vectors, (&allow, has_allow), &best, [n, n_groups])?;
        }
        if n_excluded > 0 {
            exclude_kernel::launch::<F, R>(
                &queue.client,
                cubes(&queue.client, n_excluded.div_ceil(UNITS)),
                CubeDim::new_1d(UNITS as u32),
                self.table.width,
                self.table.args::<F, _>(OP)?,
                queue.arg(OP, &self.bias)?,
                queue.arg(OP, &vectors)?,
                queue.arg(OP, &allow)?,
                queue.arg(OP, &excluded)?,
                queue.arg(OP, &owners)?,
                queue.arg(OP, &ends)?,
                queue.arg(OP, slack)?,
                queue.arg(OP, &best)?,
                self.rows as u32,
                n_groups as u32,
                self.table.shift,
                self.has_bias,
                has_allow,
                near,
                self.table.row_vectors,
            );
        }
        let lists = queue.unwritten::<u32>(n * room, "groups to look through")?;
        // Of each query: groups listed, and rows found.
        let counts = queue.zeros::<u32>(2 * n, "groups and rows found")?;
        let limits = queue.unwritten::<u32>(n, "the k-th best of the groups")?;
        limit_kernel::launch::<R>(
            &queue.client,
            cubes(&queue.client, n),
            CubeDim::new_1d(QUERY_UNITS as u32),
            queue.arg(OP, &best)?,
            queue.arg(OP, &ks)?,
            queue.arg(OP, slack)?,
            queue.arg(OP, &limits)?,
            queue.arg(OP, &lists)?,
            queue.arg(OP, &counts)?,
            n as u32,
            n_groups as u32,
            room as u32,
            near,
        );
        let found_rows = queue.unwritten::<u32>(n * room, "rows found")?;
        let found_scores = queue.unwritten::<f32>(n * room, "scores found")?;
        collect_kernel::launch::<F, R>(
            &queue.client,
            cubes(&queue.client, n),
            CubeDim::new_1d(QUERY_UNITS as u32),
            self.table.width,
            self.table.args::<F, _>(OP)?,
            queue.arg(OP, &self.bias)?,
            queue.arg(OP, &vectors)?,
            queue.arg(OP, &allow)?,
            queue.arg(OP, &excluded)?,
            queue.arg(OP, &ends)?,
            queue.arg(OP, &limits)?,
            queue.arg(OP, &lists)?,
            queue.arg(OP, &found_rows)?,
            queue.arg(OP, &found_scores)?,
            queue.arg(OP, &counts)?,
            self.rows as u32,
            n as u32,
            n_groups as u32,
            room as u32,
            self.table.shift,
            self.has_bias,
            has_allow,
            self.table.row_vectors,
        );
        let counts = counts.to_vec()?;
        let (found_rows, found_scores) = (found_rows.to_vec()?, found_scores.to_vec()?);
        for (q, &at) in run.at.iter().enumerate() {
            let [listed, count] = [counts[2 * q] as usize, counts[2 * q + 1] as usize];
            if listed > room || count > room {
                continue;
            }
            let places = q * room..q * room + count;
            let scores = found_scores[places.clone()].iter().map(|&score| positive_zero(score));
            let found: Vec<(f32, u32)> = scores.zip(found_rows[places].iter().copied()).collect();
            if found.iter().all(|pair| pair.0.is_finite()) {
                answers[at] = Some(found);
            }
        }
        Ok(())
    }

    /// Writes the best of each group among exact scores.
    fn exact_best(
        &self,
        vectors: &Buffer<f32>,
        (allow, has_allow): (&Buffer<u32>, bool),
        best: &Buffer<u32>,
        [n, n_groups]: [usize; 2],
    ) -> Result<()> {
        let queue = self.queue;
        let own_queries = if n > SIDE { 8 } else { 1 };
        best_kernel::launch::<F, R>(
            &queue.client,
            CubeCount::Static(n_groups.div_ceil(TILE_ROWS) as u32, n.div_ceil(SIDE * own_queries) as u32, 1),
            CubeDim::new_1d(UNITS as u32),
            self.table.width,
            self.table.args::<F, _>(OP)?,
            queue.arg(OP, &self.bias)?,
            queue.arg(OP, vectors)?,
            queue.arg(OP, allow)?,
            queue.arg(OP, best)?,
            self.rows as u32,
            n as u32,
            n_groups as u32,
            self.table.shift,
            self.has_bias,
            has_allow,
            self.dim,
            self.table.row_vectors,
            own_queries,
        );
        Ok(())
    }
}

/// A GPU's compiler may leave out the addition of zero that makes a negative zero positive.
fn positive_zero(score: f32) -> f32 {
    score + 0.0
}

/// Groups that the rows are dealt to.
fn groups(rows: usize, k: usize) -> usize {
    rows.min(MAX_GROUPS.max((4 * k).next_power_of_two())).max(1)
}

/// Cuts the queries without candidates into runs, those of one `allow` together.
fn runs<'q>(queries: &[TopkQuery<'q>], rows: usize) -> Vec<Run<'q>> {
    let mut runs: Vec<Run<'q>> = Vec::new();
    for (at, query) in queries.iter().enumerate() {
        if query.candidates.is_some() || rows == 0 || query.k == 0 {
            continue;
        }
        let same = |run: &&mut Run<'q>| match (run.allow, query.allow) {
            (None, None) => true,
            (Some(a), Some(b)) => std::ptr::eq(a, b),
            _ => false,
        };
        match runs.iter_mut().rev().find(same) {
            Some(run) => run.at.push(at),
            None => runs.push(Run { at: vec![at], allow: query.allow }),
        }
    }
    let cut = |run: Run<'q>| {
        let most_k = run.at.iter().map(|&at| queries[at].k).max().unwrap_or(0).min(rows);
        let at_once = (BEST_BYTES / (4 * groups(rows, most_k))).clamp(1, MAX_QUERIES);
        let part = |at: &[usize]| Run { at: at.to_vec(), allow: run.allow };
        run.at.chunks(at_once).map(part).collect::<Vec<_>>()
    };
    runs.into_iter().flat_map(cut).collect()
}

/// Pass 1. Cube (x, y) has groups `64 x ..` and queries `tile y ..`; it goes through the members of its groups one by one.
#[cube(launch)]
fn best_kernel<F: Float, N: Size>(
    table: &Sequence<Array<Vector<F, N>>>,
    bias: &Array<f32>,
    vectors: &Array<f32>,
    allow: &Array<u32>,
    best: &mut Array<u32>,
    rows: u32,
    n_queries: u32,
    n_groups: u32,
    shift: u32,
    #[comptime] has_bias: bool,
    #[comptime] has_allow: bool,
    #[comptime] dim: usize,
    #[comptime] row_vectors: usize,
    #[comptime] own_queries: usize,
) {
    let width = N::value();
    let tile_queries = comptime!(SIDE * own_queries);
    // Four longer than a tile, so that units that store one row's columns meet different banks.
    let stride = comptime!(SIDE * own_queries + 4);
    let mut query_tile = SharedMemory::<f32>::new(comptime!(DEPTH * (SIDE * own_queries + 4)));
    let mut row_tile = SharedMemory::<f32>::new(DEPTH * ROW_STRIDE);
    let unit = UNIT_POS as usize;
    let first_query = CUBE_POS_Y as usize * tile_queries;
    let first_group = CUBE_POS_X * TILE_ROWS as u32;
    let unit_query = unit / SIDE * own_queries;
    let unit_row = unit % SIDE * OWN_ROWS;

    let mut keys = Array::<u32>::new(comptime!(own_queries * OWN_ROWS));
    let mut sums = Array::<f32>::new(comptime!(own_queries * OWN_ROWS));
    #[unroll]
    for at in 0..comptime!(own_queries * OWN_ROWS) {
        keys[at] = 0;
    }
    let members = rows.div_ceil(n_groups);
    for member in 0..members {
        let first_row = member * n_groups + first_group;
        #[unroll]
        for j in 0..OWN_ROWS {
            let mut start = 0.0;
            if comptime!(has_bias) {
                let row = first_row + (unit_row + j) as u32;
                if row < rows {
                    start = bias[row as usize];
                }
            }
            #[unroll]
            for i in 0..own_queries {
                sums[i * OWN_ROWS + j] = start;
            }
        }
        for step in 0..comptime!(dim.div_ceil(DEPTH)) {
            let from = step * DEPTH;
            #[unroll]
            for pass in 0..comptime!((DEPTH * SIDE * own_queries).div_ceil(UNITS)) {
                let at = pass * UNITS + unit;
                let (query, k) = (first_query + at / DEPTH, from + at % DEPTH);
                let mut value = 0.0;
                if query < n_queries as usize && k < dim {
                    value = vectors[query * dim + k];
                }
                query_tile[at % DEPTH * stride + at / DEPTH] = value;
            }
            let step_vectors = comptime!(DEPTH / width);
            #[unroll]
            for pass in 0..comptime!((TILE_ROWS * (DEPTH / width)).div_ceil(UNITS)) {
                let at = pass * UNITS + unit;
                let (row, vector) = (at / step_vectors, from / width + at % step_vectors);
                let mut values = Vector::<f32, N>::zeroed();
                if first_row + (row as u32) < rows && vector < row_vectors {
                    values = load_row::<F, N>(table, first_row + row as u32, vector, shift, row_vectors);
                }
                #[unroll]
                for lane in 0..width {
                    row_tile[(at % step_vectors * width + lane) * ROW_STRIDE + row] = values[lane];
                }
            }
            sync_cube();
            // The columns past `dim` are zeros: they leave a sum as it is.
            #[unroll]
            for k in 0..DEPTH {
                #[unroll]
                for i in 0..own_queries {
                    let left = query_tile[k * stride + unit_query + i];
                    #[unroll]
                    for j in 0..OWN_ROWS {
                        let at = i * OWN_ROWS + j;
                        sums[at] = fma(left, row_tile[k * ROW_STRIDE + unit_row + j], sums[at]);
                    }
                }
            }
            sync_cube();
        }
        #[unroll]
        for j in 0..OWN_ROWS {
            let group = first_group + (unit_row + j) as u32;
            let row = first_row + (unit_row + j) as u32;
            // Past the last group, a row belongs to the next member of another tile's group.
            if group < n_groups && row < rows {
                if is_allowed(allow, row, has_allow) {
                    #[unroll]
                    for i in 0..own_queries {
                        let at = i * OWN_ROWS + j;
                        keys[at] = u32::max(keys[at], key(sums[at]));
                    }
                }
            }
        }
    }
    let (query, group) = (first_query + unit_query, first_group as usize + unit_row);
    write_best(best, &keys, query, group, n_queries as usize, n_groups as usize, own_queries, OWN_ROWS);
}

/// Pass 2. A unit has one excluded row. Several of one group come to the same best, in whatever order.
#[cube(launch)]
fn exclude_kernel<F: Float, N: Size>(
    table: &Sequence<Array<Vector<F, N>>>,
    bias: &Array<f32>,
    vectors: &Array<f32>,
    allow: &Array<u32>,
    excluded: &Array<u32>,
    owners: &Array<u32>,
    ends: &Array<u32>,
    slack: &Array<f32>,
    best: &mut Array<u32>,
    rows: u32,
    n_groups: u32,
    shift: u32,
    #[comptime] has_bias: bool,
    #[comptime] has_allow: bool,
    #[comptime] near: bool,
    #[comptime] row_vectors: usize,
) {
    if ABSOLUTE_POS < excluded.len() {
        let excluded_row = excluded[ABSOLUTE_POS];
        let query = owners[ABSOLUTE_POS] as usize;
        let group = excluded_row % n_groups;
        let first = query * row_vectors * N::value();
        let place = query * n_groups as usize + group as usize;
        let own = score_of::<F, N>(table, bias, vectors, first, excluded_row, shift, has_bias, row_vectors);
        let mut most = own;
        if comptime!(near) {
            most = own + slack[query];
        }
        if key(most) >= best[place] {
            let (from, to) = (ends[query], ends[query + 1]);
            let mut left = 0u32.runtime();
            let members = rows.div_ceil(n_groups);
            for member in 0..members {
                let row = member * n_groups + group;
                if row < rows {
                    if is_allowed(allow, row, has_allow) && !is_excluded(excluded, from, to, row) {
                        let score =
                            score_of::<F, N>(table, bias, vectors, first, row, shift, has_bias, row_vectors);
                        left = u32::max(left, key(score));
                    }
                }
            }
            best[place] = left;
        }
    }
}

/// Pass 3. A cube has one query: the largest limit that as many groups as are wanted reach, bit by bit from the highest.
#[cube(launch)]
fn limit_kernel(
    best: &Array<u32>,
    ks: &Array<u32>,
    slack: &Array<f32>,
    limits: &mut Array<u32>,
    lists: &mut Array<u32>,
    counts: &mut Array<Atomic<u32>>,
    n_queries: u32,
    n_groups: u32,
    room: u32,
    #[comptime] near: bool,
) {
    let mut shared = SharedMemory::<u32>::new(QUERY_UNITS);
    let query = CUBE_POS;
    let unit = UNIT_POS;
    if query < n_queries as usize {
        let first = query * n_groups as usize;
        let wanted = ks[query];
        let mut limit = 0u32.runtime();
        for bit in 0..32u32 {
            let higher = limit | (0x8000_0000u32.runtime() >> bit);
            let mut reached = 0u32.runtime();
            let rounds = n_groups.div_ceil(QUERY_UNITS as u32);
            for round in 0..rounds {
                let group = round * QUERY_UNITS as u32 + unit;
                if group < n_groups {
                    if best[first + group as usize] >= higher {
                        reached += 1;
                    }
                }
            }
            shared[unit as usize] = reached;
            sync_cube();
            let mut width = (QUERY_UNITS as u32 / 2).runtime();
            while width > 0 {
                if unit < width {
                    let other = shared[(unit + width) as usize];
                    shared[unit as usize] += other;
                }
                sync_cube();
                width /= 2;
            }
            if shared[0] >= wanted {
                limit = higher;
            }
            sync_cube();
        }
        // Fewer groups than wanted have a row: all that have one.
        limit = u32::max(limit, 1);
        // What a row's own score must reach, and what its group's best must.
        let mut own_limit = limit;
        if comptime!(near) {
            own_limit = lower(limit, slack[query]);
            limit = lower(own_limit, slack[query]);
        }
        if unit == 0 {
            limits[query] = own_limit;
        }
        let rounds = n_groups.div_ceil(QUERY_UNITS as u32);
        for round in 0..rounds {
            let group = round * QUERY_UNITS as u32 + unit;
            if group < n_groups {
                if best[first + group as usize] >= limit {
                    let place = counts[2 * query].fetch_add(1u32);
                    if place < room {
                        lists[query * room as usize + place as usize] = group;
                    }
                }
            }
        }
    }
}

/// Pass 4. A cube has one query.
#[cube(launch)]
fn collect_kernel<F: Float, N: Size>(
    table: &Sequence<Array<Vector<F, N>>>,
    bias: &Array<f32>,
    vectors: &Array<f32>,
    allow: &Array<u32>,
    excluded: &Array<u32>,
    ends: &Array<u32>,
    limits: &Array<u32>,
    lists: &Array<u32>,
    found_rows: &mut Array<u32>,
    found_scores: &mut Array<f32>,
    counts: &mut Array<Atomic<u32>>,
    rows: u32,
    n_queries: u32,
    n_groups: u32,
    room: u32,
    shift: u32,
    #[comptime] has_bias: bool,
    #[comptime] has_allow: bool,
    #[comptime] row_vectors: usize,
) {
    let query = CUBE_POS;
    if query < n_queries as usize {
        let first = query * row_vectors * N::value();
        let limit = limits[query];
        let (from, to) = (ends[query], ends[query + 1]);
        let listed = u32::min(counts[2 * query].load(), room);
        let members = rows.div_ceil(n_groups);
        let rounds = (listed * members).div_ceil(QUERY_UNITS as u32);
        for round in 0..rounds {
            let at = round * QUERY_UNITS as u32 + UNIT_POS;
            if at < listed * members {
                let group = lists[query * room as usize + (at / members) as usize];
                let row = at % members * n_groups + group;
                if row < rows {
                    if is_allowed(allow, row, has_allow) {
                        let score =
                            score_of::<F, N>(table, bias, vectors, first, row, shift, has_bias, row_vectors);
                        if key(score) >= limit && !is_excluded(excluded, from, to, row) {
                            let place = counts[2 * query + 1].fetch_add(1u32);
                            if place < room {
                                found_rows[query * room as usize + place as usize] = row;
                                found_scores[query * room as usize + place as usize] = score;
                            }
                        }
                    }
                }
            }
        }
    }
}
