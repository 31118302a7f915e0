//! What the solvers that go row by row over a system share on a GPU: entries that stream through it, and the fixed side's
//! rows that they name.
//!
//! The interactions need not fit on the device: [`Batches`] cuts them into batches of bounded bytes, and a batch is uploaded
//! while the one before it is computed, never more than two at a time. A batch lies in one chunk of the solution.
//!
//! | bound                | least of                                                                              |
//! |----------------------|---------------------------------------------------------------------------------------|
//! | bytes of a batch     | 256 MiB, what one buffer may have, an eighth of what is left of the budget            |
//! | bytes of partial sums| the same                                                                              |
//!
//! The fixed side's rows are read in place where they are f32, a whole number of vectors of four, and in at most
//! [`MAX_CHUNKS`] chunks: each chunk is an argument of its own, and an index's upper bits choose. Everything else (f16 and
//! bf16, odd dimensions, more chunks) is first gathered, a chunk a launch, to padded f32 rows in the order of the
//! batch's entries. That is one more write and read of a row's bytes, and every value is the same as in place.
//!
//! Half-precision rows are read as words and widened by integer operations: no device needs a half type of its own.

use std::ops::Range;

use cubecl::prelude::*;

use super::tiles::{Four, load_four};
use crate::{
    AlsSystem, Buffer, Device, Error, Result, Rows, SparseRows,
    buffer::cube::{Gpu, Queue},
    memory,
};

/// Chunks of the fixed side that a kernel reads in place.
const MAX_CHUNKS: usize = 4;
/// Arguments of a kernel beside the chunks: entries, tasks, gram, scratch, solution, failure and one to spare.
const OTHER_ARGUMENTS: usize = 8;
/// Bytes of a batch on a large device.
const BATCH_BYTES: u64 = 256 << 20;
/// Rows of a batch.
const BATCH_ROWS: usize = 1 << 20;

/// A failure word of a batch in which no row failed.
const NONE: u32 = u32::MAX;

/// How a row's dimensions are laid out: blocks of `block` values, each padded to whole vectors of four.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) dim: usize,
    pub(crate) block: usize,
}

impl Layout {
    /// Returns the vectors of a full block.
    pub(crate) fn block_vectors(self) -> usize {
        self.block.div_ceil(4)
    }

    /// Returns the blocks of a row.
    pub(crate) fn blocks(self) -> usize {
        self.dim.div_ceil(self.block)
    }
}

/// What a batch may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Entries, save those of a row that is never cut.
    pub(crate) entries: usize,
    pub(crate) pieces: usize,
    pub(crate) rows: usize,
    /// Entries of a piece of a row; a row of more is long.
    pub(crate) piece: usize,
}

/// A run of entries that are on the device together.
pub(crate) struct Batch {
    /// The solution's chunk that its rows lie in.
    pub(crate) chunk: usize,
    /// Its entries, as positions in the whole matrix.
    pub(crate) entries: Range<usize>,
    /// Rows that are wholly here: first entry, end, row of the chunk, bits of its ridge.
    pub(crate) short: Vec<u32>,
    /// Pieces of long rows: first entry, end.
    pub(crate) pieces: Vec<u32>,
    /// Long rows: first piece, end, row of the chunk, bits of its ridge.
    pub(crate) long: Vec<u32>,
    /// Whether the first long row began in an earlier batch.
    pub(crate) goes_on: bool,
    /// Whether the last long row does not end here.
    pub(crate) unfinished: bool,
}

/// Cuts a system's rows into batches; where a long row is cut follows from the row alone.
pub(crate) struct Batches<'a> {
    rows: SparseRows<'a>,
    ridge: &'a [f32],
    shift: u32,
    limits: Limits,
    row: usize,
    /// Entries of `row` that earlier batches hold.
    done: usize,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(system: &AlsSystem<'a>, chunk_rows: u32, limits: Limits) -> Self {
        let (rows, ridge) = (system.rows, system.ridge);
        Self { rows, ridge, shift: chunk_rows.ilog2(), limits, row: 0, done: 0 }
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let Limits { entries, pieces, rows, piece } = self.limits;
        if self.row == self.rows.n_rows() {
            return None;
        }
        let chunk = self.row >> self.shift;
        let first = self.rows.indptr[self.row] as usize + self.done;
        let last_row = self.rows.n_rows().min((chunk + 1) << self.shift).min(self.row + rows);
        let mut batch = Batch {
            chunk,
            entries: first..first,
            short: Vec::new(),
            pieces: Vec::new(),
            long: Vec::new(),
            goes_on: self.done > 0,
            unfinished: false,
        };
        while self.row < last_row {
            let length = self.rows.row_len(self.row);
            let place = [(self.row - (chunk << self.shift)) as u32, self.ridge[self.row].to_bits()];
            if length <= piece {
                let used = batch.entries.len();
                if used > 0 && used + length > entries {
                    break;
                }
                batch.short.extend([used as u32, (used + length) as u32, place[0], place[1]]);
                batch.entries.end += length;
                self.row += 1;
                continue;
            }
            let first_piece = batch.pieces.len() / 2;
            while self.done < length && batch.pieces.len() / 2 < pieces {
                let used = batch.entries.len();
                let n = piece.min(length - self.done);
                if used > 0 && used + n > entries {
                    break;
                }
                batch.pieces.extend([used as u32, (used + n) as u32]);
                batch.entries.end += n;
                self.done += n;
            }
            let end = batch.pieces.len() / 2;
            if end > first_piece {
                batch.long.extend([first_piece as u32, end as u32, place[0], place[1]]);
            }
            if self.done < length {
                batch.unfinished = end > first_piece;
                break;
            }
            self.done = 0;
            self.row += 1;
        }
        Some(batch)
    }
}

/// The fixed side's rows on the device, and how kernels read them.
pub(crate) struct Fixed<'a, R: Gpu> {
    queue: &'a Queue<R>,
    op: &'static str,
    chunks: Vec<(u64, &'a Rows)>,
    shift: u32,
    layout: Layout,
    in_place: bool,
}

impl<'a, R: Gpu> Fixed<'a, R> {
    pub(crate) fn new(op: &'static str, queue: &'a Queue<R>, system: &AlsSystem<'a>, layout: Layout) -> Self {
        let table = system.fixed;
        let chunks: Vec<_> = table.chunks().collect();
        let bindings = queue.client.properties().hardware.max_bindings as usize;
        let most = MAX_CHUNKS.min(bindings.saturating_sub(OTHER_ARGUMENTS));
        let whole = layout.dim.is_multiple_of(4) && (layout.blocks() == 1 || layout.block.is_multiple_of(4));
        let f32_rows = chunks.iter().all(|(_, rows)| matches!(rows, Rows::F32(_)));
        let in_place = whole && f32_rows && (1..=most).contains(&chunks.len());
        Self { queue, op, chunks, shift: table.chunk_rows().ilog2(), layout, in_place }
    }

    /// Returns the vectors of a row as kernels read it.
    pub(crate) fn row_vectors(&self) -> usize {
        match self.in_place {
            true => self.layout.dim / 4,
            false => self.layout.blocks() * self.layout.block_vectors(),
        }
    }

    /// Returns what a batch may hold where it has `piece` entries a piece of `piece_bytes` of sums, and `device` is the
    /// queue's.
    pub(crate) fn limits(&self, device: Device, piece: usize, piece_bytes: usize) -> Result<Limits> {
        let bytes = batch_bytes(device)?;
        let gathered = if self.in_place { 0 } else { 16 * self.row_vectors() as u64 };
        // Indices and values are buffers of their own.
        let entries = ((bytes / (8 + gathered)) as usize).max(1);
        Ok(Limits {
            entries: entries.max(piece.min(1 << 16)),
            pieces: ((bytes / piece_bytes.max(1) as u64) as usize).max(1),
            rows: BATCH_ROWS,
            piece,
        })
    }

    /// Uploads the entries of a batch, and gathers the rows that they name where they are not read in place.
    pub(crate) fn upload(&self, system: &AlsSystem<'_>, batch: &Batch) -> Result<Uploaded> {
        let queue = self.queue;
        let indices = &system.rows.indices[batch.entries.clone()];
        let values = &system.rows.values[batch.entries.clone()];
        let n = indices.len();
        let indices = queue.upload(indices, "a batch's columns")?;
        let values = queue.upload(values, "a batch's values")?;
        let mut gathered = None;
        if !self.in_place {
            let out =
                queue.unwritten::<f32>(n * self.row_vectors() * 4, "a batch's rows of the fixed side")?;
            for &(first, rows) in self.chunks.iter().filter(|_| n > 0) {
                self.gather(first, rows, &indices, &out)?;
            }
            gathered = Some(out);
        }
        Ok(Uploaded { indices, values, gathered })
    }

    fn gather(&self, first: u64, rows: &Rows, indices: &Buffer<u32>, out: &Buffer<f32>) -> Result<()> {
        let Layout { dim, block } = self.layout;
        let (chunk, kind, values) = match rows {
            Rows::F32(buffer) => (self.queue.words_arg(self.op, buffer)?, Kind::F32, buffer.len()),
            Rows::F16(buffer) => (self.queue.words_arg(self.op, buffer)?, Kind::F16, buffer.len()),
            Rows::Bf16(buffer) => (self.queue.words_arg(self.op, buffer)?, Kind::Bf16, buffer.len()),
            Rows::Int8(buffer, _) => {
                let device = buffer.device();
                return Err(Error::NotOnDevice { op: self.op, device });
            }
        };
        let cube_dim = CubeDim::new_1d(256);
        let count = cubecl::calculate_cube_count_elemwise(&self.queue.client, out.len() / 4, cube_dim);
        gather_entries::launch::<R>(
            &self.queue.client,
            count,
            cube_dim,
            chunk,
            self.queue.arg(self.op, indices)?,
            self.queue.vector_arg(self.op, out, 4)?,
            first as u32,
            (values / dim) as u32,
            dim as u32,
            block as u32,
            self.row_vectors() as u32,
            self.layout.block_vectors() as u32,
            kind,
        );
        Ok(())
    }

    /// Returns a batch's entries as an argument of a kernel.
    pub(crate) fn arg(&self, system: &AlsSystem<'_>, uploaded: &Uploaded) -> Result<EntriesLaunch<R>> {
        let mut fixed = SequenceArg::new();
        match &uploaded.gathered {
            Some(gathered) => fixed.push(self.queue.vector_arg(self.op, gathered, 4)?),
            None => {
                for (_, rows) in &self.chunks {
                    if let Rows::F32(buffer) = rows {
                        fixed.push(self.queue.vector_arg(self.op, buffer, 4)?);
                    }
                }
            }
        }
        Ok(EntriesLaunch::new(
            fixed,
            self.queue.arg(self.op, &uploaded.indices)?,
            self.queue.arg(self.op, &uploaded.values)?,
            system.base,
            system.scale,
            system.offset,
            self.shift,
            self.row_vectors() as u32,
            self.in_place,
        ))
    }
}

/// Returns the bytes that a batch, or its working memory, may have.
pub(crate) fn batch_bytes(device: Device) -> Result<u64> {
    let bytes = BATCH_BYTES.min(device.max_buffer_bytes()?).min(memory::available(device) / 8);
    Ok(bytes.max(1 << 16))
}

/// A batch's entries on the device.
pub(crate) struct Uploaded {
    indices: Buffer<u32>,
    values: Buffer<f32>,
    gathered: Option<Buffer<f32>>,
}

/// The failure word of one batch, read when the next one has been launched.
pub(crate) struct Failures {
    op: &'static str,
    first: Option<Error>,
    pending: Option<(Buffer<u32>, u64)>,
}

impl Failures {
    pub(crate) fn new(op: &'static str) -> Self {
        Self { op, first: None, pending: None }
    }

    /// Waits for the batch before, and keeps the word of this one, whose chunk begins at row `first_row`.
    pub(crate) fn after(&mut self, word: Buffer<u32>, first_row: u64) -> Result<()> {
        let before = self.pending.replace((word, first_row));
        self.note(before)
    }

    /// Waits for the last batch; the first failure of all is the result.
    pub(crate) fn finish(mut self) -> Result<()> {
        let last = self.pending.take();
        self.note(last)?;
        self.first.map_or(Ok(()), Err)
    }

    fn note(&mut self, batch: Option<(Buffer<u32>, u64)>) -> Result<()> {
        let Some((word, first_row)) = batch else { return Ok(()) };
        let word = word.to_vec()?[0];
        if word != NONE && self.first.is_none() {
            let (op, row) = (self.op, first_row + u64::from(word / 2));
            self.first = Some(match word % 2 {
                0 => Error::NotPositiveDefinite { op, row },
                _ => Error::NotFinite { op, what: "solution", row },
            });
        }
        Ok(())
    }
}

/// Returns a failure word that says that no row has failed.
pub(crate) fn no_failure<R: Gpu>(queue: &Queue<R>) -> Result<Buffer<u32>> {
    queue.upload(&[NONE], "a batch's failure")
}

/// A batch's entries as kernels see them.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct Entries {
    /// The chunks of the fixed side, or the gathered rows alone: `[n, row_vectors]` each.
    pub(crate) fixed: Sequence<Array<Four>>,
    pub(crate) indices: Array<u32>,
    pub(crate) values: Array<f32>,
    pub(crate) base: f32,
    pub(crate) scale: f32,
    pub(crate) offset: f32,
    pub(crate) shift: u32,
    pub(crate) row_vectors: u32,
    #[cube(comptime)]
    pub(crate) in_place: bool,
}

/// How a chunk's words hold its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
}

/// One chunk's share of the gathered rows, a vector of four a unit; zeros behind a block's values.
#[cube(launch)]
fn gather_entries(
    chunk: &Array<u32>,
    indices: &Array<u32>,
    out: &mut Array<Four>,
    first_row: u32,
    n_rows: u32,
    dim: u32,
    block: u32,
    row_vectors: u32,
    block_vectors: u32,
    #[comptime] kind: Kind,
) {
    if ABSOLUTE_POS < out.len() {
        let row = indices[ABSOLUTE_POS / row_vectors as usize];
        if row >= first_row && row - first_row < n_rows {
            let vector = (ABSOLUTE_POS % row_vectors as usize) as u32;
            let within = vector % block_vectors * 4;
            let first = vector / block_vectors * block + within;
            let end = u32::min(u32::saturating_sub(block, within), u32::saturating_sub(dim, first));
            let at = (row - first_row) as usize * dim as usize + first as usize;
            out[ABSOLUTE_POS] = load_four(chunk, at, end, kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Table;

    #[test]
    fn batches_cover_every_entry_once_and_cut_long_rows_at_their_own_places() {
        let lengths = [0usize, 3, 25, 1, 0, 10, 11, 40, 2];
        let mut indptr = vec![0u64];
        lengths.iter().for_each(|&n| indptr.push(indptr[indptr.len() - 1] + n as u64));
        let nnz = indptr[lengths.len()] as usize;
        let (indices, values) = (vec![0; nnz], vec![1.0; nnz]);
        let fixed = Table::from_f32(&[1.0], 1, Device::Cpu, "a test").unwrap();
        let ridge: Vec<f32> = (0..lengths.len()).map(|row| row as f32).collect();
        let rows = SparseRows { indptr: &indptr, indices: &indices, values: &values };
        let (gram, ridge) = (&[0.0][..], &ridge[..]);
        let system = AlsSystem { rows, fixed: &fixed, gram, base: 0.0, scale: 1.0, offset: 1.0, ridge };
        for (entries, pieces, n_rows, chunk_rows) in [(1000, 100, 100, 16), (10, 2, 3, 16), (17, 1, 2, 4)] {
            let limits = Limits { entries, pieces, rows: n_rows, piece: 10 };
            let (mut at, mut open) = (0, 0);
            let mut seen = vec![0; lengths.len()];
            for batch in Batches::new(&system, chunk_rows, limits) {
                assert_eq!(batch.entries.start, at);
                assert!(batch.entries.len() <= entries && batch.pieces.len() / 2 <= pieces);
                assert_eq!(batch.goes_on, open > 0);
                at = batch.entries.end;
                let row_of = |task: &[u32]| batch.chunk * chunk_rows as usize + task[2] as usize;
                for task in batch.short.chunks(4) {
                    assert_eq!(f32::from_bits(task[3]) as usize, row_of(task));
                    assert_eq!((task[1] - task[0]) as usize, lengths[row_of(task)]);
                    seen[row_of(task)] += 1;
                }
                for task in batch.long.chunks(4) {
                    for piece in batch.pieces.chunks(2).take(task[1] as usize).skip(task[0] as usize) {
                        let n = (piece[1] - piece[0]) as usize;
                        open += n;
                        assert!(n == 10 || open == lengths[row_of(task)]);
                    }
                    if open == lengths[row_of(task)] {
                        (open, seen[row_of(task)]) = (0, seen[row_of(task)] + 1);
                    }
                }
                assert_eq!(batch.unfinished, open > 0);
            }
            assert_eq!((at, open), (nnz, 0));
            assert!(seen.iter().all(|&n| n == 1), "{seen:?}");
        }
    }
}
