//! Some transformed rows, as plain columns.

use super::fitted::{Features, Field};

/// The features of `rows` rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureBatch {
    /// How many.
    pub rows: usize,
    /// One for each of [`Features::fields`].
    pub fields: Vec<FieldValues>,
    /// `[rows, n_numeric]`, row by row, transformed.
    pub numeric: Vec<f32>,
    /// `[rows, n_labels]`, row by row, 0 or 1; empty where the file has none.
    pub labels: Vec<f32>,
    /// `[rows]`, not negative; empty where the schema or the file has none.
    pub weights: Vec<f32>,
    /// `[rows]`: a hash of the group's text; empty where the schema or the file has none.
    pub groups: Vec<u64>,
    /// `[rows]`: seconds since 1970; empty where the schema or the file has none.
    pub times: Vec<i64>,
    /// `[rows]`: the file's line of each row, or its row from 1 in a file without lines.
    pub lines: Vec<u64>,
}

/// The indices of one field, each below [`super::Field::rows`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldValues {
    /// One a row; for a bag those of all rows, one after the other.
    pub indices: Vec<u32>,
    /// For a bag: row `i` has the indices `offsets[i] .. offsets[i + 1]`; `rows + 1` of them.
    pub offsets: Option<Vec<u32>>,
}

impl FeatureBatch {
    /// Removes all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0, 0, 0);
    }

    /// Copies the features of `rows`, in this order, to `out`, which then has nothing else.
    pub fn gather(&self, rows: &[u32], out: &mut Self) {
        out.shape_as(self.fields.iter().map(|field| field.offsets.is_some()));
        out.clear();
        out.rows = rows.len();
        let n_numeric = self.numeric.len() / self.rows.max(1);
        for row in rows.iter().map(|&row| row as usize) {
            out.numeric.extend_from_slice(&self.numeric[row * n_numeric..(row + 1) * n_numeric]);
            for (from, to) in self.fields.iter().zip(&mut out.fields) {
                let range = match &from.offsets {
                    Some(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
                    None => row..row + 1,
                };
                to.indices.extend_from_slice(&from.indices[range]);
                if let Some(offsets) = &mut to.offsets {
                    offsets.push(to.indices.len() as u32);
                }
            }
        }
    }

    /// Makes room for the fields of `features`, in a batch that has none or others.
    pub(super) fn shape(&mut self, features: &Features) {
        self.shape_as(features.fields.iter().map(Field::is_bag));
    }

    /// Makes room for fields of which these are bags.
    pub(super) fn shape_as(&mut self, bags: impl ExactSizeIterator<Item = bool> + Clone) {
        let fits = self.fields.len() == bags.len()
            && self.fields.iter().zip(bags.clone()).all(|(values, bag)| values.offsets.is_some() == bag);
        if !fits {
            let field = |bag: bool| FieldValues { indices: Vec::new(), offsets: bag.then(|| vec![0]) };
            *self = Self { fields: bags.map(field).collect(), ..Self::default() };
        }
    }

    /// Keeps the first `rows` rows, of columns with this many numbers and labels a row.
    pub(super) fn truncate(&mut self, rows: usize, n_numeric: usize, n_labels: usize) {
        self.rows = rows;
        for values in &mut self.fields {
            let kept = match &mut values.offsets {
                Some(offsets) => {
                    offsets.truncate(rows + 1);
                    offsets.last().map_or(0, |&end| end as usize)
                }
                None => rows,
            };
            values.indices.truncate(kept);
        }
        self.numeric.truncate(rows * n_numeric);
        self.labels.truncate(rows * n_labels);
        self.weights.truncate(rows);
        self.groups.truncate(rows);
        self.times.truncate(rows);
        self.lines.truncate(rows);
    }
}
