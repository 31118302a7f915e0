//! Cases of gram and of the ALS solvers.

use super::{Case, Comparison, Failure, Numbers, Outcome, largest, on_threads, refused, same_bits};
use crate::{
    AlsKept, AlsSystem, Device, Error, RowType, SparseRows, Table, als_block, als_block_reference, als_cg,
    als_cg_keeping, als_cg_reference, als_cholesky, als_cholesky::als_cholesky_in_batches,
    als_cholesky_reference, als_loss, als_loss_keeping, als_loss_reference, gram, gram_reference,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "gram/sizes", run: gram_sizes },
    Case { name: "gram/chunks, threads", run: gram_layouts },
    Case { name: "gram/rows of 16 bits", run: gram_of_16_bits },
    Case { name: "als_cg/sizes", run: |device| sizes(device, Solver::Cg) },
    Case { name: "als_cg/chunks, row types", run: |device| layouts(device, Solver::Cg) },
    Case { name: "als_cg/same bits alone and in a batch", run: |device| same_alone(device, Solver::Cg) },
    Case { name: "als_cg/long rows", run: |device| long_rows(device, Solver::Cg) },
    Case { name: "als_cg/rows that stay on the device", run: kept_rows },
    Case { name: "als_cg/refusals", run: |device| refusals(device, Solver::Cg) },
    Case { name: "als_cholesky/sizes", run: |device| sizes(device, Solver::Cholesky) },
    Case { name: "als_cholesky/chunks, row types", run: |device| layouts(device, Solver::Cholesky) },
    Case {
        name: "als_cholesky/same bits alone and in a batch",
        run: |device| same_alone(device, Solver::Cholesky),
    },
    Case { name: "als_cholesky/long rows", run: |device| long_rows(device, Solver::Cholesky) },
    Case { name: "als_cholesky/batches of few entries", run: few_entries },
    Case { name: "als_cholesky/refusals", run: |device| refusals(device, Solver::Cholesky) },
    Case { name: "als_block/sizes", run: |device| sizes(device, Solver::Block) },
    Case { name: "als_block/chunks, row types", run: |device| layouts(device, Solver::Block) },
    Case {
        name: "als_block/same bits alone and in a batch",
        run: |device| same_alone(device, Solver::Block),
    },
    Case { name: "als_block/long rows", run: |device| long_rows(device, Solver::Block) },
    Case { name: "als_block/refusals", run: |device| refusals(device, Solver::Block) },
    Case { name: "als_loss/sizes", run: loss_sizes },
];

/// How far an f32 result may be from the f64 reference, as a share of the largest value of the result.
const GRAM_TOLERANCE: f64 = 1e-5;
const SOLUTION_TOLERANCE: f64 = 5e-4;
/// A row's tolerance is a share of at least this much of the largest value of all rows.
const ROUNDING_FLOOR: f64 = 1e-3;
const LOSS_TOLERANCE: f64 = 1e-5;

const CG_STEPS: usize = 3;
const BLOCK: usize = 24;

#[derive(Clone, Copy, Debug)]
enum Solver {
    Cg,
    Cholesky,
    Block,
}

impl Solver {
    fn run(self, system: &AlsSystem<'_>, solution: &mut Table) -> crate::Result<()> {
        match self {
            Solver::Cg => als_cg(system, solution, CG_STEPS),
            Solver::Cholesky => als_cholesky(system, solution),
            Solver::Block => als_block(system, solution, BLOCK),
        }
    }

    fn reference(self, system: &AlsSystem<'_>, solution: &Table) -> crate::Result<Vec<f64>> {
        match self {
            Solver::Cg => als_cg_reference(system, solution, CG_STEPS),
            Solver::Cholesky => als_cholesky_reference(system),
            Solver::Block => als_block_reference(system, solution, BLOCK),
        }
    }
}

/// What a system borrows.
struct Problem {
    indptr: Vec<u64>,
    indices: Vec<u32>,
    values: Vec<f32>,
    fixed: Table,
    /// `fixed` on the CPU, for the references.
    twin: Table,
    gram: Vec<f32>,
    ridge: Vec<f32>,
    start: Vec<f32>,
    chunk_rows: u32,
    device: Device,
}

impl Problem {
    /// Rows of the given lengths over `n_columns` columns; some values are negative or zero, some columns repeat.
    fn new(
        lengths: &[usize],
        n_columns: usize,
        dim: usize,
        chunk_rows: u32,
        device: Device,
    ) -> crate::Result<Self> {
        let mut numbers = Numbers::new((n_columns * 1031 + dim) as u64);
        let mut indptr = vec![0];
        let mut indices = Vec::new();
        for &length in lengths {
            let first = indices.len();
            indices.extend((0..length).map(|_| numbers.below(n_columns) as u32));
            indices[first..].sort_unstable();
            indptr.push(indices.len() as u64);
        }
        let values = (0..indices.len()).map(|_| numbers.below(40) as f32 / 4.0 - 0.5).collect();
        let twin = numbers.table(n_columns, dim, chunk_rows, Device::Cpu)?;
        let fixed = twin.try_copy(device, "a conformance case")?;
        let gram = gram_reference(&twin)?.iter().map(|&g| g as f32 * 0.5).collect();
        let ridge = lengths.iter().map(|&n| 0.5 + n as f32 / 64.0).collect();
        let start = (0..lengths.len() * dim).map(|_| numbers.unit() * 0.1).collect();
        Ok(Self { indptr, indices, values, fixed, twin, gram, ridge, start, chunk_rows, device })
    }

    fn rows(&self) -> SparseRows<'_> {
        SparseRows { indptr: &self.indptr, indices: &self.indices, values: &self.values }
    }

    fn system(&self) -> AlsSystem<'_> {
        let (fixed, gram, ridge) = (&self.fixed, &self.gram[..], &self.ridge[..]);
        AlsSystem { rows: self.rows(), fixed, gram, base: -0.125, scale: 0.75, offset: 1.0, ridge }
    }

    /// The same equations on the CPU.
    fn twin(&self) -> AlsSystem<'_> {
        AlsSystem { fixed: &self.twin, ..self.system() }
    }

    fn solution(&self) -> crate::Result<Table> {
        self.solution_on(self.device)
    }

    fn solution_on(&self, device: Device) -> crate::Result<Table> {
        let (dim, chunk_rows) = (self.fixed.dim(), self.chunk_rows);
        Table::from_f32_in_chunks(&self.start, dim, chunk_rows, device, "a conformance case")
    }
}

/// Row lengths around the blocks that kernels work in, from empty to long.
const LENGTHS: [usize; 13] = [0, 1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 100, 257];

fn other(what: &str) -> impl Fn(Error) -> Failure + '_ {
    move |got| Failure::Refused { what: what.to_owned(), got }
}

/// A copy with rows of `row_type` on the table's device; nothing where the device does not compute with that type.
fn narrow(table: &Table, row_type: RowType) -> crate::Result<Option<Table>> {
    let what = "a conformance case";
    let copy =
        table.try_copy(Device::Cpu, what)?.to_row_type(row_type, what)?.try_copy(table.device(), what)?;
    match gram(&copy) {
        Err(Error::RowType { .. }) if table.device() != Device::Cpu => Ok(None),
        _ => Ok(Some(copy)),
    }
}

/// Ends a case early where the device has no such operation.
macro_rules! on_device {
    ($result:expr, $what:expr) => {
        match $result {
            Err(Error::NotOnDevice { .. }) => return Ok(Outcome::NotOnDevice),
            result => result.map_err(other($what))?,
        }
    };
}

fn gram_sizes(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    for (rows, dim) in
        [(0, 3), (1, 1), (31, 3), (33, 17), (100, 31), (257, 64), (40, 100), (5000, 32), (9, 1024)]
    {
        let what = || format!("{rows} x {dim}");
        let table = on_device!(Numbers::new(dim as u64).table(rows, dim, 1024, device), &what());
        let got = on_device!(gram(&table), &what());
        let twin = table.try_copy(Device::Cpu, "a conformance case").map_err(other(&what()))?;
        let expected = gram_reference(&twin).map_err(other(&what()))?;
        comparison.close(what, &got, &expected, GRAM_TOLERANCE)?;
        let transposed: Vec<f32> = (0..dim * dim).map(|at| got[at % dim * dim + at / dim]).collect();
        same_bits(|| format!("{} transposed", what()), &got, &transposed)?;
    }
    comparison.outcome()
}

fn gram_layouts(device: Device) -> Result<Outcome, Failure> {
    let what = "10000 x 24";
    let table = on_device!(Numbers::new(5).table(10_000, 24, 1 << 14, device), what);
    let whole = on_device!(gram(&table), what);
    let chunked = on_device!(Numbers::new(5).table(10_000, 24, 32, device), what);
    same_bits(|| "chunks of 32 rows".into(), &on_device!(gram(&chunked), what), &whole)?;
    for threads in [1, 2, 5] {
        let got = on_device!(on_threads(threads, || gram(&table)), what);
        same_bits(|| format!("{threads} threads"), &got, &whole)?;
    }
    Comparison::default().outcome()
}

/// Near the reference, the same bits in chunks, and on the CPU those of f32 rows with the same values.
fn gram_of_16_bits(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    for (rows, dim) in [(1, 1), (31, 3), (65, 17), (257, 64), (1000, 80), (5000, 128), (40, 264)] {
        for row_type in [RowType::F16, RowType::Bf16] {
            let what = || format!("{rows} x {dim}, {row_type:?}");
            let whole = on_device!(Numbers::new(dim as u64).table(rows, dim, 1 << 14, device), &what());
            let Some(narrowed) = narrow(&whole, row_type).map_err(other(&what()))? else { continue };
            let got = on_device!(gram(&narrowed), &what());
            let twin = narrowed.try_copy(Device::Cpu, "a conformance case").map_err(other(&what()))?;
            let expected = gram_reference(&twin).map_err(other(&what()))?;
            comparison.close(what, &got, &expected, GRAM_TOLERANCE)?;
            let transposed: Vec<f32> = (0..dim * dim).map(|at| got[at % dim * dim + at / dim]).collect();
            same_bits(|| format!("{} transposed", what()), &got, &transposed)?;
            let chunked = Numbers::new(dim as u64).table(rows, dim, 32, device).map_err(other(&what()))?;
            let Some(chunked) = narrow(&chunked, row_type).map_err(other(&what()))? else { continue };
            same_bits(|| format!("{} in chunks", what()), &on_device!(gram(&chunked), &what()), &got)?;
            if device == Device::Cpu {
                same_bits(|| format!("{} as f32", what()), &on_device!(gram(&whole), &what()), &got)?;
            }
        }
    }
    comparison.outcome()
}

fn sizes(device: Device, solver: Solver) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    let few = &[0, 1, 33][..];
    let shapes = [
        (&[][..], 1, 3),
        (&[0][..], 1, 1),
        (&LENGTHS[..], 1, 1),
        (&LENGTHS[..], 7, 3),
        (&LENGTHS[..], 300, 17),
        (&LENGTHS[..], 64, 31),
        (&LENGTHS[..], 64, 32),
        (&LENGTHS[..], 64, 33),
        (&LENGTHS[..], 300, 64),
        (few, 300, 100),
        (few, 300, 128),
        (few, 300, 200),
        (few, 300, 256),
        (few, 40, 257),
        (&[5, 70][..], 40, 1024),
    ];
    for (lengths, n_columns, dim) in shapes {
        let what = || format!("{} rows, {n_columns} x {dim}", lengths.len());
        let problem = on_device!(Problem::new(lengths, n_columns, dim, 1 << 10, device), &what());
        let system = problem.system();
        let mut solution = problem.solution().map_err(other(&what()))?;
        let start = problem.solution_on(Device::Cpu).map_err(other(&what()))?;
        let expected = solver.reference(&problem.twin(), &start).map_err(other(&what()))?;
        on_device!(solver.run(&system, &mut solution), &what());
        let got = solution.to_f32().map_err(other(&what()))?;
        let floor = ROUNDING_FLOOR * largest(&expected);
        for (row, (got, expected)) in got.chunks_exact(dim).zip(expected.chunks_exact(dim)).enumerate() {
            let what = || format!("{}, row {row}", what());
            comparison.close_above(what, got, expected, floor, SOLUTION_TOLERANCE)?;
        }
    }
    comparison.outcome()
}

fn layouts(device: Device, solver: Solver) -> Result<Outcome, Failure> {
    for (n_columns, dim) in [(90, 17), (90, 64)] {
        let what = &format!("{n_columns} x {dim}");
        let problem = on_device!(Problem::new(&LENGTHS, n_columns, dim, 1 << 10, device), what);
        let mut solution = problem.solution().map_err(other(what))?;
        on_device!(solver.run(&problem.system(), &mut solution), what);
        let whole = solution.to_f32().map_err(other(what))?;

        let chunked = Problem::new(&LENGTHS, n_columns, dim, 4, device).map_err(other(what))?;
        let mut solution = chunked.solution().map_err(other(what))?;
        on_device!(solver.run(&chunked.system(), &mut solution), what);
        same_bits(|| format!("{what}, chunks of 4 rows"), &solution.to_f32().map_err(other(what))?, &whole)?;

        for row_type in [RowType::F16, RowType::Bf16] {
            let Some(fixed) = &narrow(&chunked.fixed, row_type).map_err(other(what))? else { continue };
            let mut solution = chunked.solution().map_err(other(what))?;
            on_device!(solver.run(&AlsSystem { fixed, ..chunked.system() }, &mut solution), what);
            let got = solution.to_f32().map_err(other(what))?;
            same_bits(|| format!("{what}, {row_type:?} rows"), &got, &whole)?;
        }
    }
    Comparison::default().outcome()
}

/// A row alone, rows in reverse, and 1, 2 and 5 threads all give the same bits.
fn same_alone(device: Device, solver: Solver) -> Result<Outcome, Failure> {
    let lengths: Vec<usize> = (0..60).map(|row| LENGTHS[row * 7 % LENGTHS.len()]).collect();
    for (n_columns, dim) in [(200, 20), (200, 64), (50, 160)] {
        let what = &format!("{n_columns} x {dim}");
        let problem = on_device!(Problem::new(&lengths, n_columns, dim, 16, device), what);
        let system = problem.system();
        let mut solution = problem.solution().map_err(other(what))?;
        on_device!(solver.run(&system, &mut solution), what);
        let whole = solution.to_f32().map_err(other(what))?;
        for threads in [1, 2, 5] {
            let mut again = problem.solution().map_err(other(what))?;
            on_threads(threads, || solver.run(&system, &mut again)).map_err(other(what))?;
            same_bits(
                || format!("{what}, {threads} threads"),
                &again.to_f32().map_err(other(what))?,
                &whole,
            )?;
        }
        for row in 0..lengths.len() {
            let values = row * dim..(row + 1) * dim;
            let mut alone =
                Table::from_f32(&problem.start[values.clone()], dim, device, "a conformance case")
                    .map_err(other(what))?;
            let one = AlsSystem { rows: system.rows.rows(row, 1), ridge: &system.ridge[row..=row], ..system };
            solver.run(&one, &mut alone).map_err(other(what))?;
            same_bits(
                || format!("{what}, row {row} alone"),
                &alone.to_f32().map_err(other(what))?,
                &whole[values],
            )?;
        }
    }
    Comparison::default().outcome()
}

/// Rows longer than a cache, with and without ascending columns: against the reference, and alone.
fn long_rows(device: Device, solver: Solver) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    let lengths = [3, 1500, 0, 1100, 40, 1300];
    for dim in [256, 250] {
        let what = &format!("800 x {dim}");
        let mut problem = on_device!(Problem::new(&lengths, 800, dim, 1 << 10, device), what);
        let last = problem.indptr[5] as usize;
        problem.indices[last..].reverse();
        let system = problem.system();
        let mut solution = problem.solution().map_err(other(what))?;
        let start = problem.solution_on(Device::Cpu).map_err(other(what))?;
        let expected = solver.reference(&problem.twin(), &start).map_err(other(what))?;
        on_device!(on_threads(3, || solver.run(&system, &mut solution)), what);
        let whole = solution.to_f32().map_err(other(what))?;
        for (row, (got, expected)) in whole.chunks_exact(dim).zip(expected.chunks_exact(dim)).enumerate() {
            comparison.close(|| format!("{what}, row {row}"), got, expected, SOLUTION_TOLERANCE)?;
        }
        let start = &problem.start[dim..2 * dim];
        let mut alone = Table::from_f32(start, dim, device, "a conformance case").map_err(other(what))?;
        let one = AlsSystem { rows: system.rows.rows(1, 1), ridge: &system.ridge[1..2], ..system };
        solver.run(&one, &mut alone).map_err(other(what))?;
        same_bits(|| format!("{what}, alone"), &alone.to_f32().map_err(other(what))?, &whole[dim..2 * dim])?;
        let Some(fixed) = &narrow(&problem.fixed, RowType::F16).map_err(other(what))? else { continue };
        let mut narrow = problem.solution().map_err(other(what))?;
        solver.run(&AlsSystem { fixed, ..system }, &mut narrow).map_err(other(what))?;
        same_bits(|| format!("{what}, f16 rows"), &narrow.to_f32().map_err(other(what))?, &whole)?;
    }
    comparison.outcome()
}

/// Steps over rows of which all, the first chunks or none are kept, and over another's rows by the same memory, have the
/// bits of steps that send everything.
fn kept_rows(device: Device) -> Result<Outcome, Failure> {
    let lengths: Vec<usize> = (0..60).map(|row| LENGTHS[row * 7 % LENGTHS.len()]).collect();
    let what = &"200 x 20";
    let problem = on_device!(Problem::new(&lengths, 200, 20, 16, device), what);
    let twice = |problem: &Problem, kept: &mut AlsKept<'_>| -> crate::Result<(Vec<f32>, f64)> {
        let mut solution = problem.solution()?;
        als_cg_keeping(&problem.system(), &mut solution, CG_STEPS, kept)?;
        als_cg_keeping(&problem.system(), &mut solution, CG_STEPS, kept)?;
        Ok((solution.to_f32()?, als_loss_keeping(&problem.system(), &solution, kept)?))
    };
    let whole = on_device!(twice(&problem, &mut AlsKept::nothing()), what);
    let other_problem = Problem::new(&lengths[..30], 200, 20, 16, device).map_err(other(what))?;
    let of_other = twice(&other_problem, &mut AlsKept::nothing()).map_err(other(what))?;
    for bytes in [0, 10_000, u64::MAX] {
        let mut kept = AlsKept::up_to(problem.rows(), bytes);
        for (problem, expected) in [(&problem, &whole), (&other_problem, &of_other)] {
            let got = twice(problem, &mut kept).map_err(other(what))?;
            same_bits(|| format!("{what}, up to {bytes} bytes"), &got.0, &expected.0)?;
            let losses = [got.1, expected.1].map(|loss| loss as f32);
            same_bits(|| format!("{what}, loss, up to {bytes} bytes"), &losses[..1], &losses[1..])?;
        }
    }
    Comparison::default().outcome()
}

/// Rows that are cut over several batches, and batches of one short row, have the bits of one batch.
fn few_entries(device: Device) -> Result<Outcome, Failure> {
    for (dim, chunk_rows) in [(20, 1 << 10), (7, 4)] {
        let what = &format!("dim {dim}");
        let problem =
            on_device!(Problem::new(&[3, 3000, 0, 1025, 40, 2048], 800, dim, chunk_rows, device), what);
        let mut solution = problem.solution().map_err(other(what))?;
        on_device!(als_cholesky(&problem.system(), &mut solution), what);
        let whole = solution.to_f32().map_err(other(what))?;
        for most_entries in [1, 1030, 2000] {
            let mut solution = problem.solution().map_err(other(what))?;
            als_cholesky_in_batches(&problem.system(), &mut solution, most_entries).map_err(other(what))?;
            let got = solution.to_f32().map_err(other(what))?;
            same_bits(|| format!("{what}, {most_entries} entries"), &got, &whole)?;
        }
    }
    Comparison::default().outcome()
}

fn refusals(device: Device, solver: Solver) -> Result<Outcome, Failure> {
    let what = "refusals";
    let problem = on_device!(Problem::new(&[3, 40, 0, 60], 50, 20, 16, device), what);
    let system = problem.system();
    let run = |system: AlsSystem<'_>| solver.run(&system, &mut problem.solution()?);
    on_device!(run(system), what);

    let shape = |error: &Error| matches!(error, Error::Shape { .. });
    refused("a short gram", run(AlsSystem { gram: &system.gram[1..], ..system }), shape)?;
    refused("a short ridge", run(AlsSystem { ridge: &system.ridge[1..], ..system }), shape)?;
    refused(
        "too few rows",
        run(AlsSystem { rows: system.rows.rows(0, 3), ridge: &system.ridge[1..], ..system }),
        shape,
    )?;
    refused("a scale that is no number", run(AlsSystem { scale: f32::NAN, ..system }), |error| {
        matches!(error, Error::Parameter { what: "scale", .. })
    })?;
    refused("a scale below zero", run(AlsSystem { scale: -1.0, ..system }), |error| {
        matches!(error, Error::Parameter { what: "scale", got: -1.0, .. })
    })?;
    let mut indices = problem.indices.clone();
    indices[7] = 50;
    let rows = SparseRows { indices: &indices, ..system.rows };
    refused("a column past the columns", run(AlsSystem { rows, ..system }), |error| {
        matches!(error, Error::IndexOutOfRange { position: 7, rows: 50, index: 50, .. })
    })?;
    let mut narrow = problem
        .solution_on(Device::Cpu)
        .and_then(|solution| solution.to_row_type(RowType::F16, "a conformance case"))
        .and_then(|solution| solution.try_copy(device, "a conformance case"))
        .map_err(other(what))?;
    refused("a half-precision solution", solver.run(&system, &mut narrow), |error| {
        matches!(error, Error::RowType { what: "solution", .. })
    })?;

    let mut values = problem.values.clone();
    values[20] = f32::NAN;
    let rows = SparseRows { values: &values, ..system.rows };
    refused("a value that is no number", run(AlsSystem { rows, ..system }), |error| {
        matches!(error, Error::NotFinite { row: 1, .. })
    })?;
    let mut ridge = problem.ridge.clone();
    ridge[3] = -1e4;
    refused("a ridge far below zero", run(AlsSystem { ridge: &ridge, ..system }), |error| {
        matches!(error, Error::NotPositiveDefinite { row: 3, .. })
    })?;
    Comparison::default().outcome()
}

fn loss_sizes(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    for (n_columns, dim) in [(1, 1), (7, 3), (64, 33), (300, 64), (40, 100)] {
        let what = || format!("{n_columns} x {dim}");
        let problem = on_device!(Problem::new(&LENGTHS, n_columns, dim, 4, device), &what());
        let solution = problem.solution().map_err(other(&what()))?;
        let got = on_device!(als_loss(&problem.system(), &solution), &what());
        let twin = problem.solution_on(Device::Cpu).map_err(other(&what()))?;
        let expected = als_loss_reference(&problem.twin(), &twin).map_err(other(&what()))?;
        comparison.close(what, &[got as f32], &[expected], LOSS_TOLERANCE)?;
    }
    comparison.outcome()
}
