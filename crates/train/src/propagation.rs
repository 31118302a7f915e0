//! LightGCN's propagation over the interactions, and the way back.
//!
//! ```text
//! P E = (E + Â E + .. + Â^L E) / (L + 1) = (E + Â (E + Â (E + ..))) / (L + 1)      Â_ui = Â_iu = 1 / sqrt(n_u n_i), where u has had i
//! ```
//!
//! `E` is the users' rows and the items'. `Â` is symmetric, so the gradient of `E` is `P` of that of `P E`: one function serves both ways.
//! A product with `Â` is two weighted [`embedding_bag`]s, of items for each user and of users for each item, each summed in the order of
//! its rows: the same bits for any number of threads.
//!
//! Source: He et al. 2020, "LightGCN: simplifying and powering graph convolution network for recommendation".

use burn::tensor::Tensor;
use recmill_core::dense::{DeviceBackend, buffer_of, matrix_of};
use recmill_kernels::{
    BagFeature, Bags, Buffer, Device, Pooling, RowType, Rows, Table, embedding_bag, gather,
};

use crate::Result;

/// The interactions as both sides see them.
#[derive(Debug)]
pub(crate) struct Propagation {
    layers: usize,
    dim: usize,
    /// A bag of items a user.
    by_user: Bags,
    /// A bag of users an item.
    by_item: Bags,
    all_users: Vec<u32>,
    all_items: Vec<u32>,
}

impl Propagation {
    /// Takes the pairs of user and item that are neighbours, each once, for rows like those of `users` and `items`.
    pub(crate) fn new(layers: usize, pairs: &[(u32, u32)], users: &Table, items: &Table) -> Result<Self> {
        let (n_users, n_items) = (users.rows() as usize, items.rows() as usize);
        let (of_users, rows): (Vec<u32>, Vec<u32>) = pairs.iter().copied().unzip();
        let by_user = Grouped::new(&of_users, n_users);
        let by_item = Grouped::new(&rows, n_items);
        let weight = |pair: &u32| {
            let (user, item) = pairs[*pair as usize];
            (f64::from(by_user.len(user)) * f64::from(by_item.len(item))).sqrt().recip() as f32
        };
        let bags = |grouped: &Grouped, other: &[u32], table: &Table| -> Result<Bags> {
            let indices: Vec<u32> = grouped.positions.iter().map(|&pair| other[pair as usize]).collect();
            let weights: Vec<f32> = grouped.positions.iter().map(weight).collect();
            let feature = BagFeature {
                table: 0,
                rows: 0..table.rows(),
                indices: &indices,
                offsets: &grouped.offsets,
                pooling: Pooling::Weighted(&weights),
            };
            Ok(Bags::new(&[table], &[feature])?)
        };
        Ok(Self {
            layers,
            dim: users.dim(),
            by_user: bags(&by_user, &rows, items)?,
            by_item: bags(&by_item, &of_users, users)?,
            all_users: (0..n_users as u32).collect(),
            all_items: (0..n_items as u32).collect(),
        })
    }

    /// Returns the bytes of the lists of `n` pairs, and of what a pass over rows of `tables` bytes holds at once.
    pub(crate) fn bytes(n: u64, tables: u64) -> u64 {
        16 * n + 4 * tables
    }

    /// Returns `P E`.
    pub(crate) fn of<B: DeviceBackend>(&self, users: &Table, items: &Table) -> Result<(Table, Table)> {
        let (users, items) = (gather(users, &self.all_users)?, gather(items, &self.all_items)?);
        let (users, items) = self.spread::<B>(matrix_of(users, self.dim)?, matrix_of(items, self.dim)?)?;
        Ok((table_of(users, self.dim)?, table_of(items, self.dim)?))
    }

    /// Returns all rows and their gradients, from those of some rows of `P E`: a row each, those of a row that comes several times being added.
    pub(crate) fn back<B: DeviceBackend>(
        &self,
        users: (&[u32], Tensor<B, 2>),
        items: (&[u32], Tensor<B, 2>),
    ) -> Result<[(&[u32], Buffer<f32>); 2]> {
        let of_users = scattered(users, self.all_users.len(), self.dim)?;
        let of_items = scattered(items, self.all_items.len(), self.dim)?;
        let (of_users, of_items) = self.spread(of_users, of_items)?;
        Ok([(&self.all_users, buffer_of(of_users)?), (&self.all_items, buffer_of(of_items)?)])
    }

    fn spread<B: DeviceBackend>(
        &self,
        users: Tensor<B, 2>,
        items: Tensor<B, 2>,
    ) -> Result<(Tensor<B, 2>, Tensor<B, 2>)> {
        let (mut of_users, mut of_items) = (users.clone(), items.clone());
        for _ in 0..self.layers {
            let sums = |rows, bags| -> Result<Tensor<B, 2>> {
                Ok(matrix_of(embedding_bag(&[&table_of(rows, self.dim)?], bags)?, self.dim)?)
            };
            let next = users.clone() + sums(of_items, &self.by_user)?;
            of_items = items.clone() + sums(of_users, &self.by_item)?;
            of_users = next;
        }
        let share = 1.0 / (self.layers as f32 + 1.0);
        Ok((of_users * share, of_items * share))
    }
}

/// Positions by the row that each names: those of row `r` are `offsets[r] .. offsets[r + 1]`, ascending.
struct Grouped {
    offsets: Vec<u32>,
    positions: Vec<u32>,
}

impl Grouped {
    fn new(rows: &[u32], n_rows: usize) -> Self {
        let mut offsets = vec![0u32; n_rows + 1];
        rows.iter().for_each(|&row| offsets[row as usize + 1] += 1);
        (0..n_rows).for_each(|row| offsets[row + 1] += offsets[row]);
        let mut next = offsets.clone();
        let mut positions = vec![0; rows.len()];
        for (position, &row) in (0u32..).zip(rows) {
            positions[next[row as usize] as usize] = position;
            next[row as usize] += 1;
        }
        Self { offsets, positions }
    }

    fn len(&self, row: u32) -> u32 {
        self.offsets[row as usize + 1] - self.offsets[row as usize]
    }
}

/// Adds each row of `values` to the row of zeros that it is of.
fn scattered<B: DeviceBackend>(
    (rows, values): (&[u32], Tensor<B, 2>),
    n_rows: usize,
    dim: usize,
) -> Result<Tensor<B, 2>> {
    let values = table_of(values, dim)?;
    let Grouped { offsets, positions } = Grouped::new(rows, n_rows);
    let (indices, offsets) = (&positions[..], &offsets[..]);
    let feature = BagFeature { table: 0, rows: 0..values.rows(), indices, offsets, pooling: Pooling::Sum };
    let bags = Bags::new(&[&values], &[feature])?;
    Ok(matrix_of(embedding_bag(&[&values], &bags)?, dim)?)
}

/// Makes a table, of one chunk, of a matrix.
fn table_of<B: DeviceBackend>(values: Tensor<B, 2>, dim: usize) -> Result<Table> {
    let rows = values.dims()[0].max(1).next_power_of_two() as u32;
    let values = buffer_of(values)?;
    let device: Device = values.device();
    Ok(Table::from_chunks(dim, rows, RowType::F32, device, vec![Rows::F32(values)])?)
}

#[cfg(test)]
mod tests {
    use recmill_core::dense::Cpu;

    use super::*;

    /// User 0 has items 0 and 1, user 1 has item 1; item 2 has nobody.
    const PAIRS: [(u32, u32); 3] = [(0, 0), (1, 1), (0, 1)];

    fn table(values: &[f32]) -> Table {
        Table::from_f32(values, 1, Device::Cpu, "a test").unwrap()
    }

    fn matrix(values: &[f32]) -> Tensor<Cpu, 2> {
        matrix_of(Buffer::from_vec(values.to_vec(), "a test").unwrap(), 1).unwrap()
    }

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        let far = found.iter().zip(expected).any(|(a, b)| (a - b).abs() > 1e-6);
        assert!(!far, "{found:?} for {expected:?}");
    }

    #[test]
    fn two_layers_by_hand() {
        let (users, items) = (table(&[1.0, 2.0]), table(&[4.0, 8.0, 3.0]));
        let propagation = Propagation::new(2, &PAIRS, &users, &items).unwrap();
        let (of_users, of_items) = propagation.of::<Cpu>(&users, &items).unwrap();
        // n: 2, 1 of the users, 1, 2, 0 of the items. Weights: (0, 0) and (1, 1) 1/sqrt 2, (0, 1) 1/2.
        let r = 0.5f32.sqrt();
        let (u1, i1) = ([4.0 * r + 4.0, 8.0 * r], [r, 0.5 + 2.0 * r, 0.0]);
        let u2 = [r * i1[0] + 0.5 * i1[1], r * i1[1]];
        let i2 = [r * u1[0], 0.5 * u1[0] + r * u1[1], 0.0];
        let mean = |layers: [f32; 3]| layers.iter().sum::<f32>() / 3.0;
        close(&of_users.to_f32().unwrap(), &[mean([1.0, u1[0], u2[0]]), mean([2.0, u1[1], u2[1]])]);
        let expected = [mean([4.0, i1[0], i2[0]]), mean([8.0, i1[1], i2[1]]), 1.0];
        close(&of_items.to_f32().unwrap(), &expected);
    }

    #[test]
    fn the_way_back_is_the_derivative() {
        // What is weighed: rows 1, 0 and 1 of the users and 2 of the items.
        let (g_users, g_items) = ([0.3f32, -1.0, 0.5], [2.0f32]);
        let weighed = |users: [f32; 2], items: [f32; 3]| {
            let (users, items) = (table(&users), table(&items));
            let propagation = Propagation::new(3, &PAIRS, &users, &items).unwrap();
            let (of_users, of_items) = propagation.of::<Cpu>(&users, &items).unwrap();
            let (u, i) = (of_users.to_f32().unwrap(), of_items.to_f32().unwrap());
            f64::from(g_users[0] * u[1] + g_users[1] * u[0] + g_users[2] * u[1] + g_items[0] * i[1])
        };
        let (users, items) = ([0.5f32, -1.0], [1.0f32, 0.25, -2.0]);
        let propagation = Propagation::new(3, &PAIRS, &table(&users), &table(&items)).unwrap();
        let [(all_users, of_users), (all_items, of_items)] =
            propagation.back((&[1, 0, 1], matrix(&g_users)), (&[1], matrix(&g_items))).unwrap();
        assert_eq!((all_users, all_items), (&[0, 1][..], &[0, 1, 2][..]));
        let found = [of_users.into_vec().unwrap(), of_items.into_vec().unwrap()].concat();
        for (at, found) in found.into_iter().enumerate() {
            let moved = |by: f32| {
                let (mut users, mut items) = (users, items);
                *users.iter_mut().chain(&mut items).nth(at).unwrap() += by;
                weighed(users, items)
            };
            let expected = (moved(0.25) - moved(-0.25)) / 0.5;
            assert!((f64::from(found) - expected).abs() < 1e-5, "{at}: {found} for {expected}");
        }
    }
}
