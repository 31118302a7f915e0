//! Running sums on a GPU: of one value a unit within a work group, and of a buffer in place.
//!
//! ```text
//! values[i] <- values[0] + .. + values[i - 1]
//! ```
//!
//! A work group takes `RUN` values, a tile of `TILE` after the other, and leaves their sum; the sums are scanned in turn and
//! added. Up to `RUN` values are one launch, up to `RUN²` three.

use cubecl::prelude::*;

use crate::{
    Buffer, Result,
    buffer::cube::{Gpu, Queue},
};

/// Units of a work group, of this operation's every kernel.
pub(super) const UNITS: usize = 256;
/// Values that a unit takes from a tile, one after the other.
pub(super) const EACH: usize = 8;
/// Values that a work group takes at once.
pub(super) const TILE: usize = UNITS * EACH;
/// Tiles that a work group of the scan takes one after the other.
const TILES: usize = 16;
const RUN: usize = TILE * TILES;

/// Replaces each of `values` by the sum of those before it.
pub(super) fn scan<R: Gpu>(op: &'static str, queue: &Queue<R>, values: &Buffer<u32>) -> Result<()> {
    let groups = values.len().div_ceil(RUN);
    if groups == 0 {
        return Ok(());
    }
    let sums = queue.unwritten::<u32>(groups, "sums of a scan")?;
    scan_kernel::launch::<R>(
        &queue.client,
        count_of(queue, groups),
        CubeDim::new_1d(UNITS as u32),
        queue.arg(op, values)?,
        queue.arg(op, &sums)?,
        // One group alone stops behind the last value; of several all but the last take every tile.
        values.len().div_ceil(TILE).min(TILES) as u32,
    );
    if groups > 1 {
        scan(op, queue, &sums)?;
        add_kernel::launch::<R>(
            &queue.client,
            cubecl::calculate_cube_count_elemwise(&queue.client, values.len(), CubeDim::new_1d(UNITS as u32)),
            CubeDim::new_1d(UNITS as u32),
            queue.arg(op, values)?,
            queue.arg(op, &sums)?,
        );
    }
    Ok(())
}

/// Returns a grid of at least `groups` work groups; kernels find theirs by `CUBE_POS` and leave those past the last.
pub(super) fn count_of<R: Gpu>(queue: &Queue<R>, groups: usize) -> CubeCount {
    cubecl::calculate_cube_count_elemwise(&queue.client, groups * UNITS, CubeDim::new_1d(UNITS as u32))
}

/// Replaces each unit's value in `sums` by the sum of those up to and with it. Every unit of the work group takes part.
#[cube]
pub(super) fn scan_units(sums: &mut SharedMemory<u32>) {
    let unit = UNIT_POS as usize;
    let mut step = 1usize;
    while step < UNITS {
        let mut before = 0u32;
        if unit >= step {
            before = sums[unit - step];
        }
        sync_cube();
        sums[unit] += before;
        sync_cube();
        step *= 2;
    }
}

#[cube(launch)]
fn scan_kernel(values: &mut Array<u32>, group_sums: &mut Array<u32>, tiles: u32) {
    let mut sums = SharedMemory::<u32>::new(UNITS);
    let unit = UNIT_POS as usize;
    let mut carry = 0u32;
    for tile in 0..tiles {
        let begin = CUBE_POS * RUN + tile as usize * TILE + unit * EACH;
        let mut own = 0u32;
        for k in 0..EACH {
            if begin + k < values.len() {
                own += values[begin + k];
            }
        }
        sums[unit] = own;
        sync_cube();
        scan_units(&mut sums);
        let mut before = carry + sums[unit] - own;
        for k in 0..EACH {
            if begin + k < values.len() {
                let value = values[begin + k];
                values[begin + k] = before;
                before += value;
            }
        }
        carry += sums[UNITS - 1];
        // The next tile writes the sums that this one reads.
        sync_cube();
    }
    if UNIT_POS == 0 && CUBE_POS < group_sums.len() {
        group_sums[CUBE_POS] = carry;
    }
}

#[cube(launch)]
fn add_kernel(values: &mut Array<u32>, group_sums: &Array<u32>) {
    if ABSOLUTE_POS < values.len() {
        values[ABSOLUTE_POS] += group_sums[ABSOLUTE_POS / RUN];
    }
}
