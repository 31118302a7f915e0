//! Interactions as models learn from them: who, what, how much, when.

use std::{borrow::Cow, sync::OnceLock};

use crate::{Csr, Error, IdMap, Result, fingerprint::Fingerprint};

/// Users, items and the interactions between them.
///
/// A row of `by_user` holds its items ascending; `times` and `order` go with its entries.
#[derive(Debug, Default)]
pub struct Dataset {
    /// The users' ids.
    pub users: IdMap,
    /// The items' ids.
    pub items: IdMap,
    by_user: Csr,
    times: Option<Vec<i64>>,
    order: Order,
    by_item: OnceLock<Csr>,
}

/// Which of a row's entries is older than which.
#[derive(Debug)]
enum Order {
    /// For every row its entries from the oldest to the newest, counted from the row's start.
    Listed(Vec<u32>),
    /// As they stand: the numbers from 0 up to the length of the longest row.
    AsTheyStand(Vec<u32>),
}

impl Default for Order {
    fn default() -> Self {
        Self::AsTheyStand(Vec::new())
    }
}

impl Order {
    /// Returns the order of every row of `by_user`, row after row.
    fn listed(&self, by_user: &Csr) -> Cow<'_, [u32]> {
        match self {
            Self::Listed(order) => Cow::Borrowed(order),
            Self::AsTheyStand(_) => {
                (0..by_user.n_rows()).flat_map(|user| 0..by_user.range(user).len() as u32).collect()
            }
        }
    }
}

/// The parts of a [`Dataset`]; see [`Dataset::new`].
#[derive(Debug)]
pub struct DatasetParts {
    /// The users' ids.
    pub users: IdMap,
    /// The items' ids.
    pub items: IdMap,
    /// The values by user.
    pub by_user: Csr,
    /// When each entry happened.
    pub times: Option<Vec<i64>>,
    /// Each row's entries from the oldest to the newest.
    pub order: Vec<u32>,
}

impl Dataset {
    /// Joins the parts.
    ///
    /// # Shapes
    /// - `by_user`: `[users.len(), items.len()]`
    /// - `times`: `[nnz]` seconds since 1970, entry by entry as in `by_user`
    /// - `order`: `[nnz]`; `order[range(u)]` lists the entries of row `u`, counted from the row's start, from the oldest
    ///   to the newest (the order of the file where there are no times)
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when the sizes do not agree or `order` is not a permutation of every row.
    pub fn new(
        users: IdMap,
        items: IdMap,
        by_user: Csr,
        times: Option<Vec<i64>>,
        order: Vec<u32>,
    ) -> Result<Self> {
        let broken = |what, at: usize| Error::Inconsistent { what, at: at as u64 };
        if by_user.n_rows() != users.len() || by_user.n_columns() != items.len() {
            return Err(broken("number of users or items", by_user.n_rows()));
        }
        if order.len() != by_user.nnz() || times.as_ref().is_some_and(|times| times.len() != by_user.nnz()) {
            return Err(broken("number of times", order.len()));
        }
        let mut seen = Vec::new();
        for user in 0..by_user.n_rows() {
            let row = &order[by_user.range(user)];
            seen.clear();
            seen.resize(row.len(), false);
            for &entry in row {
                match seen.get_mut(entry as usize) {
                    Some(seen) if !*seen => *seen = true,
                    _ => return Err(broken("time order of a row", user)),
                }
            }
        }
        Ok(Self { users, items, by_user, times, order: Order::Listed(order), by_item: OnceLock::new() })
    }

    /// Joins the parts of interactions without times, which are taken to be in the order in which they stand; for what
    /// somebody else keeps in memory, as no array as long as the interactions is made.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when the sizes do not agree.
    pub fn without_times(users: IdMap, items: IdMap, by_user: Csr) -> Result<Self> {
        if by_user.n_rows() != users.len() || by_user.n_columns() != items.len() {
            return Err(Error::Inconsistent {
                what: "number of users or items",
                at: by_user.n_rows() as u64,
            });
        }
        let longest = (0..by_user.n_rows()).map(|user| by_user.range(user).len()).max().unwrap_or(0);
        let order = Order::AsTheyStand((0..longest as u32).collect());
        Ok(Self { users, items, by_user, times: None, order, by_item: OnceLock::new() })
    }

    /// Returns the parts that [`Dataset::new`] joins.
    pub fn into_parts(self) -> DatasetParts {
        let Self { users, items, by_user, times, order, by_item } = self;
        // Makes room for what may have to be copied.
        drop(by_item);
        let order = order.listed(&by_user).into_owned();
        DatasetParts { users, items, by_user, times, order }
    }

    /// Returns SHA-256 over ids, pairs, values, times and order, in hexadecimal: equal for equal datasets only.
    pub fn fingerprint(&self) -> String {
        let mut all = Fingerprint::default();
        for (name, ids) in [("users", &self.users), ("items", &self.items)] {
            all.add(name, ids.bytes());
            all.add(name, bytemuck::cast_slice(ids.ends()));
        }
        all.add("indptr", bytemuck::cast_slice(self.by_user.indptr()));
        all.add("indices", bytemuck::cast_slice(self.by_user.indices()));
        all.add("values", bytemuck::cast_slice(self.by_user.values()));
        all.add("times", self.times.as_deref().map_or(&[], bytemuck::cast_slice));
        all.add("order", bytemuck::cast_slice(&self.order.listed(&self.by_user)));
        all.finish()
    }

    /// Returns the number of users.
    pub fn n_users(&self) -> usize {
        self.by_user.n_rows()
    }

    /// Returns the number of items.
    pub fn n_items(&self) -> usize {
        self.by_user.n_columns()
    }

    /// Returns the values by user: `[n_users, n_items]`.
    pub fn by_user(&self) -> &Csr {
        &self.by_user
    }

    /// Returns the values by item, `[n_items, n_users]`; made at the first call.
    pub fn by_item(&self) -> &Csr {
        self.by_item.get_or_init(|| self.by_user.transpose())
    }

    /// Returns when each entry of [`Dataset::by_user`] happened, in seconds since 1970, where the data say.
    pub fn times(&self) -> Option<&[i64]> {
        self.times.as_deref()
    }

    /// Returns the entries of row `user` from the oldest to the newest, counted from the row's start.
    pub fn order(&self, user: usize) -> &[u32] {
        let range = self.by_user.range(user);
        match &self.order {
            Order::Listed(order) => &order[range],
            Order::AsTheyStand(order) => &order[..range.len()],
        }
    }
}
