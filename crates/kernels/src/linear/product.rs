//! Rows times a matrix in panels: tasks of rows, each of which goes over the inner dimension block by block.

use rayon::prelude::*;

use super::{
    panels::{Panels, pair},
    tile::{Block, Last, Left, panel_columns, tile_rows},
};
use crate::{
    Result,
    scratch::{Pool, Scratch},
    simd::{Kernel, Level, Simd, dispatch, dispatch_pairs},
};

/// Rows of a task: a multiple of every tile's; with a block of the inner dimension they stay in a second-level cache.
const TASK_ROWS: usize = 96;
/// The most of the inner dimension that is summed at once.
const DEPTH: usize = 256;

/// What is done when a sum is complete.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) bias: Option<&'a [f32]>,
    pub(super) relu: bool,
}

impl Finish<'_> {
    /// Writes the bias, zero behind its last column up to a whole panel; nothing where there is none.
    fn whole_panels<'a>(&self, level: Level, to: &'a mut Vec<f32>) -> &'a [f32] {
        to.clear();
        to.extend_from_slice(self.bias.unwrap_or_default());
        to.resize(to.len().next_multiple_of(panel_columns(level)), 0.0);
        to
    }
}

/// Writes `left right` to `c`: `[rows, right.rows]` times `[right.rows, right.columns]`; `bias` is working memory.
pub(super) fn product(
    level: Level,
    left: &[f32],
    right: &Panels<'_>,
    c: &mut [f32],
    finish: Finish<'_>,
    bias: &mut Vec<f32>,
) {
    let last = Last { bias: finish.whole_panels(level, bias), relu: finish.relu };
    let tasks = c.par_chunks_mut(TASK_ROWS * right.columns).zip(left.par_chunks(TASK_ROWS * right.rows));
    let high = tile_rows(level);
    tasks.for_each(|(c, left)| dispatch(level, Task::<false> { left, right, c, last, high }));
}

/// As [`product`], of numbers rounded to bf16: `right` in pairs, rows of `left` of `inner` values as they are.
pub(super) fn product_of_pairs(
    level: Level,
    left: &[f32],
    inner: usize,
    right: &Panels<'_>,
    c: &mut [f32],
    finish: Finish<'_>,
    blocks: &Pool<Scratch>,
) -> Result<()> {
    let mut bias = Vec::new();
    let last = Last { bias: finish.whole_panels(level, &mut bias), relu: finish.relu };
    let tasks = c.par_chunks_mut(TASK_ROWS * right.columns).zip(left.par_chunks(TASK_ROWS * inner));
    let (pairs, high) = (right.rows, tile_rows(level));
    tasks.try_for_each(|(c, left)| {
        blocks.lend(
            || Scratch::new(TASK_ROWS * pairs),
            |block| {
                if block.len() < TASK_ROWS * pairs {
                    *block = Scratch::new(TASK_ROWS * pairs)?;
                }
                let block = &mut block[..left.len() / inner * pairs];
                dispatch(level, PackRows { rows: left, inner, to: block });
                dispatch_pairs(level, Task::<true> { left: block, right, c, last, high });
                Ok(())
            },
        )?
    })
}

/// Writes rows of pairs: neighbours of a row, and a zero behind an odd one.
struct PackRows<'a> {
    rows: &'a [f32],
    inner: usize,
    to: &'a mut [f32],
}

impl Kernel for PackRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (row, to) in
            self.rows.chunks_exact(self.inner).zip(self.to.chunks_exact_mut(self.inner.div_ceil(2)))
        {
            let (pairs, odd) = row.as_chunks::<2>();
            for (to, &[low, high]) in to.iter_mut().zip(pairs) {
                *to = pair(low, high);
            }
            if let (Some(to), [low]) = (to.last_mut(), odd) {
                *to = pair(*low, 0.0);
            }
        }
    }
}

struct Task<'a, const PAIRS: bool> {
    left: &'a [f32],
    right: &'a Panels<'a>,
    c: &'a mut [f32],
    last: Last<'a>,
    high: usize,
}

impl<'a, const PAIRS: bool> Kernel for Task<'a, PAIRS> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (depth, columns) = (self.right.rows, self.right.columns);
        // Blocks of about one size, which the inner dimension alone decides.
        let at_once = depth.div_ceil(depth.div_ceil(DEPTH));
        for from in (0..depth).step_by(at_once) {
            let end = depth.min(from + at_once);
            let last = (end == depth).then_some(self.last);
            let [whole, edge] = self.right.rows_from(from);
            for (right, first, columns) in
                [(whole, 0, self.right.whole), (edge, self.right.whole, columns - self.right.whole)]
            {
                let bias = |bias: &'a [f32]| bias.get(first..).unwrap_or_default();
                let block = Block::<PAIRS> {
                    left: Left { values: &self.left[from..], panel: self.high * depth, row: depth, step: 1 },
                    right,
                    c: self.c.get_mut(first..).unwrap_or_default(),
                    c_row: self.right.columns,
                    rows: self.left.len() / depth,
                    columns,
                    depth: end - from,
                    begins: from == 0,
                    last: last.map(|last| Last { bias: bias(last.bias), ..last }),
                };
                block.run(simd);
            }
        }
    }
}
