//! Cases of sparse_update.

use super::{Case, Comparison, Failure, Numbers, Outcome, on_threads, operands, refused, same_bits};
use crate::{
    Buffer, Device, Error, RowType, SparseOptimizer, SparseState, SparseStep, Table, segment, sparse_update,
    sparse_update_reference,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "sparse_update/sizes, optimizers, chunks", run: sizes },
    Case { name: "sparse_update/long segments", run: long },
    Case { name: "sparse_update/threads, chunks and company change no bits", run: bits },
    Case { name: "sparse_update/rows of 16 bits", run: narrow },
    Case { name: "sparse_update/more than 65,535 work groups", run: many_groups },
    Case { name: "sparse_update/a gradient that is not finite", run: not_finite },
    Case { name: "sparse_update/a state that grows", run: growth },
    Case { name: "sparse_update/refusals", run: refusals },
];

/// Of the largest value of a table: a handful of roundings, some of them of a square root.
const TOLERANCE: f64 = 2e-6;

fn other(what: String) -> impl FnOnce(Error) -> Failure {
    move |got| Failure::Refused { what, got }
}

fn optimizers() -> [SparseOptimizer; 5] {
    [
        SparseOptimizer::Sgd,
        SparseOptimizer::Adagrad { initial: 0.1, epsilon: 1e-6 },
        SparseOptimizer::RowWiseAdagrad { initial: 0.0, epsilon: 1e-3 },
        SparseOptimizer::Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-3 },
        SparseOptimizer::Ftrl { beta: 1.0, l1: 0.05 },
    ]
}

/// Takes one step on the device; a row that is not finite is an error.
fn step(
    table: &mut Table,
    state: &mut SparseState,
    indices: &[u32],
    gradients: &[f32],
    step: &SparseStep,
) -> crate::Result<()> {
    let device = table.device();
    let segment = segment(indices, table.rows(), device)?;
    let gradients = Buffer::from_slice(gradients, device, "a conformance case")?;
    sparse_update(table, state, &segment, &gradients, step)?;
    state.check()
}

/// Takes `steps` steps and compares each with the reference of what was there before it.
fn compare(
    comparison: &mut Comparison,
    what: &str,
    table: &mut Table,
    optimizer: SparseOptimizer,
    batches: &[(Vec<u32>, Vec<f32>)],
) -> Result<(), Failure> {
    let named = |part: &str| format!("{what}, {optimizer:?}, {part}");
    let mut state = SparseState::new(optimizer, table).map_err(other(named("state")))?;
    for (at, (indices, gradients)) in batches.iter().enumerate() {
        let settings = SparseStep { learning_rate: 0.1, l2: [0.0, 0.01][at % 2], seed: 3 };
        let (rows, states) = sparse_update_reference(table, &state, indices, gradients, &settings)
            .map_err(other(named("reference")))?;
        step(table, &mut state, indices, gradients, &settings).map_err(other(named("step")))?;
        let got = table.to_f32().map_err(other(named("rows")))?;
        comparison.close(|| named(&format!("rows after step {at}")), &got, &rows, TOLERANCE)?;
        for (own, expected) in state.tables().iter().zip(&states) {
            let got = own.to_f32().map_err(other(named("state")))?;
            comparison.close(|| named(&format!("state after step {at}")), &got, expected, TOLERANCE)?;
        }
    }
    Ok(())
}

/// `n` indices over all rows, and their gradients.
fn batch(numbers: &mut Numbers, n: usize, rows: usize, dim: usize) -> (Vec<u32>, Vec<f32>) {
    let indices = (0..n).map(|_| numbers.below(rows) as u32).collect();
    (indices, (0..n * dim).map(|_| numbers.unit()).collect())
}

fn sizes(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    for (rows, dim, n, chunk_rows) in [
        (1, 1, 1, 1),
        (31, 32, 33, 64),
        (32, 33, 31, 8),
        (33, 31, 32, 16),
        (5, 8, 0, 4),
        (100, 64, 257, 32),
        (300, 6, 90, 128),
        (40, 1030, 60, 16),
        (20, 1036, 33, 32),
    ] {
        let what = format!("{rows} rows, dim {dim}, {n} indices, chunks of {chunk_rows}");
        for optimizer in optimizers() {
            let mut numbers = Numbers::new((rows + n) as u64);
            let mut table = numbers.table(rows, dim, chunk_rows, device).map_err(other(what.clone()))?;
            let batches: Vec<_> = (0..3).map(|_| batch(&mut numbers, n, rows, dim)).collect();
            compare(&mut comparison, &what, &mut table, optimizer, &batches)?;
        }
    }
    comparison.outcome()
}

/// Indices such that row `r` occurs `counts[r]` times, in an order that mixes them.
fn with_counts(numbers: &mut Numbers, counts: &[usize]) -> Vec<u32> {
    let mut indices: Vec<u32> =
        counts.iter().enumerate().flat_map(|(row, &n)| std::iter::repeat_n(row as u32, n)).collect();
    for last in (1..indices.len()).rev() {
        indices.swap(last, numbers.below(last + 1));
    }
    indices
}

/// Segments around the length of a piece, and far beyond.
fn long(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    let (mut numbers, dim) = (Numbers::new(4), 6);
    for counts in [
        vec![127, 128, 129, 0, 255, 256, 257, 1, 2, 384],
        vec![1, 20_000, 3, 129, 129, 129, 131, 0, 4096],
        vec![5000],
        vec![128, 128, 129, 128],
        (0..70).map(|row| 100 + row).collect(),
    ] {
        let what = format!("rows that occur {:?}.. times", &counts[..counts.len().min(4)]);
        for optimizer in [optimizers()[0], optimizers()[2], optimizers()[3]] {
            let mut table = numbers.table(counts.len(), dim, 4, device).map_err(other(what.clone()))?;
            let indices = with_counts(&mut numbers, &counts);
            let gradients = indices.iter().flat_map(|_| [0; 6]).map(|_| numbers.unit()).collect();
            compare(&mut comparison, &what, &mut table, optimizer, &[(indices, gradients)])?;
        }
    }
    comparison.outcome()
}

fn bits(device: Device) -> Result<Outcome, Failure> {
    let (rows, dim) = (64, 12);
    for row_type in [RowType::F32, RowType::F16, RowType::Bf16] {
        for optimizer in optimizers() {
            let what = format!("{row_type:?}, {optimizer:?}");
            let run = |chunk_rows, threads, batch: &(Vec<u32>, Vec<f32>)| {
                let run = || {
                    let table = Numbers::new(5).table(rows, dim, chunk_rows, Device::Cpu)?;
                    let mut table = operands::on_device(&operands::narrow(&table, row_type)?, device)?;
                    let mut state = SparseState::new(optimizer, &table)?;
                    for _ in 0..2 {
                        let settings = SparseStep { learning_rate: 0.3, l2: 0.1, seed: 1 << 40 };
                        step(&mut table, &mut state, &batch.0, &batch.1, &settings)?;
                    }
                    table.to_f32()
                };
                on_threads(threads, run).map_err(other(what.clone()))
            };
            let mut numbers = Numbers::new(6);
            // Row 9 is long, and gradients of a third are not exact sums.
            let mut counts = vec![3; rows];
            counts[9] = 700;
            let indices = with_counts(&mut numbers, &counts);
            let gradients = (0..indices.len() * dim).map(|_| numbers.unit() / 3.0).collect();
            let all = (indices, gradients);
            let whole = run(64, 1, &all)?;
            for (chunk_rows, threads) in [(64, 3), (8, 1), (1, 3)] {
                let part = run(chunk_rows, threads, &all)?;
                same_bits(|| format!("{what}, chunks of {chunk_rows}, {threads} threads"), &part, &whole)?;
            }
            for row in [9u32, 40] {
                let kept = |at: &usize| all.0[*at] == row;
                let alone: Vec<usize> = (0..all.0.len()).filter(kept).collect();
                let gradients =
                    alone.iter().flat_map(|&at| all.1[at * dim..][..dim].iter().copied()).collect();
                let part = run(64, 1, &(vec![row; alone.len()], gradients))?;
                let own = row as usize * dim..(row as usize + 1) * dim;
                same_bits(|| format!("{what}, row {row} alone"), &part[own.clone()], &whole[own])?;
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

/// Rounded by chance: within a step of the exact result, and, where the step itself is exact, as on the CPU.
fn narrow(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    // The distance of neighbours below 2.
    for (row_type, spacing) in [(RowType::F16, 1.0 / 1024.0), (RowType::Bf16, 1.0 / 128.0)] {
        for (rows, dim) in [(50, 2), (33, 64), (40, 6), (7, 1032)] {
            let what = format!("{row_type:?}, {rows} rows, dim {dim}");
            let table = |device| {
                Numbers::new(8)
                    .table(rows, dim, 16, Device::Cpu)
                    .and_then(|table| operands::narrow(&table, row_type))
                    .and_then(|table| operands::on_device(&table, device))
                    .map_err(other(what.clone()))
            };
            let (indices, gradients) = batch(&mut Numbers::new(9), 60, rows, dim);
            for optimizer in optimizers() {
                let named = || format!("{what}, {optimizer:?}");
                let mut got = table(device)?;
                let mut state = SparseState::new(optimizer, &got).map_err(other(named()))?;
                let settings = SparseStep { learning_rate: 0.03125, l2: 0.0, seed: 2 };
                let (expected, _) = sparse_update_reference(&got, &state, &indices, &gradients, &settings)
                    .map_err(other(named()))?;
                step(&mut got, &mut state, &indices, &gradients, &settings).map_err(other(named()))?;
                let got = got.to_f32().map_err(other(named()))?;
                comparison.close(named, &got, &expected, spacing * 1.01)?;
                if optimizer == SparseOptimizer::Sgd {
                    let mut on_cpu = table(Device::Cpu)?;
                    let mut state = SparseState::new(optimizer, &on_cpu).map_err(other(named()))?;
                    step(&mut on_cpu, &mut state, &indices, &gradients, &settings).map_err(other(named()))?;
                    let on_cpu = on_cpu.to_f32().map_err(other(named()))?;
                    same_bits(|| format!("{}, beside the CPU", named()), &got, &on_cpu)?;
                }
            }
        }
    }
    comparison.outcome()
}

fn many_groups(device: Device) -> Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    // Vectors of one value: a work group of 256 units for each 256 values.
    let (rows, dim) = (1000, 31);
    let n = 65_600 * 256 / dim;
    let mut numbers = Numbers::new(12);
    let what = format!("{n} indices, dim {dim}");
    let mut table = numbers.table(rows, dim, 512, device).map_err(other(what.clone()))?;
    let batch = batch(&mut numbers, n, rows, dim);
    compare(&mut comparison, &what, &mut table, SparseOptimizer::Sgd, &[batch])?;
    comparison.outcome()
}

fn not_finite(device: Device) -> Result<Outcome, Failure> {
    let (rows, dim) = (20, 8);
    for optimizer in optimizers() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let what = format!("{bad} in two rows, {optimizer:?}");
            let mut table = Numbers::new(3).table(rows, dim, 4, device).map_err(other(what.clone()))?;
            let before = table.to_f32().map_err(other(what.clone()))?;
            let mut state = SparseState::new(optimizer, &table).map_err(other(what.clone()))?;
            let indices: Vec<u32> = (0..rows as u32).rev().collect();
            let mut gradients = vec![1.0; rows * dim];
            // Rows 15 and 6.
            gradients[4 * dim + 3] = bad;
            gradients[13 * dim] = bad;
            let settings = SparseStep { learning_rate: 0.5, l2: 0.0, seed: 0 };
            let result = step(&mut table, &mut state, &indices, &gradients, &settings);
            let named = |error: &Error| matches!(error, Error::NotFinite { row: 6, .. });
            refused(&what, result, named)?;
            refused(&what, state.check(), named)?;
            let after = table.to_f32().map_err(other(what.clone()))?;
            let mut states = vec![after.clone()];
            for own in state.tables() {
                states.push(own.to_f32().map_err(other(what.clone()))?);
            }
            if let Some(at) = states.concat().iter().position(|value| !value.is_finite()) {
                return Err(Failure::Bits { what: format!("{what}, a value that is not finite"), at });
            }
            for (at, (after, before)) in after.iter().zip(&before).enumerate() {
                let still = at == 15 * dim + 3 || at == 6 * dim;
                let in_row = [6, 15].contains(&(at / dim));
                let row_wise = matches!(optimizer, SparseOptimizer::RowWiseAdagrad { .. });
                // FTRL makes weights anew, and may make what was there.
                let ftrl = matches!(optimizer, SparseOptimizer::Ftrl { .. });
                let expected = still || (in_row && row_wise);
                if (expected || !ftrl) && (after == before) != expected {
                    return Err(Failure::Bits { what: format!("{what}, what stands still"), at });
                }
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn growth(device: Device) -> Result<Outcome, Failure> {
    for optimizer in optimizers() {
        let what = format!("{optimizer:?}");
        let make = |rows| Numbers::new(1).table(rows, 6, 8, device).map_err(other(what.clone()));
        let mut small = make(13)?;
        let mut state = SparseState::new(optimizer, &small).map_err(other(what.clone()))?;
        let (indices, gradients) = batch(&mut Numbers::new(2), 30, 13, 6);
        let settings = SparseStep { learning_rate: 0.5, l2: 0.0, seed: 0 };
        step(&mut small, &mut state, &indices, &gradients, &settings).map_err(other(what.clone()))?;
        let read = |state: &SparseState| {
            let tables = state.tables().iter().map(|own| own.to_f32());
            tables.collect::<crate::Result<Vec<_>>>().map_err(other(what.clone()))
        };
        let before = read(&state)?;
        let large = make(40)?;
        state.extend(&large).map_err(other(what.clone()))?;
        for ((own, mut expected), table) in read(&state)?.into_iter().zip(before).zip(state.tables()) {
            expected.resize(40 * table.dim(), 0.0);
            same_bits(|| what.clone(), &own, &expected)?;
        }
        let mut large = large;
        step(&mut large, &mut state, &[39, 2], &[0.5; 12], &settings).map_err(other(what.clone()))?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn refusals(device: Device) -> Result<Outcome, Failure> {
    let failed = || other("operands".to_owned());
    let mut table = Numbers::new(2).table(10, 3, 4, device).map_err(failed())?;
    let before = table.to_f32().map_err(failed())?;
    let mut state = SparseState::new(SparseOptimizer::Sgd, &table).map_err(failed())?;
    let settings = SparseStep { learning_rate: 0.5, l2: 0.0, seed: 0 };
    refused("an index past the rows", step(&mut table, &mut state, &[10], &[1.0; 3], &settings), |error| {
        matches!(error, Error::IndexOutOfRange { rows: 10, index: 10, .. })
    })?;
    refused("too few gradients", step(&mut table, &mut state, &[1, 2], &[1.0; 3], &settings), |error| {
        matches!(error, Error::Shape { what: "gradients", expected: 6, got: 3, .. })
    })?;
    let bad = SparseStep { learning_rate: f32::INFINITY, ..settings };
    refused("an infinite learning rate", step(&mut table, &mut state, &[1], &[1.0; 3], &bad), |error| {
        matches!(error, Error::Parameter { what: "learning_rate", .. })
    })?;
    let longer = Numbers::new(2).table(11, 3, 4, device).map_err(failed())?;
    let adam = SparseOptimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    let mut others = SparseState::new(adam, &longer).map_err(failed())?;
    refused("another table's state", step(&mut table, &mut others, &[1], &[1.0; 3], &settings), |error| {
        matches!(error, Error::Shape { what: "state", .. })
    })?;
    if device != Device::Cpu {
        let on_cpu = Numbers::new(2).table(10, 3, 4, Device::Cpu).map_err(failed())?;
        let mut half = operands::narrow(&on_cpu, RowType::F16)
            .and_then(|table| operands::on_device(&table, device))
            .map_err(failed())?;
        refused(
            "16-bit rows of an odd dimension",
            step(&mut half, &mut state, &[1], &[1.0; 3], &settings),
            |error| matches!(error, Error::Parameter { what: "dim", got: 3.0, .. }),
        )?;
        let segment = segment(&[1], 10, Device::Cpu).map_err(failed())?;
        let gradients = Buffer::from_slice(&[1.0; 3], device, "a conformance case").map_err(failed())?;
        let result = sparse_update(&mut table, &mut state, &segment, &gradients, &settings);
        refused("a segment elsewhere", result, |error| matches!(error, Error::MixedDevices { .. }))?;
    }
    same_bits(|| "a table after refusals".to_owned(), &table.to_f32().map_err(failed())?, &before)?;
    Ok(Outcome::Agrees { worst: 0.0 })
}
