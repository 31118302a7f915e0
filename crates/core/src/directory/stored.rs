//! A model's parameters as tensors: which file each part goes to, and back to tables over mapped files.

use std::{collections::BTreeMap, io::Write, path::Path};

use half::{bf16, f16};
use recmill_kernels::{Buffer, Device, Mapped, RowType, Rows, Table};
use safetensors::Dtype;

use crate::{
    Error, Parameter, Parameters, Result,
    directory::{
        ArrayRecord, Damage, RangeRecord, TableRecord,
        manifest::FEATURES_OF,
        tensors::{Tensor, TensorFile},
    },
};

/// How large tensors and files become; tests make them small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// The most bytes of one row range, as f32.
    pub(crate) tensor_bytes: u64,
    /// A file that has as many bytes is followed by another.
    pub(crate) file_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { tensor_bytes: 1 << 30, file_bytes: 4 << 30 }
    }
}

/// What goes where.
#[derive(Default)]
pub(crate) struct Plan<'a> {
    /// The tensors of each `model*.safetensors`, in order.
    pub(crate) files: Vec<Vec<Tensor<'a>>>,
    pub(crate) tables: BTreeMap<String, TableRecord>,
    pub(crate) arrays: BTreeMap<String, ArrayRecord>,
}

/// Returns the name of the `at`-th file of tensors.
pub(crate) fn file_name(at: usize) -> String {
    if at == 0 { "model.safetensors".to_owned() } else { format!("model-{}.safetensors", at + 1) }
}

/// Lays out `parameters`.
///
/// # Errors
/// [`Error::Inconsistent`] when a name is not of lower-case letters, digits and `_`, or a size overflows.
pub(crate) fn plan(parameters: &Parameters, sizes: Sizes) -> Result<Plan<'_>> {
    let mut plan = Plan::default();
    let mut filler = Filler { files: vec![Vec::new()], bytes: 0, limit: sizes.file_bytes };
    for (at, (name, parameter)) in parameters.iter().enumerate() {
        if !is_parameter_name(name) {
            return Err(Error::Inconsistent { what: "parameter name", at: at as u64 });
        }
        match parameter {
            Parameter::Table(table) => {
                let record = plan_table(name, table, sizes, &mut filler)?;
                plan.tables.insert(name.to_owned(), record);
            }
            Parameter::F32(values) => plan_array(name, values, Dtype::F32, &mut filler, &mut plan.arrays)?,
            Parameter::U32(values) => plan_array(name, values, Dtype::U32, &mut filler, &mut plan.arrays)?,
            Parameter::U64(values) => plan_array(name, values, Dtype::U64, &mut filler, &mut plan.arrays)?,
            // Written beside the tensors, and found again by its name.
            Parameter::Features(_) if name.ends_with(FEATURES_OF) => {}
            Parameter::Features(_) => {
                return Err(Error::Inconsistent { what: "parameter name", at: at as u64 });
            }
        }
    }
    plan.files = filler.files;
    Ok(plan)
}

fn is_parameter_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 100
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Puts tensors into the last file until it is full.
struct Filler<'a> {
    files: Vec<Vec<Tensor<'a>>>,
    bytes: u64,
    limit: u64,
}

impl<'a> Filler<'a> {
    /// Adds tensors that stay together and returns their file's name.
    fn add(&mut self, tensors: impl IntoIterator<Item = Tensor<'a>>) -> Result<String> {
        let tensors: Vec<_> = tensors.into_iter().collect();
        let mut bytes = 0;
        for tensor in &tensors {
            bytes += tensor.bytes()?;
        }
        if self.bytes > 0 && self.bytes.saturating_add(bytes) > self.limit {
            self.files.push(Vec::new());
            self.bytes = 0;
        }
        self.bytes += bytes;
        let at = self.files.len() - 1;
        self.files[at].extend(tensors);
        Ok(file_name(at))
    }
}

fn plan_array<'a, T: bytemuck::Pod>(
    name: &str,
    values: &'a Buffer<T>,
    dtype: Dtype,
    filler: &mut Filler<'a>,
    arrays: &mut BTreeMap<String, ArrayRecord>,
) -> Result<()> {
    let len = values.len() as u64;
    let write = Box::new(move |out: &mut dyn Write| put(out, values, 0..values.len()));
    let file = filler.add([Tensor { name: name.to_owned(), dtype, shape: vec![len], write }])?;
    arrays.insert(name.to_owned(), ArrayRecord { len, dtype: dtype.to_string(), file });
    Ok(())
}

fn plan_table<'a>(
    name: &str,
    table: &'a Table,
    sizes: Sizes,
    filler: &mut Filler<'a>,
) -> Result<TableRecord> {
    let chunk_rows = u64::from(Table::chunk_rows_for(table.dim(), sizes.tensor_bytes));
    let dtype = dtype_of(table.row_type());
    let mut ranges = Vec::new();
    let mut first = 0;
    while first < table.rows() {
        let rows = chunk_rows.min(table.rows() - first);
        let tensor_name = format!("{name}/{}", ranges.len());
        let mut tensors = vec![Tensor {
            name: tensor_name.clone(),
            dtype,
            shape: vec![rows, table.dim() as u64],
            write: Box::new(move |out| write_rows(out, table, first..first + rows, Part::Values)),
        }];
        if table.row_type() == RowType::Int8 {
            tensors.push(Tensor {
                name: format!("{tensor_name}/scale"),
                dtype: Dtype::F32,
                shape: vec![rows],
                write: Box::new(move |out| write_rows(out, table, first..first + rows, Part::Scale)),
            });
        }
        ranges.push(RangeRecord { first, rows, file: filler.add(tensors)? });
        first += rows;
    }
    let (rows, dim) = (table.rows(), table.dim() as u64);
    Ok(TableRecord { rows, dim, dtype: dtype.to_string(), chunk_rows, ranges })
}

#[derive(Clone, Copy)]
enum Part {
    Values,
    Scale,
}

/// Writes rows `wanted` of `table`, whatever chunks they lie in.
fn write_rows(out: &mut dyn Write, table: &Table, wanted: std::ops::Range<u64>, part: Part) -> Result<()> {
    let dim = table.dim() as u64;
    for (first, rows) in table.chunks() {
        let last = (first + u64::from(table.chunk_rows())).min(table.rows());
        let (begin, end) = (wanted.start.max(first), wanted.end.min(last));
        if begin >= end {
            continue;
        }
        let scale = (begin - first) as usize..(end - first) as usize;
        let values = ((begin - first) * dim) as usize..((end - first) * dim) as usize;
        match (rows, part) {
            (Rows::F32(buffer), _) => put(out, buffer, values)?,
            (Rows::F16(buffer), _) => put(out, buffer, values)?,
            (Rows::Bf16(buffer), _) => put(out, buffer, values)?,
            (Rows::Int8(buffer, _), Part::Values) => put(out, buffer, values)?,
            (Rows::Int8(_, buffer), Part::Scale) => put(out, buffer, scale)?,
        }
    }
    Ok(())
}

/// Writes a range of a buffer, which is copied to the host first where it lives on a GPU.
fn put<T: bytemuck::Pod>(
    out: &mut dyn Write,
    buffer: &Buffer<T>,
    range: std::ops::Range<usize>,
) -> Result<()> {
    match buffer.cpu() {
        Some(values) => out.write_all(bytemuck::cast_slice(&values[range]))?,
        None => out.write_all(bytemuck::cast_slice(&buffer.to_vec()?[range]))?,
    }
    Ok(())
}

fn dtype_of(row_type: RowType) -> Dtype {
    match row_type {
        RowType::F32 => Dtype::F32,
        RowType::F16 => Dtype::F16,
        RowType::Bf16 => Dtype::BF16,
        RowType::Int8 => Dtype::I8,
    }
}

/// The mapped files of tensors of one version, checked against config.json.
#[derive(Debug)]
pub(crate) struct Stored {
    files: BTreeMap<String, TensorFile>,
    tables: BTreeMap<String, TableRecord>,
    arrays: BTreeMap<String, ArrayRecord>,
}

impl Stored {
    /// Checks headers: every tensor that config.json promises is there once, and no other.
    pub(crate) fn open(
        folder: &Path,
        mapped: impl IntoIterator<Item = (String, Mapped)>,
        tables: &BTreeMap<String, TableRecord>,
        arrays: &BTreeMap<String, ArrayRecord>,
    ) -> Result<Self> {
        let mut files = BTreeMap::new();
        for (name, mapped) in mapped {
            files.insert(name.clone(), TensorFile::new(&folder.join(&name), mapped)?);
        }
        let stored = Self { files, tables: tables.clone(), arrays: arrays.clone() };
        let config = folder.join(super::manifest::CONFIG);
        for (name, table) in tables {
            check_table(name, table).map_err(|damage| damage.at(&config))?;
        }
        stored.parameters()?;
        let expected: usize = arrays.len()
            + tables
                .values()
                .map(|table| table.ranges.len() * if table.dtype == "I8" { 2 } else { 1 })
                .sum::<usize>();
        let found: usize = stored.files.values().map(|file| file.names().len()).sum();
        if expected != found {
            return Err(Damage::contradiction("number of tensors", found.to_string()).at(config));
        }
        Ok(stored)
    }

    /// Returns tables and arrays that read the mapped bytes in place.
    pub(crate) fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::default();
        for (name, record) in &self.tables {
            parameters.insert(name, Parameter::Table(self.table(name, record)?));
        }
        for (name, record) in &self.arrays {
            let (file, shape) = (self.file(&record.file, name)?, &[record.len]);
            parameters.insert(
                name,
                match &record.dtype[..] {
                    "F32" => Parameter::F32(file.values(name, Dtype::F32, shape)?),
                    "U32" => Parameter::U32(file.values(name, Dtype::U32, shape)?),
                    "U64" => Parameter::U64(file.values(name, Dtype::U64, shape)?),
                    _ => return Err(Damage::contradiction("type of array", name).at(&record.file)),
                },
            );
        }
        Ok(parameters)
    }

    fn table(&self, name: &str, record: &TableRecord) -> Result<Table> {
        let mut chunks = Vec::with_capacity(record.ranges.len());
        let mut row_type = RowType::F32;
        for (at, range) in record.ranges.iter().enumerate() {
            let tensor = format!("{name}/{at}");
            let (file, shape) = (self.file(&range.file, &tensor)?, &[range.rows, record.dim]);
            chunks.push(match &record.dtype[..] {
                "F16" => Rows::F16(file.values::<f16>(&tensor, Dtype::F16, shape)?),
                "BF16" => Rows::Bf16(file.values::<bf16>(&tensor, Dtype::BF16, shape)?),
                "I8" => Rows::Int8(
                    file.values(&tensor, Dtype::I8, shape)?,
                    file.values(&format!("{tensor}/scale"), Dtype::F32, &[range.rows])?,
                ),
                _ => Rows::F32(file.values(&tensor, Dtype::F32, shape)?),
            });
        }
        for (text, named) in [("F16", RowType::F16), ("BF16", RowType::Bf16), ("I8", RowType::Int8)] {
            if record.dtype == text {
                row_type = named;
            }
        }
        Ok(Table::from_chunks(record.dim as usize, record.chunk_rows as u32, row_type, Device::Cpu, chunks)?)
    }

    fn file(&self, file: &str, tensor: &str) -> Result<&TensorFile> {
        self.files.get(file).ok_or_else(|| Damage::contradiction("file of tensor", tensor).at(file))
    }
}

/// Checks that the ranges cover the rows one after another, in chunks that a table can have.
fn check_table(name: &str, record: &TableRecord) -> std::result::Result<(), Damage> {
    let wrong = || Damage::contradiction("row ranges of table", name);
    let whole =
        |rows: u64| rows.checked_mul(record.dim).and_then(|n| n.checked_mul(4)).is_some_and(|n| n < 1 << 62);
    if !is_parameter_name(name)
        || !["F32", "F16", "BF16", "I8"].contains(&&record.dtype[..])
        || record.dim == 0
        || !record.chunk_rows.is_power_of_two()
        || record.chunk_rows > 1 << 31
        || !whole(record.rows)
    {
        return Err(wrong());
    }
    let mut next = 0u64;
    for range in &record.ranges {
        if range.first != next || range.rows != record.chunk_rows.min(record.rows - next) || range.rows == 0 {
            return Err(wrong());
        }
        next += range.rows;
    }
    if next == record.rows { Ok(()) } else { Err(wrong()) }
}
