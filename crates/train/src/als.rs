//! How ALS learns: users solved with the items fixed, then items with the users fixed.
//!
//! ```text
//! an epoch:   G = w YᵀY;  every user:  (G + Σ a y yᵀ + ridge I) x = Σ b y      then the same for every item
//! at the end: every user once more, exactly, against the final items
//! ```
//!
//! The terms of a row's problem are those of `core::models::als`, which states both objectives. The final pass makes a
//! stored user equal what folding in the same history gives.
//!
//! Cost of an epoch with CG: `O(nnz * factors * steps + (users + items) * factors² * steps)`.

use recmill_core::{
    Csr, Dataset, Parameters,
    models::{Als, AlsConfig, AlsSolver, AlsTerms, Retriever},
};
use recmill_kernels::{
    AlsKept, AlsSystem, Device, Table, als_block, als_block_bytes, als_cg_keeping, als_cholesky,
    als_gram_bytes, als_kept_bytes, als_loss_keeping, als_penalty, gram,
};

use crate::{
    Learner, Prediction, Result,
    data::{Sizes, sparse_rows},
    factors::{Normal, Stream, copy, on_cpu, take_over},
    learned::{put_plain, take_plain},
};

/// Factors of users and items, and the data they are solved from.
pub(crate) struct AlsLearner<'a> {
    config: &'a AlsConfig,
    data: &'a Dataset,
    users: Table,
    items: Table,
    user_ridge: Vec<f32>,
    item_ridge: Vec<f32>,
    /// What stays on a GPU of the users' rows and of the items'.
    kept: [AlsKept<'a>; 2],
}

impl<'a> AlsLearner<'a> {
    /// Begins to learn; on a GPU the interactions stay there where they take `keep` bytes at most.
    pub(crate) fn new(
        config: &'a AlsConfig,
        data: &'a Dataset,
        seed: u64,
        device: Device,
        keep: u64,
    ) -> Result<Self> {
        let [users, items] = Self::kept_bytes(config, &Sizes::new(data, false));
        let kept = match users + items <= keep {
            true => [
                AlsKept::up_to(sparse_rows(data.by_user()), users),
                AlsKept::up_to(sparse_rows(data.by_item()), items),
            ],
            false => Default::default(),
        };
        let (dim, scale) = (config.factors, config.init_scale);
        let draw = |rows, stream, what| Normal { rows, dim, scale, seed, stream }.on(device, what);
        Ok(Self {
            users: draw(data.n_users(), Stream::UserFactors, "user factors")?,
            items: draw(data.n_items(), Stream::ItemFactors, "item factors")?,
            user_ridge: ridge(config, data.by_user()),
            item_ridge: ridge(config, data.by_item()),
            kept,
            config,
            data,
        })
    }

    /// Returns the bytes that the interactions take on a GPU where they stay there from one iteration to the next: of the
    /// users' rows, and of the items'.
    pub(crate) fn kept_bytes(config: &AlsConfig, sizes: &Sizes) -> [u64; 2] {
        match config.solver {
            AlsSolver::Cg => {
                [sizes.n_users, sizes.n_items].map(|rows| als_kept_bytes(rows, sizes.n_interactions))
            }
            AlsSolver::Cholesky | AlsSolver::Block => [0, 0],
        }
    }

    /// Returns the bytes of everything that [`AlsLearner`] allocates.
    pub(crate) fn predict(config: &AlsConfig, sizes: &Sizes) -> Prediction {
        let row = 4 * config.factors as u64;
        let square = row * config.factors as u64;
        Prediction::default()
            .add("interactions by item", sizes.by_item_bytes())
            .add("user factors", sizes.n_users * (row + 4))
            .add("item factors", sizes.n_items * (row + 4))
            .add("copies of the factors", sizes.copies() * (sizes.n_users + sizes.n_items) * row)
            .add("scratch", (2 + sizes.n_threads) * square)
    }

    /// Returns the bytes of it that are on a GPU, where one computes.
    pub(crate) fn predict_on_gpu(config: &AlsConfig, sizes: &Sizes) -> Prediction {
        let row = 4 * config.factors as u64;
        let longest = sizes.n_users.max(sizes.n_items);
        Prediction::default()
            .add("user factors", sizes.n_users * row)
            .add("item factors", sizes.n_items * row)
            .add("gram matrices", als_gram_bytes(config.factors as u64))
            .add(
                "a block of interactions",
                als_block_bytes(longest, sizes.n_interactions, config.factors as u64),
            )
    }

    fn solve_users(&mut self, solver: AlsSolver) -> Result<()> {
        let gram = weighted_gram(self.config, &self.items)?;
        let system = system(self.config, self.data.by_user(), &self.items, &gram, &self.user_ridge);
        solve(self.config, &system, &mut self.users, solver, &mut self.kept[0])
    }

    fn solve_items(&mut self) -> Result<()> {
        let gram = weighted_gram(self.config, &self.users)?;
        let system = system(self.config, self.data.by_item(), &self.users, &gram, &self.item_ridge);
        solve(self.config, &system, &mut self.items, self.config.solver, &mut self.kept[1])
    }
}

fn solve(
    config: &AlsConfig,
    system: &AlsSystem<'_>,
    solution: &mut Table,
    solver: AlsSolver,
    kept: &mut AlsKept<'_>,
) -> Result<()> {
    match solver {
        AlsSolver::Cg => als_cg_keeping(system, solution, config.cg_steps, kept)?,
        AlsSolver::Cholesky => als_cholesky(system, solution)?,
        AlsSolver::Block => als_block(system, solution, config.block_size)?,
    }
    Ok(())
}

/// Returns the factors of `rows` with the factors of the other side fixed, solved exactly: what the last pass of a training
/// over these rows would give.
///
/// # Shapes
/// - `rows`: `[n_rows, fixed.rows()]`, users by items or items by users
/// - returns: `[n_rows, factors]` on the device of `fixed`
///
/// # Errors
/// [`crate::Error::Core`] when the configuration is not valid; [`crate::Error::Kernel`] when the sizes do not agree.
pub fn solve_als(config: &AlsConfig, rows: &Csr, fixed: &Table) -> Result<Table> {
    config.validate()?;
    let (gram, ridge) = (weighted_gram(config, fixed)?, ridge(config, rows));
    let mut solution = Table::zeros(rows.n_rows() as u64, fixed.dim(), fixed.device(), "factors")?;
    als_cholesky(&system(config, rows, fixed, &gram, &ridge), &mut solution)?;
    Ok(solution)
}

/// Returns `w YᵀY` of the side that is fixed.
fn weighted_gram(config: &AlsConfig, fixed: &Table) -> Result<Vec<f32>> {
    let weight = config.terms().gram_weight;
    let mut gram = gram(fixed)?;
    gram.iter_mut().for_each(|value| *value *= weight);
    Ok(gram)
}

/// Returns the equations of `rows` with the factors of the other side fixed.
fn system<'s>(
    config: &AlsConfig,
    rows: &'s Csr,
    fixed: &'s Table,
    gram: &'s [f32],
    ridge: &'s [f32],
) -> AlsSystem<'s> {
    let AlsTerms { base, scale, offset, .. } = config.terms();
    AlsSystem { rows: sparse_rows(rows), fixed, gram, base, scale, offset, ridge }
}

/// One ridge a row of `rows`, from how many pairs it has.
fn ridge(config: &AlsConfig, rows: &Csr) -> Vec<f32> {
    (0..rows.n_rows()).map(|row| config.ridge(rows.range(row).len(), rows.n_columns())).collect()
}

impl Learner for AlsLearner<'_> {
    fn epoch(&mut self, _epoch: u32) -> Result<Option<f64>> {
        self.solve_users(self.config.solver)?;
        self.solve_items()?;
        Ok(None)
    }

    fn loss(&mut self) -> Result<Option<f64>> {
        let gram = weighted_gram(self.config, &self.items)?;
        let system = system(self.config, self.data.by_user(), &self.items, &gram, &self.user_ridge);
        Ok(Some(
            als_loss_keeping(&system, &self.users, &mut self.kept[0])?
                + als_penalty(&self.items, &self.item_ridge)?,
        ))
    }

    fn snapshot(&self) -> Result<Box<dyn Retriever>> {
        let users = copy(&self.users, "copy of the user factors")?;
        let items = copy(&self.items, "copy of the item factors")?;
        let mut model = Als::new(self.config.clone(), users, items)?;
        model.score_on(self.users.device())?;
        Ok(Box::new(model))
    }

    fn restore(&mut self, mut parameters: Parameters) -> Result<()> {
        take_over(&mut self.users, &parameters.take_table("user_factors")?, "user factors")?;
        take_over(&mut self.items, &parameters.take_table("item_factors")?, "item factors")
    }

    fn take_state(&mut self) -> Result<Parameters> {
        take_plain([("users", &mut self.users), ("items", &mut self.items)], [])
    }

    fn put_state(&mut self, state: Parameters) -> Result<()> {
        put_plain(state, [("users", &mut self.users), ("items", &mut self.items)], [])
    }

    fn finish(mut self: Box<Self>) -> Result<Box<dyn Retriever>> {
        if self.config.final_user_pass {
            self.solve_users(AlsSolver::Cholesky)?;
        }
        let users = on_cpu(self.users, "user factors")?;
        let items = on_cpu(self.items, "item factors")?;
        Ok(Box::new(Als::new(self.config.clone(), users, items)?))
    }
}
