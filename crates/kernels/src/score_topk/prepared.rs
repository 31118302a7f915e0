//! What is derived from a table once, so that many batches score it fast.
//!
//! | derived         | bytes a row       | plain | for                                                       |
//! |-----------------|-------------------|-------|-----------------------------------------------------------|
//! | order and place | 8                 | no    | rows by falling norm: thresholds rise early               |
//! | norms           | 4                 | no    | a whole tile is skipped when no norm in it can reach      |
//! | int8 codes      | dim rounded to 4  | no    | the first pass, where the processor has a kernel for it   |
//! | scales          | 16                | no    | the bound on what the codes cost                          |

use rayon::prelude::*;

use super::{
    OP, check_table,
    quantized::{CodeLine, Codes, MAX_DIM, PanelScales, in_range, quantize_row},
    rows::RowReader,
    tile::{LANES, Lanes, most_in_int8},
};
use crate::{Buffer, Device, Error, Result, Table, buffer::on_gpu, simd};

/// Panels are counted in fours, so that every kernel's run of panels comes out even.
const PANEL_GROUP: usize = 4;

/// What is derived from a table once, so that many batches score it fast.
#[derive(Debug)]
pub struct TopkPrepared {
    pub(super) rows: usize,
    pub(super) dim: usize,
    pub(super) max_norm: f64,
    pub(super) sorted: Option<Sorted>,
    int8: Option<Int8>,
}

/// The rows by falling norm.
#[derive(Debug)]
pub(super) struct Sorted {
    /// Position to row.
    order: Buffer<u32>,
    /// Row to position.
    place: Buffer<u32>,
    /// The norm at each position, rounded up.
    norms: Buffer<f32>,
}

#[derive(Debug)]
struct Int8 {
    steps: usize,
    lines: Buffer<CodeLine>,
    scales: Buffer<PanelScales>,
    max_code_norm: f64,
}

impl TopkPrepared {
    /// Derives what norm bounds and the approximate first pass need.
    ///
    /// Answers have the same bits as with [`TopkPrepared::plain`].
    ///
    /// # Errors
    /// [`Error::NotFinite`] naming the first row of the table with NaN or infinity; [`Error::OutOfMemory`];
    /// [`Error::RowType`] for rows that a GPU does not compute with.
    pub fn new(table: &Table) -> Result<Self> {
        if table.device() != Device::Cpu {
            return Self::on_gpu(table);
        }
        let (mut prepared, norms) = Self::check(table)?;
        let mut order: Vec<u32> = (0..prepared.rows as u32).collect();
        order.par_sort_unstable_by(|&a, &b| {
            norms[b as usize].total_cmp(&norms[a as usize]).then_with(|| a.cmp(&b))
        });
        let mut place = vec![0; prepared.rows];
        for (position, &row) in (0u32..).zip(&order) {
            place[row as usize] = position;
        }
        let up = 1.0 + f64::from(f32::EPSILON);
        let norms = order.iter().map(|&row| (norms[row as usize] * up) as f32).collect();
        if most_in_int8(simd::detected()) > 0 && prepared.dim <= MAX_DIM && in_range(prepared.max_norm) {
            prepared.int8 = Some(Int8::new(RowReader::new(table), &order)?);
        }
        prepared.sorted = Some(Sorted {
            order: Buffer::from_vec(order, "the rows by norm")?,
            place: Buffer::from_vec(place, "the places of the rows")?,
            norms: Buffer::from_vec(norms, "the norms of the rows")?,
        });
        Ok(prepared)
    }

    /// Derives only what plain f32 scoring needs: no memory, more arithmetic a query.
    ///
    /// # Errors
    /// As [`TopkPrepared::new`].
    pub fn plain(table: &Table) -> Result<Self> {
        if table.device() != Device::Cpu {
            return Self::on_gpu(table);
        }
        Self::check(table).map(|(prepared, _)| prepared)
    }

    /// Derives the largest norm alone: a GPU scores from the table, once every row of it is finite.
    fn on_gpu(table: &Table) -> Result<Self> {
        check_table(table)?;
        let device = table.device();
        let max_norm = on_gpu!(OP, device, R => super::cube::check_rows::<R>(table, device))?;
        Ok(Self { rows: table.rows() as usize, dim: table.dim(), max_norm, sorted: None, int8: None })
    }

    /// Returns the norm of every row, all of them finite.
    fn check(table: &Table) -> Result<(Self, Vec<f64>)> {
        check_table(table)?;
        let reader = RowReader::new(table);
        let (rows, dim) = (reader.n_rows(), reader.dim());
        let mut norms = vec![0.0; rows];
        norms.par_chunks_mut(1024).enumerate().for_each(|(at, norms)| {
            let mut spare = vec![0.0; dim];
            for (row, norm) in (1024 * at as u32..).zip(norms) {
                let squares = reader.row(row, &mut spare).iter().map(|&v| f64::from(v) * f64::from(v));
                *norm = squares.sum::<f64>().sqrt();
            }
        });
        if let Some(row) = norms.iter().position(|norm| !norm.is_finite()) {
            return Err(Error::NotFinite { op: OP, what: "table", row: row as u64 });
        }
        let max_norm = norms.iter().copied().fold(0.0, f64::max);
        Ok((Self { rows, dim, max_norm, sorted: None, int8: None }, norms))
    }

    /// Returns the panels that hold all rows, a multiple of four.
    pub(super) fn n_panels(&self) -> usize {
        self.rows.div_ceil(PANEL_GROUP * LANES) * PANEL_GROUP
    }

    /// Returns position to row, where it is not the identity.
    pub(super) fn order(&self) -> Option<&[u32]> {
        self.sorted.as_ref().and_then(|sorted| sorted.order.cpu())
    }

    /// Returns row to position, where it is not the identity.
    pub(super) fn place(&self) -> Option<&[u32]> {
        self.sorted.as_ref().and_then(|sorted| sorted.place.cpu())
    }

    /// Returns the norm at each position, falling.
    pub(super) fn norms(&self) -> Option<&[f32]> {
        self.sorted.as_ref().and_then(|sorted| sorted.norms.cpu())
    }

    /// Returns the codes of all rows by position, and the largest norm of a row's codes.
    pub(super) fn codes(&self) -> Option<(Codes<'_>, f64)> {
        let int8 = self.int8.as_ref()?;
        let codes = Codes { steps: int8.steps, lines: int8.lines.cpu()?, scales: int8.scales.cpu()? };
        Some((codes, int8.max_code_norm))
    }
}

impl Int8 {
    fn new(reader: RowReader<'_>, order: &[u32]) -> Result<Self> {
        let n_panels = order.len().div_ceil(PANEL_GROUP * LANES) * PANEL_GROUP;
        let steps = reader.dim().div_ceil(4);
        let mut lines = Buffer::<CodeLine>::zeros(n_panels * steps, Device::Cpu, "int8 codes of the rows")?;
        let mut scales = Buffer::<PanelScales>::zeros(n_panels, Device::Cpu, "scales of the int8 codes")?;
        let mut max_code_norm = 0.0;
        if let (Some(lines), Some(scales)) = (lines.cpu_mut(), scales.cpu_mut()) {
            max_code_norm = lines
                .par_chunks_mut(steps)
                .zip(scales)
                .enumerate()
                .map(|(panel, (lines, scales))| {
                    let mut spare = vec![0.0; reader.dim()];
                    let first = (panel * LANES).min(order.len());
                    let rows = &order[first..(first + LANES).min(order.len())];
                    let quantize =
                        |(lane, &row)| quantize_row(reader.row(row, &mut spare), lane, lines, scales);
                    rows.iter().enumerate().map(quantize).fold(0.0, f64::max)
                })
                .reduce(|| 0.0, f64::max);
        }
        Ok(Self { steps, lines, scales, max_code_norm })
    }
}

/// Returns `bias` by position, in panels, and zeros after the last row.
pub(super) fn lay_out_bias(prepared: &TopkPrepared, bias: &[f32], panels: &mut Vec<Lanes>) {
    panels.clear();
    panels.resize(prepared.n_panels(), Lanes::default());
    let lanes: &mut [f32] = bytemuck::cast_slice_mut(panels);
    match prepared.order() {
        Some(order) => {
            for (lane, &row) in lanes.iter_mut().zip(order) {
                *lane = bias[row as usize];
            }
        }
        None => lanes[..bias.len()].copy_from_slice(bias),
    }
}
