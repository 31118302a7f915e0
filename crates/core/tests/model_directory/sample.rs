//! A small model with one part of every kind, and what must come back of it.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringArray},
    record_batch::RecordBatch,
};
use recmill_core::{
    Csr, Dataset, IdMap, Parameter, Parameters,
    directory::{Config, Epoch, ModelDirectory, Saved},
};
use recmill_kernels::{Buffer, Device, RowType, Rows, Table};

/// Everything that [`Saved`] borrows.
pub(crate) struct Sample {
    pub(crate) config: Config,
    pub(crate) parameters: Parameters,
    pub(crate) dataset: Dataset,
    pub(crate) items: RecordBatch,
    pub(crate) epochs: Vec<Epoch>,
}

impl Sample {
    /// Makes a model of three users and four items whose numbers all depend on `mark`.
    pub(crate) fn new(mark: u8) -> Self {
        let text = |texts: [&str; 4]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
        Self {
            config: Config {
                model: serde_json::json!({"model": "als", "factors": 2, "regularization": 0.01}),
                objective: format!("sample {mark}"),
                schema: serde_json::json!({"user": "user_id", "repeats": "sum"}),
                metrics: serde_json::json!({"recall@20": 0.25}),
                seed: u64::from(mark),
                ..Config::default()
            },
            parameters: parameters(mark),
            dataset: dataset(mark),
            items: RecordBatch::try_from_iter([
                ("item_id", text(["i0", "", "ünder", "i3"])),
                ("title", text(["Nought", "Empty", "Accent", "Three"])),
            ])
            .unwrap(),
            epochs: vec![Epoch { epoch: 1, seconds: 0.5, loss: Some(f64::from(mark)), ..Epoch::default() }],
        }
    }

    /// Returns what goes to [`recmill_core::directory::save`].
    pub(crate) fn saved(&self) -> Saved<'_> {
        Saved {
            config: &self.config,
            parameters: &self.parameters,
            dataset: &self.dataset,
            item_attributes: Some(&self.items),
            user_attributes: None,
            epochs: &self.epochs,
            features: None,
            classes: None,
        }
    }

    /// Compares every part of `opened` with this.
    pub(crate) fn assert_equal(&self, opened: &ModelDirectory) {
        assert_eq!(opened.manifest().config, self.config);
        assert_eq!(describe(&opened.parameters().unwrap()), describe(&self.parameters));
        assert_eq!(opened.users().iter().collect::<Vec<_>>(), self.dataset.users.iter().collect::<Vec<_>>());
        assert_eq!(opened.items().iter().collect::<Vec<_>>(), self.dataset.items.iter().collect::<Vec<_>>());
        assert_eq!(opened.item_attributes().unwrap().as_ref(), Some(&self.items));
        assert_eq!(opened.user_attributes().unwrap(), None);
        assert_eq!(opened.epochs().unwrap(), self.epochs);
        assert_same_data(&opened.to_dataset().unwrap(), &self.dataset);
    }
}

/// Compares ids, values, times and order.
pub(crate) fn assert_same_data(got: &Dataset, expected: &Dataset) {
    assert_eq!(got.users.iter().collect::<Vec<_>>(), expected.users.iter().collect::<Vec<_>>());
    assert_eq!(got.items.iter().collect::<Vec<_>>(), expected.items.iter().collect::<Vec<_>>());
    assert_eq!(got.by_user(), expected.by_user());
    assert_eq!(got.times(), expected.times());
    for user in 0..expected.n_users() {
        assert_eq!(got.order(user), expected.order(user));
    }
}

/// Returns all numbers of all parts as text, exactly.
pub(crate) fn describe(parameters: &Parameters) -> Vec<String> {
    parameters
        .iter()
        .map(|(name, parameter)| {
            let values = match parameter {
                Parameter::Table(table) => {
                    let bits: Vec<u32> = table.to_f32().unwrap().into_iter().map(f32::to_bits).collect();
                    format!("{}x{} {:?} {bits:?}", table.rows(), table.dim(), table.row_type())
                }
                Parameter::F32(values) => format!("{:?}", values.to_vec().unwrap()),
                Parameter::U32(values) => format!("{:?}", values.to_vec().unwrap()),
                Parameter::U64(values) => format!("{:?}", values.to_vec().unwrap()),
                Parameter::Features(features) => format!("{features:?}"),
            };
            format!("{name}: {values}")
        })
        .collect()
}

pub(crate) fn ids(names: &[&str]) -> IdMap {
    let mut ids = IdMap::default();
    for name in names {
        ids.get_or_insert(name).unwrap();
    }
    ids
}

fn parameters(mark: u8) -> Parameters {
    let numbers = |n: usize| (0..n).map(|i| i as f32 + f32::from(mark)).collect::<Vec<f32>>();
    let user_factors = Table::from_f32_in_chunks(&numbers(6), 2, 2, Device::Cpu, "a test").unwrap();
    let item_factors = Table::from_f32(&numbers(8), 2, Device::Cpu, "a test").unwrap();
    let mut parameters = Parameters::default();
    parameters
        .insert("item_factors", Parameter::Table(item_factors.to_row_type(RowType::F16, "a test").unwrap()));
    parameters.insert("wide", Parameter::Table(item_factors.to_row_type(RowType::Bf16, "a test").unwrap()));
    parameters.insert("small", Parameter::Table(int8(&[1, -2, 3, -128], &[0.5, 0.25])));
    parameters.insert("user_factors", Parameter::Table(user_factors));
    parameters.insert("item_bias", Parameter::F32(Buffer::from_vec(numbers(4), "a test").unwrap()));
    parameters.insert("indices", Parameter::U32(Buffer::from_vec(vec![3, 1, 2], "a test").unwrap()));
    parameters.insert("indptr", Parameter::U64(Buffer::from_vec(vec![0, 1, 1, 3, 3], "a test").unwrap()));
    parameters.insert("nothing", Parameter::F32(Buffer::from_vec(vec![], "a test").unwrap()));
    parameters
}

fn int8(values: &[i8], scale: &[f32]) -> Table {
    let values = Buffer::from_vec(values.to_vec(), "a test").unwrap();
    let scale = Buffer::from_vec(scale.to_vec(), "a test").unwrap();
    Table::from_chunks(2, 2, RowType::Int8, Device::Cpu, vec![Rows::Int8(values, scale)]).unwrap()
}

fn dataset(mark: u8) -> Dataset {
    let by_user =
        Csr::new(4, vec![0, 3, 3, 5], vec![0, 2, 3, 1, 2], vec![1.0, f32::from(mark), 2.5, 1.0, 1.0])
            .unwrap();
    Dataset::new(
        ids(&["u0", "u1", "nobody else"]),
        ids(&["i0", "", "ünder", "i3"]),
        by_user,
        Some(vec![30, 10, 20, -5, -4]),
        vec![1, 2, 0, 0, 1],
    )
    .unwrap()
}
