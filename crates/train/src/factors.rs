//! Factor tables as training begins with them: drawn, taken over from an earlier model, copied.
//!
//! A row's first values depend on the seed, the table and the row alone, so that a table with more rows begins with
//! those of a smaller one.

use burn::{module::Module, tensor::backend::Backend};
use recmill_core::{Error as Core, Parameters, dense::load_parameters};
use recmill_kernels::{Buffer, Device, RowType, Table, philox::Draws};

use crate::{Error, Result};

/// The streams of random numbers that first values are drawn from, far from those of the kernels' epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Stream {
    UserFactors = 1 << 38,
    ItemFactors = (1 << 38) + 1,
    Embedding = (1 << 38) + 2,
    UserTower = (1 << 38) + 3,
    ItemTower = (1 << 38) + 4,
}

/// Rows to be drawn from the normal distribution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normal {
    pub(crate) rows: usize,
    pub(crate) dim: usize,
    /// About how long a row is; a value's deviation is `scale / sqrt(dim)`.
    pub(crate) scale: f64,
    pub(crate) seed: u64,
    pub(crate) stream: Stream,
}

impl Normal {
    /// Draws them in f32 on the CPU, so that every device begins with the same values, and puts them on `device`.
    pub(crate) fn on(self, device: Device, what: &'static str) -> Result<Table> {
        let drawn = self.of_larger(RowType::F32, what, |row| row)?;
        match device {
            Device::Cpu => Ok(drawn),
            device => Ok(drawn.try_copy(device, what)?),
        }
    }

    /// Draws rows of a larger table: row `r` is row `row_of(r)` of that.
    pub(crate) fn of_larger(
        self,
        row_type: RowType,
        what: &'static str,
        row_of: impl Fn(u64) -> u64 + Sync,
    ) -> Result<Table> {
        let Self { rows, dim, scale, seed, stream } = self;
        let deviation = scale / (dim as f64).sqrt();
        let draws = Draws::new(seed, stream as u64);
        let fill = |row, values: &mut [f32]| {
            let first_draw = row_of(row) * dim.div_ceil(2) as u64;
            for (at, values) in values.chunks_mut(2).enumerate() {
                let drawn = normal_pair(draws.block(first_draw + at as u64));
                for (value, drawn) in values.iter_mut().zip(drawn) {
                    *value = (deviation * drawn) as f32;
                }
            }
            Ok(())
        };
        Ok(Table::from_rows(rows as u64, dim, row_type, what, fill)?)
    }
}

/// Turns random words into two independent draws from the standard normal distribution (Box and Muller 1958).
fn normal_pair(words: [u32; 4]) -> [f64; 2] {
    let unit = |high: u32, low: u32| {
        // 53 bits, moved off zero by half a step so that the logarithm is finite.
        let bits = (u64::from(high) << 21) | u64::from(low >> 11);
        (bits as f64 + 0.5) / (1u64 << 53) as f64
    };
    let radius = (-2.0 * unit(words[0], words[1]).ln()).sqrt();
    let angle = std::f64::consts::TAU * unit(words[2], words[3]);
    [radius * angle.cos(), radius * angle.sin()]
}

/// Copies a table to the CPU, as f32.
pub(crate) fn copy(table: &Table, what: &'static str) -> Result<Table> {
    match table.device() {
        Device::Cpu => Ok(table.to_row_type(RowType::F32, what)?),
        // What is trained on a GPU is f32.
        _ => Ok(table.try_copy(Device::Cpu, what)?),
    }
}

/// Returns the table on the CPU: itself, where it is there.
pub(crate) fn on_cpu(table: Table, what: &'static str) -> Result<Table> {
    match table.device() {
        Device::Cpu => Ok(table),
        _ => copy(&table, what),
    }
}

/// Overwrites the first rows of `table` with those of an earlier one, whatever type they are stored in.
///
/// # Errors
/// [`Error::Start`] when the earlier table has more rows, or rows of another length.
pub(crate) fn take_over(table: &mut Table, earlier: &Table, what: &'static str) -> Result<()> {
    if earlier.dim() != table.dim() {
        let (expected, got) = (format!("{} a row", table.dim()), format!("{} values", earlier.dim()));
        return Err(Error::Start { what, expected, got });
    }
    if earlier.rows() > table.rows() {
        let (expected, got) = (format!("{} rows", table.rows()), format!("{} rows", earlier.rows()));
        return Err(Error::Start { what, expected, got });
    }
    if table.device() != Device::Cpu {
        let mut on_cpu = copy(table, what)?;
        take_over(&mut on_cpu, earlier, what)?;
        *table = on_cpu.try_copy(table.device(), what)?;
        return Ok(());
    }
    let dim = table.dim();
    for (first, values) in table.f32_chunks_mut() {
        for (row, values) in (first..earlier.rows()).zip(values.chunks_mut(dim)) {
            earlier.read_row(row, values)?;
        }
    }
    Ok(())
}

/// Loads an earlier network's values into `network`, all that there are; `layers` and what they are called are for messages.
///
/// # Errors
/// [`Error::Start`] when the earlier network has another number of layers, or layers of other sizes.
pub(crate) fn take_over_network<B: Backend, M: Module<B>>(
    network: M,
    parameters: &mut Parameters,
    (layers, called): (usize, &'static str),
) -> Result<M> {
    let other = |what| Error::Start { what, expected: layers.to_string(), got: called.to_owned() };
    let network = load_parameters(network, parameters).map_err(|error| match error {
        Core::WrongSize { expected, got, .. } => {
            let (expected, got) = (format!("{expected} numbers"), format!("{got} numbers"));
            Error::Start { what: "a layer or places of", expected, got }
        }
        Core::MissingDense { .. } => other("fewer"),
        error => error.into(),
    })?;
    match parameters.take_prefixed("dense_").is_empty() {
        true => Ok(network),
        false => Err(other("more")),
    }
}

/// As [`take_over`], for one number a row.
pub(crate) fn take_over_bias(bias: &mut [f32], earlier: &Buffer<f32>) -> Result<()> {
    let earlier = earlier.to_vec()?;
    let (expected, got) = (format!("{} rows", bias.len()), format!("{} rows", earlier.len()));
    let start = bias.get_mut(..earlier.len()).ok_or(Error::Start { what: "biases", expected, got })?;
    start.copy_from_slice(&earlier);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_normal_and_a_larger_table_begins_with_the_smaller_one() {
        let of = |rows, stream| {
            let normal = Normal { rows, dim: 7, scale: 7f64.sqrt(), seed: 3, stream };
            normal.on(Device::Cpu, "a test").unwrap().to_f32().unwrap()
        };
        let draw = |rows| of(rows, Stream::UserFactors);
        let values = draw(20_000);
        assert_eq!(draw(50), values[..350]);
        let n = values.len() as f64;
        let moment = |power| values.iter().map(|&v| f64::from(v).powi(power)).sum::<f64>() / n;
        for (power, expected) in [(1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)] {
            assert!((moment(power) - expected).abs() < 0.1, "moment {power}: {}", moment(power));
        }
        assert_ne!(of(50, Stream::ItemFactors), values[..350]);
    }

    #[test]
    fn an_earlier_table_must_fit() {
        let table = |rows, dim| Table::zeros(rows, dim, Device::Cpu, "a test").unwrap();
        let ones = Table::from_f32(&[1.0; 6], 3, Device::Cpu, "a test").unwrap();
        let mut grown = table(3, 3);
        take_over(&mut grown, &ones.to_row_type(RowType::F16, "a test").unwrap(), "rows").unwrap();
        assert_eq!(grown.to_f32().unwrap(), [[1.0; 6].as_slice(), &[0.0; 3]].concat());
        assert!(matches!(take_over(&mut table(1, 3), &ones, "rows"), Err(Error::Start { .. })));
        assert!(matches!(take_over(&mut table(3, 2), &ones, "rows"), Err(Error::Start { .. })));
    }
}
