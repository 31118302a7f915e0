//! The distinct indices of a batch, and where each occurs: the base of every deterministic sparse update.
//!
//! ```text
//! indices     7 2 7 9 2 7          unique      2   7     9
//! position    0 1 2 3 4 5          offsets   0   2     5   6
//!                                  positions   1 4 0 2 5 3
//! ```
//!
//! # Layout
//!
//! | name        | shape     | type | constraint                                                              |
//! |-------------|-----------|------|-------------------------------------------------------------------------|
//! | `indices`   | `[n]`     | u32  | every one `< bound`; `n < 2^32`                                         |
//! | `unique`    | `[u]`     | u32  | ascending                                                               |
//! | `offsets`   | `[u + 1]` | u32  | from 0 to `n`                                                           |
//! | `positions` | `[n]`     | u32  | `offsets[s] .. offsets[s + 1]` are those of `unique[s]`, ascending      |
//!
//! On a GPU the host does not learn `u` unless it asks: there `unique` and `offsets` have room for `n` and `n + 1`, and
//! what stands behind the first `u` and `u + 1` means nothing. So a training step needs no wait between its kernels.
//!
//! # Cost
//! CPU: a parallel sort of `n` words of 8 bytes. GPU: a stable radix sort by 4 bits a pass, as many passes as the bound
//! (for indices on the host: the largest index) has; a pass reads 12 and writes 8 bytes a position, in 3 launches below
//! 4 million positions, and a tile of 2,048 positions is a work group, so that a run of one digit is 128 values long.
//! Beside the result it holds `16 n` bytes.
//!
//! # Determinism
//! Integers and stable sorts only: the same bits on every device and for any number of threads.
//!
//! # Source
//! Satish, Harris, Garland 2009, "Designing efficient sorting algorithms for manycore GPUs".

#[cfg(feature = "gpu")]
mod cube;
#[cfg(feature = "gpu")]
mod scan;

use std::ops::Range;

use rayon::prelude::*;

use crate::{Buffer, Device, Error, Result, buffer::on_gpu};

const OP: &str = "segment";

/// Positions that are summed one after the other; the sums of a longer segment's pieces are summed in turn.
///
/// A power of two. It is part of what [`crate::sparse_update()`] computes: another value gives other bits.
pub(crate) const PIECE: usize = 128;

/// The distinct indices of a batch on one device, and the positions of each.
#[derive(Debug)]
pub struct Segment {
    n: usize,
    bound: u64,
    unique: Buffer<u32>,
    offsets: Buffer<u32>,
    positions: Buffer<u32>,
    /// On a GPU, what the host does not know.
    #[cfg(feature = "gpu")]
    unread: Option<Unread>,
}

/// What a GPU found, for its next kernels to read.
#[cfg(feature = "gpu")]
#[derive(Debug)]
pub(crate) struct Unread {
    /// `[2]`: the number of distinct indices, and the first position whose index is past the bound, or `u32::MAX`.
    pub(crate) found: Buffer<u32>,
    /// For each `PIECE` places of `positions`, the segment that the last of them belongs to.
    pub(crate) ends: Buffer<u32>,
}

/// A [`Segment`] copied to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSegment {
    /// The distinct indices, ascending.
    pub unique: Vec<u32>,
    /// Where the positions of each begin, and the end.
    pub offsets: Vec<u32>,
    /// The positions, by index and then ascending.
    pub positions: Vec<u32>,
}

impl Segment {
    /// Returns the number of indices there were.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Returns what every index is below.
    pub fn bound(&self) -> u64 {
        self.bound
    }

    /// Returns where the segment lives.
    pub fn device(&self) -> Device {
        self.positions.device()
    }

    /// Returns the distinct indices; on a GPU with room for `n`, of which the first are written.
    pub fn unique(&self) -> &Buffer<u32> {
        &self.unique
    }

    /// Returns where the positions of each distinct index begin, and the end; on a GPU with room for `n + 1`.
    pub fn offsets(&self) -> &Buffer<u32> {
        &self.offsets
    }

    /// Returns the positions, `[n]`.
    pub fn positions(&self) -> &Buffer<u32> {
        &self.positions
    }

    /// Returns the number of distinct indices; waits for a GPU.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`] for indices that were on a GPU already and could not be checked before;
    /// [`Error::DeviceLost`].
    pub fn n_unique(&self) -> Result<usize> {
        #[cfg(feature = "gpu")]
        if let Some(unread) = &self.unread {
            let found = unread.found.to_vec()?;
            return match found[1] {
                u32::MAX => Ok(found[0] as usize),
                position => Err(Error::IndexOutOfRange {
                    op: OP,
                    position: position as usize,
                    rows: self.bound,
                    // The index was not kept; it is the bound or more.
                    index: self.bound,
                }),
            };
        }
        Ok(self.unique.len())
    }

    /// Copies the segment to the host; waits for a GPU.
    ///
    /// # Errors
    /// As [`Segment::n_unique`].
    pub fn to_host(&self) -> Result<HostSegment> {
        let n_unique = self.n_unique()?;
        let mut unique = self.unique.to_vec()?;
        unique.truncate(n_unique);
        let mut offsets = self.offsets.to_vec()?;
        offsets.truncate(n_unique + 1);
        Ok(HostSegment { unique, offsets, positions: self.positions.to_vec()? })
    }

    #[cfg(feature = "gpu")]
    pub(crate) fn unread(&self) -> Option<&Unread> {
        self.unread.as_ref()
    }
}

/// Groups the positions of `indices` by index, on `device`.
///
/// # Shapes
/// - `indices`: `[n]`, every one below `bound`, commonly a table's rows
///
/// # Errors
/// [`Error::IndexOutOfRange`]; [`Error::Parameter`] for `2^32` indices or more; [`Error::OutOfMemory`],
/// [`Error::BufferTooLarge`].
pub fn segment(indices: &[u32], bound: u64, device: Device) -> Result<Segment> {
    check_len(indices.len())?;
    let largest = check(indices, bound)?;
    match device {
        Device::Cpu => on_cpu(indices, bound),
        device => on_gpu!(OP, device, R => cube::of_host::<R>(indices, largest, bound, device)),
    }
}

/// As [`segment`], for the part `range` of indices that are on a device already; nothing is copied to the host.
///
/// On a GPU an index that is not below `bound` counts as `bound` itself, which no row has, and is reported by
/// [`Segment::n_unique`].
///
/// # Errors
/// As [`segment`]; [`Error::Shape`] when the range passes the end.
pub fn segment_buffer(indices: &Buffer<u32>, range: Range<usize>, bound: u64) -> Result<Segment> {
    if range.start > range.end || range.end > indices.len() {
        return Err(Error::Shape { op: OP, what: "indices", expected: range.end, got: indices.len() });
    }
    check_len(range.len())?;
    match indices.cpu() {
        Some(values) => {
            let values = &values[range];
            check(values, bound)?;
            on_cpu(values, bound)
        }
        None => {
            let device = indices.device();
            on_gpu!(OP, device, R => cube::of_device::<R>(indices, range, bound, device))
        }
    }
}

/// As [`segment_buffer`], of indices that are known to be at most `largest`.
pub(crate) fn segment_checked(
    indices: &Buffer<u32>,
    range: Range<usize>,
    largest: u32,
    bound: u64,
) -> Result<Segment> {
    match indices.cpu() {
        Some(values) => on_cpu(&values[range], bound),
        None => {
            let device = indices.device();
            on_gpu!(OP, device, R => cube::of_checked::<R>(indices, range, largest, bound, device))
        }
    }
}

/// The definition of [`segment`]: naive.
pub fn segment_reference(indices: &[u32]) -> HostSegment {
    let mut positions: Vec<u32> = (0..indices.len() as u32).collect();
    // A stable sort: positions of one index stay in their order.
    positions.sort_by_key(|&position| indices[position as usize]);
    let mut out = HostSegment { positions, ..HostSegment::default() };
    for (place, &position) in out.positions.iter().enumerate() {
        let index = indices[position as usize];
        if out.unique.last() != Some(&index) {
            out.unique.push(index);
            out.offsets.push(place as u32);
        }
    }
    out.offsets.push(indices.len() as u32);
    out
}

fn check_len(n: usize) -> Result<()> {
    match u32::try_from(n) {
        Ok(n) if n < u32::MAX => Ok(()),
        _ => {
            Err(Error::Parameter { op: OP, what: "indices", expected: "fewer than 2^32 - 1", got: n as f64 })
        }
    }
}

/// Returns the largest index.
fn check(indices: &[u32], bound: u64) -> Result<u32> {
    let largest = indices.iter().copied().max().unwrap_or(0);
    match indices.iter().position(|&index| u64::from(index) >= bound) {
        Some(position) if u64::from(largest) >= bound => {
            Err(Error::IndexOutOfRange { op: OP, position, rows: bound, index: indices[position].into() })
        }
        _ => Ok(largest),
    }
}

fn on_cpu(indices: &[u32], bound: u64) -> Result<Segment> {
    // The position in the low half breaks ties, so an unstable sort gives the one order.
    let mut order: Vec<u64> =
        indices.iter().zip(0u64..).map(|(&index, position)| u64::from(index) << 32 | position).collect();
    order.par_sort_unstable();
    let mut unique = Vec::with_capacity(order.len());
    let mut offsets = Vec::with_capacity(order.len() + 1);
    for (place, &word) in order.iter().enumerate() {
        let index = (word >> 32) as u32;
        if unique.last() != Some(&index) {
            unique.push(index);
            offsets.push(place as u32);
        }
    }
    offsets.push(order.len() as u32);
    let positions = order.iter().map(|&word| word as u32).collect();
    Ok(Segment {
        n: indices.len(),
        bound,
        unique: Buffer::from_vec(unique, "distinct indices")?,
        offsets: Buffer::from_vec(offsets, "offsets of distinct indices")?,
        positions: Buffer::from_vec(positions, "positions of distinct indices")?,
        #[cfg(feature = "gpu")]
        unread: None,
    })
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<crate::cuda_sources::Instance> {
    let of = |n: u32| {
        crate::cuda_sources::Instance::new(format!("segment, {n} indices"), move |device| {
            let indices: Vec<u32> = (0..n).map(|at| at * 7 % 100_000).collect();
            segment(&indices, 100_000, device).map(drop)
        })
    };
    [100, 100_000].map(of).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_above() {
        let got = segment(&[7, 2, 7, 9, 2, 7], 10, Device::Cpu).unwrap().to_host().unwrap();
        let expected = HostSegment {
            unique: vec![2, 7, 9],
            offsets: vec![0, 2, 5, 6],
            positions: vec![1, 4, 0, 2, 5, 3],
        };
        assert_eq!(got, expected);
        assert_eq!(segment_reference(&[7, 2, 7, 9, 2, 7]), expected);
        let none = segment(&[], 0, Device::Cpu).unwrap();
        assert_eq!((none.n_unique(), none.to_host().unwrap().offsets), (Ok(0), vec![0]));
    }

    #[test]
    fn an_index_past_the_bound_is_named() {
        let past = Error::IndexOutOfRange { op: OP, position: 1, rows: 4, index: 5 };
        assert_eq!(segment(&[3, 5, 9], 4, Device::Cpu).unwrap_err(), past);
        let buffer = Buffer::from_vec(vec![0, 3, 5], "a test").unwrap();
        assert_eq!(segment_buffer(&buffer, 1..3, 4).unwrap_err(), past);
        assert!(matches!(segment_buffer(&buffer, 1..4, 9), Err(Error::Shape { .. })));
        assert_eq!(segment_buffer(&buffer, 1..3, 6).unwrap().unique().cpu(), Some(&[3, 5][..]));
    }
}
