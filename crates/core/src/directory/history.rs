//! The training interactions of each user in time order, read in place.
//!
//! | tensor | type | length | |
//! |---|---|---|---|
//! | `indptr` | u64 | users + 1 | row `u` is `indptr[u] .. indptr[u + 1]` of the others |
//! | `item` | u32 | pairs | items, oldest first (in the order of the file where there are no times) |
//! | `sorted` | u32 | pairs | places within the row, such that its items ascend |
//! | `value` | f32 | pairs | missing where all are 1 |
//! | `time` | i64 | pairs | seconds since 1970; missing where the data have none |

use std::{io::Write, ops::Range, path::PathBuf};

use recmill_kernels::Buffer;
use safetensors::Dtype;

use crate::{
    Csr, Dataset, Error, ItemIndex, Result, UserIndex,
    directory::{
        Damage, MappedIds,
        tensors::{Tensor, TensorFile, WriteValues},
    },
};

/// What users did in the training data, in a mapped file.
#[derive(Debug)]
pub struct MappedHistory {
    path: PathBuf,
    n_items: usize,
    indptr: Buffer<u64>,
    item: Buffer<u32>,
    sorted: Buffer<u32>,
    value: Option<Buffer<f32>>,
    time: Option<Buffer<i64>>,
}

/// What one user did, oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HistoryRow<'a> {
    /// The items.
    pub items: &'a [ItemIndex],
    /// How much of each; `None` where it is 1 for all.
    pub values: Option<&'a [f32]>,
    /// When, in seconds since 1970, where the data say.
    pub times: Option<&'a [i64]>,
}

impl MappedHistory {
    pub(crate) fn open(path: PathBuf, file: &TensorFile, n_users: usize, n_items: usize) -> Result<Self> {
        let pairs = file.length("item")?;
        let optional = ["value", "time"].map(|name| file.has(name));
        let known = 3 + optional.iter().filter(|&&there| there).count();
        if file.names().len() != known {
            return Err(Damage::contradiction("number of tensors", file.names().len().to_string()).at(path));
        }
        let history = Self {
            n_items,
            indptr: file.values("indptr", Dtype::U64, &[n_users as u64 + 1])?,
            item: file.values("item", Dtype::U32, &[pairs])?,
            sorted: file.values("sorted", Dtype::U32, &[pairs])?,
            value: optional[0].then(|| file.values("value", Dtype::F32, &[pairs])).transpose()?,
            time: optional[1].then(|| file.values("time", Dtype::I64, &[pairs])).transpose()?,
            path,
        };
        let ends = cpu(&history.indptr);
        if ends.first() != Some(&0) || ends.last() != Some(&pairs) {
            return Err(history.broken("row pointers", 0));
        }
        Ok(history)
    }

    /// Returns the number of users.
    pub fn n_users(&self) -> usize {
        self.indptr.len() - 1
    }

    /// Returns the number of (user, item) pairs.
    pub fn len(&self) -> usize {
        self.item.len()
    }

    /// Returns whether nobody did anything.
    pub fn is_empty(&self) -> bool {
        self.item.is_empty()
    }

    /// Returns what `user` did, oldest first; nothing for a user that the model does not have.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the row makes no sense.
    pub fn row(&self, user: UserIndex) -> Result<HistoryRow<'_>> {
        let range = self.range(user)?;
        let items = &cpu(&self.item)[range.clone()];
        if items.iter().any(|&item| item as usize >= self.n_items) {
            return Err(self.broken("items of a user", user.at()));
        }
        Ok(HistoryRow {
            items: bytemuck::cast_slice(items),
            values: self.value.as_ref().map(|values| &cpu(values)[range.clone()]),
            times: self.time.as_ref().map(|times| &cpu(times)[range]),
        })
    }

    /// Returns the items of `user`, oldest first; nothing for a user that the model does not have.
    ///
    /// # Errors
    /// As [`MappedHistory::row`].
    pub fn items(&self, user: UserIndex) -> Result<&[ItemIndex]> {
        Ok(self.row(user)?.items)
    }

    /// Writes the items of `user` to `out`, ascending and without repeats, as filters want them.
    ///
    /// # Errors
    /// As [`MappedHistory::row`].
    pub fn sorted_items(&self, user: UserIndex, out: &mut Vec<ItemIndex>) -> Result<()> {
        out.clear();
        let items = self.row(user)?.items;
        for &place in self.places(user)? {
            let item = *items.get(place as usize).ok_or_else(|| self.broken("order of items", user.at()))?;
            if out.last().is_some_and(|&last| last >= item) {
                return Err(self.broken("order of items", user.at()));
            }
            out.push(item);
        }
        Ok(())
    }

    /// Returns the data set that the model was trained on, such as to extend it.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Inconsistent`] when it is not what was written.
    pub fn to_dataset(&self, users: &MappedIds, items: &MappedIds) -> Result<Dataset> {
        let pairs = self.len();
        let mut indices = Vec::with_capacity(pairs);
        let mut values = Vec::with_capacity(pairs);
        let mut times = self.time.as_ref().map(|_| Vec::with_capacity(pairs));
        let mut order = vec![0u32; pairs];
        for user in (0..self.n_users()).map(|user| UserIndex(user as u32)) {
            let row = self.row(user)?;
            let begin = indices.len();
            for (entry, &place) in self.places(user)?.iter().enumerate() {
                let at = place as usize;
                if at >= row.items.len() {
                    return Err(self.broken("order of items", user.at()));
                }
                indices.push(row.items[at].0);
                values.push(row.values.map_or(1.0, |values| values[at]));
                if let (Some(times), Some(row_times)) = (&mut times, row.times) {
                    times.push(row_times[at]);
                }
                order[begin + at] = entry as u32;
            }
        }
        let by_user = Csr::new(self.n_items, cpu(&self.indptr).to_vec(), indices, values)?;
        Dataset::new(users.to_id_map()?, items.to_id_map()?, by_user, times, order)
    }

    fn places(&self, user: UserIndex) -> Result<&[u32]> {
        Ok(&cpu(&self.sorted)[self.range(user)?])
    }

    fn range(&self, user: UserIndex) -> Result<Range<usize>> {
        let Some(&[begin, end]) = cpu(&self.indptr).get(user.at()..).and_then(<[u64]>::first_chunk) else {
            return Ok(0..0);
        };
        if begin > end || end > self.len() as u64 {
            return Err(self.broken("row pointers", user.at()));
        }
        Ok(begin as usize..end as usize)
    }

    fn broken(&self, what: &'static str, user: usize) -> Error {
        Damage::contradiction(what, format!("user {user}")).at(&self.path)
    }
}

/// Mapped buffers are always in this process's memory.
fn cpu<T: bytemuck::Pod>(buffer: &Buffer<T>) -> &[T] {
    buffer.cpu().unwrap_or_default()
}

/// Returns the tensors of `history.safetensors`; they are computed row by row while they are written.
pub(crate) fn tensors(dataset: &Dataset) -> Vec<Tensor<'_>> {
    let by_user = dataset.by_user();
    let pairs = by_user.nnz() as u64;
    let tensor =
        |name: &str, dtype, len, write| Tensor { name: name.to_owned(), dtype, shape: vec![len], write };
    let mut tensors = vec![
        tensor(
            "indptr",
            Dtype::U64,
            by_user.n_rows() as u64 + 1,
            // A data set without rows may have no pointers at all; the file always has the first.
            Box::new(move |out: &mut dyn Write| match by_user.indptr() {
                [] => put(out, &[0u64]),
                indptr => put(out, indptr),
            }) as WriteValues<'_>,
        ),
        tensor("item", Dtype::U32, pairs, in_time_order(dataset, by_user.indices())),
        tensor("sorted", Dtype::U32, pairs, Box::new(move |out: &mut dyn Write| put_sorted(dataset, out))),
    ];
    if by_user.values().iter().any(|&value| value != 1.0) {
        tensors.push(tensor("value", Dtype::F32, pairs, in_time_order(dataset, by_user.values())));
    }
    if let Some(times) = dataset.times() {
        tensors.push(tensor("time", Dtype::I64, pairs, in_time_order(dataset, times)));
    }
    tensors
}

/// Writes `entries`, which go with those of `by_user`, each row from the oldest to the newest.
fn in_time_order<'a, T: bytemuck::Pod>(dataset: &'a Dataset, entries: &'a [T]) -> WriteValues<'a> {
    Box::new(move |out: &mut dyn Write| {
        let mut row = Vec::new();
        for user in 0..dataset.n_users() {
            let begin = dataset.by_user().range(user).start;
            row.clear();
            row.extend(dataset.order(user).iter().map(|&entry| entries[begin + entry as usize]));
            put(out, &row)?;
        }
        Ok(())
    })
}

/// Writes, for every row, where its items lie in time order: the inverse of [`Dataset::order`].
fn put_sorted(dataset: &Dataset, out: &mut dyn Write) -> Result<()> {
    let mut places = Vec::new();
    for user in 0..dataset.n_users() {
        let order = dataset.order(user);
        places.resize(order.len(), 0u32);
        for (place, &entry) in order.iter().enumerate() {
            places[entry as usize] = place as u32;
        }
        put(out, &places)?;
    }
    Ok(())
}

fn put<T: bytemuck::Pod>(out: &mut dyn Write, values: &[T]) -> Result<()> {
    Ok(out.write_all(bytemuck::cast_slice(values))?)
}
