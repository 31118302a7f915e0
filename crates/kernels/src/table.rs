//! A table of rows, cut into chunks that a device can hold one by one.
//!
//! Row `r` is row `r % chunk_rows` of chunk `r / chunk_rows`. Every chunk but the last holds `chunk_rows` rows, a power
//! of two, so that finding a row is a shift and a mask. No operation assumes that a table is one buffer: a row index is
//! u64 in a table and u32 in a chunk.
//!
//! | rows  | bytes a row     | scale                            |
//! |-------|-----------------|----------------------------------|
//! | f32   | `4 * dim`       |                                  |
//! | f16   | `2 * dim`       |                                  |
//! | bf16  | `2 * dim`       |                                  |
//! | int8  | `dim` + 4       | one f32 a row: value = q * scale |

#[cfg(feature = "gpu")]
pub(crate) mod bound;

use bytemuck::Pod;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::{Buffer, Device, Error, Result};

/// The number type that a table's rows are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowType {
    /// 32-bit floating point.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integers with one f32 scale a row.
    Int8,
}

impl RowType {
    /// Returns the bytes of one value, without a row's scale.
    pub fn bytes(self) -> u64 {
        match self {
            RowType::F32 => 4,
            RowType::F16 | RowType::Bf16 => 2,
            RowType::Int8 => 1,
        }
    }
}

/// One chunk's numbers, row-major.
#[derive(Debug)]
pub enum Rows {
    /// 32-bit rows.
    F32(Buffer<f32>),
    /// Half-precision rows.
    F16(Buffer<f16>),
    /// bfloat16 rows.
    Bf16(Buffer<bf16>),
    /// 8-bit rows and the scale of each.
    Int8(Buffer<i8>, Buffer<f32>),
}

impl Rows {
    fn values(&self) -> usize {
        match self {
            Rows::F32(buffer) => buffer.len(),
            Rows::F16(buffer) => buffer.len(),
            Rows::Bf16(buffer) => buffer.len(),
            Rows::Int8(buffer, _) => buffer.len(),
        }
    }

    /// Copies the values to the host as f32; `dim` of them make a row.
    pub(crate) fn to_f32(&self, dim: usize) -> Result<Vec<f32>> {
        Ok(match self {
            Rows::F32(buffer) => buffer.to_vec()?,
            Rows::F16(buffer) => buffer.to_vec()?.into_iter().map(f16::to_f32).collect(),
            Rows::Bf16(buffer) => buffer.to_vec()?.into_iter().map(bf16::to_f32).collect(),
            Rows::Int8(buffer, scale) => {
                let scale = scale.to_vec()?;
                let values = buffer.to_vec()?.into_iter().enumerate();
                values.map(|(i, q)| f32::from(q) * scale[i / dim]).collect()
            }
        })
    }

    fn row_type(&self) -> RowType {
        match self {
            Rows::F32(_) => RowType::F32,
            Rows::F16(_) => RowType::F16,
            Rows::Bf16(_) => RowType::Bf16,
            Rows::Int8(..) => RowType::Int8,
        }
    }

    fn device(&self) -> Device {
        match self {
            Rows::F32(buffer) => buffer.device(),
            Rows::F16(buffer) => buffer.device(),
            Rows::Bf16(buffer) => buffer.device(),
            Rows::Int8(buffer, _) => buffer.device(),
        }
    }
}

/// `rows x dim` numbers as a list of row chunks on one device.
#[derive(Debug)]
pub struct Table {
    rows: u64,
    dim: usize,
    row_type: RowType,
    device: Device,
    shift: u32,
    chunks: Vec<Rows>,
}

impl Table {
    /// The most bytes that [`Table::chunk_rows_for`] puts into one chunk: 1 GiB.
    pub const MAX_CHUNK_BYTES: u64 = 1 << 30;

    /// Returns the largest power of two of f32 rows of `dim` values that stays within `max_bytes`, at least one.
    pub fn chunk_rows_for(dim: usize, max_bytes: u64) -> u32 {
        let rows = (max_bytes / (4 * dim.max(1) as u64)).clamp(1, 1 << 31);
        1 << rows.ilog2()
    }

    /// Allocates an f32 table of zeros; `what` names it in an error.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::BufferTooLarge`], [`Error::Unavailable`].
    pub fn zeros(rows: u64, dim: usize, device: Device, what: &'static str) -> Result<Self> {
        Self::zeros_in_chunks(
            rows,
            dim,
            Self::chunk_rows_for(dim, Self::max_chunk_bytes(device)?),
            device,
            what,
        )
    }

    /// As [`Table::zeros`], with `chunk_rows` rows a chunk (a power of two).
    ///
    /// # Errors
    /// As [`Table::zeros`]; [`Error::Parameter`] when `chunk_rows` is not a power of two.
    pub fn zeros_in_chunks(
        rows: u64,
        dim: usize,
        chunk_rows: u32,
        device: Device,
        what: &'static str,
    ) -> Result<Self> {
        let chunks = chunk_lengths(rows, chunk_rows)?
            .map(|n| Buffer::zeros(values(n, dim, device, what)?, device, what).map(Rows::F32))
            .collect::<Result<_>>()?;
        Self::from_chunks(dim, chunk_rows, RowType::F32, device, chunks)
    }

    /// Copies row-major f32 `values` to `device`; `what` names the table in an error.
    ///
    /// # Errors
    /// [`Error::Shape`] when `values` is no whole number of rows; otherwise as [`Table::zeros`].
    pub fn from_f32(values: &[f32], dim: usize, device: Device, what: &'static str) -> Result<Self> {
        let chunk_rows = Self::chunk_rows_for(dim, Self::max_chunk_bytes(device)?);
        Self::from_f32_in_chunks(values, dim, chunk_rows, device, what)
    }

    /// As [`Table::from_f32`], with `chunk_rows` rows a chunk (a power of two).
    ///
    /// # Errors
    /// As [`Table::from_f32`]; [`Error::Parameter`] when `chunk_rows` is not a power of two.
    pub fn from_f32_in_chunks(
        values: &[f32],
        dim: usize,
        chunk_rows: u32,
        device: Device,
        what: &'static str,
    ) -> Result<Self> {
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(Error::Shape {
                op: "table",
                what,
                expected: values.len() / dim.max(1) * dim,
                got: values.len(),
            });
        }
        check_chunk_rows(chunk_rows)?;
        let chunks = values
            .chunks((chunk_rows as usize).saturating_mul(dim))
            .map(|rows| Buffer::from_slice(rows, device, what).map(Rows::F32))
            .collect::<Result<_>>()?;
        Self::from_chunks(dim, chunk_rows, RowType::F32, device, chunks)
    }

    /// Joins `chunks` of `row_type` on `device` into a table; every chunk but the last holds `chunk_rows` rows.
    ///
    /// # Errors
    /// [`Error::Parameter`] when `dim` is 0 or `chunk_rows` is not a power of two; [`Error::Shape`],
    /// [`Error::RowType`], [`Error::MixedDevices`] when a chunk does not fit.
    pub fn from_chunks(
        dim: usize,
        chunk_rows: u32,
        row_type: RowType,
        device: Device,
        chunks: Vec<Rows>,
    ) -> Result<Self> {
        let op = "table";
        if dim == 0 {
            return Err(Error::Parameter { op, what: "dim", expected: "at least 1", got: 0.0 });
        }
        check_chunk_rows(chunk_rows)?;
        let full = (chunk_rows as usize).saturating_mul(dim);
        let mut rows = 0;
        for (at, chunk) in chunks.iter().enumerate() {
            let got = chunk.values();
            let last = at + 1 == chunks.len();
            let fits = if last { got > 0 && got <= full && got.is_multiple_of(dim) } else { got == full };
            if !fits {
                return Err(Error::Shape { op, what: "chunk", expected: full, got });
            }
            if let Rows::Int8(_, scale) = chunk
                && scale.len() != got / dim
            {
                return Err(Error::Shape { op, what: "scale", expected: got / dim, got: scale.len() });
            }
            if chunk.row_type() != row_type {
                return Err(Error::RowType { op, what: "chunk", expected: row_type, got: chunk.row_type() });
            }
            if chunk.device() != device {
                return Err(Error::MixedDevices { op });
            }
            rows += (got / dim) as u64;
        }
        Ok(Self { rows, dim, row_type, device, shift: chunk_rows.ilog2(), chunks })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the values a row has.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns the number type of the rows.
    pub fn row_type(&self) -> RowType {
        self.row_type
    }

    /// Returns where the rows live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the rows that every chunk but the last holds.
    pub fn chunk_rows(&self) -> u32 {
        1 << self.shift
    }

    /// Returns each chunk with the table row it begins at.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = (u64, &Rows)> {
        self.chunks.iter().enumerate().map(|(at, chunk)| ((at as u64) << self.shift, chunk))
    }

    /// Returns the chunk that holds row `row`, and which of its rows that is.
    ///
    /// # Panics
    /// When `row` is past the rows; operations check their indices before they come here.
    #[inline]
    pub(crate) fn chunk_of(&self, row: u64) -> (&Rows, usize) {
        (&self.chunks[(row >> self.shift) as usize], (row as usize) & ((1usize << self.shift) - 1))
    }

    /// Returns each chunk's f32 values for writing, with the table row it begins at; nothing unless the rows are f32,
    /// on the CPU and not mapped.
    pub fn f32_chunks_mut(&mut self) -> impl Iterator<Item = (u64, &mut [f32])> {
        let shift = self.shift;
        self.chunks.iter_mut().enumerate().filter_map(move |(at, chunk)| match chunk {
            Rows::F32(buffer) => buffer.cpu_mut().map(|values| ((at as u64) << shift, values)),
            _ => None,
        })
    }

    /// Returns each chunk for writing, with the table row it begins at.
    pub(crate) fn chunks_mut(&mut self) -> impl Iterator<Item = (u64, &mut Rows)> {
        let shift = self.shift;
        self.chunks.iter_mut().enumerate().map(move |(at, chunk)| ((at as u64) << shift, chunk))
    }

    /// Takes the table apart into its chunks.
    pub(crate) fn into_chunks(self) -> Vec<Rows> {
        self.chunks
    }

    /// Returns a view of the rows as f32 slices; `None` unless the rows are f32 on the CPU.
    pub fn f32_rows(&self) -> Option<F32Rows<'_>> {
        let chunks = self
            .chunks
            .iter()
            .map(|rows| match rows {
                Rows::F32(buffer) => buffer.cpu(),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()?;
        Some(F32Rows {
            chunks,
            shift: self.shift,
            mask: (1 << self.shift) - 1,
            dim: self.dim,
            rows: self.rows as usize,
        })
    }

    /// Writes row `row` to `out` as f32, whatever the stored type.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`]; [`Error::Shape`] when `out` is not `dim` long; [`Error::NotOnDevice`] for a GPU.
    pub fn read_row(&self, row: u64, out: &mut [f32]) -> Result<()> {
        let op = "read_row";
        if row >= self.rows {
            return Err(Error::IndexOutOfRange { op, position: 0, rows: self.rows, index: row });
        }
        if out.len() != self.dim {
            return Err(Error::Shape { op, what: "out", expected: self.dim, got: out.len() });
        }
        let at = (row as usize) & ((1usize << self.shift) - 1);
        let values = at * self.dim..(at + 1) * self.dim;
        let elsewhere = || Error::NotOnDevice { op, device: self.device };
        match &self.chunks[(row >> self.shift) as usize] {
            Rows::F32(buffer) => out.copy_from_slice(&buffer.cpu().ok_or_else(elsewhere)?[values]),
            Rows::F16(buffer) => widen(&buffer.cpu().ok_or_else(elsewhere)?[values], out, f16::to_f32),
            Rows::Bf16(buffer) => widen(&buffer.cpu().ok_or_else(elsewhere)?[values], out, bf16::to_f32),
            Rows::Int8(buffer, scale) => {
                let scale = scale.cpu().ok_or_else(elsewhere)?[at];
                widen(&buffer.cpu().ok_or_else(elsewhere)?[values], out, |q| f32::from(q) * scale);
            }
        }
        Ok(())
    }

    /// Copies all rows to the host as f32, row-major.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] when the device no longer answers.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(self.rows as usize * self.dim);
        for chunk in &self.chunks {
            out.extend(chunk.to_f32(self.dim)?);
        }
        Ok(out)
    }

    /// Makes a table on the CPU with rows of `row_type` (f32, f16 or bf16), each row of it as `fill` writes it.
    ///
    /// Rows are asked for in parallel and in no order, and the whole is never held in f32 beside the narrower type.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the first row that has a value outside the range of `row_type`; [`Error::RowType`] for int8;
    /// [`Error::Parameter`] when `dim` is 0; [`Error::OutOfMemory`]; and the first row's of what `fill` returns.
    pub fn from_rows(
        rows: u64,
        dim: usize,
        row_type: RowType,
        what: &'static str,
        fill: impl Fn(u64, &mut [f32]) -> Result<()> + Sync,
    ) -> Result<Self> {
        let chunk_rows = Self::chunk_rows_for(dim, Self::max_chunk_bytes(Device::Cpu)?);
        Self::from_rows_in_chunks(rows, dim, chunk_rows, row_type, what, fill)
    }

    fn from_rows_in_chunks(
        rows: u64,
        dim: usize,
        chunk_rows: u32,
        row_type: RowType,
        what: &'static str,
        fill: impl Fn(u64, &mut [f32]) -> Result<()> + Sync,
    ) -> Result<Self> {
        if dim == 0 {
            return Err(Error::Parameter { op: "table", what: "dim", expected: "at least 1", got: 0.0 });
        }
        let mut first = 0;
        let chunks = chunk_lengths(rows, chunk_rows)?.map(|n| {
            let chunk = Chunk { first, rows: n, dim, what };
            first += n;
            match row_type {
                RowType::F32 => chunk.filled(f32::MAX, |x| x, &fill).map(Rows::F32),
                RowType::F16 => chunk.filled(f16::MAX.to_f32(), f16::from_f32, &fill).map(Rows::F16),
                RowType::Bf16 => chunk.filled(f32::MAX, bf16::from_f32, &fill).map(Rows::Bf16),
                got => Err(Error::RowType { op: "table", what, expected: RowType::F32, got }),
            }
        });
        let chunks = chunks.collect::<Result<_>>()?;
        Self::from_chunks(dim, chunk_rows, row_type, Device::Cpu, chunks)
    }

    /// Returns a copy with rows of `row_type` on the CPU: f32, f16 or bf16.
    ///
    /// # Errors
    /// As [`Table::from_rows`].
    pub fn to_row_type(&self, row_type: RowType, what: &'static str) -> Result<Self> {
        let read = |row, values: &mut [f32]| self.read_row(row, values);
        Self::from_rows_in_chunks(self.rows, self.dim, self.chunk_rows(), row_type, what, read)
    }

    /// Copies the table, as it is stored, to `device`; `what` names the copy in an error.
    ///
    /// # Errors
    /// As [`Table::zeros`]; [`Error::DeviceLost`] when the device that it lives on no longer answers.
    pub fn try_copy(&self, device: Device, what: &'static str) -> Result<Self> {
        let most = Self::chunk_rows_for(self.dim, Self::max_chunk_bytes(device)?);
        // The whole is named where it does not fit, not the chunk that is one too many.
        let asked = self.rows() * self.dim as u64 * self.row_type.bytes();
        let available = crate::memory::available(device);
        if asked > available {
            return Err(Error::OutOfMemory { device, what, asked, available });
        }
        if most < self.chunk_rows() && self.chunks.len() != 1 {
            return self.rechunked(most, device, what);
        }
        // One chunk may be shorter than its chunk rows say, and fit.
        let whole = self.chunks.first().map_or(0, Rows::values) as u64 * self.row_type.bytes();
        if whole > Self::max_chunk_bytes(device)? {
            return self.rechunked(most, device, what);
        }
        let copy = |rows: &Rows| {
            Ok(match rows {
                Rows::F32(buffer) => Rows::F32(buffer.try_copy(device, what)?),
                Rows::F16(buffer) => Rows::F16(buffer.try_copy(device, what)?),
                Rows::Bf16(buffer) => Rows::Bf16(buffer.try_copy(device, what)?),
                Rows::Int8(buffer, scale) => {
                    Rows::Int8(buffer.try_copy(device, what)?, scale.try_copy(device, what)?)
                }
            })
        };
        let chunks = self.chunks.iter().map(copy).collect::<Result<_>>()?;
        Self::from_chunks(self.dim, self.chunk_rows(), self.row_type, device, chunks)
    }

    /// Returns the table on `device`: itself, where it is there already.
    ///
    /// # Errors
    /// As [`Table::try_copy`].
    pub fn moved_to(self, device: Device, what: &'static str) -> Result<Self> {
        if self.device() == device { Ok(self) } else { self.try_copy(device, what) }
    }

    /// Copies the table to `device` in chunks of `chunk_rows`, as many as it has now or fewer.
    ///
    /// # Errors
    /// [`Error::Parameter`] for more rows than a chunk has now, or no power of two; as [`Table::try_copy`].
    pub fn try_copy_in_chunks(&self, chunk_rows: u32, device: Device, what: &'static str) -> Result<Self> {
        if !chunk_rows.is_power_of_two() || chunk_rows > self.chunk_rows() {
            let expected = "a power of two, as many as there are or fewer";
            return Err(Error::Parameter {
                op: "table",
                what: "chunk_rows",
                expected,
                got: chunk_rows.into(),
            });
        }
        self.rechunked(chunk_rows, device, what)
    }

    /// Copies the table to `device` in chunks of `chunk_rows`, not more than it has now.
    fn rechunked(&self, chunk_rows: u32, device: Device, what: &'static str) -> Result<Self> {
        fn cut<T: bytemuck::Pod>(
            buffer: &Buffer<T>,
            values: usize,
            device: Device,
            what: &'static str,
        ) -> Result<Vec<Buffer<T>>> {
            let on_host;
            let all = match buffer.cpu() {
                Some(all) => all,
                None => {
                    on_host = buffer.to_vec()?;
                    &on_host
                }
            };
            all.chunks(values).map(|part| Buffer::from_slice(part, device, what)).collect()
        }
        let values = chunk_rows as usize * self.dim;
        let mut chunks = Vec::new();
        for rows in &self.chunks {
            match rows {
                Rows::F32(buffer) => {
                    chunks.extend(cut(buffer, values, device, what)?.into_iter().map(Rows::F32))
                }
                Rows::F16(buffer) => {
                    chunks.extend(cut(buffer, values, device, what)?.into_iter().map(Rows::F16))
                }
                Rows::Bf16(buffer) => {
                    chunks.extend(cut(buffer, values, device, what)?.into_iter().map(Rows::Bf16));
                }
                Rows::Int8(buffer, scale) => {
                    let scales = cut(scale, chunk_rows as usize, device, what)?;
                    let parts = cut(buffer, values, device, what)?.into_iter().zip(scales);
                    chunks.extend(parts.map(|(rows, scale)| Rows::Int8(rows, scale)));
                }
            }
        }
        Self::from_chunks(self.dim, chunk_rows, self.row_type, device, chunks)
    }

    /// Returns the bytes that a kernel on `device` takes beside a table of f32 rows which is read by index: none where its chunks are
    /// few enough to be bound at once, otherwise those of a copy in larger ones.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a table that is too large even so; [`Error::Unavailable`].
    pub fn bound_copy_bytes(rows: u64, dim: usize, device: Device) -> Result<u64> {
        let chunk_rows = u64::from(Self::chunk_rows_for(dim, Self::max_chunk_bytes(device)?));
        if device == Device::Cpu || rows.div_ceil(chunk_rows) <= MAX_BOUND_CHUNKS as u64 {
            return Ok(0);
        }
        let (shift, row) = (repacked_shift(rows), 4 * dim as u64);
        check_repacked("a table", shift, row, device)?;
        Ok((rows.div_ceil(1 << shift) << shift) * row)
    }

    fn max_chunk_bytes(device: Device) -> Result<u64> {
        Ok(Self::MAX_CHUNK_BYTES.min(device.max_buffer_bytes()?))
    }
}

/// The most chunks that a kernel on a GPU binds at once.
const MAX_BOUND_CHUNKS: usize = 8;

/// The logarithm of the rows of a chunk, of which so few hold all `rows`.
fn repacked_shift(rows: u64) -> u32 {
    rows.div_ceil(MAX_BOUND_CHUNKS as u64).next_power_of_two().ilog2()
}

/// # Errors
/// [`Error::Parameter`] where a chunk of `1 << shift` rows of so many bytes is more than `device` binds.
fn check_repacked(op: &'static str, shift: u32, row_bytes: u64, device: Device) -> Result<()> {
    let (most, bytes) = (device.max_buffer_bytes()?, row_bytes << shift);
    if bytes <= most {
        return Ok(());
    }
    let expected = "at most 8 chunks of what the device binds at once; fewer factors or rows, or the CPU";
    Err(Error::Parameter { op, what: "bytes of a chunk", expected, got: bytes as f64 })
}

/// A table's f32 rows on the CPU, for reading.
#[derive(Clone, Debug)]
pub struct F32Rows<'a> {
    chunks: Vec<&'a [f32]>,
    shift: u32,
    mask: usize,
    dim: usize,
    rows: usize,
}

impl<'a> F32Rows<'a> {
    /// Returns row `row`.
    ///
    /// # Panics
    /// When `row` is past the rows; operations check their indices before they come here.
    #[inline]
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.chunks[row >> self.shift][(row & self.mask) * self.dim..][..self.dim]
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the values a row has.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns each chunk's values with the table row it begins at.
    pub fn chunks(&self) -> impl Iterator<Item = (usize, &'a [f32])> {
        let shift = self.shift;
        self.chunks.iter().enumerate().map(move |(at, &chunk)| (at << shift, chunk))
    }
}

fn widen<T: Copy>(values: &[T], out: &mut [f32], to_f32: impl Fn(T) -> f32) {
    for (o, &v) in out.iter_mut().zip(values) {
        *o = to_f32(v);
    }
}

fn check_chunk_rows(chunk_rows: u32) -> Result<()> {
    if chunk_rows.is_power_of_two() {
        return Ok(());
    }
    Err(Error::Parameter {
        op: "table",
        what: "chunk_rows",
        expected: "a power of two",
        got: f64::from(chunk_rows),
    })
}

/// Rows of a table to be made.
struct Chunk {
    first: u64,
    rows: u64,
    dim: usize,
    what: &'static str,
}

impl Chunk {
    fn filled<T: Pod + Send + Sync>(
        &self,
        limit: f32,
        convert: impl Fn(f32) -> T + Sync,
        fill: impl Fn(u64, &mut [f32]) -> Result<()> + Sync,
    ) -> Result<Buffer<T>> {
        let Self { first, dim, what, .. } = *self;
        let mut buffer = Buffer::zeros(values(self.rows, dim, Device::Cpu, what)?, Device::Cpu, what)?;
        let rows = buffer.cpu_mut().unwrap_or_default().par_chunks_mut(dim).enumerate();
        let written = rows.map_init(
            || vec![0.0; dim],
            |wide, (row, narrow)| {
                let row = first + row as u64;
                fill(row, wide)?;
                if !wide.iter().all(|x| x.abs() <= limit) {
                    return Err(Error::NotFinite { op: "table", what, row });
                }
                narrow.iter_mut().zip(&*wide).for_each(|(to, &from)| *to = convert(from));
                Ok(())
            },
        );
        written.find_map_first(Result::err).map_or(Ok(buffer), Err)
    }
}

/// The rows of each chunk in turn.
fn chunk_lengths(rows: u64, chunk_rows: u32) -> Result<impl Iterator<Item = u64>> {
    check_chunk_rows(chunk_rows)?;
    let chunk_rows = u64::from(chunk_rows);
    Ok((0..rows.div_ceil(chunk_rows)).map(move |at| (rows - at * chunk_rows).min(chunk_rows)))
}

fn values(rows: u64, dim: usize, device: Device, what: &'static str) -> Result<usize> {
    usize::try_from(rows).ok().and_then(|rows| rows.checked_mul(dim)).ok_or(Error::OutOfMemory {
        device,
        what,
        asked: u64::MAX,
        available: crate::memory::available(device),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bound_at_once_is_known_before() {
        assert_eq!(Table::bound_copy_bytes(1 << 40, 64, Device::Cpu), Ok(0));
        let device = Device::Wgpu(0);
        let most = match device.max_buffer_bytes() {
            Ok(most) => most,
            Err(error) => return assert!(std::env::var_os("RECMILL_REQUIRE_WGPU").is_none(), "{error}"),
        };
        // Rows of 64 KiB, so many in a chunk.
        let (dim, chunk) = (1 << 14, Table::MAX_CHUNK_BYTES.min(most) >> 16);
        let chunk = 1u64 << chunk.ilog2();
        assert_eq!(Table::bound_copy_bytes(8 * chunk, dim, device), Ok(0));
        let more = Table::bound_copy_bytes(8 * chunk + 1, dim, device);
        match chunk << 17 > most {
            true => {
                assert!(matches!(more, Err(Error::Parameter { what: "bytes of a chunk", .. })), "{more:?}")
            }
            // Five chunks of twice the rows.
            false => assert_eq!(more, Ok((5 * chunk) << 17)),
        }
    }

    #[test]
    fn rows_are_found_in_their_chunks_whatever_the_type() {
        let values: Vec<f32> = (0..7 * 3).map(|i| i as f32).collect();
        let table = Table::from_f32_in_chunks(&values, 3, 2, Device::Cpu, "a test").unwrap();
        assert_eq!((table.rows(), table.chunks().len()), (7, 4));
        assert_eq!(table.f32_rows().unwrap().row(5), &values[15..18]);
        for row_type in [RowType::F32, RowType::F16, RowType::Bf16] {
            let narrow = table.to_row_type(row_type, "a test").unwrap();
            assert_eq!(narrow.row_type(), row_type);
            assert_eq!(narrow.to_f32().unwrap(), values, "small integers are exact in {row_type:?}");
            let mut row = [0.0; 3];
            narrow.read_row(6, &mut row).unwrap();
            assert_eq!(row, [18.0, 19.0, 20.0]);
            assert!(narrow.read_row(7, &mut row).is_err());
        }
    }

    #[test]
    fn shorter_chunks_hold_the_same_rows() {
        let values: Vec<f32> = (0..7 * 3).map(|i| i as f32).collect();
        let whole = Table::from_f32_in_chunks(&values, 3, 4, Device::Cpu, "a test").unwrap();
        for row_type in [RowType::F32, RowType::F16, RowType::Bf16] {
            let table = whole.to_row_type(row_type, "a test").unwrap();
            for (chunk_rows, chunks) in [(4, 2), (2, 4), (1, 7)] {
                let cut = table.try_copy_in_chunks(chunk_rows, Device::Cpu, "a test").unwrap();
                assert_eq!((cut.chunk_rows(), cut.chunks().len()), (chunk_rows, chunks));
                assert_eq!((cut.row_type(), cut.to_f32().unwrap()), (row_type, values.clone()));
            }
            for refused in [0, 3, 8] {
                let error = table.try_copy_in_chunks(refused, Device::Cpu, "a test").unwrap_err();
                assert!(matches!(error, Error::Parameter { what: "chunk_rows", .. }), "{error}");
            }
        }
    }

    #[test]
    fn a_value_that_half_precision_cannot_hold_is_reported_with_its_row() {
        let table = Table::from_f32(&[1.0, 2.0, 1e6, 0.0], 2, Device::Cpu, "a test").unwrap();
        let error = table.to_row_type(RowType::F16, "a test").unwrap_err();
        assert_eq!(error, Error::NotFinite { op: "table", what: "a test", row: 1 });
        let nan_in = |row: u64| {
            move |at: u64, values: &mut [f32]| {
                values.fill(if at >= row { f32::NAN } else { 1.0 });
                Ok(())
            }
        };
        for row_type in [RowType::F32, RowType::F16, RowType::Bf16] {
            for row in [0, 1, 999] {
                let error = Table::from_rows(1000, 3, row_type, "a test", nan_in(row)).unwrap_err();
                assert_eq!(error, Error::NotFinite { op: "table", what: "a test", row });
            }
        }
        let none = Table::from_rows(0, 3, RowType::F16, "a test", nan_in(0)).unwrap();
        assert_eq!((none.rows(), none.row_type()), (0, RowType::F16));
        assert!(Table::from_rows(1, 0, RowType::F16, "a test", nan_in(1)).is_err());
        assert!(Table::from_rows(1, 1, RowType::Int8, "a test", nan_in(1)).is_err());
    }

    #[test]
    fn chunks_must_fit() {
        let chunk = |n| Rows::F32(Buffer::from_vec(vec![0.0; n], "a test").unwrap());
        let table = |chunks| Table::from_chunks(2, 4, RowType::F32, Device::Cpu, chunks);
        assert_eq!(table(vec![chunk(8), chunk(2)]).unwrap().rows(), 5);
        assert!(table(vec![chunk(2), chunk(8)]).is_err());
        assert!(table(vec![chunk(8), chunk(0)]).is_err());
        assert!(table(vec![chunk(3)]).is_err());
        assert!(Table::zeros_in_chunks(3, 2, 3, Device::Cpu, "a test").is_err());
        assert_eq!(Table::zeros(0, 2, Device::Cpu, "a test").unwrap().rows(), 0);
    }
}
