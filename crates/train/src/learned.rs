//! Tables and networks together with what their optimizers remember of them, and how both are given away for a checkpoint.

use burn::{backend::Autodiff, module::Module};
use recmill_core::{
    Parameter, Parameters,
    dense::{DeviceBackend, load_parameters, put_parameters},
    rankers::DenseOptimizer,
};
use recmill_kernels::{Bags, Buffer, Segment, SparseOptimizer, SparseStep, Table};

use crate::{
    Error, Result,
    gradient::{DenseGradients, DenseSteps, TableSteps},
};

const ADAM: SparseOptimizer = SparseOptimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
const ROWS: &str = "rows";
const STEPS: &str = "steps";
const OF_OPTIMIZER: &str = "optimizer_";

/// A part of a learner that is given away for a checkpoint and taken back, as [`crate::Learner::take_state`] says.
pub(crate) trait Part {
    fn take_state(&mut self) -> Result<Parameters>;

    fn put_state(&mut self, state: Parameters) -> Result<()>;
}

/// Takes the state of every part, under its name.
pub(crate) fn take_parts<const N: usize>(parts: [(&str, &mut dyn Part); N]) -> Result<Parameters> {
    let mut all = Parameters::default();
    for (name, part) in parts {
        all.extend_prefixed(name, part.take_state()?);
    }
    Ok(all)
}

/// Gives every part what [`take_parts`] took.
pub(crate) fn put_parts<const N: usize>(
    mut all: Parameters,
    parts: [(&str, &mut dyn Part); N],
) -> Result<()> {
    parts.into_iter().try_for_each(|(name, part)| part.put_state(all.take_prefixed(name)))
}

/// Takes tables and values out by name, of a learner whose optimizer remembers nothing of tables.
pub(crate) fn take_plain<const T: usize, const V: usize>(
    tables: [(&str, &mut Table); T],
    values: [(&str, &mut Vec<f32>); V],
) -> Result<Parameters> {
    let mut state = Parameters::default();
    for (name, table) in tables {
        state.insert(name, Parameter::Table(take_rows(table)?));
    }
    for (name, values) in values {
        let values = Buffer::from_vec(std::mem::take(values), "values of a checkpoint")?;
        state.insert(name, Parameter::F32(values));
    }
    Ok(state)
}

/// Puts back what [`take_plain`] took.
pub(crate) fn put_plain<const T: usize, const V: usize>(
    mut state: Parameters,
    tables: [(&'static str, &mut Table); T],
    values: [(&'static str, &mut Vec<f32>); V],
) -> Result<()> {
    for (name, table) in tables {
        put_rows(table, state.take_table(name)?)?;
    }
    for (name, values) in values {
        *values = state.take_f32(name)?.into_vec()?;
    }
    Ok(())
}

/// A table, and what Adam remembers of its rows.
pub(crate) struct LearnedTable {
    pub(crate) table: Table,
    steps: TableSteps,
}

impl LearnedTable {
    /// Begins to learn a table.
    pub(crate) fn new(table: Table) -> Result<Self> {
        Ok(Self { steps: TableSteps::new(ADAM, &table)?, table })
    }

    /// Steps rows that were looked up in bags, of which `gradient` has one row each.
    pub(crate) fn step(
        &mut self,
        bags: &Bags,
        segment: &Segment,
        gradient: &Buffer<f32>,
        step: &SparseStep,
    ) -> Result<()> {
        self.steps.step(&mut self.table, bags, segment, gradient, step)
    }

    /// Steps `rows`, of which `gradient` has one row each.
    pub(crate) fn step_gathered(
        &mut self,
        rows: &[u32],
        gradient: &Buffer<f32>,
        step: &SparseStep,
    ) -> Result<()> {
        self.steps.step_gathered(&mut self.table, rows, gradient, step)
    }
}

impl Part for LearnedTable {
    fn take_state(&mut self) -> Result<Parameters> {
        let rows = take_rows(&mut self.table)?;
        let steps = std::mem::replace(&mut self.steps, TableSteps::new(ADAM, &self.table)?);
        let (of_optimizer, steps) = steps.take();
        let mut state = Parameters::default();
        state.insert(ROWS, Parameter::Table(rows));
        state.insert(STEPS, Parameter::U64(Buffer::from_vec(vec![steps], "steps")?));
        state.extend_prefixed(OF_OPTIMIZER, of_optimizer);
        Ok(state)
    }

    fn put_state(&mut self, mut state: Parameters) -> Result<()> {
        put_rows(&mut self.table, state.take_table(ROWS)?)?;
        let steps = first(&state.take_u64(STEPS)?.to_vec()?);
        self.steps = TableSteps::put(ADAM, &self.table, state.take_prefixed(OF_OPTIMIZER), steps)?;
        Ok(())
    }
}

/// A network, and what Adam remembers of its parameters.
pub(crate) struct LearnedNetwork<B: DeviceBackend, M: Module<Autodiff<B>>> {
    pub(crate) network: M,
    steps: DenseSteps<B>,
}

impl<B: DeviceBackend, M: Module<Autodiff<B>>> LearnedNetwork<B, M> {
    /// Begins to learn a network.
    pub(crate) fn new(network: M) -> Self {
        Self { network, steps: DenseSteps::new(DenseOptimizer::Adam, 0.0, 0.0) }
    }

    /// Takes one step.
    pub(crate) fn step(&mut self, gradients: DenseGradients<B>, learning_rate: f64) {
        self.network = self.steps.step(self.network.clone(), gradients, learning_rate);
    }
}

impl<B: DeviceBackend, M: Module<Autodiff<B>>> Part for LearnedNetwork<B, M> {
    fn take_state(&mut self) -> Result<Parameters> {
        let mut state = Parameters::default();
        put_parameters(&self.network, &mut state)?;
        let (of_optimizer, steps) = self.steps.take()?;
        state.insert(STEPS, Parameter::U64(Buffer::from_vec(vec![steps], "steps")?));
        state.extend_prefixed(OF_OPTIMIZER, of_optimizer);
        Ok(state)
    }

    fn put_state(&mut self, mut state: Parameters) -> Result<()> {
        // Without a parameter there is nothing to be put anywhere.
        let device = self.network.devices().into_iter().next().unwrap_or_default();
        let steps = first(&state.take_u64(STEPS)?.to_vec()?);
        let of_optimizer = state.take_prefixed(OF_OPTIMIZER);
        let n_parameters = state.iter().count();
        self.network = load_parameters(self.network.clone(), &mut state)?;
        self.steps.put(of_optimizer, steps, n_parameters, &device)
    }
}

fn first(values: &[u64]) -> u64 {
    values.first().copied().unwrap_or(0)
}

/// Takes the rows of a table out, which is left without rows and knows where they were.
fn take_rows(table: &mut Table) -> Result<Table> {
    let none = Table::zeros_in_chunks(0, table.dim(), table.chunk_rows(), table.device(), "no rows")?;
    Ok(std::mem::replace(table, none))
}

/// Puts rows in the place of a table's, on its device and in chunks of its size.
fn put_rows(table: &mut Table, rows: Table) -> Result<()> {
    if rows.dim() != table.dim() || (table.rows() > 0 && rows.rows() != table.rows()) {
        let shape = |table: &Table| format!("{} x {}", table.rows(), table.dim());
        return Err(Error::Resume { what: "rows of a table", expected: shape(table), got: shape(&rows) });
    }
    let fits = (rows.chunk_rows(), rows.device()) == (table.chunk_rows(), table.device());
    *table = match fits {
        true => rows,
        false => rows.try_copy_in_chunks(table.chunk_rows(), table.device(), "rows of a checkpoint")?,
    };
    Ok(())
}
