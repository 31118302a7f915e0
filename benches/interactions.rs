//! Interactions with long tails on both sides, the same on every machine.

use recmill_kernels::SparseRows;

/// A sparse matrix of one's own.
#[derive(Clone, Debug, Default)]
pub struct Interactions {
    /// `[n_rows + 1]`.
    pub indptr: Vec<u64>,
    /// Ascending in each row.
    pub indices: Vec<u32>,
    /// 1 to 5.
    pub values: Vec<f32>,
    /// Columns.
    pub n_columns: usize,
}

impl Interactions {
    /// Rows that draw between a quarter of and four times `mean_len` columns, most of them few, from columns that are the
    /// likelier the lower; repeats fall away, so rows are somewhat shorter.
    pub fn long_tailed(n_rows: usize, n_columns: usize, mean_len: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut unit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        let mut out = Self { indptr: vec![0], n_columns, ..Self::default() };
        for _ in 0..n_rows {
            let n = (mean_len as f64 * 0.25 * 16f64.powf(unit().powi(2))) as usize + 1;
            let mut row: Vec<u32> =
                (0..n).map(|_| (n_columns as f64 * unit().powi(3)) as u32 % n_columns as u32).collect();
            row.sort_unstable();
            row.dedup();
            out.values.extend(row.iter().map(|&column| (column % 5 + 1) as f32));
            out.indices.extend(row);
            out.indptr.push(out.indices.len() as u64);
        }
        out
    }

    /// Returns the same matrix column after column; rows ascend in each column.
    pub fn transposed(&self) -> Self {
        let mut indptr = vec![0u64; self.n_columns + 1];
        self.indices.iter().for_each(|&column| indptr[column as usize + 1] += 1);
        for column in 0..self.n_columns {
            indptr[column + 1] += indptr[column];
        }
        let mut next = indptr.clone();
        let (mut indices, mut values) = (vec![0; self.indices.len()], vec![0.0; self.indices.len()]);
        for row in 0..self.indptr.len() - 1 {
            let (columns, row_values) = self.rows().row(row);
            for (&column, &value) in columns.iter().zip(row_values) {
                let at = &mut next[column as usize];
                (indices[*at as usize], values[*at as usize]) = (row as u32, value);
                *at += 1;
            }
        }
        Self { indptr, indices, values, n_columns: self.indptr.len() - 1 }
    }

    /// Views the rows.
    pub fn rows(&self) -> SparseRows<'_> {
        SparseRows { indptr: &self.indptr, indices: &self.indices, values: &self.values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_together() {
        let interactions = Interactions::long_tailed(50, 300, 20);
        interactions.rows().check("a test", 300).unwrap();
        assert!(interactions.indices.len() > 500);
        let columns = interactions.transposed();
        columns.rows().check("a test", 50).unwrap();
        assert_eq!(columns.transposed().indices, interactions.indices);
        assert_eq!(columns.transposed().values, interactions.values);
    }
}
