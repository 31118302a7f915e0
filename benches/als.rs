//! Solvers: alternating least squares, and the inverse of a dense matrix.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run ends")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use recmill_benches::{ceilings::Ceilings, factors::table, interactions::Interactions, measure::measure};
use recmill_kernels::{
    AlsSystem, Device, Table, als_block, als_cg, als_cholesky, als_cholesky_reference, als_loss, gram,
    gram_reference, spd_inverse, spd_inverse_reference,
};

const N_ROWS: usize = 8000;
const N_COLUMNS: usize = 20_000;
const MEAN_LEN: usize = 130;
const CG_STEPS: usize = 3;
const BLOCK: usize = 64;

fn als(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    let interactions = Interactions::long_tailed(N_ROWS, N_COLUMNS, MEAN_LEN);
    let nnz = interactions.indices.len() as f64;
    let n_rows = N_ROWS as f64;
    for dim in [64, 128, 256] {
        let d = dim as f64;
        let fixed = table(N_COLUMNS, dim, 1).unwrap();
        let gram_of_fixed = gram(&fixed).unwrap();
        let ridge = vec![0.1; N_ROWS];
        let (rows, fixed, gram_of_fixed, ridge) = (interactions.rows(), &fixed, &gram_of_fixed, &ridge);
        let system =
            AlsSystem { rows, fixed, gram: gram_of_fixed, base: 0.0, scale: 1.0, offset: 1.0, ridge };
        let mut solution = table(N_ROWS, dim, 2).unwrap();
        check(&system, dim);

        let shape = format!("{N_ROWS}x{N_COLUMNS}, {nnz} entries, dim {dim}/cpu");
        let row_bytes = nnz * d * 4.0;
        let cost = (CG_STEPS as f64 + 1.0) * (4.0 * nnz * d + 2.0 * n_rows * d * d);
        measure(
            criterion,
            ceilings,
            &format!("als_cg/{shape}"),
            (cost, row_bytes * (CG_STEPS as f64 + 1.0)),
            || {
                als_cg(&system, &mut solution, CG_STEPS).unwrap();
            },
        );
        let cost = nnz * d * (d + 1.0) + n_rows * d * d * d / 3.0;
        measure(criterion, ceilings, &format!("als_cholesky/{shape}"), (cost, row_bytes), || {
            als_cholesky(&system, &mut solution).unwrap();
        });
        let block = BLOCK as f64;
        let cost = nnz * d * (block + 6.0) + n_rows * (2.0 * d * d + d * block * block / 3.0);
        measure(criterion, ceilings, &format!("als_block/{shape}"), (cost, row_bytes * 3.0), || {
            als_block(&system, &mut solution, BLOCK).unwrap();
        });
        let cost = 2.0 * nnz * d + 2.0 * n_rows * d * d;
        measure(criterion, ceilings, &format!("als_loss/{shape}"), (cost, row_bytes), || {
            black_box(als_loss(&system, &solution).unwrap());
        });
        let shape = format!("{N_COLUMNS}x{dim}/cpu");
        let cost = N_COLUMNS as f64 * d * (d + 1.0);
        measure(criterion, ceilings, &format!("gram/{shape}"), (cost, N_COLUMNS as f64 * d * 4.0), || {
            black_box(gram(fixed).unwrap());
        });
    }
}

/// The answers of a few rows are right before they are timed.
fn check(system: &AlsSystem<'_>, dim: usize) {
    let some = AlsSystem { rows: system.rows.rows(0, 3), ridge: &system.ridge[..3], ..*system };
    let expected = als_cholesky_reference(&some).unwrap();
    let mut solution = Table::zeros(3, dim, Device::Cpu, "a bench").unwrap();
    als_cholesky(&some, &mut solution).unwrap();
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (got, expected) in solution.to_f32().unwrap().iter().zip(&expected) {
        assert!((f64::from(*got) - expected).abs() <= 1e-2 * largest, "{got} {expected}");
    }
    let exact = gram_reference(system.fixed).unwrap();
    let largest = exact.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (got, expected) in system.gram.iter().zip(&exact) {
        assert!((f64::from(*got) - expected).abs() <= 1e-5 * largest, "{got} {expected}");
    }
}

fn inverse(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    for n in [1024, 2048] {
        // As for EASE: a gram matrix with a ridge.
        let mut values = gram(&table(2 * n, n, 3).unwrap()).unwrap();
        values.iter_mut().step_by(n + 1).for_each(|diagonal| *diagonal += 2.0);
        let mut matrix = Table::from_f32(&values, n, Device::Cpu, "a bench").unwrap();
        check_inverse(&values, n);
        let cost = 2.0 * (n as f64).powi(3);
        // Each block of 128 rows goes over the lower triangle.
        let bytes = (n as f64 / 128.0) * (n * n) as f64 * 4.0;
        // The inverse of an inverse is the matrix again, so nothing has to be copied between runs.
        measure(criterion, ceilings, &format!("spd_inverse/{n}x{n}/cpu"), (cost, bytes), || {
            spd_inverse(&mut matrix).unwrap();
        });
    }
}

/// The inverse of the first 300 rows and columns is right.
fn check_inverse(values: &[f32], n: usize) {
    let size = 300;
    let part: Vec<f32> = values.chunks_exact(n).take(size).flat_map(|row| row[..size].to_vec()).collect();
    let expected = spd_inverse_reference(&part, size).unwrap();
    let mut matrix = Table::from_f32(&part, size, Device::Cpu, "a bench").unwrap();
    spd_inverse(&mut matrix).unwrap();
    for (got, expected) in matrix.to_f32().unwrap().iter().zip(&expected) {
        assert!((got - expected).abs() <= 1e-5, "{got} {expected}");
    }
}

criterion_group!(benches, als, inverse);
criterion_main!(benches);
