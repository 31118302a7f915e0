//! Segments on a GPU: a stable radix sort of (index, position) pairs, then the borders between different indices.
//!
//! A pass by one digit, a tile of `TILE` places a work group, `EACH` places in a row a unit:
//!
//! ```text
//! count     counts[digit, tile] = places of the tile whose index has the digit
//! scan      bases[digit, tile]  = places with a lower digit, or the same digit in an earlier tile
//! scatter   place -> bases[digit, tile] + places of the tile before it with the same digit
//! ```
//!
//! The last term is a scan of `[digit, unit]` counts in shared memory: a unit counts in a column of its own, so there are
//! no atomics and the order is the one of the places.

use std::ops::Range;

use cubecl::prelude::*;

use super::{
    OP, PIECE, Segment, Unread,
    scan::{EACH, TILE, UNITS, count_of, scan, scan_units},
};
use crate::{
    Buffer, Device, Result,
    buffer::cube::{Gpu, Queue},
};

const DIGIT_BITS: u32 = 4;
const DIGITS: usize = 1 << DIGIT_BITS;

pub(super) fn of_host<R: Gpu>(indices: &[u32], largest: u32, bound: u64, device: Device) -> Result<Segment> {
    let queue = Queue::<R>::new(device)?;
    let buffer = queue.upload(indices, "indices of a segment")?;
    on_queue(&queue, &buffer, 0..indices.len(), largest, bound, false)
}

pub(super) fn of_device<R: Gpu>(
    indices: &Buffer<u32>,
    range: Range<usize>,
    bound: u64,
    device: Device,
) -> Result<Segment> {
    let limit = u32::try_from(bound).unwrap_or(u32::MAX);
    on_queue(&Queue::<R>::new(device)?, indices, range, limit, bound, bound <= u64::from(u32::MAX))
}

pub(super) fn of_checked<R: Gpu>(
    indices: &Buffer<u32>,
    range: Range<usize>,
    largest: u32,
    bound: u64,
    device: Device,
) -> Result<Segment> {
    on_queue(&Queue::<R>::new(device)?, indices, range, largest, bound, false)
}

/// Sorts as if every index above `limit` were `limit`; where `check` is set, `limit` itself is past the bound.
fn on_queue<R: Gpu>(
    queue: &Queue<R>,
    indices: &Buffer<u32>,
    range: Range<usize>,
    limit: u32,
    bound: u64,
    check: bool,
) -> Result<Segment> {
    let n = range.len();
    let found = queue.upload(&[0u32, u32::MAX], "what a segment found")?;
    let unique = queue.unwritten::<u32>(n, "distinct indices")?;
    let offsets = match n {
        0 => queue.zeros::<u32>(1, "offsets of distinct indices")?,
        n => queue.unwritten::<u32>(n + 1, "offsets of distinct indices")?,
    };
    let ends = queue.unwritten::<u32>(n.div_ceil(PIECE), "pieces of segments")?;
    let mut keys = queue.unwritten::<u32>(n, "sorted indices")?;
    let mut positions = queue.unwritten::<u32>(n, "positions of distinct indices")?;
    if n > 0 {
        let mut keys_to = queue.unwritten::<u32>(n, "sorted indices")?;
        let mut positions_to = queue.unwritten::<u32>(n, "positions of distinct indices")?;
        let tiles = n.div_ceil(TILE);
        let counts = queue.unwritten::<u32>(DIGITS * tiles, "counts of digits")?;
        let units = CubeDim::new_1d(UNITS as u32);
        if check {
            check_kernel::launch::<R>(
                &queue.client,
                cubecl::calculate_cube_count_elemwise(&queue.client, n, units),
                units,
                queue.arg(OP, indices)?,
                queue.arg(OP, &found)?,
                range.start as u32,
                n as u32,
                limit,
            );
        }
        let passes = (u32::BITS - limit.leading_zeros()).div_ceil(DIGIT_BITS).max(1);
        for pass in 0..passes {
            let initial = pass == 0;
            let (from, first) = if initial { (indices, range.start as u32) } else { (&keys, 0) };
            count_kernel::launch::<R>(
                &queue.client,
                count_of(queue, tiles),
                units,
                queue.arg(OP, from)?,
                queue.arg(OP, &counts)?,
                first,
                n as u32,
                limit,
                pass * DIGIT_BITS,
                tiles as u32,
            );
            scan(OP, queue, &counts)?;
            scatter_kernel::launch::<R>(
                &queue.client,
                count_of(queue, tiles),
                units,
                queue.arg(OP, from)?,
                queue.arg(OP, &positions)?,
                queue.arg(OP, &counts)?,
                queue.arg(OP, &keys_to)?,
                queue.arg(OP, &positions_to)?,
                first,
                n as u32,
                limit,
                pass * DIGIT_BITS,
                tiles as u32,
                initial,
            );
            std::mem::swap(&mut keys, &mut keys_to);
            std::mem::swap(&mut positions, &mut positions_to);
        }
        let borders = queue.unwritten::<u32>(tiles, "borders of segments")?;
        border_count_kernel::launch::<R>(
            &queue.client,
            count_of(queue, tiles),
            units,
            queue.arg(OP, &keys)?,
            queue.arg(OP, &borders)?,
        );
        scan(OP, queue, &borders)?;
        border_kernel::launch::<R>(
            &queue.client,
            count_of(queue, tiles),
            units,
            queue.arg(OP, &keys)?,
            queue.arg(OP, &borders)?,
            queue.arg(OP, &unique)?,
            queue.arg(OP, &offsets)?,
            queue.arg(OP, &ends)?,
            queue.arg(OP, &found)?,
        );
    }
    Ok(Segment { n, bound, unique, offsets, positions, unread: Some(Unread { found, ends }) })
}

/// Notes the first position whose index is `limit` or more; a minimum is the same in any order.
#[cube(launch)]
fn check_kernel(indices: &Array<u32>, found: &mut Array<Atomic<u32>>, first: u32, n: u32, limit: u32) {
    if ABSOLUTE_POS < n as usize && indices[first as usize + ABSOLUTE_POS] >= limit {
        found[1].fetch_min(ABSOLUTE_POS as u32);
    }
}

/// Counts the digits of the unit's places in its column of `columns`.
#[cube]
fn count_columns(
    keys: &Array<u32>,
    columns: &mut SharedMemory<u32>,
    first: u32,
    n: u32,
    limit: u32,
    shift: u32,
) {
    let unit = UNIT_POS as usize;
    for digit in 0..DIGITS {
        columns[digit * UNITS + unit] = 0;
    }
    let begin = CUBE_POS * TILE + unit * EACH;
    for k in 0..EACH {
        if begin + k < n as usize {
            let digit = digit_of(keys[first as usize + begin + k], limit, shift);
            columns[digit * UNITS + unit] += 1;
        }
    }
    sync_cube();
}

#[cube]
fn digit_of(key: u32, limit: u32, shift: u32) -> usize {
    ((min(key, limit) >> shift) & (DIGITS as u32 - 1)) as usize
}

#[cube(launch)]
fn count_kernel(
    keys: &Array<u32>,
    counts: &mut Array<u32>,
    first: u32,
    n: u32,
    limit: u32,
    shift: u32,
    tiles: u32,
) {
    let mut columns = SharedMemory::<u32>::new(DIGITS * UNITS);
    let mut parts = SharedMemory::<u32>::new(UNITS);
    count_columns(keys, &mut columns, first, n, limit, shift);
    // Unit `part * DIGITS + digit` sums a part of the digit's row, by steps that keep units on different banks.
    let unit = UNIT_POS as usize;
    let (part, digit) = (unit / DIGITS, unit % DIGITS);
    let width = comptime!(UNITS / (UNITS / DIGITS));
    let mut sum = 0u32;
    for k in 0..width {
        sum += columns[digit * UNITS + part * width + (k + digit) % width];
    }
    parts[unit] = sum;
    sync_cube();
    if unit < DIGITS && CUBE_POS < tiles as usize {
        let mut sum = 0u32;
        for part in 0..comptime!(UNITS / DIGITS) {
            sum += parts[part * DIGITS + unit];
        }
        counts[unit * tiles as usize + CUBE_POS] = sum;
    }
}

#[cube(launch)]
fn scatter_kernel(
    keys: &Array<u32>,
    positions: &Array<u32>,
    bases: &Array<u32>,
    keys_to: &mut Array<u32>,
    positions_to: &mut Array<u32>,
    first: u32,
    n: u32,
    limit: u32,
    shift: u32,
    tiles: u32,
    #[comptime] initial: bool,
) {
    let mut columns = SharedMemory::<u32>::new(DIGITS * UNITS);
    let mut sums = SharedMemory::<u32>::new(UNITS);
    count_columns(keys, &mut columns, first, n, limit, shift);
    // Exclusive scan of `[digit, unit]`: within runs of `DIGITS` counts by a unit each, then over the runs.
    let unit = UNIT_POS as usize;
    let mut own = 0u32;
    for k in 0..DIGITS {
        let count = columns[unit * DIGITS + k];
        columns[unit * DIGITS + k] = own;
        own += count;
    }
    sums[unit] = own;
    sync_cube();
    scan_units(&mut sums);
    let exclusive = sums[unit] - own;
    sync_cube();
    sums[unit] = exclusive;
    sync_cube();
    let begin = CUBE_POS * TILE + unit * EACH;
    for k in 0..EACH {
        let at = begin + k;
        if at < n as usize {
            let key = min(keys[first as usize + at], limit);
            let digit = digit_of(key, limit, shift);
            let column = digit * UNITS + unit;
            // Places of the tile with this digit that come before: all before, less those with lower digits.
            let rank = columns[column] + sums[column / DIGITS] - sums[digit * UNITS / DIGITS];
            columns[column] += 1;
            let to = (bases[digit * tiles as usize + CUBE_POS] + rank) as usize;
            keys_to[to] = key;
            if initial {
                positions_to[to] = at as u32;
            } else {
                positions_to[to] = positions[at];
            }
        }
    }
}

/// Whether a segment begins at `at`.
#[cube]
fn begins(keys: &Array<u32>, at: usize) -> bool {
    let mut begins = at == 0;
    if !begins {
        begins = keys[at] != keys[at - 1];
    }
    begins
}

/// Counts the unit's borders and gives, in `sums`, those of the units up to and with it.
#[cube]
fn borders_of_units(keys: &Array<u32>, sums: &mut SharedMemory<u32>) -> u32 {
    let begin = CUBE_POS * TILE + UNIT_POS as usize * EACH;
    let mut own = 0u32;
    for k in 0..EACH {
        if begin + k < keys.len() {
            own += u32::cast_from(begins(keys, begin + k));
        }
    }
    sums[UNIT_POS as usize] = own;
    sync_cube();
    scan_units(sums);
    own
}

#[cube(launch)]
fn border_count_kernel(keys: &Array<u32>, borders: &mut Array<u32>) {
    let mut sums = SharedMemory::<u32>::new(UNITS);
    borders_of_units(keys, &mut sums);
    if UNIT_POS == 0 && CUBE_POS < borders.len() {
        borders[CUBE_POS] = sums[UNITS - 1];
    }
}

#[cube(launch)]
fn border_kernel(
    keys: &Array<u32>,
    bases: &Array<u32>,
    unique: &mut Array<u32>,
    offsets: &mut Array<u32>,
    ends: &mut Array<u32>,
    found: &mut Array<u32>,
) {
    let mut sums = SharedMemory::<u32>::new(UNITS);
    let own = borders_of_units(keys, &mut sums);
    let begin = CUBE_POS * TILE + UNIT_POS as usize * EACH;
    if begin < keys.len() {
        // Segments that have begun so far.
        let mut begun = bases[CUBE_POS] + sums[UNIT_POS as usize] - own;
        for k in 0..EACH {
            let at = begin + k;
            if at < keys.len() {
                if begins(keys, at) {
                    unique[begun as usize] = keys[at];
                    offsets[begun as usize] = at as u32;
                    begun += 1;
                }
                let last = at + 1 == keys.len();
                if last || at % PIECE == comptime!(PIECE - 1) {
                    ends[at / PIECE] = begun - 1;
                }
                if last {
                    offsets[begun as usize] = keys.len() as u32;
                    found[0] = begun;
                }
            }
        }
    }
}
