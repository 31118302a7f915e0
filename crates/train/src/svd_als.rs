//! One side of explicit ALS: every row's bias and factors, exactly, with the other side fixed.
//!
//! ```text
//! minimise over (c, x):  Σ_(observed j) (v_j - m - b_j - c - x·y_j)² + λ n (c² + |x|²)      n = observed pairs of the row
//! ```
//!
//! The normal equations of `[y_j, 1]` in f64, solved by a Cholesky factorization. Cost of a row: `n dim² / 2 + dim³ / 6`.

use rayon::prelude::*;
use recmill_core::Csr;
use recmill_kernels::{Error, F32Rows, Table};

use crate::Result;

const OP: &str = "explicit als";

/// The side that is solved against.
pub(crate) struct Fixed<'a> {
    /// The values, a row for each row of the side that is solved.
    pub(crate) values: &'a Csr,
    /// Factors and bias of the columns.
    pub(crate) factors: F32Rows<'a>,
    pub(crate) bias: &'a [f32],
    /// The mean of all values.
    pub(crate) mean: f32,
    pub(crate) regularization: f64,
}

/// Solves every row; a row without values gets zeros.
pub(crate) fn solve(fixed: &Fixed<'_>, factors: &mut Table, bias: &mut [f32]) -> Result<()> {
    let dim = factors.dim();
    for (first, rows) in factors.f32_chunks_mut() {
        let first = first as usize;
        let bias = &mut bias[first..first + rows.len() / dim];
        rows.par_chunks_mut(dim).zip(bias).enumerate().try_for_each_init(
            || Normal::new(dim + 1),
            |normal, (row, (x, bias))| {
                let row = first + row;
                normal.collect(fixed, row);
                normal.solve().map_err(|()| Error::NotPositiveDefinite { op: OP, row: row as u64 })?;
                x.iter_mut().zip(&normal.right).for_each(|(x, &solved)| *x = solved as f32);
                *bias = normal.right[dim] as f32;
                Ok::<_, Error>(())
            },
        )?;
    }
    Ok(())
}

/// The normal equations of one row.
struct Normal {
    n: usize,
    /// The lower triangle of `[n, n]`.
    matrix: Vec<f64>,
    /// The right-hand side, then the solution.
    right: Vec<f64>,
    column: Vec<f64>,
}

impl Normal {
    fn new(n: usize) -> Self {
        Self { n, matrix: vec![0.0; n * n], right: vec![0.0; n], column: vec![1.0; n] }
    }

    fn collect(&mut self, fixed: &Fixed<'_>, row: usize) {
        let n = self.n;
        self.matrix.fill(0.0);
        self.right.fill(0.0);
        let (columns, values) = fixed.values.row(row);
        for (&column, &value) in columns.iter().zip(values) {
            let factors = fixed.factors.row(column as usize);
            self.column.iter_mut().zip(factors).for_each(|(out, &y)| *out = f64::from(y));
            let target = f64::from(value) - f64::from(fixed.mean) - f64::from(fixed.bias[column as usize]);
            for (i, &y) in self.column.iter().enumerate() {
                self.right[i] += target * y;
                let matrix = &mut self.matrix[i * n..=i * n + i];
                matrix.iter_mut().zip(&self.column).for_each(|(sum, &other)| *sum += y * other);
            }
        }
        // A row without values has no ridge by the formula, and any will do: its right-hand side is zero.
        let ridge = if columns.is_empty() { 1.0 } else { fixed.regularization * columns.len() as f64 };
        (0..n).for_each(|i| self.matrix[i * n + i] += ridge);
    }

    /// Replaces the right-hand side by the solution, unless the matrix is not positive definite.
    fn solve(&mut self) -> std::result::Result<(), ()> {
        let (n, a, b) = (self.n, &mut self.matrix, &mut self.right);
        for i in 0..n {
            for j in 0..=i {
                let (row_i, row_j) = (&a[i * n..i * n + j], &a[j * n..j * n + j]);
                let sum = a[i * n + j] - row_i.iter().zip(row_j).map(|(x, y)| x * y).sum::<f64>();
                if i > j {
                    a[i * n + j] = sum / a[j * n + j];
                } else if sum > 0.0 && sum.is_finite() {
                    a[i * n + i] = sum.sqrt();
                } else {
                    return Err(());
                }
            }
            let known: f64 = a[i * n..i * n + i].iter().zip(&b[..i]).map(|(x, y)| x * y).sum();
            b[i] = (b[i] - known) / a[i * n + i];
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k]).sum();
            b[i] = (b[i] - known) / a[i * n + i];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use recmill_kernels::Device;

    use super::*;

    #[test]
    fn a_solved_row_has_no_gradient_and_an_empty_one_is_zero() {
        let values =
            Csr::new(3, vec![0, 2, 2, 5], vec![0, 2, 0, 1, 2], vec![5.0, 1.0, 2.0, 4.0, 3.0]).unwrap();
        let items = Table::from_f32(&[0.5, -0.2, 0.1, 0.9, -0.7, 0.3], 2, Device::Cpu, "a test").unwrap();
        let bias = [0.3, -0.1, 0.2];
        let fixed = Fixed {
            values: &values,
            factors: items.f32_rows().unwrap(),
            bias: &bias,
            mean: 3.0,
            regularization: 0.1,
        };
        let mut users = Table::zeros(3, 2, Device::Cpu, "a test").unwrap();
        let mut user_bias = vec![9.0; 3];
        solve(&fixed, &mut users, &mut user_bias).unwrap();
        let users = users.to_f32().unwrap();
        for row in 0..3 {
            let (x, c) = (&users[2 * row..2 * row + 2], user_bias[row]);
            let (columns, values) = values.row(row);
            let ridge = 0.1 * columns.len() as f32;
            let mut gradient = [-ridge * x[0], -ridge * x[1], -ridge * c];
            for (&column, value) in columns.iter().zip(values) {
                let y = items.f32_rows().unwrap().row(column as usize);
                let error = value - 3.0 - bias[column as usize] - c - x[0] * y[0] - x[1] * y[1];
                gradient[0] += error * y[0];
                gradient[1] += error * y[1];
                gradient[2] += error;
            }
            assert!(gradient.iter().all(|g| g.abs() < 1e-5), "{row}: {gradient:?}");
        }
        assert_eq!((&users[2..4], user_bias[1]), (&[0.0, 0.0][..], 0.0));
    }
}
