//! A trained model as Python holds it: asked by index, with text ids beside; saved, opened, carried from process to process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

use arrow::array::RecordBatch;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::{
    exceptions::{PyKeyError, PyMemoryError, PyNotImplementedError, PyValueError},
    prelude::*,
    types::PyDict,
};
use rayon::prelude::*;
use recmill_core::{
    Batch, Csr, Dataset, DatasetParts, IdMap, Ids, ItemIndex, Parameter, Parameters, Query, Row, Side,
    UserHistory, UserIndex, Workspace,
    directory::{Config, ModelDirectory, Saved, Verify, save},
    models::{self, Als, AlsConfig, ItemKnn, ModelConfig, Retriever},
};
use recmill_kernels::{Buffer, Device, Table};
use recmill_train::{EpochRecord, memory::available_bytes, solve_als};
use serde_json::json;

use crate::{
    arrays::{CsrArrays, matrix},
    failure::{Failure, guarded},
    filters::{Filters, Wanted, checked},
    fit::{by_place, numbered, owned, parse},
    frame::{Events, Frame},
    known::grow,
    threads::{apart, here, on_threads},
    unpacked::{files_of, unpack},
};

/// Rows that are scored between two looks for a signal.
const ROWS_AT_ONCE: usize = 2048;
/// Products below which one question is answered by the thread that asks it.
const FEW_PRODUCTS: u64 = 8 << 20;
/// Bytes of answers for which it is worth looking how many are left.
const MUCH: u64 = 1 << 26;
/// What stands where there is no further answer, as in implicit.
const NO_ITEM: i32 = -1;
const NO_SCORE: f32 = -f32::MAX;

/// What a training thread leaves.
pub(crate) struct Trained {
    pub(crate) config: ModelConfig,
    pub(crate) model: Box<dyn Retriever>,
    pub(crate) dataset: Arc<Dataset>,
    /// What is known of users and of items besides.
    pub(crate) known: [Option<RecordBatch>; 2],
    pub(crate) epochs: Vec<EpochRecord>,
    pub(crate) seed: u64,
    pub(crate) by_index: bool,
}

/// Where a model's ids and histories are.
enum Origin {
    Data(Arc<Dataset>, [Option<RecordBatch>; 2]),
    Directory(Box<ModelDirectory>),
    /// Those of another model, and more behind them: it can be asked, not kept.
    Grown,
}

/// A trained model.
#[pyclass(frozen, module = "recmill._recmill")]
pub(crate) struct Model {
    config: ModelConfig,
    retriever: Box<dyn Retriever>,
    users: Arc<dyn Ids>,
    items: Arc<dyn Ids>,
    history: Arc<dyn UserHistory>,
    origin: Origin,
    epochs: Vec<EpochRecord>,
    seed: u64,
    /// Whether users and items are known by their place in a matrix, and not by ids.
    by_index: bool,
    workspaces: Mutex<Vec<Workspace>>,
    /// The users as if they were items: what tells which users are alike.
    alike: OnceLock<Als>,
    /// Where the files are, of a model that came without a directory.
    _unpacked: Option<tempfile::TempDir>,
}

struct UsersOf(Arc<Dataset>);
struct ItemsOf(Arc<Dataset>);

impl Ids for UsersOf {
    fn len(&self) -> usize {
        self.0.users.len()
    }

    fn index(&self, id: &str) -> Option<u32> {
        self.0.users.get(id)
    }

    fn name(&self, index: u32) -> Option<&str> {
        self.0.users.name(index)
    }
}

impl UserHistory for UsersOf {
    fn n_users(&self) -> usize {
        self.0.n_users()
    }

    fn read(&self, user: UserIndex, out: &mut Vec<(ItemIndex, f32)>) -> recmill_core::Result<()> {
        UserHistory::read(&*self.0, user, out)
    }

    fn read_in_order(&self, user: UserIndex, out: &mut Vec<(ItemIndex, f32)>) -> recmill_core::Result<()> {
        UserHistory::read_in_order(&*self.0, user, out)
    }
}

impl Ids for ItemsOf {
    fn len(&self) -> usize {
        self.0.items.len()
    }

    fn index(&self, id: &str) -> Option<u32> {
        self.0.items.get(id)
    }

    fn name(&self, index: u32) -> Option<&str> {
        self.0.items.name(index)
    }
}

impl Model {
    pub(crate) fn fitted(trained: Trained) -> Result<Self, Failure> {
        let Trained { config, model, dataset, known, epochs, seed, by_index } = trained;
        Ok(Self {
            config,
            retriever: model,
            users: Arc::new(UsersOf(dataset.clone())),
            items: Arc::new(ItemsOf(dataset.clone())),
            history: Arc::new(UsersOf(dataset.clone())),
            origin: Origin::Data(dataset, known),
            epochs,
            seed,
            by_index,
            workspaces: Mutex::default(),
            alike: OnceLock::new(),
            _unpacked: None,
        })
    }

    pub(crate) fn opened(
        py: Python<'_>,
        directory: ModelDirectory,
        unpacked: Option<tempfile::TempDir>,
    ) -> Result<Self, Failure> {
        let config: ModelConfig =
            serde_json::from_value(directory.manifest().config.model.clone()).map_err(|error| {
                let path = directory.path().display();
                PyValueError::new_err(format!("{path}: no model that recommends items: {error}"))
            })?;
        let (users, items) = (directory.users().clone(), directory.items().clone());
        let (n_users, n_items) = (users.len(), items.len());
        let retriever = apart(py, || Ok(models::open(&config, directory.parameters()?, n_users, n_items)?))?;
        let saved = &directory.manifest().config;
        Ok(Self {
            config,
            retriever,
            users,
            items,
            history: directory.history().clone(),
            epochs: Vec::new(),
            seed: saved.seed,
            by_index: saved.schema["python"]["by_index"] == true,
            origin: Origin::Directory(Box::new(directory)),
            workspaces: Mutex::default(),
            alike: OnceLock::new(),
            _unpacked: unpacked,
        })
    }

    /// Adds a version at `path`; `about` is what Python wants to know again of a model that is written for the first time.
    fn saved_at(&self, path: &Path, keep: usize, about: &str) -> Result<PathBuf, Failure> {
        let mut about: serde_json::Value = serde_json::from_str(about).unwrap_or_else(|_| json!({}));
        about["by_index"] = self.by_index.into();
        let config = Config {
            model: serde_json::to_value(&self.config).unwrap_or_default(),
            objective: self.config.objective(),
            schema: json!({"python": about}),
            seed: self.seed,
            ..Config::default()
        };
        // What was opened is written as it was, with all that belongs to it.
        let (read, items, users);
        let (dataset, config, epochs) = match &self.origin {
            Origin::Grown => {
                let what =
                    "a model that users or items were added to is for asking: save the one that was fitted";
                return Err(PyValueError::new_err(what).into());
            }
            Origin::Data(dataset, known) => {
                [users, items] = known.clone();
                (&**dataset, config, self.epochs.iter().map(Into::into).collect())
            }
            Origin::Directory(directory) => {
                read = directory.to_dataset()?;
                (items, users) = (directory.item_attributes()?, directory.user_attributes()?);
                (&read, directory.manifest().config.clone(), directory.epochs()?)
            }
        };
        let saved = Saved {
            config: &config,
            parameters: &self.retriever.parameters()?,
            dataset,
            item_attributes: items.as_ref(),
            user_attributes: users.as_ref(),
            epochs: &epochs,
            features: None,
            classes: None,
        };
        Ok(save(path, &saved, keep)?)
    }

    /// Answers so many questions, a few at a time; the interpreter is free meanwhile, and signals are seen in between.
    fn answer<'py>(
        &self,
        py: Python<'py>,
        retriever: &dyn Retriever,
        n_rows: usize,
        filters: &Filters,
        question: impl Fn(usize) -> Result<Row, Failure> + Sync,
        first: impl Fn(&Row) -> Option<(ItemIndex, f32)> + Sync,
    ) -> Result<Answers<'py>, Failure> {
        let cells = n_rows.checked_mul(filters.n).ok_or_else(|| {
            PyValueError::new_err(format!("{n_rows} rows of {} answers are too many", filters.n))
        })?;
        let asked = (cells as u64).saturating_mul(8);
        let left = if asked > MUCH { available_bytes() } else { asked };
        if asked > left {
            let said = format!("{n_rows} rows of {} answers take {asked} bytes, {left} are left", filters.n);
            return Err(PyMemoryError::new_err(said).into());
        }
        let (mut ids, mut scores) = (vec![NO_ITEM; cells], vec![NO_SCORE; cells]);
        let mut workspace = self.workspaces.try_lock().ok().and_then(|mut all| all.pop()).unwrap_or_default();
        let products = retriever.table("item_factors").map_or(0, |table| table.rows() * table.dim() as u64);
        let alone = n_rows == 1 && products < FEW_PRODUCTS;
        let mut begin = 0;
        while begin < n_rows {
            let end = (begin + ROWS_AT_ONCE).min(n_rows);
            let out = begin * filters.n..end * filters.n;
            let work = || -> Result<(), Failure> {
                let rows = match end - begin {
                    1 => vec![question(begin)?],
                    _ => (begin..end).into_par_iter().map(&question).collect::<Result<_, _>>()?,
                };
                let batch = Batch { rows };
                retriever.score(&batch, &mut workspace)?;
                if filters.n > 0 {
                    let ids = ids[out.clone()].chunks_exact_mut(filters.n);
                    let scores = scores[out].chunks_exact_mut(filters.n);
                    for (at, (ids, scores)) in ids.zip(scores).enumerate() {
                        let own = first(&batch.rows[at]);
                        let (items, of_items) = workspace.answer(at);
                        let found = items.iter().copied().zip(of_items.iter().copied());
                        let all = own.into_iter().chain(found).zip(ids.iter_mut().zip(scores));
                        for ((item, score), (id, of_id)) in all {
                            (*id, *of_id) = (item.0 as i32, score);
                        }
                    }
                }
                Ok(())
            };
            py.detach(|| if alone { here(work) } else { on_threads(filters.threads, work) })??;
            py.check_signals()?;
            begin = end;
        }
        if let Ok(mut all) = self.workspaces.try_lock() {
            all.push(workspace);
        }
        Ok((matrix(py, ids, n_rows, filters.n)?, matrix(py, scores, n_rows, filters.n)?))
    }

    /// Refuses a matrix whose columns are not the items, saying which side is which.
    fn check_columns(&self, found: usize, name: &str, what: &str, count: usize) -> PyResult<()> {
        if found == count {
            return Ok(());
        }
        Err(PyValueError::new_err(format!(
            "{name} has {found} columns, and the model was fitted with {} users and {} items: columns are {what}, \
             expected `{count}`",
            self.users.len(),
            self.items.len()
        )))
    }
}

/// What users had before: by index, or by the ids of a table.
#[derive(FromPyObject)]
enum History<'py> {
    Events(Bound<'py, Events>),
    Matrix(CsrArrays<'py>),
}

type Answers<'py> = (Bound<'py, PyArray2<i32>>, Bound<'py, PyArray2<f32>>);

#[pymethods]
impl Model {
    /// Makes a model of factors: `[n_users, factors]`, `[n_items, factors]`. Ids and histories are those of `like` as far as
    /// they go; what is beyond has its index for an id, and no history.
    #[staticmethod]
    #[pyo3(signature = (config, user_factors, item_factors, item_bias = None, like = None))]
    fn of_factors(
        py: Python<'_>,
        config: &str,
        user_factors: PyReadonlyArray2<'_, f32>,
        item_factors: PyReadonlyArray2<'_, f32>,
        item_bias: Option<PyReadonlyArray1<'_, f32>>,
        like: Option<&Bound<'_, Self>>,
    ) -> PyResult<Self> {
        guarded(|| {
            let config = parse(config)?;
            let mut parameters = Parameters::default();
            for (name, factors) in [("user_factors", &user_factors), ("item_factors", &item_factors)] {
                let values = factors.as_slice().map_err(PyErr::from)?;
                let dim = factors.shape()[1];
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    return Err(PyValueError::new_err(format!(
                        "{name}, row {}: expected finite numbers, found `{}`",
                        at / dim.max(1),
                        values[at]
                    ))
                    .into());
                }
                let table = Table::from_f32(values, dim, Device::Cpu, "factors")?;
                parameters.insert(name, Parameter::Table(table));
            }
            if let Some(bias) = &item_bias {
                let bias = Buffer::from_slice(bias.as_slice().map_err(PyErr::from)?, Device::Cpu, "biases")?;
                parameters.insert("item_bias", Parameter::F32(bias));
            }
            let (n_users, n_items) = (user_factors.shape()[0], item_factors.shape()[0]);
            let like = like.map(|like| like.get());
            apart(py, || {
                let model = models::open(&config, parameters, n_users, n_items)?;
                let dataset = Arc::new(resized(like, n_users, n_items)?);
                Self::fitted(Trained {
                    config,
                    model,
                    dataset,
                    known: [None, None],
                    epochs: Vec::new(),
                    seed: like.map_or(0, |like| like.seed),
                    by_index: like.is_none_or(|like| like.by_index),
                })
            })
        })
    }

    /// Makes a model of neighbour lists: item `i` is like `indices[indptr[i] .. indptr[i + 1]]`, each with its similarity;
    /// `history` is the matrix of users by items that it comes from, or the table's interactions.
    #[staticmethod]
    fn of_neighbours(
        py: Python<'_>,
        config: &str,
        neighbours: CsrArrays<'_>,
        history: History<'_>,
    ) -> PyResult<Self> {
        guarded(|| {
            let ModelConfig::ItemKnn(knn) = parse(config)? else {
                return Err(PyValueError::new_err("no configuration of item-knn").into());
            };
            let lists = neighbours.to_csr()?;
            let by_index = matches!(history, History::Matrix(_));
            let dataset = match history {
                History::Events(events) => events.get().dataset.clone(),
                History::Matrix(matrix) => {
                    let by_user = matrix.to_csr()?;
                    apart(py, || Ok(Arc::new(owned(by_place(by_user)?, true)?)))?
                }
            };
            apart(py, || {
                let what = "neighbours";
                let model = ItemKnn::new(
                    knn.clone(),
                    Buffer::from_slice(lists.indptr(), Device::Cpu, what)?,
                    Buffer::from_slice(lists.indices(), Device::Cpu, what)?,
                    Buffer::from_slice(lists.values(), Device::Cpu, what)?,
                )?;
                Self::fitted(Trained {
                    config: ModelConfig::ItemKnn(knn),
                    model: Box::new(model),
                    dataset,
                    known: [None, None],
                    epochs: Vec::new(),
                    seed: 0,
                    by_index,
                })
            })
        })
    }

    /// Unpacks what [`Model::files`] returned.
    #[staticmethod]
    fn of_files(py: Python<'_>, files: &Bound<'_, PyDict>) -> PyResult<Self> {
        guarded(|| {
            let folder = unpack(files)?;
            let directory = apart(py, || Ok(ModelDirectory::open(folder.path(), Verify::Full)?))?;
            Self::opened(py, directory, Some(folder))
        })
    }

    /// Returns the files of the model as a directory would hold them, by name.
    fn files<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        guarded(|| files_of(py, |path| self.saved_at(path, 1, "{}")))
    }

    /// Adds a version to the model directory at `path`, and returns the version's folder.
    fn save(&self, py: Python<'_>, path: PathBuf, keep: usize, about: &str) -> PyResult<PathBuf> {
        guarded(|| apart(py, || self.saved_at(&path, keep, about)))
    }

    /// What [`Model::save`] was told, of a model that was opened; an empty object otherwise.
    #[getter]
    fn about(&self) -> String {
        match &self.origin {
            Origin::Directory(directory) => directory.manifest().config.schema["python"].to_string(),
            Origin::Data(..) | Origin::Grown => "{}".to_owned(),
        }
    }

    #[getter]
    fn n_users(&self) -> usize {
        self.users.len()
    }

    #[getter]
    fn n_items(&self) -> usize {
        self.items.len()
    }

    #[getter]
    fn by_index(&self) -> bool {
        self.by_index
    }

    #[getter]
    fn seed(&self) -> u64 {
        self.seed
    }

    /// The hyper-parameters as JSON, complete.
    #[getter]
    fn config(&self) -> String {
        serde_json::to_string(&self.config).unwrap_or_default()
    }

    /// `(epoch, seconds, loss)` of every epoch that was done.
    #[getter]
    fn epochs(&self) -> Vec<(u32, f64, Option<f64>)> {
        self.epochs.iter().map(|epoch| (epoch.epoch, epoch.seconds, epoch.loss)).collect()
    }

    /// Returns a table or an array of the model by its name in the directory; `None` where it has none of this name.
    fn parameter<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        guarded(|| {
            if let Some(table) = self.retriever.table(name) {
                let values = apart(py, || Ok(table.to_f32()?))?;
                return Ok(Some(matrix(py, values, table.rows() as usize, table.dim())?.into_any()));
            }
            let taken = apart(py, || Ok(self.retriever.parameters()?.take(name)))?;
            Ok(match taken {
                None | Some(Parameter::Table(_) | Parameter::Features(_)) => None,
                Some(Parameter::F32(values)) => Some(values.to_vec()?.into_pyarray(py).into_any()),
                Some(Parameter::U32(values)) => Some(values.to_vec()?.into_pyarray(py).into_any()),
                Some(Parameter::U64(values)) => Some(values.to_vec()?.into_pyarray(py).into_any()),
            })
        })
    }

    /// Returns the best items for each of `users`, or for each row of `rows` where a model has no users or `recalculate`
    /// says so. Without `rows`, what was fitted is what users have had.
    #[pyo3(signature = (users, rows, recalculate, wanted))]
    fn recommend<'py>(
        &self,
        py: Python<'py>,
        users: Option<PyReadonlyArray1<'py, i64>>,
        rows: Option<CsrArrays<'py>>,
        recalculate: bool,
        wanted: Wanted<'py>,
    ) -> PyResult<Answers<'py>> {
        guarded(|| {
            let n_items = self.items.len();
            let filters = Filters::new(&wanted, "item", n_items)?;
            let rows = rows.map(|rows| rows.to_csr()).transpose()?;
            if let Some(rows) = &rows {
                self.check_columns(rows.n_columns(), "user_items", "items", n_items)?;
            }
            let in_order = self.retriever.reads_order();
            if in_order && rows.is_some() {
                let what = "this model reads the order of what users did, which a matrix has not: ask for its users, or for history";
                return Err(PyNotImplementedError::new_err(what).into());
            }
            let folds_in = self.retriever.n_users() == 0 || recalculate || users.is_none();
            let needs_user = !(folds_in && rows.is_some());
            let users = match &users {
                Some(users) if needs_user => {
                    Some(checked(users.as_slice().map_err(PyErr::from)?, "user", self.users.len())?)
                }
                _ => None,
            };
            let n_rows = match (&users, &rows) {
                (Some(users), _) => users.len(),
                (None, Some(rows)) => rows.n_rows(),
                (None, None) => 0,
            };
            let question = |at: usize| -> Result<Row, Failure> {
                let (mut known, mut ordered) = (Vec::new(), None);
                let seen = match (&rows, &users) {
                    (Some(rows), _) => rows.row(at),
                    (None, Some(users)) if filters.only_new || folds_in => {
                        let user = UserIndex(users[at]);
                        self.history.read(user, &mut known)?;
                        if in_order {
                            self.history.read_in_order(user, ordered.insert(Vec::new()))?;
                        }
                        (&[][..], &[][..])
                    }
                    _ => (&[][..], &[][..]),
                };
                let given = seen.0.iter().zip(seen.1).map(|(&item, &value)| (ItemIndex(item), value));
                let query = match &users {
                    Some(users) if !folds_in => Query::User(UserIndex(users[at])),
                    _ if rows.is_some() => Query::History(given.clone().collect()),
                    _ => Query::History(ordered.unwrap_or_else(|| known.clone())),
                };
                Ok(match rows {
                    Some(_) => filters.row(query, given.map(|(item, _)| item), n_items),
                    None => filters.row(query, known.iter().map(|&(item, _)| item), n_items),
                })
            };
            self.answer(py, &*self.retriever, n_rows, &filters, question, |_| None)
        })
    }

    /// Returns the best items for each of `histories`, the items that somebody has had from the oldest to the newest.
    fn recommend_histories<'py>(
        &self,
        py: Python<'py>,
        histories: Vec<Vec<i64>>,
        wanted: Wanted<'py>,
    ) -> PyResult<Answers<'py>> {
        guarded(|| {
            let n_items = self.items.len();
            let filters = Filters::new(&wanted, "item", n_items)?;
            let histories: Vec<Vec<u32>> =
                histories.iter().map(|history| checked(history, "item", n_items)).collect::<PyResult<_>>()?;
            let question = |at: usize| -> Result<Row, Failure> {
                let history: Vec<_> = histories[at].iter().map(|&item| (ItemIndex(item), 1.0)).collect();
                let mut seen: Vec<_> = history.iter().map(|&(item, _)| item).collect();
                seen.sort_unstable();
                seen.dedup();
                Ok(filters.row(Query::History(history), seen.into_iter(), n_items))
            };
            self.answer(py, &*self.retriever, histories.len(), &filters, question, |_| None)
        })
    }

    /// Whether it matters in which order somebody has had the items of a history.
    #[getter]
    fn reads_order(&self) -> bool {
        self.retriever.reads_order()
    }

    /// Returns the items most like each of `items`, itself included, as in implicit.
    fn similar_items<'py>(
        &self,
        py: Python<'py>,
        items: PyReadonlyArray1<'py, i64>,
        wanted: Wanted<'py>,
    ) -> PyResult<Answers<'py>> {
        guarded(|| {
            let filters = Filters::new(&wanted, "item", self.items.len())?;
            let items = checked(items.as_slice().map_err(PyErr::from)?, "item", self.items.len())?;
            self.similar(py, &*self.retriever, &items, &filters)
        })
    }

    /// Returns the users most like each of `users`, itself included; `None` where the model has no factors of users.
    fn similar_users<'py>(
        &self,
        py: Python<'py>,
        users: PyReadonlyArray1<'py, i64>,
        wanted: Wanted<'py>,
    ) -> PyResult<Option<Answers<'py>>> {
        guarded(|| {
            let filters = Filters::new(&wanted, "user", self.users.len())?;
            let users = checked(users.as_slice().map_err(PyErr::from)?, "user", self.users.len())?;
            let Some(alike) = apart(py, || self.users_as_items())? else { return Ok(None) };
            self.similar(py, alike, &users, &filters).map(Some)
        })
    }

    /// Returns the value that each of `users` gives the item beside it; -1 for one that the model does not know. `None` for a
    /// model that predicts no values.
    fn predict<'py>(
        &self,
        py: Python<'py>,
        users: PyReadonlyArray1<'py, i64>,
        items: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Option<Bound<'py, PyArray1<f32>>>> {
        guarded(|| {
            let (users, items) =
                (users.as_slice().map_err(PyErr::from)?, items.as_slice().map_err(PyErr::from)?);
            let known = |ids: &[i64], what, count| -> PyResult<Vec<Option<u32>>> {
                let one =
                    |&id: &i64| if id == -1 { Ok(None) } else { Ok(checked(&[id], what, count)?.pop()) };
                ids.iter().map(one).collect()
            };
            let users = known(users, "user", self.users.len())?;
            let items = known(items, "item", self.items.len())?;
            let pairs: Vec<_> =
                users.into_iter().zip(items).map(|(u, i)| (u.map(UserIndex), i.map(ItemIndex))).collect();
            let values = apart(py, || {
                let mut values = Vec::new();
                Ok(self.retriever.predict(&pairs, &mut values)?.then_some(values))
            })?;
            Ok(values.map(|values| values.into_pyarray(py)))
        })
    }

    /// Returns the model with users, or items, that came after fitting behind those that it has, known by tables whose first column is the id.
    #[pyo3(signature = (users, items))]
    fn grown(
        &self,
        py: Python<'_>,
        users: Option<&Bound<'_, PyAny>>,
        items: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        guarded(|| {
            let [users, items] = [users, items].map(|table| table.map(Frame::of).transpose());
            let frames = [(Side::Users, users?), (Side::Items, items?)];
            apart(py, || {
                let (n_users, n_items) = (self.history.n_users(), self.retriever.n_items());
                let mut retriever =
                    models::open(&self.config, self.retriever.parameters()?, n_users, n_items)?;
                let (mut users, mut items) = (self.users.clone(), self.items.clone());
                for (side, frame) in frames.iter().filter_map(|(side, frame)| Some((*side, frame.as_ref()?)))
                {
                    let known = if side == Side::Users { &mut users } else { &mut items };
                    *known = grow(&mut *retriever, side, frame, known)?;
                }
                Ok(Self {
                    config: self.config.clone(),
                    retriever,
                    users,
                    items,
                    history: self.history.clone(),
                    origin: Origin::Grown,
                    epochs: self.epochs.clone(),
                    seed: self.seed,
                    by_index: self.by_index,
                    workspaces: Mutex::default(),
                    alike: OnceLock::new(),
                    _unpacked: None,
                })
            })
        })
    }

    /// Solves the factors of `rows` exactly against the other side's, as als does; rows are users by items, or with
    /// `of_items` items by users. `None` for another model.
    fn solve<'py>(
        &self,
        py: Python<'py>,
        rows: CsrArrays<'py>,
        of_items: bool,
        threads: usize,
    ) -> PyResult<Option<Bound<'py, PyArray2<f32>>>> {
        guarded(|| {
            let ModelConfig::Als(config) = &self.config else { return Ok(None) };
            let rows = rows.to_csr()?;
            let (name, what, count, fixed) = match of_items {
                false => ("user_items", "items", self.items.len(), "item_factors"),
                true => ("item_users", "users", self.users.len(), "user_factors"),
            };
            self.check_columns(rows.n_columns(), name, what, count)?;
            let Some(fixed) = self.retriever.table(fixed) else { return Ok(None) };
            let solve = || Ok::<_, Failure>(solve_als(config, &rows, fixed)?.to_f32()?);
            let solved = py.detach(|| on_threads(threads, solve))??;
            Ok(Some(matrix(py, solved, rows.n_rows(), config.factors)?))
        })
    }

    /// Returns the index of each user id; a `KeyError` names the first that there is none for.
    fn user_indices<'py>(&self, py: Python<'py>, ids: Vec<String>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        indices(py, &*self.users, ids)
    }

    /// As [`Model::user_indices`], of items.
    fn item_indices<'py>(&self, py: Python<'py>, ids: Vec<String>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        indices(py, &*self.items, ids)
    }

    /// Returns the ids of these users.
    fn user_ids(&self, indices: PyReadonlyArray1<'_, i64>) -> PyResult<Vec<Option<String>>> {
        names(&*self.users, &indices)
    }

    /// Returns the ids of these items; `None` for -1.
    fn item_ids(&self, indices: PyReadonlyArray1<'_, i64>) -> PyResult<Vec<Option<String>>> {
        names(&*self.items, &indices)
    }
}

impl Model {
    fn similar<'py>(
        &self,
        py: Python<'py>,
        retriever: &dyn Retriever,
        about: &[u32],
        filters: &Filters,
    ) -> Result<Answers<'py>, Failure> {
        // The thing itself is as like itself as anything can be, where the filters leave it.
        let allowed = |item: ItemIndex| {
            filters.exclude.binary_search(&item).is_err()
                && filters.only.as_ref().is_none_or(|only| only.binary_search(&item).is_ok())
        };
        let first = |row: &Row| match row.query {
            Query::Item(item) if allowed(item) => Some((item, 1.0)),
            _ => None,
        };
        let question = |at: usize| {
            let query = Query::Item(ItemIndex(about[at]));
            Ok(filters.row(query, std::iter::empty(), retriever.n_items()))
        };
        self.answer(py, retriever, about.len(), filters, question, first)
    }

    fn users_as_items(&self) -> Result<Option<&Als>, Failure> {
        if let Some(made) = self.alike.get() {
            return Ok(Some(made));
        }
        let Some(users) = self.retriever.table("user_factors") else { return Ok(None) };
        let users = users.try_copy(Device::Cpu, "users who are alike")?;
        let config = AlsConfig { factors: users.dim(), ..AlsConfig::default() };
        let nobody = Table::zeros(0, users.dim(), Device::Cpu, "no factors")?;
        let made = Als::new(config, nobody, users)?;
        Ok(Some(self.alike.get_or_init(|| made)))
    }
}

fn indices<'py>(py: Python<'py>, ids: &dyn Ids, names: Vec<String>) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let index = |name: String| match ids.index(&name) {
        Some(index) => Ok(i64::from(index)),
        None => Err(PyKeyError::new_err(name)),
    };
    Ok(names.into_iter().map(index).collect::<PyResult<Vec<_>>>()?.into_pyarray(py))
}

fn names(ids: &dyn Ids, indices: &PyReadonlyArray1<'_, i64>) -> PyResult<Vec<Option<String>>> {
    let name = |&index: &i64| u32::try_from(index).ok().and_then(|index| ids.name(index)).map(str::to_owned);
    Ok(indices.as_slice()?.iter().map(name).collect())
}

/// Returns the data behind `like` for so many users and items, or without it such data without any interactions.
fn resized(like: Option<&Model>, n_users: usize, n_items: usize) -> Result<Dataset, Failure> {
    let parts = match like.map(|like| &like.origin) {
        None | Some(Origin::Grown) => None,
        Some(Origin::Directory(directory)) => Some(directory.to_dataset()?.into_parts()),
        Some(Origin::Data(data, _)) => {
            let by_user = data.by_user().clone();
            let order = (0..data.n_users()).flat_map(|user| data.order(user).to_vec()).collect();
            let times = data.times().map(<[i64]>::to_vec);
            Some(DatasetParts { users: data.users.clone(), items: data.items.clone(), by_user, times, order })
        }
    };
    let Some(parts) = parts.filter(|parts| parts.users.len() <= n_users && parts.items.len() <= n_items)
    else {
        let none = Csr::new(n_items, vec![0; n_users + 1], Vec::new(), Vec::new())?;
        return Ok(Dataset::without_times(numbered(n_users)?, numbered(n_items)?, none)?);
    };
    let (users, items) = (extended(parts.users, n_users)?, extended(parts.items, n_items)?);
    let (_, mut indptr, indices, values) = parts.by_user.into_parts();
    indptr.resize(n_users + 1, indices.len() as u64);
    let by_user = Csr::new(n_items, indptr, indices, values)?;
    Ok(Dataset::new(users, items, by_user, parts.times, parts.order)?)
}

/// Adds ids until there are `n`: the index of each, or where that is taken something like it.
fn extended(mut ids: IdMap, n: usize) -> Result<IdMap, Failure> {
    for index in ids.len()..n {
        let mut id = index.to_string();
        while ids.get(&id).is_some() {
            id.insert(0, '_');
        }
        ids.get_or_insert(&id)?;
    }
    Ok(ids)
}
